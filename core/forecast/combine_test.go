package forecast

import (
	"math"
	"testing"
)

// A model that loses more has less weight; one that is asleep has none.
func TestWeights(t *testing.T) {
	l := newLadder(1)
	j := &newMixer(l, newLevels([]float64{0.5}), 3).at[0]
	j.scores = 30
	of := func(loss float64, awake bool) *tracker {
		return &tracker{prior: prior{1, 1}, awake: awake, at: []probe{{loss: loss}}}
	}
	j.weigh(0, []*tracker{of(33, true), of(30, true), of(1, false)}, nil, false, 0)
	if w := j.weights; w[2] != 0 || !(w[0] > 0 && w[1] > 5*w[0]) || math.Abs(w[0]+w[1]-1) > 1e-12 {
		t.Errorf("weights %v of losses 33, 30 and none", w)
	}
	j.scores = 1
	j.weigh(0, []*tracker{of(1.1, true), of(1, true), of(1, false)}, nil, false, 0)
	if w := j.weights; w[1] > 2*w[0] {
		t.Errorf("weights %v after one score each, of 1.1 and 1", w)
	}
}

// Coverage is made good whatever the quantile read is worth.
func TestCalibrationMakesGood(t *testing.T) {
	for _, level := range []float64{0.05, 0.5, 0.95} {
		c := newCalibration(level, 1)
		// Read from a distribution that is too narrow by half: uniform on ±0.5,
		// outcomes uniform on ±1 by the golden ratio.
		below, n := 0, 2000
		for i := range n {
			_, f := math.Modf(float64(i) * math.Phi)
			y := 2*f - 1
			p := c.adjusted()
			q := p - 0.5
			if tail := min(p, 1-p); tail < 0.02 { // exponential tails
				q = math.Copysign(0.48+0.2*math.Log(0.02/tail), p-0.5)
			}
			if y <= q {
				below++
			}
			c.judge(q+2, y+2)
		}
		if got := float64(below) / float64(n); math.Abs(got-level) > 0.01 {
			t.Errorf("%.3f below the %v quantile", got, level)
		}
	}
}

// A level or its noise that shifts is covered again a hundred samples later.
func TestCoverageRecovers(t *testing.T) {
	shifts := map[string]func(y float64) float64{
		"up":     func(y float64) float64 { return y + 300 },
		"down":   func(y float64) float64 { return y - 60 },
		"wilder": func(y float64) float64 { return 100 + 5*(y-100) },
		"calmer": func(y float64) float64 { return 100 + (y-100)/5 },
	}
	const at, series, after = 500, 8, 300
	o := Options{Horizon: 10, Quantiles: []float64{0.05, 0.5, 0.95}}
	for name, shift := range shifts {
		inside := map[int]float64{}
		for seed := range uint64(series) {
			ys := signal("white", seed, at+100+after+o.Horizon)
			for i := at; i < len(ys); i++ {
				ys[i] = shift(ys[i])
			}
			f := newForecaster(t, o)
			for i, y := range ys[:len(ys)-o.Horizon] {
				f.Update(y)
				if i < at+100 {
					continue
				}
				qs := f.Forecast().Quantiles
				for _, r := range f.ladder {
					if y := ys[i+r.step]; y >= qs[r.step-1][0] && y <= qs[r.step-1][2] {
						inside[r.step]++
					}
				}
			}
		}
		for step, n := range inside {
			share := n / (series * after)
			t.Logf("%s, step %d: %.3f", name, step, share)
			if share < 0.87 || share > 0.94 {
				t.Errorf("%s, step %d: the 90 %% interval holds %.3f from a hundred samples after the shift on", name, step, share)
			}
		}
	}
}

// Two seasons given are both followed from two of the longer one on.
func TestFurtherSeasonsAreFollowed(t *testing.T) {
	const day, week = 8, 56
	ys := make([]float64, 3*week)
	for i := range ys {
		ys[i] = 500 + 100*math.Sin(2*math.Pi*float64(i%day)/day)
		if i%week >= 5*day {
			ys[i] += 200
		}
	}
	f := newForecaster(t, Options{Model: "multi-season", Horizon: week, Season: day, Seasons: []int{week}})
	f.Train(ys)
	var worst float64
	for k, v := range f.Forecast().Mean {
		worst = max(worst, math.Abs(v-ys[k]))
	}
	if worst > 80 { // weekends are 200 higher
		t.Errorf("off by up to %.0f a week ahead, without noise", worst)
	}
}
