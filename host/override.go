package host

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// override is what somebody else did to the limits of one resource of a VM.
type override struct {
	count  int
	latest gnomon.Decision
}

// overridden notes that somebody else changed a limit. What the broker left as it
// is becomes the VM's own.
func (d *Daemon) overridden(v *vm, dec gnomon.Decision) {
	r := dec.Resource
	v.overrides[r].count++
	v.overrides[r].latest = dec
	adopted := v.adopts(r)
	level := slog.LevelWarn
	if r == gnomon.Memory { // most often it was the guest
		level = slog.LevelInfo
	}
	d.log.Log(d.ctx, level, "limit changed by somebody else", "vm", v.machine.Name, "resource", r,
		"was", gnomon.Format(r, dec.From), "is", gnomon.Format(r, dec.To), "adopted", adopted)
	if !adopted {
		return
	}
	if err := d.state.adopt(v.machine.ID, r, v.last.Allocation[r]); err != nil {
		d.log.Warn("state not saved", "err", err)
	}
	v.bounds = d.boundsOf(v.machine, v.params)
}

// adopts reports whether the broker leaves a limit alone that somebody else set.
func (v *vm) adopts(r gnomon.Resource) bool {
	return v.params.OnOverride == config.Adopt && r != gnomon.Memory
}

// boundsOf is what the broker may do with a VM whose limits somebody else may have
// set since it was taken in.
func (d *Daemon) boundsOf(m hypervisor.Machine, p config.Parameters) bounds {
	if p.Hotplug && m.MaxVCPUs > 0 {
		most := m.MaxVCPUs
		if v := d.vms[m.ID]; v != nil && v.refuses {
			most = m.Online
		}
		m.Max[gnomon.CPU] = int64(most) * 1000
	}
	b := boundsOf(m, p)
	own := d.state.data.Originals[m.ID]
	for r := range gnomon.AllResources() {
		if p.OnOverride == config.Adopt && own.Adopted.Has(r) {
			b.limits = b.limits.Without(r)
			b.why[r] = "somebody else set it to " + formatLimit(r, own.Limits[r]) + ", which was adopted (onOverride)"
		}
	}
	return b
}

func formatLimit(r gnomon.Resource, limit int64) string {
	if limit == hypervisor.Unlimited {
		return "no limit"
	}
	return gnomon.Format(r, limit)
}

// explain tells what somebody else did; empty if nothing was done.
func (o override) explain(d *Daemon) string {
	if o.count == 0 {
		return ""
	}
	r := o.latest.Resource
	text := fmt.Sprintf(" Somebody else changed it from %s to %s %s ago", gnomon.Format(r, o.latest.From),
		gnomon.Format(r, o.latest.To), d.now.Sub(o.latest.At).Round(time.Second))
	if o.count > 1 {
		text += fmt.Sprintf(" (%d times in all)", o.count)
	}
	return text + "."
}
