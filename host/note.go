package host

import (
	"context"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// note has a VM that is taken in carry its own limits, if those that it carries are
// others: whoever moves it, they are known where it comes to, and here to a daemon
// that lost its state. It is tried again with the next list of machines.
func (d *Daemon) note(v *vm) {
	id, own := v.machine.ID, d.state.data.Originals[v.machine.ID].Original
	if d.opt.Noter == nil || d.noting[id] || d.stopping || v.machine.Own != nil && *v.machine.Own == own {
		return
	}
	d.noting[id] = true
	d.limiting++
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, applyTimeout)
		defer cancel()
		err := d.opt.Noter.Note(ctx, id, own)
		d.post(func() {
			d.limiting--
			d.outdated++ // what is listed may be from before
			delete(d.noting, id)
			if err != nil {
				d.log.Debug("own limits not noted with the VM", "vm", v.machine.Name, "err", err)
			} else {
				v.machine.Own = &own
			}
			d.giveBack() // it may have been released meanwhile
		})
	}()
}

// leave gives back what a VM carries as its own that was released, and that this
// daemon does not know: it came from another host, or from a daemon that is no more.
// One that nobody released may be another daemon's.
func (d *Daemon) leave(m hypervisor.Machine) {
	_, known := d.state.data.Originals[m.ID]
	if in, explicit := d.state.enrolled(m.ID); m.Own == nil || known || in || !explicit || d.restoring[m.ID] {
		return
	}
	d.restoreBeside(m, *m.Own)
}
