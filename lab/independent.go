package lab

import (
	"math"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// observation is what a rule is told of one resource of one guest. Amounts are
// in the resource's unit.
type observation struct {
	interval float64 // seconds since the last one
	// usage is what the guest got, demand what pressure tells that it would
	// have taken, allocation its limit now, ceiling the most it may have.
	usage, demand, allocation, ceiling float64
	// starved reports pressure: run-queue wait, scarce memory or swapping, work
	// queued at the limit.
	starved bool
}

// rule sizes one resource of one guest by itself.
type rule interface {
	// next returns the limit to set after an interval, NaN to leave it.
	next(o observation) float64
}

// listener is a rule that is told of pressure as it arises.
type listener interface {
	rule
	// pressed returns the limit to set while a guest with this allocation wants
	// more than it gets.
	pressed(allocation float64) float64
}

// sizer sizes one guest's resources together.
type sizer interface {
	// next returns the limits to set after an interval, NaN to leave one. Only
	// the observations of the resources known count.
	next(o *[gnomon.NumResources]observation, known gnomon.ResourceSet) [gnomon.NumResources]float64
}

// separate sizes each resource by a rule of its own; nil leaves it.
type separate [gnomon.NumResources]rule

func (rules *separate) next(o *[gnomon.NumResources]observation, known gnomon.ResourceSet) (to [gnomon.NumResources]float64) {
	for r := range to {
		to[r] = math.NaN()
		if rules[r] != nil && known.Has(gnomon.Resource(r)) {
			to[r] = rules[r].next(o[r])
		}
	}
	return to
}

// independent has a sizer for each guest. The host admits what they ask for as
// far as it has it, first come, first served.
type independent struct {
	make   func(s *script) sizer
	s      *stage
	sizers []sizer
}

func (c *independent) begin(s *stage) error {
	c.s = s
	for _, g := range s.guests {
		c.sizers = append(c.sizers, c.make(g.script))
	}
	return nil
}

func (c *independent) sampled(i int, s gnomon.Sample) error {
	var seen [gnomon.NumResources]observation
	for r, l := range c.s.guests[i].lanes {
		if l != nil {
			seen[r] = observation{
				interval: s.Interval.Seconds(), usage: float64(s.Usage[r]), demand: float64(s.Demand[r]),
				allocation: l.limit, ceiling: l.ceiling, starved: s.Starved[r] > s.Interval/20,
			}
			if gnomon.Resource(r) == gnomon.Memory { // the trace's, with what is to be usable
				seen[r].usage = min(seen[r].demand, l.limit)
			}
		}
	}
	for r, to := range c.sizers[i].next(&seen, s.Known) {
		if s.Known.Has(gnomon.Resource(r)) {
			c.s.admit(i, gnomon.Resource(r), to)
		}
	}
	return nil
}

// admit sets a limit as far as bounds and the host allow. What another guest
// gives back counts when it is back.
func (s *stage) admit(i int, r gnomon.Resource, to float64) {
	if math.IsNaN(to) {
		return
	}
	g := s.guests[i]
	l := g.lanes[r]
	to = math.Ceil(max(g.script.floor[r], min(to, l.ceiling)))
	if held := max(l.limit, l.target); to > held {
		free := s.capacity[r]
		for _, other := range s.guests {
			if o := other.lanes[r]; o != nil && !other.gone {
				free -= max(o.limit, o.target)
			}
		}
		to = max(l.limit, min(to, held+max(0, math.Floor(free))))
	}
	s.set(i, r, to)
}

func (c *independent) pressed(i int, r gnomon.Resource) bool {
	rules, ok := c.sizers[i].(*separate)
	if !ok {
		return false
	}
	rule, ok := rules[r].(listener)
	if ok {
		c.s.admit(i, r, rule.pressed(c.s.guests[i].lanes[r].limit))
	}
	return ok
}

func (c *independent) settled(int, gnomon.Resource, int64) {}
func (c *independent) wake() (time.Duration, bool)         { return 0, false }
func (c *independent) woken()                              {}
func (c *independent) ended(int)                           {}

func (c *independent) fill(int, gnomon.Resource, *Outcome, float64) error { return nil }
