package lab

import (
	"math"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// oracle knows every demand to come, and sets each limit just in time.
type oracle struct {
	s     *stage
	plans []oraclePlan
}

// oraclePlan is one lane's: the least limit at the start of each step from which
// all later demands can be met in time.
type oraclePlan struct {
	guest int
	r     gnomon.Resource
	need  []float64
	lead  time.Duration // of a rate's actuator
	step  int
	opens bool          // the next change is at the step's start, else ahead of its end
	next  time.Duration // 0 for never
}

// planned is how fast a balloon deflates by plan, a little slower than it does.
const planned = 0.99 * memoryUp

func (c *oracle) begin(s *stage) error {
	c.s = s
	for i, g := range s.guests {
		for r, l := range g.lanes {
			if l == nil {
				continue
			}
			p := oraclePlan{guest: i, r: gnomon.Resource(r), need: needs(g.script, gnomon.Resource(r)),
				lead: shaperDelay, opens: true, next: 1}
			if p.r == gnomon.CPU {
				p.lead = cpuDelay
			}
			c.plans = append(c.plans, p)
		}
	}
	return nil
}

// needs works backward through a resource's demands.
func needs(s *script, r gnomon.Resource) []float64 {
	out := make([]float64, s.steps)
	known := s.floor[r]
	for k := range out { // what is missing goes on as before
		if v := s.at(r, k); !math.IsNaN(v) {
			known = v
		}
		out[k] = math.Ceil(known)
	}
	if r == gnomon.Memory {
		for k := len(out) - 2; k >= 0; k-- {
			out[k] = max(out[k], math.Ceil(out[k+1]-planned*s.interval.Seconds()))
		}
	}
	return out
}

func (c *oracle) wake() (at time.Duration, ok bool) {
	for _, p := range c.plans {
		if p.next > 0 && (!ok || p.next < at) {
			at, ok = p.next, true
		}
	}
	return at, ok
}

func (c *oracle) woken() {
	for i := range c.plans {
		if p := &c.plans[i]; p.next > 0 && p.next <= c.s.now {
			c.act(p)
		}
	}
}

// act gives back at a step's start what is not needed any more, and gets in time
// what the next step needs.
func (c *oracle) act(p *oraclePlan) {
	need, l := p.need[p.step], c.s.guests[p.guest].lanes[p.r]
	if p.opens {
		if need < l.target || p.step == 0 {
			c.s.admit(p.guest, p.r, need)
		}
		p.opens, p.next = false, 0
		if p.step++; p.step < len(p.need) {
			lead := p.lead
			if p.r == gnomon.Memory {
				lead = time.Duration(max(0, p.need[p.step]-need)/planned*float64(time.Second)) + 1
			}
			p.next = max(c.s.now+1, time.Duration(p.step)*c.s.interval-lead)
		}
		return
	}
	if p.r != gnomon.Memory || need > l.target {
		c.s.admit(p.guest, p.r, need)
	}
	p.opens, p.next = true, time.Duration(p.step)*c.s.interval+1
}

func (c *oracle) sampled(int, gnomon.Sample) error                   { return nil }
func (c *oracle) settled(int, gnomon.Resource, int64)                {}
func (c *oracle) pressed(int, gnomon.Resource) bool                  { return false }
func (c *oracle) ended(int)                                          {}
func (c *oracle) fill(int, gnomon.Resource, *Outcome, float64) error { return nil }
