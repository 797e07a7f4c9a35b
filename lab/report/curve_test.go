package report

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestCurveKeepsWhatNothingBeats(t *testing.T) {
	c := NewCurve([]Point{
		{0.1, 0.2, 1},
		{0.001, 0.6, 4},
		{0.01, 0.7, 3}, // beaten by knob 4
		{0, 0.9, 5},
		{0.1, 0.3, 2}, // beaten by knob 1
		{math.NaN(), 0, 6},
	})
	want := Curve{{Floor, 0.9, 5}, {0.001, 0.6, 4}, {0.1, 0.2, 1}}
	if len(c) != len(want) {
		t.Fatalf("curve %v, want %v", c, want)
	}
	for i := range want {
		if c[i] != want[i] {
			t.Errorf("point %d is %v, want %v", i, c[i], want[i])
		}
	}
}

func TestAt(t *testing.T) {
	c := Curve{{0.0001, 0.8, 3}, {0.01, 0.4, 2}, {0.1, 0.1, 1}}
	for _, test := range []struct {
		target, slack float64
		bound         bool
	}{
		{0.001, 0.6, false}, // half way between 0.0001 and 0.01 in the logarithm
		{0.01, 0.4, false},
		{0.1, 0.1, false},
		{0.5, 0.1, true}, // not extrapolated
		{0.00005, math.Inf(1), false},
	} {
		got := c.At(test.target)
		if math.Abs(got.Slack-test.slack) > 1e-12 || got.Bound != test.bound {
			t.Errorf("at %v: %+v, want %v, bound %v", test.target, got, test.slack, test.bound)
		}
	}
	if got := (Curve{}).At(0.01); got.Reached() {
		t.Errorf("a curve without points is kept: %+v", got)
	}
}

// A curve descends, no point lies below it, and reading it at looser targets
// never needs more slack.
func TestCurveIsALowerEnvelope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Point {
			return Point{rapid.Float64Range(0, 1).Draw(t, "violation"), rapid.Float64Range(0, 1).Draw(t, "slack"), rapid.Float64Range(-5, 5).Draw(t, "knob")}
		}), 1, 15).Draw(t, "points")
		c := NewCurve(points)
		for i := 1; i < len(c); i++ {
			if c[i].Violation <= c[i-1].Violation || c[i].Slack >= c[i-1].Slack {
				t.Fatalf("curve %v does not descend", c)
			}
		}
		for _, p := range points {
			if got := c.At(max(p.Violation, Floor)); got.Slack > p.Slack+1e-12 {
				t.Fatalf("a setting reaches %v, the curve there %v", p, got)
			}
		}
		last := math.Inf(1)
		for _, target := range []float64{0.0001, 0.001, 0.01, 0.1, 1} {
			got := c.At(target)
			if got.Slack > last+1e-12 {
				t.Fatalf("more slack at %v than at less violation", target)
			}
			last = got.Slack
		}
	})
}
