package host

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/faulty"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

// lowered runs a daemon until it has lowered the limit of a VM, and stops it so
// that the limit stays.
func lowered(t *testing.T, r *rig) gnomon.VMID {
	t.Helper()
	r.configure(map[string]string{"onExit": "keep"})
	r.start()
	spec := web("vm1")
	spec.Demand[gnomon.CPU] = simulated.Constant(50)
	id := r.add(spec)
	r.eventually("the CPU limit was lowered", func() bool { return r.limit(id, gnomon.CPU) == 100 })
	r.stop()
	return id
}

func TestAVMThatIsNoLongerSelectedGetsItsLimitsBack(t *testing.T) {
	r := newRig(t)
	id := lowered(t, r)
	r.opt.Select = Selection{}
	r.start()
	r.eventually("its own limits", func() bool {
		return r.limit(id, gnomon.CPU) == hypervisor.Unlimited && len(r.daemon.state.data.Originals) == 0
	})
	r.eventually("no shadow", func() bool { running, _ := r.agents.count(); return running == 0 })
}

func TestLimitsOfAVMThatEndedMeanwhileAreForgotten(t *testing.T) {
	r := newRig(t)
	id := lowered(t, r)
	if err := r.sim.RemoveVM(id); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.eventually("nothing is noted", func() bool { return len(r.daemon.state.data.Originals) == 0 })
}

func TestAReleaseThatFailedIsTriedAgain(t *testing.T) {
	r := newRig(t)
	id := lowered(t, r)
	r.opt.Select = Selection{}
	r.opt.Driver = faulty.Wrap(r.sim, faulty.Fault{Op: faulty.Restore, Error: "busy"})
	r.start()
	r.eventually("its own limits", func() bool {
		r.daemon.reconcile() // as it does every few seconds
		return r.limit(id, gnomon.CPU) == hypervisor.Unlimited
	})
}

func TestAStopThatCannotRestoreSaysSo(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	r.opt.Driver = faulty.Wrap(r.sim, faulty.Fault{Op: faulty.Restore, Times: -1, Error: "busy"})
	d, err := New(r.opt)
	if err != nil {
		t.Fatal(err)
	}
	r.daemon = d
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	id := r.add(web("vm1"))
	r.eventually("it is taken in", func() bool { return d.vms[id] != nil })
	cancel()
	if err := <-ended; !errors.Is(err, faulty.ErrInjected) {
		t.Errorf("Run: %v, want that limits were not restored", err)
	}
	if state, err := openState(r.statePath()); err != nil || len(state.data.Originals) != 1 {
		t.Errorf("the limits are not noted any more (%v)", err)
	}
}

func TestConfigurationDoesNotWaitForTheHypervisor(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	slow := faulty.Wrap(r.sim)
	r.opt.Driver = slow
	r.start()
	id := r.add(web("vm1"))
	r.eventually("it is taken in", func() bool { return r.daemon.vms[id] != nil })
	slow.Inject(faulty.Fault{Op: faulty.Machines, Times: -1, Delay: time.Minute})
	r.configure(map[string]string{"onExit": "keep"})
	r.do(func() {
		if r.daemon.vms[id].params.OnExit != config.Keep {
			t.Error("it is not in force")
		}
	})
}
