package lab

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/demand"
)

const (
	// warmPart is the share of a trace that is not counted, warmSteps the most
	// steps of it.
	warmPart  = 10
	warmSteps = 300

	// notice is how long it takes from the onset of pressure until a policy
	// that listens is told, and until it is told again while it lasts.
	notice = 100 * time.Millisecond
)

// epoch is when every play begins.
var epoch = time.Unix(0, 0).UTC()

// controller is a policy at work on one host: it is told what becomes known and
// calls the stage's set. Guests are told by their number.
type controller interface {
	// begin is called once all guests stand, at their ceilings.
	begin(s *stage) error
	// sampled tells what a guest used over the interval that ends now.
	sampled(guest int, sample gnomon.Sample) error
	// settled tells that a limit is in force.
	settled(guest int, r gnomon.Resource, observed int64)
	// wake returns when woken is to be called next; false for never.
	wake() (time.Duration, bool)
	woken()
	// pressed tells, if asked for, that a guest has wanted more than it got for
	// some time, and reports whether anybody listens.
	pressed(guest int, r gnomon.Resource) bool
	// ended tells that a guest is gone.
	ended(guest int)
	// fill adds, at the end, what only the policy knows; scale is a unit's part
	// of the outcome's.
	fill(guest int, r gnomon.Resource, o *Outcome, scale float64) error
}

// stage is one host on which guests play their traces. They have the same
// interval.
type stage struct {
	interval time.Duration
	fine     bool
	now      time.Duration
	guests   []*guest
	control  controller
	capacity [gnomon.NumResources]float64
}

// guest is one VM.
type guest struct {
	script *script
	id     gnomon.VMID
	lanes  [gnomon.NumResources]*lane // nil where the trace tells nothing
	press  [gnomon.NumResources]time.Duration
	since  [gnomon.NumResources]gnomon.Counters // when the pressure to be told of began
	meter  demand.Meter
	vcpus  int
	gone   bool
}

// newStage sets guests on a host. A share of 0 is a host for which nothing is
// ever too much; else its capacity is that share of the sum of ceilings, and the
// guests start at that share of theirs.
func newStage(scripts []*script, share float64, c controller) *stage {
	s := &stage{interval: scripts[0].interval, fine: scripts[0].fine(), control: c}
	for i, script := range scripts {
		g := &guest{script: script, id: gnomon.VMID(fmt.Sprintf("%04d", i)), vcpus: 1}
		for r := range gnomon.AllResources() {
			if !script.known.Has(r) {
				continue
			}
			limit := script.ceiling[r]
			if share > 0 {
				limit = math.Floor(limit * share)
			}
			g.lanes[r] = &lane{r: r, ceiling: script.ceiling[r], limit: limit, target: limit, tally: &tally{}}
			s.capacity[r] += script.ceiling[r]
		}
		g.vcpus = int(max(1, math.Ceil(script.ceiling[gnomon.CPU]/1000)))
		s.guests = append(s.guests, g)
	}
	if share <= 0 {
		share = 4
	}
	for r := range s.capacity {
		s.capacity[r] = math.Ceil(s.capacity[r] * share)
	}
	return s
}

// play runs the traces to their ends.
func (s *stage) play(ctx context.Context) error {
	steps := 0
	for _, g := range s.guests {
		steps = max(steps, g.script.steps)
		g.meter.Next(g.counters(0))
	}
	if err := s.control.begin(s); err != nil {
		return err
	}
	for k := range steps {
		if k%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		s.open(k)
		s.until(time.Duration(k+1) * s.interval)
		if err := s.sample(k); err != nil {
			return err
		}
	}
	return nil
}

// open lets the demands of a step begin.
func (s *stage) open(k int) {
	for i, g := range s.guests {
		if g.gone {
			continue
		}
		if k >= g.script.steps {
			g.gone = true
			s.control.ended(i)
			continue
		}
		warm := k >= min(warmSteps, g.script.steps/warmPart)
		for r, l := range g.lanes {
			if l == nil {
				continue
			}
			v := g.script.at(gnomon.Resource(r), k)
			if math.IsNaN(v) { // demand goes on, and what comes of it is not known
				l.tally.counting = false
			} else {
				l.want(v)
				l.tally.counting = warm
			}
			s.listen(g, gnomon.Resource(r))
		}
	}
}

// at is a resource's demand in a step, NaN where missing.
func (s *script) at(r gnomon.Resource, k int) float64 {
	if k < len(s.demand[r]) {
		return s.demand[r][k]
	}
	return math.NaN()
}

// listen arms or disarms the telling of pressure.
func (s *stage) listen(g *guest, r gnomon.Resource) {
	switch l := g.lanes[r]; {
	case !s.fine || !l.short():
		g.press[r] = 0
	case g.press[r] == 0:
		s.arm(g, r)
	}
}

func (s *stage) arm(g *guest, r gnomon.Resource) {
	g.press[r], g.since[r] = s.now+notice, g.counters(s.now)
}

// until plays up to a time.
func (s *stage) until(end time.Duration) {
	for {
		at, g, r, what := s.next(end)
		s.now = max(s.now, at)
		switch what {
		case nothing:
			s.each(func(g *guest, l *lane) { l.advance(end) })
			return
		case wakes:
			s.control.woken()
		case settles:
			l := s.guests[g].lanes[r]
			l.advance(s.now)
			l.settle()
			s.listen(s.guests[g], r)
			s.guests[g].since[r] = s.guests[g].counters(s.now)
			s.control.settled(g, r, int64(l.limit))
		case presses:
			s.guests[g].lanes[r].advance(s.now)
			s.guests[g].press[r] = 0
			if s.guests[g].lanes[r].short() && s.control.pressed(g, r) {
				s.arm(s.guests[g], r)
			}
		}
	}
}

// what may happen next.
const (
	nothing = iota
	settles
	presses
	wakes
)

// next returns what happens first, up to a time. Limits settle before anything
// else of the same time.
func (s *stage) next(end time.Duration) (at time.Duration, guest int, r gnomon.Resource, what int) {
	at = end + 1
	for i, g := range s.guests {
		if g.gone {
			continue
		}
		for j, l := range g.lanes {
			if l == nil {
				continue
			}
			if t, ok := l.settles(); ok && t < at {
				at, guest, r, what = t, i, gnomon.Resource(j), settles
			}
			if t := g.press[j]; t > 0 && t < at {
				at, guest, r, what = t, i, gnomon.Resource(j), presses
			}
		}
	}
	if t, ok := s.control.wake(); ok && t < at {
		at, what = t, wakes
	}
	if what == nothing {
		at = end
	}
	return at, guest, r, what
}

func (s *stage) each(f func(*guest, *lane)) {
	for _, g := range s.guests {
		if g.gone {
			continue
		}
		for _, l := range g.lanes {
			if l != nil {
				f(g, l)
			}
		}
	}
}

// sample tells the controller what each guest used in a step of which something
// is known.
func (s *stage) sample(k int) error {
	for i, g := range s.guests {
		if g.gone {
			continue
		}
		var known gnomon.ResourceSet
		for r := range gnomon.AllResources() {
			if g.lanes[r] != nil && !math.IsNaN(g.script.at(r, k)) {
				known = known.With(r)
			}
		}
		sample, ok := g.meter.Next(g.counters(s.now))
		if sample.Known &= known; !ok || sample.Known == 0 {
			continue
		}
		if err := s.control.sampled(i, sample); err != nil {
			return fmt.Errorf("play trace %s: %w", g.script.label(), err)
		}
	}
	return nil
}

// set asks for a limit.
func (s *stage) set(guest int, r gnomon.Resource, to float64) {
	g := s.guests[guest]
	if l := g.lanes[r]; l != nil && !g.gone {
		l.advance(s.now)
		l.set(max(0, to))
	}
}

// counters are a guest's, as a hypervisor would tell them.
func (g *guest) counters(now time.Duration) gnomon.Counters {
	c := gnomon.Counters{VM: g.id, At: epoch.Add(now), VCPUs: g.vcpus}
	for r, l := range g.lanes {
		if l == nil {
			c.Allocation[r] = gnomon.Unlimited
			continue
		}
		c.Known = c.Known.With(gnomon.Resource(r))
		c.Allocation[r] = int64(l.limit)
		switch gnomon.Resource(r) {
		case gnomon.CPU:
			c.CPUTime = time.Duration(l.served / 1000 * float64(time.Second))
			c.CPUWait = time.Duration(l.waited / 1000 * float64(time.Second))
		case gnomon.Memory:
			// The trace tells what the guest needs. Of that a twentieth is to
			// be usable, so that it is told to be short where it is.
			c.MemoryActual, c.MemoryAvailable = int64(l.limit), int64(l.limit)
			c.MemoryUsable = int64(max(0, l.limit-l.demand*19/20))
			c.SwapIn, c.SwapOut, c.MajorFaults = int64(l.in), int64(l.out), int64(l.in)/4096
			c.MemoryAt = c.At
		case gnomon.Disk:
			c.DiskBytes = int64(l.served)
			c.DiskRequests = c.DiskBytes / requestSize
			c.DiskTime = time.Duration(l.queued / requestSize * float64(time.Second))
		case gnomon.Network:
			c.NetworkBytes, c.NetworkBacklog = int64(l.served), int64(l.backlog)
		}
	}
	return c
}
