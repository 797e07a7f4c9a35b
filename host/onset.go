package host

import (
	"context"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/demand"
	"github.com/gnomon-vm/gnomon/pressure"
)

const (
	// urgentMost is how many urgent samples a VM has in any second at most.
	urgentMost = 10

	// A resource that stays short is looked at again after urgentGap, then after
	// twice that and so on, up to urgentRest; once it was given more, or was
	// calm for urgentRest, after urgentGap again.
	urgentGap  = 50 * time.Millisecond
	urgentRest = 500 * time.Millisecond

	// rateWindow is how long disk and network are watched for an urgent sample:
	// their counters alone do not tell when the rush began.
	rateWindow = 40 * time.Millisecond

	glanceTimeout = time.Second
)

// urgency is how often a VM's onsets are heeded.
type urgency struct {
	recent [urgentMost]time.Time // of the latest that were, in a ring
	next   int
	each   [gnomon.NumResources + 1]struct {
		seen  time.Time // the latest onset, heeded or not
		last  time.Time // the latest that was heeded
		gap   time.Duration
		under bool // a glance is under way
	}
}

// kind is what an onset waits for others of. Waiting for a CPU is a kind of its
// own: a busy host makes VMs wait that have all they may have, which must not
// hide that one is throttled.
func kind(o pressure.Onset) int {
	if o.Cause == pressure.Queued {
		return gnomon.NumResources
	}
	return int(o.Resource)
}

// allow reports whether an onset is heeded, which is to be followed by done.
func (u *urgency) allow(o pressure.Onset, now time.Time) bool {
	e := &u.each[kind(o)]
	if apart(e.seen, now) >= urgentRest {
		e.gap = 0
	}
	e.seen = now
	if e.under || apart(e.last, now) < e.gap || apart(u.recent[u.next], now) < time.Second {
		return false
	}
	e.gap = min(max(2*e.gap, urgentGap), urgentRest)
	e.last, e.under = now, true
	u.recent[u.next] = now
	u.next = (u.next + 1) % urgentMost
	return true
}

// apart is how far two times are apart, whichever is later: the clock may have
// been set back.
func apart(a, b time.Time) time.Duration { return b.Sub(a).Abs() }

func (u *urgency) done(o pressure.Onset) { u.each[kind(o)].under = false }

// relieved tells that the resource was given more: should that not be enough,
// the VM need not wait to say so.
func (u *urgency) relieved(r gnomon.Resource) { u.each[r].gap = 0 }

// listen takes onsets in until their source is closed.
func (d *Daemon) listen() {
	for o := range d.opt.Pressure.Onsets() {
		d.post(func() { d.onset(o) })
	}
}

// onset has the VM looked at, if more can be done for it.
func (d *Daemon) onset(o pressure.Onset) {
	v, outcome := d.vms[o.VM], "heeded"
	switch {
	case v == nil || d.stopping || v.machine.Paused:
		return
	case !d.hasRoom(o.VM, o.Resource):
		outcome = "at its ceiling"
	case !v.urgency.allow(o, d.now):
		outcome = "too soon"
	}
	d.metrics.onsets.WithLabelValues(o.Resource.String(), string(o.Cause), outcome).Inc()
	if outcome != "heeded" {
		return
	}
	d.heed(v, o)
}

// hasRoom reports whether a VM could be given more of a resource. The book tells:
// what the last sample saw may have shrunk since.
func (d *Daemon) hasRoom(id gnomon.VMID, r gnomon.Resource) bool {
	v, _ := d.broker.View(id)
	s := v.Resources[r]
	if s == nil {
		return false
	}
	has := s.Allocated
	if s.InFlight != nil {
		has = s.InFlight.To
	}
	return has < s.Ceiling
}

// resized has a VM's memory looked at whose balloon tells that it moved: by
// somebody else's hand, or further than was waited for.
func (d *Daemon) resized(id gnomon.VMID) {
	o := pressure.Onset{VM: id, Resource: gnomon.Memory, At: d.now}
	if v := d.vms[id]; v != nil && !d.stopping && v.bounds.limits.Has(gnomon.Memory) && v.urgency.allow(o, d.now) {
		d.heed(v, o)
	}
}

// heed takes the urgent sample that an onset calls for, beside the loop.
func (d *Daemon) heed(v *vm, o pressure.Onset) {
	meter := v.meter
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, glanceTimeout)
		defer cancel()
		s, ok := d.glance(ctx, o, meter)
		d.post(func() {
			v.urgency.done(o)
			if !ok || d.vms[o.VM] != v || d.stopping {
				return
			}
			d.metrics.urgentSeconds.WithLabelValues(o.Resource.String()).Observe(d.now.Sub(o.At).Seconds())
			d.urgent(v, s)
		})
	}()
}

// glance takes the urgent sample of what an onset told of.
func (d *Daemon) glance(ctx context.Context, o pressure.Onset, meter demand.Meter) (gnomon.Sample, bool) {
	c, err := d.opt.Driver.Glance(ctx, o.VM, o.Resource)
	if err != nil {
		d.log.Debug("VM not looked at", "id", o.VM, "resource", o.Resource, "err", err)
		return gnomon.Sample{}, false
	}
	switch o.Resource {
	case gnomon.Memory:
		return meter.Ahead(c)
	case gnomon.CPU: // the onset brought what passed in its recent past
		from := c
		from.At = c.At.Add(-o.Interval)
		from.CPUTime, from.CPUWait = c.CPUTime-o.Run, c.CPUWait-o.Wait
		return meter.Between(from, c)
	}
	select {
	case <-time.After(rateWindow):
	case <-ctx.Done():
		return gnomon.Sample{}, false
	}
	later, err := d.opt.Driver.Glance(ctx, o.VM, o.Resource)
	if err != nil {
		return gnomon.Sample{}, false
	}
	return meter.Between(c, later)
}

// urgent takes an urgent sample where it is needed: to the broker first, as
// every sample, then to the agent. It is not for the history, whose points
// stand for whole intervals.
func (d *Daemon) urgent(v *vm, s gnomon.Sample) {
	for r := range gnomon.AllResources() {
		if s.Known.Has(r) {
			v.last.Usage[r], v.last.Demand[r], v.last.Allocation[r] = s.Usage[r], s.Demand[r], s.Allocation[r]
			if r == gnomon.Disk {
				v.last.Operations = s.Operations
			}
		}
	}
	d.step(gnomon.Event{Sampled: &s})
	if v.shadow != nil {
		d.push(v, s)
	}
	d.publish(v)
}

// follow has the source of onsets follow a VM as it is now.
func (d *Daemon) follow(v *vm) {
	if d.opt.Pressure == nil {
		return
	}
	p := v.machine.Presence
	s := pressure.Subject{VM: v.machine.ID, Process: p.Process, VCPUs: p.VCPUs, Interfaces: p.Interfaces}
	if err := d.opt.Pressure.Follow(s); err != nil {
		d.log.Debug("VM not followed", "vm", v.machine.Name, "err", err)
	}
}

func (d *Daemon) unfollow(id gnomon.VMID) {
	if d.opt.Pressure != nil {
		d.opt.Pressure.Forget(id)
	}
}

// draw tells the source of onsets what a VM's use is held against from now on.
func (d *Daemon) draw(v *vm, s gnomon.Sample) {
	if d.opt.Pressure != nil {
		d.opt.Pressure.Draw(v.machine.ID, linesOf(v, s))
	}
}

const (
	freePart = 10      // less free memory than allocated divided by it is an onset
	leastBit = 4 << 20 // bytes of memory that are worth looking at a VM again
)

func linesOf(v *vm, s gnomon.Sample) (l pressure.Lines) {
	if s.Known.Has(gnomon.Memory) {
		has := s.Allocation[gnomon.Memory]
		l.Memory = max(has-s.Usage[gnomon.Memory]-has/freePart, has/100, leastBit)
	}
	if s.Known.Has(gnomon.Disk) {
		l.Disk = s.Allocation[gnomon.Disk]
	}
	if s.Known.Has(gnomon.Network) {
		l.Network = s.Allocation[gnomon.Network]
	}
	return l
}
