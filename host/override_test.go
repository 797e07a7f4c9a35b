package host

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// served returns a VM whose CPU limit was set for a demand of half a core.
func served(r *rig) gnomon.VMID {
	r.t.Helper()
	spec := web("vm1")
	spec.Demand[gnomon.CPU] = simulated.Constant(500)
	id := r.add(spec)
	r.eventually("the limit follows demand", func() bool {
		got := r.limit(id, gnomon.CPU)
		return got >= 500 && got <= 800
	})
	return id
}

// byHand sets the CPU limit as somebody else would, until that is noticed: a
// change that was under way may undo it.
func (r *rig) byHand(id gnomon.VMID, amount int64) {
	r.t.Helper()
	r.eventually("it is noticed", func() bool {
		if r.daemon.vms[id].overrides[gnomon.CPU].count > 0 {
			return true
		}
		if _, err := r.sim.Apply(r.t.Context(), id, gnomon.CPU, amount, hypervisor.Terms{}); err != nil {
			r.t.Error(err)
		}
		return false
	})
}

func (r *rig) explained(text string) {
	r.t.Helper()
	res, err := r.api.ExplainVM(r.t.Context(), connect.NewRequest(&hostpb.ExplainVMRequest{Vm: "vm1"}))
	if err != nil {
		r.t.Fatal(err)
	}
	if all := strings.Join(res.Msg.GetSummary(), "\n"); !strings.Contains(all, text) {
		r.t.Errorf("explain does not say %q:\n%s", text, all)
	}
}

func TestALimitThatSomebodyElseLoweredIsRaisedAgain(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	r.start()
	id := served(r)
	r.byHand(id, 200)
	r.eventually("it is raised again", func() bool { return r.limit(id, gnomon.CPU) >= 500 })
	r.explained("Somebody else changed it from")
	r.do(func() {
		if o := r.daemon.state.data.Originals[id]; o.Adopted != 0 || o.Limits[gnomon.CPU] != gnomon.Unlimited {
			t.Errorf("its own limits are noted as %+v", o)
		}
	})
}

func TestALimitThatIsAdoptedStays(t *testing.T) {
	r := newRig(t)
	r.configure(map[string]string{"onOverride": "adopt", "onExit": "keep"})
	r.start()
	id := served(r)
	adopted := func() bool {
		v, ok := r.daemon.broker.View(id)
		return ok && v.Resources[gnomon.CPU] == nil && v.Resources[gnomon.Memory] != nil && r.limit(id, gnomon.CPU) == 200
	}
	r.byHand(id, 200)
	r.eventually("it is adopted", adopted)
	r.explained("cpu is not limited: somebody else set it to 0.2 cores, which was adopted")
	var seen time.Time
	r.do(func() { seen = r.daemon.vms[id].last.At })
	r.eventually("it stays, though more is needed", func() bool { return r.daemon.vms[id].last.At.Sub(seen) > 500*time.Millisecond && adopted() })

	r.stop() // which keeps the limits
	r.start()
	r.eventually("the next daemon leaves it too", func() bool { return r.daemon.vms[id] != nil && adopted() })

	r.configure(map[string]string{"onOverride": "revert"})
	r.eventually("it is limited again, by demand", func() bool { return r.limit(id, gnomon.CPU) >= 500 })
	r.stop()
	if got := r.limit(id, gnomon.CPU); got != 200 {
		t.Errorf("at the end it is given back %d, want what somebody else set", got)
	}
}
