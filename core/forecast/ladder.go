package forecast

import (
	"math"
	"slices"
)

const (
	// waiting is about how many forecasts of one step wait for their outcome;
	// for longer steps only every so-many-th forecast is followed up.
	waiting = 24
	// lossMemory is over how many samples losses count, in the mean: half in 35.
	// A forecast's outcomes have little to do with each other only from its step
	// on, so of longer ones they count over so many steps at least.
	lossMemory  = 50.0
	stepsMemory = 4.0
)

// ladder holds the steps of a horizon at which forecasts are followed up,
// ascending. What is learned there is interpolated for the steps between.
type ladder []rung

// rung is one such step.
type rung struct {
	step   int
	stride int     // every so-many-th forecast is followed up
	slots  int     // forecasts waiting for their outcome, at most
	decay  float64 // discount of losses per score
}

func newLadder(horizon int) ladder {
	// Spreads grow with the logarithm or the root of the step: close at first.
	steps := []int{1, max(1, horizon/12), max(min(2, horizon), horizon/6), max(1, horizon/2), horizon}
	slices.Sort(steps)
	var l ladder
	for _, step := range slices.Compact(steps) {
		stride := (step + waiting - 1) / waiting
		l = append(l, rung{
			step: step, stride: stride, slots: step/stride + 1,
			decay: math.Exp(-float64(stride) / max(lossMemory, stepsMemory*float64(step))),
		})
	}
	return l
}

// delay returns how many forecasts are made before the first one's outcome is
// known.
func (r rung) delay() float64 { return float64(r.step) / float64(r.stride) }

// slot returns where the forecast made at count is kept, and false if that one
// is not followed up.
func (r rung) slot(count int) (int, bool) {
	if count <= 0 || count%r.stride != 0 {
		return 0, false
	}
	return count / r.stride % r.slots, true
}

// between returns the rungs around a step and how far it is from the first to
// the second, 0 to 1.
func (l ladder) between(step int) (a, b int, far float64) {
	for b < len(l)-1 && l[b].step < step {
		b++
	}
	a = max(0, b-1)
	if a == b || step >= l[b].step {
		return b, b, 0
	}
	return a, b, float64(step-l[a].step) / float64(l[b].step-l[a].step)
}

// longest returns the longest step whose forecast at count is followed up, 0 if
// there is none.
func (l ladder) longest(count int) int {
	for i := len(l) - 1; i >= 0; i-- {
		if _, ok := l[i].slot(count); ok {
			return l[i].step
		}
	}
	return 0
}
