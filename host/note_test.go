package host

import (
	"testing"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// carries returns what a VM carries as its own limits.
func (r *rig) carries(id gnomon.VMID) *hypervisor.Original {
	r.t.Helper()
	return r.machine(id).Own
}

// A VM that is taken in carries its own limits, those that are adopted too, and no
// others once it is released.
func TestAVMCarriesItsOwnLimits(t *testing.T) {
	r := newRig(t)
	r.configure(map[string]string{"onOverride": "adopt"})
	r.start()
	spec := web("vm1")
	spec.Demand[gnomon.CPU] = simulated.Constant(50)
	id := r.add(spec)
	r.eventually("the CPU limit was lowered", func() bool { return r.limit(id, gnomon.CPU) == 100 })
	r.eventually("it carries its own", func() bool {
		own := r.carries(id)
		return own != nil && own.Limits[gnomon.CPU] == hypervisor.Unlimited
	})
	if err := r.sim.Begin(id, gnomon.CPU, 700); err != nil {
		t.Fatal(err)
	}
	r.eventually("it carries what was adopted", func() bool {
		r.daemon.reconcile() // as it does every few seconds
		return r.carries(id).Limits[gnomon.CPU] == 700
	})
	if _, err := r.api.ReleaseVM(t.Context(), connect.NewRequest(&hostpb.ReleaseVMRequest{Vm: string(id)})); err != nil {
		t.Fatal(err)
	}
	r.eventually("it carries none", func() bool { return r.carries(id) == nil && len(r.daemon.state.data.Originals) == 0 })
}

// Somebody else than gnomon moved it here, or what this host knew of it is lost.
func TestAVMComesWithItsOwnLimits(t *testing.T) {
	own := hypervisor.Original{Limits: hypervisor.Limits{700, 1 << 30, hypervisor.Unlimited, 30_000_000}, VCPUs: 1, Detail: "detail"}
	come := func(r *rig) gnomon.VMID {
		spec := web("vm1")
		spec.Own, spec.Limits = &own, gnomon.Resources{100, 512 << 20, 1_000_000, 1_000_000}
		return r.add(spec)
	}
	t.Run("taken in", func(t *testing.T) {
		r := newRig(t)
		r.configure(nil)
		r.start()
		id := come(r)
		r.eventually("its own limits are known", func() bool { return r.daemon.state.data.Originals[id].Original == own })
		r.stop()
		if got := r.limit(id, gnomon.CPU); got != 700 || r.carries(id) != nil {
			t.Errorf("given back it has %d millicores and carries %v", got, r.carries(id))
		}
	})
	t.Run("released", func(t *testing.T) {
		r := newRig(t)
		r.opt.Select, _ = ParseSelection("none")
		r.configure(nil)
		r.start()
		id := come(r)
		r.eventually("it is seen", func() bool { _, seen := r.daemon.seen[id]; return seen })
		r.do(func() {
			if r.daemon.restoring[id] || r.limit(id, gnomon.CPU) != 100 {
				t.Error("nobody asked for its own limits, and it has them")
			}
		})
		if _, err := r.api.ReleaseVM(t.Context(), connect.NewRequest(&hostpb.ReleaseVMRequest{Vm: string(id)})); err != nil {
			t.Fatal(err)
		}
		r.eventually("it has its own", func() bool { return r.limit(id, gnomon.CPU) == 700 && r.carries(id) == nil })
	})
}
