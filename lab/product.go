package lab

import (
	"fmt"
	"slices"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/core/broker"
	"github.com/gnomon-vm/gnomon/core/demand"
	"github.com/gnomon-vm/gnomon/core/plan"
)

// product is gnomon: the host's broker, and a shadow for each guest unless it is
// to be without.
type product struct {
	shadows  bool
	release  bool    // as forecasts say
	price    float64 // of shortage
	headroom int64   // percent

	s      *stage
	broker *broker.Broker
	due    time.Time
	shadow []*plan.Planner
	seq    []uint64
	flying map[flightKey]gnomon.Action
	marks  [][gnomon.NumResources]mark
	err    error
}

type flightKey struct {
	guest int
	r     gnomon.Resource
}

// mark follows what was made ready for one lane.
type mark struct {
	ready  time.Time // since when something is, zero if nothing
	leads  []float64 // seconds from ready to needed
	before broker.ResourceState
	after  broker.ResourceState
	warm   bool
}

func (p *product) begin(s *stage) error {
	p.s, p.broker, p.flying = s, broker.New(broker.Options{}), map[flightKey]gnomon.Action{}
	p.marks = make([][gnomon.NumResources]mark, len(s.guests))
	p.seq = make([]uint64, len(s.guests))
	var capacity gnomon.Resources
	for r := range capacity {
		capacity[r] = int64(s.capacity[r])
	}
	if err := p.step(gnomon.Event{Capacity: &gnomon.Capacity{Total: capacity}}); err != nil {
		return err
	}
	defaults := config.Defaults()
	for _, g := range s.guests {
		vm := gnomon.VM{ID: g.id, Name: string(g.id), Limits: g.script.known}
		var allocation gnomon.Resources
		for r, l := range g.lanes {
			if l != nil {
				vm.Floor[r], vm.Ceiling[r], allocation[r] = int64(g.script.floor[r]), int64(g.script.ceiling[r]), int64(l.limit)
			}
		}
		policy := gnomon.Policy{Shadow: p.shadows, HeadroomPercent: p.headroom, Hold: defaults.Hold, Release: p.release}
		if err := p.step(gnomon.Event{Found: &gnomon.Found{VM: vm, Policy: policy, Allocation: allocation}}); err != nil {
			return err
		}
		if !p.shadows {
			continue
		}
		planner, err := plan.New(plan.Settings{
			Interval: s.interval, Horizon: max(defaults.PredictionHorizon, s.interval), Season: defaults.ForecastSeason,
			Model: defaults.ForecastModel, Price: p.price, Threshold: defaults.PreAllocationThreshold,
		})
		if err != nil {
			return fmt.Errorf("shadow of %s: %w", g.script.label(), err)
		}
		p.shadow = append(p.shadow, planner)
		if err := p.step(gnomon.Event{Attached: &gnomon.Attached{VM: g.id, Session: 1}}); err != nil {
			return err
		}
	}
	return nil
}

// step tells the broker something and carries out what follows.
func (p *product) step(e gnomon.Event) error {
	e.At = epoch.Add(p.s.now)
	ready := p.broker.Step(e)
	if ready.Err != nil {
		return fmt.Errorf("broker: %w", ready.Err)
	}
	p.due = ready.WakeAt
	for _, d := range ready.Decisions {
		p.follow(d)
	}
	for _, a := range ready.Actions {
		i := p.index(a.VM)
		p.flying[flightKey{i, a.Resource}] = a
		p.s.set(i, a.Resource, float64(a.To))
		if !p.s.guests[i].lanes[a.Resource].moving { // it was there already
			p.settled(i, a.Resource, a.To)
		}
	}
	return nil
}

func (p *product) index(id gnomon.VMID) int {
	return slices.IndexFunc(p.s.guests, func(g *guest) bool { return g.id == id })
}

// follow notes when something was made ready and when it was needed.
func (p *product) follow(d gnomon.Decision) {
	m := &p.marks[p.index(d.VM)][d.Resource]
	switch d.Kind {
	case gnomon.DecideReserve, gnomon.DecideHandover:
		if m.ready.IsZero() && d.Amount > 0 {
			m.ready = d.At
		}
	case gnomon.DecideHit:
		if !m.ready.IsZero() && m.warm {
			m.leads = append(m.leads, d.At.Sub(m.ready).Seconds())
		}
		m.ready = time.Time{}
	case gnomon.DecideExpire, gnomon.DecideVoid, gnomon.DecideRevoke, gnomon.DecideShrink:
		m.ready = time.Time{}
	}
}

func (p *product) sampled(i int, s gnomon.Sample) error {
	g := p.s.guests[i]
	for r, l := range g.lanes { // outcomes are counted from when the lane's are
		if l != nil && l.tally.counting && !p.marks[i][r].warm {
			p.marks[i][r].warm = true
			if state, ok := p.broker.View(g.id); ok && state.Resources[r] != nil {
				p.marks[i][r].before = *state.Resources[r]
			}
		}
	}
	if err := p.step(gnomon.Event{Sampled: &s}); err != nil {
		return err
	}
	return p.observed(i, s)
}

// observed has a shadow answer to what its VM used.
func (p *product) observed(i int, s gnomon.Sample) error {
	if !p.shadows {
		return nil
	}
	g := p.s.guests[i]
	var ceiling gnomon.Resources
	for r := range ceiling {
		ceiling[r] = int64(g.script.ceiling[r])
	}
	p.seq[i]++
	proposal := p.shadow[i].Observe(plan.Observation{
		Seq: p.seq[i], At: s.At, Urgent: s.Urgent, Known: s.Known, Usage: s.Usage, Demand: s.Demand, Allocation: s.Allocation, Ceiling: ceiling,
	})
	proposal.VM, proposal.Session = g.id, 1
	return p.step(gnomon.Event{Proposed: &proposal})
}

func (p *product) settled(i int, r gnomon.Resource, observed int64) {
	key := flightKey{i, r}
	a, ok := p.flying[key]
	if !ok {
		return
	}
	delete(p.flying, key)
	p.note(p.step(gnomon.Event{Applied: &gnomon.Applied{Action: a.ID, VM: a.VM, Resource: r, Observed: observed}}))
}

func (p *product) wake() (time.Duration, bool) {
	return p.due.Sub(epoch), !p.due.IsZero()
}

func (p *product) woken() {
	p.due = time.Time{}
	p.note(p.step(gnomon.Event{Tick: &gnomon.Tick{}}))
}

// pressed: the daemon looks at a VM as soon as it is told that it is short, and
// at what it did since then.
func (p *product) pressed(i int, r gnomon.Resource) bool {
	g := p.s.guests[i]
	now := g.counters(p.s.now)
	s, ok := demand.Meter{}.Between(g.since[r], now)
	if r == gnomon.Memory {
		s, ok = g.meter.Ahead(now)
	}
	if s.Known &= gnomon.SetOf(r); ok && s.Known != 0 {
		p.note(p.step(gnomon.Event{Sampled: &s}))
		p.note(p.observed(i, s))
	}
	return true
}

func (p *product) ended(i int) {
	p.keep(i)
	p.note(p.step(gnomon.Event{Gone: &gnomon.Gone{VM: p.s.guests[i].id}}))
}

// keep remembers what the broker knows of a guest.
func (p *product) keep(i int) {
	state, ok := p.broker.View(p.s.guests[i].id)
	for r, now := range state.Resources {
		if m := &p.marks[i][r]; ok && now != nil && m.warm {
			m.after = *now
		}
	}
}

func (p *product) fill(i int, r gnomon.Resource, o *Outcome, scale float64) error {
	if !p.s.guests[i].gone {
		p.keep(i)
	}
	m := &p.marks[i][r]
	o.Hits, o.Misses = int(m.after.Hits-m.before.Hits), int(m.after.Misses-m.before.Misses)
	o.Waste = (m.after.Waste - m.before.Waste) * scale
	if len(m.leads) > 0 {
		slices.Sort(m.leads)
		o.LeadP50 = m.leads[len(m.leads)/2]
	}
	return p.err
}

// note keeps the first error of what has no way to return one.
func (p *product) note(err error) {
	if p.err == nil {
		p.err = err
	}
}
