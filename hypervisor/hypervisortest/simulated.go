package hypervisortest

import (
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

// Simulated returns a subject for the suite whose VMs are on a simulated host.
// The driver under test is the host itself or a wrapper around it. The host
// must advance by itself on Apply.
func Simulated(t *testing.T, driver hypervisor.Driver, host *simulated.Driver) Subject {
	t.Helper()
	c := simulated.Constant
	specs := []simulated.Spec{
		{ID: "vm", Name: "busy", VCPUs: 2, Demand: [gnomon.NumResources]simulated.Demand{
			gnomon.CPU: c(1200), gnomon.Memory: c(100 << 20), gnomon.Disk: c(10 << 20), gnomon.Network: c(3 << 20),
		}},
		{ID: "bare", NoDisk: true, NoNetwork: true},
		{ID: "shadow", Account: "acme", ShadowOf: "vm", NoDisk: true, NoNetwork: true},
	}
	for _, s := range specs {
		if err := host.AddVM(s); err != nil {
			t.Fatal(err)
		}
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	return Subject{
		Driver: driver, VM: "vm", Bare: "bare", Shadow: "shadow", Absent: "absent",
		Start: func(t *testing.T) gnomon.VMID {
			must(t, host.AddVM(simulated.Spec{ID: "further"}))
			return "further"
		},
		Stop:    func(t *testing.T, id gnomon.VMID) { must(t, host.RemoveVM(id)) },
		Suspend: func(t *testing.T, id gnomon.VMID) { must(t, host.SetPaused(id, true)) },
		Resume:  func(t *testing.T, id gnomon.VMID) { must(t, host.SetPaused(id, false)) },
		Advance: func(d time.Duration) { host.Advance(d) },
		Amounts: [gnomon.NumResources][]int64{
			gnomon.CPU:     {300, 1},
			gnomon.Memory:  {512 << 20, 768 << 20},
			gnomon.Disk:    {3_000_000, 20_000_001},
			gnomon.Network: {2_000_000, 9_999_999},
		},
		Tight: gnomon.Resources{gnomon.CPU: 300, gnomon.Disk: 1_000_000, gnomon.Network: 500_000},
	}
}
