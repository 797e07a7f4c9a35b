package lab

import (
	"math"
	"slices"

	"github.com/gnomon-vm/gnomon"
)

// controlWindow is how many seconds, at least that many intervals, the windowed
// control looks back; holdWindow for how long the reactive one holds.
const (
	controlWindow, controlSteps = 30.0, 12
	holdWindow, holdSteps       = 10.0, 3
)

// fixed is control-static: one limit for the whole trace, set from what the
// trace will show.
type fixed struct{ limit float64 }

func newFixed(k float64, r gnomon.Resource, s *script) rule {
	values := slices.DeleteFunc(slices.Clone(s.demand[r]), math.IsNaN)
	slices.Sort(values)
	return fixed{values[int(math.Ceil(0.995*float64(len(values))))-1] * (1 + k)}
}

func (f fixed) next(observation) float64 { return f.limit }

// last is control-last: the last demand and a margin.
type last struct{ margin float64 }

func (l last) next(o observation) float64 { return o.demand * (1 + l.margin) }

// window keeps the last values of a series, and their maximum.
type window struct {
	values []float64
	at     int
}

// newWindow spans so many seconds, and so many intervals at least.
func newWindow(seconds float64, steps int, s *script) window {
	return window{values: make([]float64, max(steps, int(math.Ceil(seconds/s.interval.Seconds()))))}
}

func (w *window) add(v float64) float64 {
	w.values[w.at] = v
	w.at = (w.at + 1) % len(w.values)
	return slices.Max(w.values)
}

// windowMax is control-window-max: the highest demand of a window and a margin.
type windowMax struct {
	window
	margin float64
}

func (w *windowMax) next(o observation) float64 { return w.add(o.demand) * (1 + w.margin) }

// ewma is control-ewma: exponentially weighted mean and standard deviation of
// demand (West 1979), the mean plus so many deviations.
type ewma struct {
	sigmas         float64
	mean, variance float64
	started        bool
}

// ewmaWeight is the newest sample's: half of the past is forgotten in 6.6.
const ewmaWeight = 0.1

func (e *ewma) next(o observation) float64 {
	if !e.started {
		e.mean, e.started = o.demand, true
	}
	d := o.demand - e.mean
	e.mean += ewmaWeight * d
	e.variance = (1 - ewmaWeight) * (e.variance + ewmaWeight*d*d)
	return e.mean + e.sigmas*math.Sqrt(e.variance)
}

// reactive is control-reactive: a step up as soon as pressure is told of, down
// to what a short window needed at most.
type reactive struct {
	window
	step float64
}

func (c *reactive) next(o observation) float64 {
	want := c.add(o.demand) * (1 + c.step)
	if o.starved {
		want = max(want, o.allocation)
	}
	return want
}

func (c *reactive) pressed(allocation float64) float64 { return allocation * (1 + c.step) }
