package host

import (
	"errors"
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

const (
	// spareHolds is for how many times hold vCPUs must have been far from needed
	// before they are taken back: to plug them again takes a guest a second.
	spareHolds = 30

	// sparePercent is what is kept of what is allocated and reserved, so that a
	// little more demand does not call for a vCPU again.
	sparePercent = 150
)

// vcpusFor returns how many vCPUs can take an amount of CPU.
func vcpusFor(amount int64) int { return int((amount + 999) / 1000) }

// elastic reports whether the number of a VM's vCPUs is gnomon's to set: it may
// have more than its own, or has.
func (v *vm) elastic() bool {
	own := v.own.VCPUs
	return own > 0 && v.machine.MaxVCPUs > own && (v.params.Hotplug || v.machine.VCPUs > own)
}

// plugged notes whether the guest followed where vCPUs were plugged for a limit. One
// that did not is not asked again; should it follow later, that is noticed.
func (d *Daemon) plugged(v *vm, act gnomon.Action, err error) {
	if act.Resource != gnomon.CPU || !v.elastic() {
		return
	}
	if errors.Is(err, hypervisor.ErrRefused) {
		v.refuses = true
		d.log.Warn("guest does not use the vCPUs that it was given; it gets no more", "vm", v.machine.Name, "err", err)
	}
	if v.refuses || vcpusFor(act.To) > v.machine.VCPUs {
		d.reconcile()
	}
}

// notice notes that a guest uses vCPUs after all.
func (v *vm) notice(m hypervisor.Machine) {
	if v.refuses && m.VCPUs > v.own.VCPUs && m.Online == m.VCPUs {
		v.refuses = false
	}
}

// takeBack takes vCPUs from a VM that has been far from needing them for long, or
// is not to have them any more. A guest that keeps them is not asked again.
func (d *Daemon) takeBack(v *vm) {
	st, _ := d.broker.View(v.machine.ID)
	s := st.Resources[gnomon.CPU]
	if s == nil || !v.elastic() || v.keeps || d.stopping {
		return
	}
	need := v.own.VCPUs
	if v.params.Hotplug {
		need = max(need, vcpusFor((s.Allocated+s.Reserved)*sparePercent/100))
	}
	if need >= v.machine.VCPUs {
		v.spareSince = time.Time{}
		return
	}
	if v.spareSince.IsZero() {
		v.spareSince = d.now
	}
	if s.InFlight != nil || v.params.Hotplug && d.now.Sub(v.spareSince) < spareHolds*v.params.Hold {
		return
	}
	v.spareSince = time.Time{}
	d.limitBeside(v, gnomon.CPU, s.Allocated, hypervisor.Terms{VCPUs: need, Spare: true}, func(err error) {
		switch {
		case errors.Is(err, hypervisor.ErrRefused):
			v.keeps = true
			d.log.Warn("guest does not let go of vCPUs; it keeps them", "vm", v.machine.Name, "err", err)
		case err != nil:
			d.log.Warn("vCPUs not taken back", "vm", v.machine.Name, "err", err)
		default:
			d.log.Info("vCPUs taken back", "vm", v.machine.Name, "left", need)
		}
		d.reconcile()
	})
}

// explainVCPUs tells what vCPUs a VM has, if that is gnomon's to set.
func (v *vm) explainVCPUs() string {
	if !v.elastic() {
		return ""
	}
	text := fmt.Sprintf(" It has %d vCPUs of %d that it may have, and %d of its own.", v.machine.VCPUs, v.machine.MaxVCPUs, v.own.VCPUs)
	if v.refuses {
		text += fmt.Sprintf(" Its guest uses %d and did not bring more online when it was given them, so it gets no more.", v.machine.Online)
	}
	if v.keeps {
		text += " Its guest did not let go of some when it was asked, so it keeps them."
	}
	return text
}
