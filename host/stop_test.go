package host

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/faulty"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

// A VM that takes its time must not take the time that the others need.
func TestAStopRestoresAllVMsAtATime(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	const each, vms = 3 * time.Second, 4
	r.opt.Driver = faulty.Wrap(r.sim, faulty.Fault{Op: faulty.Restore, Times: -1, Delay: each})
	r.start()
	for i := range vms {
		spec := web(gnomon.VMID(fmt.Sprintf("vm%d", i)))
		spec.Demand[gnomon.CPU] = simulated.Constant(50)
		id := r.add(spec)
		r.eventually("the limit was lowered", func() bool { return r.limit(id, gnomon.CPU) == 100 })
	}
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > (vms-1)*each {
		t.Errorf("the stop took %v", took)
	}
	for i := range vms {
		if got := r.limit(gnomon.VMID(fmt.Sprintf("vm%d", i)), gnomon.CPU); got != hypervisor.Unlimited {
			t.Errorf("vm%d has the limit %d", i, got)
		}
	}
	if running, _ := r.agents.count(); running != 0 {
		t.Errorf("%d shadows still run", running)
	}
}

// A daemon that is stopped before it has seen its VMs gives back what the one
// before it left.
func TestAStopRestoresWhatIsNotedAndNotTakenIn(t *testing.T) {
	r := newRig(t)
	id := lowered(t, r)
	r.daemon = nil // so that it is configured on disk
	r.configure(map[string]string{"onExit": "restore"})
	r.opt.Driver = faulty.Wrap(r.sim, faulty.Fault{Op: faulty.Machines, Times: -1, Error: "busy"})
	r.start()
	r.eventually("the hypervisor does not list", func() bool { return r.daemon.hypervisor != nil })
	r.stop()
	if got := r.limit(id, gnomon.CPU); got != hypervisor.Unlimited {
		t.Errorf("CPU limit %d", got)
	}
}

func TestAStopKeepsWhatIsNotedAndNotTakenInIfToldTo(t *testing.T) {
	r := newRig(t)
	id := lowered(t, r)
	r.opt.Driver = faulty.Wrap(r.sim, faulty.Fault{Op: faulty.Machines, Times: -1, Error: "busy"})
	r.start()
	r.eventually("the hypervisor does not list", func() bool { return r.daemon.hypervisor != nil })
	r.stop()
	if got := r.limit(id, gnomon.CPU); got != 100 {
		t.Errorf("CPU limit %d", got)
	}
}

// One that is stopped while it starts is no failure, and does the same.
func TestAStopWhileItStarts(t *testing.T) {
	for onExit, want := range map[string]int64{"restore": hypervisor.Unlimited, "keep": 100} {
		r := newRig(t)
		id := lowered(t, r)
		r.daemon = nil
		r.configure(map[string]string{"onExit": onExit})
		d, err := New(r.opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := d.Run(ctx); err != nil {
			t.Errorf("onExit %s: %v", onExit, err)
		}
		if got := r.limit(id, gnomon.CPU); got != want {
			t.Errorf("onExit %s: CPU limit %d, want %d", onExit, got, want)
		}
	}
}
