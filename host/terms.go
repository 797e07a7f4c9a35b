package host

import (
	"context"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// terms returns what goes with a limit of that amount.
func (v *vm) terms(r gnomon.Resource, amount int64) (t hypervisor.Terms) {
	switch {
	case r == gnomon.CPU && v.elastic():
		t.VCPUs = max(v.own.VCPUs, vcpusFor(amount))
		if v.refuses || !v.params.Hotplug {
			t.VCPUs = min(t.VCPUs, max(v.machine.Online, v.own.VCPUs))
		}
	case r == gnomon.Disk && v.params.OperationSize > 0:
		t.Operations = max(amount/v.params.OperationSize, 1)
	}
	return t
}

// renew sets the limit of a VM's disks again if what an operation counts as has
// changed since it was set. A change that is under way goes first.
func (d *Daemon) renew(v *vm) {
	st, _ := d.broker.View(v.machine.ID)
	s, before := st.Resources[gnomon.Disk], v.operationSize
	if before == hypervisor.Unlimited || before == v.params.OperationSize || s == nil || s.InFlight != nil || d.stopping {
		return
	}
	v.operationSize = v.params.OperationSize
	d.limitBeside(v, gnomon.Disk, s.Allocated, v.terms(gnomon.Disk, s.Allocated), func(err error) {
		if err != nil {
			v.operationSize = before
			d.log.Warn("limit of disk operations not set", "vm", v.machine.Name, "err", err)
		}
	})
}

// limitBeside sets a limit that the broker knows nothing of, while what it wants
// done to that resource waits, and then calls done in the loop.
func (d *Daemon) limitBeside(v *vm, r gnomon.Resource, amount int64, terms hypervisor.Terms, done func(error)) {
	d.limiting++
	v.renewing[r].Go(func() {
		ctx, cancel := context.WithTimeout(d.ctx, applyTimeout)
		defer cancel()
		_, err := d.opt.Driver.Apply(ctx, v.machine.ID, r, amount, terms)
		d.post(func() {
			d.limiting--
			done(err)
		})
	})
}
