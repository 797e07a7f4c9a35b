package backtest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gnomon-vm/gnomon/core/accuracy"
)

// competition makes series like those of forecasting competitions: a level of
// any size, a drift, a season of its own shape and noise that lingers.
func competition(r *rand.Rand, n, season int) []float64 {
	level, drift, lingers := math.Pow(10, 2+2*r.Float64()), 0.003*r.NormFloat64(), 0.9*r.Float64()
	noise, walk := 0.01+0.06*r.Float64(), 0.01*r.Float64()
	shape := make([]float64, season)
	for i := range shape {
		shape[i] = 0.3*math.Sin(2*math.Pi*float64(i)/float64(season)) + 0.05*r.NormFloat64()
	}
	ys := make([]float64, n)
	var trend, error float64
	for t := range ys {
		trend += drift/float64(season)*12 + walk*r.NormFloat64()/math.Sqrt(float64(season)/12)
		error = lingers*error + noise*r.NormFloat64()
		ys[t] = level * math.Exp(trend+shape[t%season]+error)
	}
	return ys
}

// What follows series like those of competitions is forecast better than by
// repeating the last value or the last season, and within the intervals.
func TestSeriesLikeThoseOfCompetitions(t *testing.T) {
	for name, c := range map[string]struct{ shortest, longest, season, horizon, series int }{
		"monthly": {60, 300, 12, 18, 40},
		"hourly":  {700, 960, 24, 48, 12},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, uint64(c.season)))
			levels := []float64{0.025, 0.5, 0.975}
			auto, naive, seasonal := accuracy.NewTally(levels), accuracy.NewTally(nil), accuracy.NewTally(nil)
			for range c.series {
				n := c.shortest + r.IntN(c.longest-c.shortest+1)
				ys := competition(r, n+c.horizon, c.season)
				known, scale := ys[:n], accuracy.Scale(ys[:n], c.season)
				f, err := Ahead(known, Options{Horizon: c.horizon, Seasons: []int{c.season}, Levels: levels})
				if err != nil {
					t.Fatal(err)
				}
				for k, y := range ys[n:] {
					auto.Add(f.Mean[k], f.Quantiles[k], y, scale)
					naive.Add(known[n-1], nil, y, scale)
					seasonal.Add(known[n-c.season+k%c.season], nil, y, scale)
				}
			}
			a, b, s := auto.Score(), naive.Score(), seasonal.Score()
			t.Logf("auto %+v, MASE of naive %.3f, of seasonal naive %.3f", a, b.MASE, s.MASE)
			if a.MASE > 0.9*b.MASE || a.MASE > s.MASE {
				t.Errorf("MASE %.3f, of naive %.3f, of seasonal naive %.3f", a.MASE, b.MASE, s.MASE)
			}
			if a.Coverage < 0.85 || a.Interval > 10 {
				t.Errorf("the 95 %% interval covers %.1f %%, its score is %.1f", 100*a.Coverage, a.Interval)
			}
		})
	}
}
