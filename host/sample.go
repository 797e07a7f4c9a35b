package host

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/history"
)

const (
	// sampleGrid is how close the due times of two VMs must be to be read in
	// one call, and how long the loop sleeps at most before it looks again.
	sampleGrid = 50 * time.Millisecond

	minReadTimeout = 2 * time.Second
)

// sampleDue starts one reading of all VMs that are due, and returns how long
// until it should be called again.
func (d *Daemon) sampleDue() time.Duration {
	var ids []gnomon.VMID
	next := d.now.Add(time.Second)
	for _, id := range slices.Sorted(maps.Keys(d.vms)) {
		v := d.vms[id]
		if isDue(v.due, d.now, v.params.MonitoringInterval) {
			v.due = nextDue(v.due, d.now, v.params.MonitoringInterval)
			if !v.reading && !v.machine.Paused {
				v.reading = true
				ids = append(ids, id)
			}
		}
		if v.due.Before(next) {
			next = v.due
		}
	}
	if len(ids) > 0 {
		d.read(ids)
	}
	return min(max(next.Sub(d.now), sampleGrid/2), 200*time.Millisecond)
}

// isDue reports whether a VM is to be read now. A due time further ahead than
// any that nextDue gives is from before the wall clock was set back.
func isDue(due, now time.Time, interval time.Duration) bool {
	return due.Before(now.Add(sampleGrid)) || due.After(now.Add(2*interval))
}

// nextDue keeps a VM on its own grid of intervals, whose phase is that of the
// wall clock, so that VMs of the same interval are read together.
func nextDue(due, now time.Time, interval time.Duration) time.Time {
	next := now.Truncate(interval).Add(interval)
	if next.Sub(now) < sampleGrid && !due.IsZero() {
		next = next.Add(interval)
	}
	return next
}

func (d *Daemon) read(ids []gnomon.VMID) {
	began := time.Now()
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, minReadTimeout)
		defer cancel()
		counters, err := d.opt.Driver.Read(ctx, ids)
		d.post(func() {
			d.metrics.readSeconds.Observe(time.Since(began).Seconds())
			d.counted(ids, counters, err)
		})
	}()
}

func (d *Daemon) counted(ids []gnomon.VMID, counters []gnomon.Counters, err error) {
	for _, id := range ids {
		if v := d.vms[id]; v != nil {
			v.reading = false
		}
	}
	if err != nil {
		if d.hypervisor == nil {
			d.log.Warn("counters not read", "err", err)
			d.reconcile()
		}
		return
	}
	for _, c := range counters {
		v := d.vms[c.VM]
		if v == nil {
			continue
		}
		if s, ok := v.meter.Next(c); ok {
			d.sampled(v, s)
		}
	}
}

// sampled takes one sample everywhere it is needed: to the broker first, since
// a VM that is short must not wait for anybody's forecast.
func (d *Daemon) sampled(v *vm, s gnomon.Sample) {
	v.last = s
	for r := range gnomon.AllResources() {
		v.starved[r] += s.Starved[r]
	}
	d.step(gnomon.Event{Sampled: &s})
	if v.shadow != nil {
		d.push(v, s)
	}
	st, _ := d.broker.View(v.machine.ID)
	var reserved gnomon.Resources
	for r := range gnomon.AllResources() {
		if rs := st.Resources[r]; rs != nil {
			reserved[r] = rs.Reserved
		}
	}
	d.write(history.FromSample(v.labels(d.opt.Name), s, reserved)...)
	d.draw(v, s)
	d.publish(v)
}
