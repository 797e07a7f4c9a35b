package host

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

// elasticVM adds a VM of one vCPU that may have four, and wants that much CPU.
func (r *rig) elasticVM(want *atomic.Int64, stiff bool) gnomon.VMID {
	return r.add(simulated.Spec{ID: "vm1", Name: "vm1", VCPUs: 1, Most: 4, Stiff: stiff, Memory: 1 << 30, MaxBacklog: time.Second,
		Demand: [gnomon.NumResources]simulated.Demand{gnomon.CPU: func(time.Duration) int64 { return want.Load() }}})
}

var hotplug = map[string]string{"shadow.enabled": "false", "cpu.hotplug": "true", "hold": "100ms"}

// vcpus waits until the VM has as many vCPUs as asked, and what those can do at
// most as its limit.
func (r *rig) vcpus(what string, id gnomon.VMID, wanted func(vcpus int) bool) {
	r.t.Helper()
	r.eventually(what, func() bool {
		r.daemon.reconcile()
		v := r.daemon.vms[id]
		return v != nil && wanted(v.machine.VCPUs) && r.limit(id, gnomon.CPU) <= int64(v.machine.VCPUs)*1000
	})
}

func TestVCPUsFollowDemand(t *testing.T) {
	r := newRig(t)
	r.configure(hotplug)
	var want atomic.Int64
	want.Store(2200)
	id := r.elasticVM(&want, false)
	r.start()
	r.vcpus("it is given what it needs", id, func(n int) bool { return n >= 3 && r.limit(id, gnomon.CPU) >= 2200 })
	want.Store(100)
	r.vcpus("what it does not need is taken back", id, func(n int) bool { return n == 1 })
	want.Store(1500)
	r.vcpus("it is given it again", id, func(n int) bool { return n >= 2 })
	r.configure(map[string]string{"shadow.enabled": "false", "cpu.hotplug": "false", "hold": "100ms"})
	r.vcpus("it is not to have it any more", id, func(n int) bool { return n == 1 })
	r.configure(hotplug)
	r.vcpus("it is to have it again", id, func(n int) bool { return n >= 2 })
	r.stop()
	if m, err := r.sim.Machines(t.Context()); err != nil || m[0].VCPUs != 1 || m[0].Original.Limits[gnomon.CPU] != hypervisor.Unlimited {
		t.Errorf("after the daemon it has %+v, %v", m, err)
	}
}

// plugger counts how often vCPUs are asked for that a VM does not have.
type plugger struct {
	hypervisor.Driver
	asked atomic.Int64
}

func (p *plugger) Apply(ctx context.Context, id gnomon.VMID, r gnomon.Resource, amount int64, terms hypervisor.Terms) (int64, error) {
	if terms.VCPUs > 1 {
		p.asked.Add(1)
	}
	return p.Driver.Apply(ctx, id, r, amount, terms)
}

// A guest that does not use what it is given is asked once, and has all that the
// vCPUs that it uses can do.
func TestGuestThatRefusesVCPUs(t *testing.T) {
	r := newRig(t)
	p := &plugger{Driver: r.sim}
	r.opt.Driver = p
	r.configure(hotplug)
	var want atomic.Int64
	want.Store(2200)
	id := r.elasticVM(&want, true)
	r.start()
	r.eventually("it is noted", func() bool {
		v := r.daemon.vms[id]
		return v != nil && v.refuses && v.bounds.ceiling[gnomon.CPU] == 1000 && r.limit(id, gnomon.CPU) == 1000
	})
	var text string
	samples := 0
	r.eventually("it goes on", func() bool {
		samples++
		text = strings.Join(r.daemon.explain(r.daemon.vms[id]), "\n")
		return samples > 100
	})
	if asked := p.asked.Load(); asked != 1 {
		t.Errorf("it was asked %d times", asked)
	}
	if !strings.Contains(text, "did not bring more online") {
		t.Errorf("nothing is said of it:\n%s", text)
	}
}
