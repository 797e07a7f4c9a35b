package host

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

// listener hears the terms of the disks' limits.
type listener struct {
	hypervisor.Driver
	amount, operations atomic.Int64
}

func (l *listener) Apply(ctx context.Context, id gnomon.VMID, r gnomon.Resource, amount int64, terms hypervisor.Terms) (int64, error) {
	if r == gnomon.Disk {
		l.amount.Store(amount)
		l.operations.Store(terms.Operations)
	}
	return l.Driver.Apply(ctx, id, r, amount, terms)
}

// What an operation counts as is in force with the limit that comes next, and
// with the one in force when it is changed later.
func TestOperationsFollowTheirSize(t *testing.T) {
	r := newRig(t)
	l := &listener{Driver: r.sim}
	r.opt.Driver = l
	r.configure(map[string]string{"shadow.enabled": "false", "disk.operationSize": "16KiB"})
	id := r.add(simulated.Spec{ID: "vm1", Name: "vm1", VCPUs: 1, Memory: 1 << 30,
		Demand: [gnomon.NumResources]simulated.Demand{gnomon.Disk: simulated.Constant(4_000_000)}})
	r.start()
	follow := func(size int64) {
		r.eventually("the disks' limit goes with its operations", func() bool {
			want := int64(0)
			if size > 0 {
				want = l.amount.Load() / size
			}
			v := r.daemon.vms[id]
			return l.amount.Load() > 0 && l.operations.Load() == want && v.operationSize == size
		})
	}
	follow(16 << 10)
	r.configure(map[string]string{"shadow.enabled": "false", "disk.operationSize": "64KiB"})
	follow(64 << 10)
	var text string
	r.do(func() { text = strings.Join(r.daemon.explain(r.daemon.vms[id]), "\n") })
	if !strings.Contains(text, "operations a second, each of which counts as 64 KiB at least") {
		t.Errorf("nothing is said of operations:\n%s", text)
	}
	r.configure(map[string]string{"shadow.enabled": "false"})
	follow(0)
}
