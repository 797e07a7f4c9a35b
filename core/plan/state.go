package plan

import (
	"fmt"
	"math"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/forecast"
	"github.com/gnomon-vm/gnomon/core/pack"
)

// What Save returns begins with this word and version.
const (
	stateMagic   = "gnpl"
	stateVersion = 4
)

const (
	maxResourceName = 32
	maxForecaster   = 1 << 20 // bytes
)

// saved is one resource's part of a state.
type saved struct {
	resource   string
	demands    []float64 // oldest first, NaN where missing
	forecaster []byte
	past       *past
	allocation float64
}

// Save returns what Load needs to go on: less than 256 KiB at a horizon of ten
// intervals.
func (p *Planner) Save() []byte {
	c := pack.NewWriter()
	interval, last := int64(p.settings.Interval), int64(0)
	if !p.last.IsZero() {
		last = p.last.UnixNano()
	}
	exchangeTimes(c, &interval, &last)
	n := 0
	for _, l := range p.lanes {
		if l.forecaster != nil {
			n++
		}
	}
	c.Int(&n, 0, n)
	for r := range gnomon.AllResources() {
		if l := p.lanes[r]; l.forecaster != nil {
			s := saved{r.String(), l.history, l.forecaster.Save(), l.past, l.allocation}
			s.exchange(c)
		}
	}
	return c.Seal(stateMagic, stateVersion)
}

// Load returns a Planner with these settings that goes on where the one of Save
// was; the time from its last sample to the first one observed counts as missing
// samples. If forecasts depend on what changed in the settings, or the
// forecasters' part is of another version, they are trained anew from the demands
// kept, as by Configure. The error says what is wrong with the settings or the
// state; a damaged or forged one is never worse than that.
func Load(s Settings, state []byte) (*Planner, error) {
	p, err := New(s)
	if err != nil {
		return nil, err
	}
	c, err := pack.Open(stateMagic, stateVersion, state)
	if err != nil {
		return nil, fmt.Errorf("load planner: state: %w", err)
	}
	var interval, last int64
	var n int
	exchangeTimes(c, &interval, &last)
	c.Int(&n, 0, gnomon.NumResources)
	for i := 0; i < n && c.Err() == nil; i++ {
		s := saved{past: newPast()}
		s.exchange(c)
		if r, err := gnomon.ParseResource(s.resource); err == nil && c.Err() == nil {
			p.lanes[r].resume(s, time.Duration(interval), p.settings.Interval, p.of(r))
		}
	}
	if err := c.End(); err != nil {
		return nil, fmt.Errorf("load planner: state: %w", err)
	}
	if last != 0 {
		p.last = time.Unix(0, last).UTC()
	}
	return p, nil
}

func exchangeTimes(c *pack.Codec, interval, last *int64) {
	c.Int64(interval, 1, int64(maxInterval))
	c.Int64(last, math.MinInt64, math.MaxInt64)
}

func (s *saved) exchange(c *pack.Codec) {
	c.Text(&s.resource, maxResourceName)
	c.Floats(&s.demands, kept+kept/4, math.Inf(-1), math.Inf(1))
	c.Bytes(&s.forecaster, maxForecaster)
	s.past.exchange(c)
	c.Float(&s.allocation, 0, math.MaxInt64)
}

// resume puts a saved part in place of what is known.
func (l *lane) resume(s saved, before, interval time.Duration, o forecast.Options) {
	l.history, l.allocation = s.demands, s.allocation
	if before != interval {
		l.history = resample(s.demands, before, interval)
		l.train(o)
		return
	}
	l.past = s.past
	f, err := forecast.Load(o, s.forecaster)
	if err != nil { // of other options, or another version
		l.train(o)
		return
	}
	l.forecaster = f
}

// Samples returns how many samples are kept of the resource known longest.
func (p *Planner) Samples() int {
	n := 0
	for _, l := range p.lanes {
		n = max(n, len(l.history))
	}
	return n
}

// Last returns the time of the newest sample learned, zero if there is none.
func (p *Planner) Last() time.Time { return p.last }
