package host

import (
	"testing"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

// A host whose capacity is taken away tells that it is short, and by which VMs: a
// server takes no negative amounts.
func TestHostThatIsShortReportsIt(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	r.start()
	spec := web("vm1")
	spec.Demand[gnomon.Memory] = simulated.Constant(300 << 20)
	r.add(spec)
	r.eventually("the VM is known to need its memory", func() bool {
		v := r.daemon.vms["vm1"]
		return v != nil && v.needs()[gnomon.Memory] >= 300<<20
	})
	r.do(func() {
		if needs := r.daemon.needs(amountsByName(r.daemon.predicted())); needs != nil {
			t.Errorf("it tells what each VM needs, and is far from short: %v", needs)
		}
	})
	r.configure(map[string]string{"capacity": "memory=200MiB"})
	r.do(func() {
		if got := r.daemon.totals().free[gnomon.Memory]; got >= 0 {
			t.Fatalf("%d bytes are free, want less than none", got)
		}
		if got := r.daemon.spare()[gnomon.Memory]; got != 0 {
			t.Errorf("it tells of %d bytes free", got)
		}
		needs := r.daemon.needs(amountsByName(r.daemon.predicted()))
		if len(needs) != 1 || needs[0].GetVm() != "vm1" || needs[0].GetPredicted()["memory"] < 300<<20 || needs[0].GetMemoryBytes() <= 0 {
			t.Errorf("it tells %v of its VMs", needs)
		}
	})
}
