package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/demo/workload"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

const (
	settleLimit = 90 * time.Second // for allocations to come down to idle
	drainLimit  = 10 * time.Second // for work that arrived in time to be done
	refresh     = time.Second
	plainEvery  = 10 * time.Second // where the output is no terminal
)

// subject is one of the VMs that are compared.
type subject struct {
	name, title, policy, tap string
	id                       string // UUID
	guest                    *guest

	states        []*hostpb.ResourceState
	last          time.Time // end of the latest sample
	meter         meter
	work          workDone
	before, after *hostpb.VMStats
}

// measurement is what the window told.
type measurement struct {
	begin, end  time.Time
	from, to    time.Duration // the same on the guests' clocks
	cost        Cost
	interrupted bool
}

// awaitSettled waits until both VMs are taken in, the shadow's agent is there,
// and both allocations have come down from what booting took.
func (r *run) awaitSettled(ctx context.Context) error {
	r.step("waiting for the shadow, and for both VMs to come to rest")
	deadline := time.Now().Add(settleLimit)
	for {
		why, required, err := r.unsettled(ctx)
		if err != nil {
			return err
		}
		if why == "" {
			return nil
		}
		if time.Now().After(deadline) {
			if required {
				return fmt.Errorf("after %v still %s; the daemon's log: %s", settleLimit, why, r.stack.log)
			}
			r.step("starting although %s", why)
			return nil
		}
		select {
		case <-r.stack.ended:
			return fmt.Errorf("gnomon ended by itself\n%s", r.stack.lastLines())
		case <-ctx.Done():
			return errors.New("interrupted before anything was measured")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// unsettled tells what is still to come, and whether it has to.
func (r *run) unsettled(ctx context.Context) (why string, required bool, err error) {
	vms, err := r.stack.vms(ctx)
	if err != nil {
		return "", false, err
	}
	for _, s := range r.subjects {
		vm := vms[s.name]
		if vm == nil || len(vm.GetResources()) == 0 {
			return s.name + " is not taken in", true, nil
		}
		if s.policy == PolicyShadow {
			if ok, err := r.stack.hasAgent(ctx, vm.GetShadow()); err != nil || !ok {
				return "the shadow's agent is not connected", true, err
			}
		}
	}
	for _, s := range r.subjects {
		for _, state := range vms[s.name].GetResources() {
			if state.GetLimited() && !atRest(state) {
				return fmt.Sprintf("%s has more %s than it needs at rest", s.name, state.GetResource()), false, nil
			}
		}
	}
	return "", false, nil
}

// atRest reports whether an allocation is near its floor.
func atRest(s *hostpb.ResourceState) bool {
	return s.GetAllocation() >= 0 && s.GetAllocation() <= s.GetFloor()+s.GetFloor()/4
}

// measure lets both guests go and measures until the time is over or ctx ends.
func (r *run) measure(ctx context.Context) (*measurement, error) {
	// What is read after an interrupt is read all the same.
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	events := make(chan *hostpb.UsageEvent, 64)
	go r.stack.follow(reading, events)

	for _, s := range r.subjects {
		if err := s.guest.tell(workload.CommandGo); err != nil {
			return nil, err
		}
	}
	gone := time.Now()
	m := &measurement{begin: gone.Add(r.Warmup), from: r.Warmup}
	for _, s := range r.subjects {
		s.meter.begin = m.begin
	}
	if r.Warmup > 0 {
		r.step("workload runs; measuring after %v", r.Warmup)
		if err := r.watch(ctx, m, events, m.begin); err != nil {
			return nil, err
		}
	}
	r.step("measuring")
	if err := r.readCounters(reading, func(s *subject) **hostpb.VMStats { return &s.before }); err != nil {
		return nil, err
	}
	before, err := r.stack.cost(reading)
	if err != nil {
		return nil, err
	}
	var until time.Time
	if r.Window > 0 {
		until = m.begin.Add(r.Window)
	}
	if err := r.watch(ctx, m, events, until); err != nil {
		return nil, err
	}
	m.end = time.Now()
	m.to, m.interrupted = m.end.Sub(gone), ctx.Err() != nil
	for _, s := range r.subjects {
		s.meter.end = m.end
	}
	after, err := r.stack.cost(reading)
	if err != nil {
		return nil, err
	}
	m.cost = after.since(before)
	if err := r.readCounters(reading, func(s *subject) **hostpb.VMStats { return &s.after }); err != nil {
		return nil, err
	}
	r.step("waiting for work that arrived in time")
	r.drain(m, events)
	return m, nil
}

// readCounters reads the counters of every VM.
func (r *run) readCounters(ctx context.Context, into func(*subject) **hostpb.VMStats) error {
	vms, err := r.stack.vms(ctx)
	if err != nil {
		return err
	}
	for _, s := range r.subjects {
		vm := vms[s.name]
		if vm == nil {
			return fmt.Errorf("%s is not taken in any more; the daemon's log: %s", s.name, r.stack.log)
		}
		*into(s) = vm.GetStats()
	}
	return nil
}

// watch takes in events and reports and shows the table, until the time given
// (without end if zero) or ctx's end.
func (r *run) watch(ctx context.Context, m *measurement, events <-chan *hostpb.UsageEvent, until time.Time) error {
	every := plainEvery
	if r.Terminal {
		every = refresh
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var over <-chan time.Time
	if !until.IsZero() {
		over = time.After(time.Until(until))
	}
	a, b := r.subjects[0], r.subjects[1]
	for {
		select {
		case e := <-events:
			r.took(e)
		case rep, open := <-a.guest.reports:
			if !open {
				return fmt.Errorf("%s ended while it was measured", a.name)
			}
			a.work.add(rep, m.from, 0)
		case rep, open := <-b.guest.reports:
			if !open {
				return fmt.Errorf("%s ended while it was measured", b.name)
			}
			b.work.add(rep, m.from, 0)
		case <-ticker.C:
			if err := r.show(m); err != nil {
				return err
			}
		case <-r.stack.ended:
			return fmt.Errorf("gnomon ended by itself\n%s", r.stack.lastLines())
		case <-over:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// took counts a sample.
func (r *run) took(e *hostpb.UsageEvent) {
	for _, s := range r.subjects {
		if s.name == e.GetName() {
			s.states = e.GetResources()
			s.last = time.Unix(0, e.GetAtUnixNano())
			s.meter.add(e)
		}
	}
}

// drain takes in what tells of the window but comes after it: the last samples
// and the last work items.
func (r *run) drain(m *measurement, events <-chan *hostpb.UsageEvent) {
	limit := time.After(drainLimit)
	a, b := r.subjects[0], r.subjects[1]
	complete := func(s *subject) bool { return !s.last.Before(m.end) && s.work.latest >= m.to }
	for !complete(a) || !complete(b) {
		select {
		case e := <-events:
			r.took(e)
		case rep, open := <-a.guest.reports:
			if !open {
				return
			}
			a.work.add(rep, m.from, m.to)
		case rep, open := <-b.guest.reports:
			if !open {
				return
			}
			b.work.add(rep, m.from, m.to)
		case <-limit:
			return
		}
	}
}

// show draws the live table.
func (r *run) show(m *measurement) error {
	elapsed := time.Since(m.begin)
	if elapsed < 0 {
		return nil
	}
	var vms []liveVM
	for _, s := range r.subjects {
		vms = append(vms, liveVM{
			title: s.title, states: s.states, starved: s.meter.starved, latency: quantiles(s.work.latencies),
		})
	}
	if r.Terminal {
		fmt.Fprint(r.Output, "\x1b[H\x1b[2J")
	}
	return writeTable(r.Output, elapsed, r.Window, vms)
}

// follow passes on the samples of all VMs until ctx ends; should the daemon
// restart, it subscribes again.
func (s *stack) follow(ctx context.Context, events chan<- *hostpb.UsageEvent) {
	for ctx.Err() == nil {
		stream, err := s.host.SubscribeUsage(ctx, connect.NewRequest(&hostpb.SubscribeUsageRequest{}))
		if err == nil {
			for stream.Receive() {
				select {
				case events <- stream.Msg():
				case <-ctx.Done():
				}
			}
			_ = stream.Close()
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// hasAgent reports whether the agent of a shadow is connected.
func (s *stack) hasAgent(ctx context.Context, shadow string) (bool, error) {
	res, err := s.host.ListShadows(ctx, connect.NewRequest(&hostpb.ListShadowsRequest{}))
	if err != nil {
		return false, fmt.Errorf("list shadows: %w", err)
	}
	for _, sh := range res.Msg.GetShadows() {
		if sh.GetName() == shadow && sh.GetConnected() {
			return true, nil
		}
	}
	return false, nil
}

// awaitShadowsGone waits until the daemon has ended the shadows of VMs that
// are gone. What it leaves is cleaned up afterwards.
func (s *stack) awaitShadowsGone(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		res, err := s.host.ListShadows(ctx, connect.NewRequest(&hostpb.ListShadowsRequest{}))
		if err != nil || len(res.Msg.GetShadows()) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
