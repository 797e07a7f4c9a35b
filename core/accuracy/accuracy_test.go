package accuracy

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func near(a, b float64) bool {
	return math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= 1e-12*(1+math.Abs(b))
}

func TestMeasures(t *testing.T) {
	nan := math.NaN()
	tests := map[string]struct{ got, want float64 }{
		"pinball, too low":            {Pinball(0.9, 10, 14), 3.6},
		"pinball, too high":           {Pinball(0.9, 10, 6), 0.4},
		"pinball, exact":              {Pinball(0.9, 10, 10), 0},
		"interval, inside":            {IntervalScore(0.025, 0.975, 2, 5, 3), 3},
		"interval, below":             {IntervalScore(0.025, 0.975, 2, 5, 1), 3 + 2/0.05},
		"interval, above":             {IntervalScore(0.05, 0.95, 2, 5, 5.5), 3 + 2/0.1*0.5},
		"sMAPE":                       {SMAPE(90, 110), 20},
		"sMAPE, opposite signs":       {SMAPE(-1, 1), 200},
		"sMAPE, both 0":               {SMAPE(0, 0), 0},
		"scale, no season":            {Scale([]float64{1, 2, 4, 3}, 0), 4.0 / 3},
		"scale, season":               {Scale([]float64{1, 5, 2, 8, 3}, 2), 5.0 / 3},
		"scale, missing":              {Scale([]float64{1, nan, 4, 6}, 1), 2},
		"scale, constant":             {Scale([]float64{4, 4, 4}, 1), 0},
		"scale, season beyond series": {Scale([]float64{1, 2}, 7), 0},
	}
	for name, test := range tests {
		if !near(test.got, test.want) {
			t.Errorf("%s: got %v, want %v", name, test.got, test.want)
		}
	}
}

func TestTally(t *testing.T) {
	tally := NewTally([]float64{0.1, 0.5, 0.9})
	tally.Add(2, []float64{1, 2, 4}, 3, 2)
	tally.Add(2, []float64{1, 2, 4}, 6, 2)
	tally.Add(2, []float64{1, 2, 4}, math.NaN(), 2)
	want := Score{
		N: 2, MASE: (0.5 + 2) / 2, SMAPE: (40 + 100) / 2.0,
		Pinball:  ((0.2+0.5+0.1)/3 + (0.5+2+1.8)/3) / 2 / 2,
		Coverage: 0.5, Interval: (3 + 3 + 2/0.1) / 2 / 2,
	}
	got := tally.Score()
	if got.N != want.N || !near(got.MASE, want.MASE) || !near(got.SMAPE, want.SMAPE) || !near(got.Pinball, want.Pinball) ||
		!near(got.Coverage, want.Coverage) || !near(got.Interval, want.Interval) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	all := Average([]Score{want, {N: 4, MASE: 0.25, Coverage: 1}, {MASE: math.NaN()}})
	if all.N != 6 || !near(all.MASE, 0.75) || !near(all.Coverage, 0.75) {
		t.Errorf("average %+v", all)
	}
}

func TestTallyWithFewLevels(t *testing.T) {
	one := NewTally([]float64{0.5})
	one.Add(1, []float64{1}, 3, 1)
	if s := one.Score(); !near(s.Pinball, 1) || !math.IsNaN(s.Coverage) || !math.IsNaN(s.Interval) {
		t.Errorf("one level: %+v", s)
	}
	none := NewTally(nil)
	none.Add(1, nil, 3, 1)
	if s := none.Score(); !near(s.MASE, 2) || !math.IsNaN(s.Pinball) {
		t.Errorf("no level: %+v", s)
	}
}

// The sample's own quantile has the least pinball loss, the sample's own
// interval the least score: the scores are proper.
func TestScoresAreProper(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ys := rapid.SliceOfN(rapid.Float64Range(-100, 100), 20, 60).Draw(t, "outcomes")
		other := rapid.Float64Range(-100, 100).Draw(t, "another")
		level := rapid.SampledFrom([]float64{0.1, 0.25, 0.5, 0.9}).Draw(t, "level")
		slices.Sort(ys)
		at := func(p float64) float64 { return ys[int(math.Ceil(p*float64(len(ys))-1e-9))-1] }
		total := func(loss func(y float64) float64) (sum float64) {
			for _, y := range ys {
				sum += loss(y)
			}
			return sum
		}
		own := total(func(y float64) float64 { return Pinball(level, at(level), y) })
		if got := total(func(y float64) float64 { return Pinball(level, other, y) }); got < own-1e-9 {
			t.Fatalf("%v scores %v, the quantile %v itself %v", other, got, at(level), own)
		}
		low, high := at(0.1), at(0.9)
		own = total(func(y float64) float64 { return IntervalScore(0.1, 0.9, low, high, y) })
		if got := total(func(y float64) float64 { return IntervalScore(0.1, 0.9, min(low, other), max(high, other), y) }); got < own-1e-9 {
			t.Fatalf("a wider interval scores %v, the right one %v", got, own)
		}
	})
}
