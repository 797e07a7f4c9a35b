package report

import (
	"cmp"
	"math"
	"slices"
)

// Floor is the least share of time in violation that is told apart: less, none
// at all included, counts as 0.001 % on the logarithmic axis.
const Floor = 1e-5

// Point is one setting of a policy's knob: what share of the time demand
// exceeded the allocation, and what share of the allocation was not demanded.
type Point struct {
	Violation, Slack float64 // 0..1
	Knob             float64
}

// Curve is what a policy can reach: the points that no other point of its
// beats in both measures, in ascending violation, so descending slack.
type Curve []Point

// NewCurve returns the lower envelope of the points of one policy, which is the
// staircase of those that no other beats: an operator picks the knob, so a
// setting that costs more slack for no less violation is never picked.
func NewCurve(points []Point) Curve {
	sorted := make([]Point, 0, len(points))
	for _, p := range points {
		if math.IsNaN(p.Violation) || math.IsNaN(p.Slack) {
			continue
		}
		p.Violation = max(p.Violation, Floor)
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.Violation, b.Violation), cmp.Compare(a.Slack, b.Slack), cmp.Compare(a.Knob, b.Knob))
	})
	curve := Curve(sorted[:0])
	for _, p := range sorted {
		if len(curve) == 0 || p.Slack < curve[len(curve)-1].Slack {
			curve = append(curve, p)
		}
	}
	return curve
}

// Reading is a value of a curve.
type Reading struct {
	Slack float64 // 0..1; +Inf where the policy never keeps the target

	// Bound tells that even the loosest setting tried keeps the target with
	// something to spare: the slack is at most this.
	Bound bool
}

// Reached reports whether the policy keeps the target at all.
func (r Reading) Reached() bool { return !math.IsInf(r.Slack, 1) }

// At returns the slack at which the policy keeps violation at the target, a
// share above Floor: between two points by a straight line over the logarithm
// of the violation, beyond the last point that point's, never extrapolated.
func (c Curve) At(target float64) Reading {
	i := slices.IndexFunc(c, func(p Point) bool { return p.Violation > target })
	switch {
	case len(c) == 0 || i == 0:
		return Reading{Slack: math.Inf(1)}
	case i < 0:
		last := c[len(c)-1]
		return Reading{Slack: last.Slack, Bound: last.Violation < target}
	}
	a, b := c[i-1], c[i]
	part := math.Log(target/a.Violation) / math.Log(b.Violation/a.Violation)
	return Reading{Slack: a.Slack + part*(b.Slack-a.Slack)}
}
