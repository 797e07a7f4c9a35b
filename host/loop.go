package host

import (
	"context"
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/broker"
	"github.com/gnomon-vm/gnomon/history"
)

const (
	// reconcileInterval is how often the host's machines are listed even if no
	// event told of a change, and the most of a recording that a crash takes.
	reconcileInterval = 5 * time.Second

	// applyTimeout bounds one change of a limit. A guest may take seconds to
	// give memory back.
	applyTimeout = 10 * time.Second
)

// Run works until ctx ends, then gives limits back as configured, and returns.
// It returns an error if it could not begin, or not give all limits back.
func (d *Daemon) Run(ctx context.Context) error {
	defer close(d.done)
	loopCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	d.ctx = loopCtx
	d.tick()

	h, err := d.opt.Driver.Host(ctx)
	if ctx.Err() != nil {
		return d.stop() // of what a daemon before it left
	}
	if err != nil {
		return fmt.Errorf("read host: %w", err)
	}
	d.host = h
	d.step(gnomon.Event{Started: &gnomon.Started{}})
	d.updateCapacity()
	go d.watch(loopCtx)
	if d.opt.Pressure != nil {
		go d.listen()
	}
	err = d.opt.Shadows.Watch(loopCtx, func(id gnomon.VMID) {
		d.post(func() {
			d.gone(id)
			d.reconcile()
		})
	})
	if err != nil {
		return err
	}
	if len(d.opt.Servers.URLs) > 0 {
		go d.runLink(loopCtx)
	}
	d.reconcile()

	reconcile := time.NewTicker(reconcileInterval)
	defer reconcile.Stop()
	d.wake = time.NewTimer(time.Hour)
	sample := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return d.stop()
		case f := <-d.inbox:
			d.tick()
			f()
		case <-reconcile.C:
			d.tick()
			d.reconcile()
			d.report()
			d.settle()
			d.writeBook()
			if d.opt.Recorder != nil {
				if err := d.opt.Recorder.Flush(); err != nil {
					d.recorded(err)
				}
			}
		case <-d.wake.C:
			d.tick()
			d.step(gnomon.Event{Tick: &gnomon.Tick{}})
		case <-sample.C:
			d.tick()
			sample.Reset(d.sampleDue())
		}
	}
}

// tick reads the clock: once per turn of the loop, and nowhere else, so that
// all that happens in a turn happens at one time.
func (d *Daemon) tick() {
	d.now = time.Now()
}

// step tells the broker of one event and carries out what it answers. The
// decisions are recorded before any action starts.
func (d *Daemon) step(e gnomon.Event) broker.Ready {
	e.At = d.now
	if d.opt.Recorder != nil {
		d.recorded(d.opt.Recorder.Write(e))
	}
	began := time.Now()
	ready := d.broker.Step(e)
	d.metrics.stepSeconds.Observe(time.Since(began).Seconds())
	if ready.Err != nil {
		d.metrics.brokenPromises.Inc()
		d.log.Error("the ledger broke a promise; this is a bug", "err", ready.Err)
	}
	for _, dec := range ready.Decisions {
		d.decided(dec)
	}
	for _, ans := range ready.Answers {
		d.answer(ans)
	}
	for _, act := range ready.Actions {
		d.apply(act, ready.Decisions)
	}
	if d.wake != nil && !ready.WakeAt.IsZero() {
		d.wake.Reset(max(ready.WakeAt.Sub(d.now), time.Millisecond))
	}
	return ready
}

// recorded counts what went wrong with the recording, and tells of the first.
func (d *Daemon) recorded(err error) {
	switch {
	case err != nil:
		d.metrics.recorderErrors.Inc()
		if !d.unrecorded {
			d.log.Warn("events are not recorded", "err", err)
		}
	case d.unrecorded:
		d.log.Info("events are recorded again")
	}
	d.unrecorded = err != nil
}

// decided keeps a decision where people and the history find it.
func (d *Daemon) decided(dec gnomon.Decision) {
	d.metrics.decisions.WithLabelValues(string(dec.Kind), dec.Resource.String()).Inc()
	v := d.vms[dec.VM]
	if v == nil {
		return
	}
	if dec.Amount != 0 {
		v.decisions.add(dec) // a grant of what the VM has anyway explains nothing
	}
	if dec.Kind == gnomon.DecideOverride {
		d.overridden(v, dec)
	}
	d.log.Debug("decided", "vm", v.machine.Name, "resource", dec.Resource, "kind", dec.Kind,
		"amount", gnomon.Format(dec.Resource, dec.Amount), "why", dec.Reason)
	d.write(history.FromDecision(v.labels(d.opt.Name), dec))
}

// apply carries out one action beside the loop and posts its outcome.
func (d *Daemon) apply(act gnomon.Action, decisions []gnomon.Decision) {
	v := d.vms[act.VM]
	if v == nil || d.stopping {
		return
	}
	path, terms := pathOf(act, decisions), v.terms(act.Resource, act.To)
	if act.Resource == gnomon.Disk {
		v.operationSize = v.params.OperationSize
	}
	began := time.Now()
	d.limiting++
	go func() {
		v.renewing[act.Resource].Wait()
		ctx, cancel := context.WithTimeout(d.ctx, applyTimeout)
		defer cancel()
		observed, err := d.opt.Driver.Apply(ctx, act.VM, act.Resource, act.To, terms)
		took := time.Since(began)
		d.post(func() {
			d.limiting--
			d.applied(act, path, observed, err, took)
		})
	}()
}

func (d *Daemon) applied(act gnomon.Action, path string, observed int64, err error, took time.Duration) {
	out := gnomon.Applied{Action: act.ID, VM: act.VM, Resource: act.Resource, Observed: observed}
	outcome := "ok"
	v := d.vms[act.VM]
	if err != nil {
		out.Error, outcome = err.Error(), "error"
		if observed <= 0 && v != nil {
			out.Observed = act.From // nothing was read back: the last that was known
		}
		d.log.Warn("limit not applied", "vm", act.VM, "resource", act.Resource,
			"to", gnomon.Format(act.Resource, act.To), "err", err)
	}
	d.metrics.applySeconds.WithLabelValues(act.Resource.String(), path, outcome).Observe(took.Seconds())
	if v == nil {
		return
	}
	if observed > act.From {
		v.urgency.relieved(act.Resource)
	}
	d.plugged(v, act, err)
	if err == nil && path == pathHandover {
		v.handovers[act.Resource].add(took)
	}
	d.step(gnomon.Event{Applied: &out})
	d.renew(v)
}

// The paths by which a limit changes, as metric labels.
const (
	pathHandover = "handover"
	pathStandard = "standard"
	pathShrink   = "shrink"
)

// pathOf tells which way an action goes, from the decisions it came with.
func pathOf(act gnomon.Action, decisions []gnomon.Decision) string {
	if act.To < act.From {
		return pathShrink
	}
	for _, dec := range decisions {
		if dec.VM == act.VM && dec.Resource == act.Resource && dec.Kind == gnomon.DecideHandover {
			return pathHandover
		}
	}
	return pathStandard
}

// writeBook adds the state of the host's book to the history.
func (d *Daemon) writeBook() {
	t := d.totals()
	d.write(history.FromLedger(d.opt.Name, d.now, d.capacity, t.allocated, t.reserved)...)
}

// write sends points to the history, if there is one. It never blocks.
func (d *Daemon) write(points ...history.Point) {
	if d.opt.Writer != nil {
		d.opt.Writer.Write(points...)
	}
}
