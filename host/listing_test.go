package host

import (
	"context"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// lister is a hypervisor whose list of machines takes its time after it was
// read, or tells of other machines than there are.
type lister struct {
	hypervisor.Driver
	mu   sync.Mutex
	gate chan struct{} // a list is handed over once this is closed
	read chan struct{} // closed when one waits for the gate
	edit func(*hypervisor.Machine)
}

func (l *lister) Machines(ctx context.Context) ([]hypervisor.Machine, error) {
	machines, err := l.Driver.Machines(ctx)
	l.mu.Lock()
	gate, read, edit := l.gate, l.read, l.edit
	l.gate = nil
	l.mu.Unlock()
	if gate != nil {
		close(read)
		<-gate
	}
	for i := range machines {
		if edit != nil {
			edit(&machines[i])
		}
	}
	return machines, err
}

// A list that was read before a VM got its own limits back shows gnomon's, which
// must not be taken for the VM's own.
func TestAnOldListIsNotBelieved(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	slow := &lister{Driver: r.sim}
	r.opt.Driver = slow
	r.start()
	spec := web("vm1")
	spec.Demand[gnomon.CPU] = simulated.Constant(50)
	id := r.add(spec)
	r.eventually("the CPU limit was lowered", func() bool { return r.limit(id, gnomon.CPU) == 100 })

	gate, read := make(chan struct{}), make(chan struct{})
	slow.mu.Lock()
	slow.gate, slow.read = gate, read
	slow.mu.Unlock()
	r.do(r.daemon.reconcile)
	<-read
	if _, err := r.api.ReleaseVM(t.Context(), connect.NewRequest(&hostpb.ReleaseVMRequest{Vm: "vm1"})); err != nil {
		t.Fatal(err)
	}
	r.eventually("its own limits are back", func() bool { return len(r.daemon.state.data.Originals) == 0 })
	enrolled := make(chan error, 1)
	go func() {
		_, err := r.api.EnrollVM(t.Context(), connect.NewRequest(&hostpb.EnrollVMRequest{Vm: "vm1"}))
		enrolled <- err
	}()
	r.eventually("it is to be taken in", func() bool { in, explicit := r.daemon.state.enrolled(id); return in && explicit })
	close(gate)
	if err := <-enrolled; err != nil {
		t.Fatal(err)
	}
	r.do(func() {
		if r.daemon.vms[id] == nil {
			t.Error("it is not taken in")
		}
		if got := r.daemon.state.data.Originals[id].Limits[gnomon.CPU]; got != hypervisor.Unlimited {
			t.Errorf("its own CPU limit is noted as %d", got)
		}
	})
}

func TestAVMThatGrowsGetsAHigherCeiling(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	grown := &lister{Driver: r.sim}
	r.opt.Driver = grown
	r.start()
	id := r.add(web("vm1"))
	r.eventually("it is taken in", func() bool { return r.daemon.vms[id] != nil })
	grown.mu.Lock()
	grown.edit = func(m *hypervisor.Machine) {
		if m.ID == id {
			m.VCPUs, m.Max[gnomon.CPU] = 16, 16_000
		}
	}
	grown.mu.Unlock()
	r.do(r.daemon.reconcile)
	r.eventually("the ceiling is known", func() bool {
		v, ok := r.daemon.broker.View(id)
		return ok && v.Resources[gnomon.CPU].Ceiling == 16_000 && r.daemon.vms[id].machine.VCPUs == 16
	})
}

// A caller who left before the loop came to it leaves nothing behind.
func TestACallerWhoLeftIsNotSubscribed(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	r.start()
	busy := make(chan struct{})
	r.daemon.post(func() { <-busy })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	req := connect.NewRequest(&hostpb.SubscribeUsageRequest{})
	if err := r.api.SubscribeUsage(ctx, req, nil); err == nil {
		t.Error("no error")
	}
	close(busy)
	r.do(func() {
		if n := len(r.daemon.subscribers); n != 0 {
			t.Errorf("%d subscribers", n)
		}
	})
}
