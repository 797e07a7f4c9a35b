package backtest

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// seasonal returns n values of a season of 12 with a trend, noise and an offset.
func seasonal(n int, offset float64) []float64 {
	r := rand.New(rand.NewPCG(1, 2))
	ys := make([]float64, n)
	for t := range ys {
		ys[t] = offset + 10*math.Sin(2*math.Pi*float64(t)/12) + 0.05*float64(t) + r.NormFloat64()
	}
	return ys
}

func TestAheadForecastsSeriesOfAnyUnit(t *testing.T) {
	whole := seasonal(212, 0)
	for name, unit := range map[string]struct{ offset, size float64 }{
		"demand": {100, 1}, "around 0": {0, 1}, "below 0": {-1000, 1}, "astronomical": {0, 1e30}, "tiny": {0, 1e-12},
	} {
		t.Run(name, func(t *testing.T) {
			ys := slices.Clone(whole)
			for i := range ys {
				ys[i] = (ys[i] + unit.offset) * unit.size
			}
			f, err := Ahead(ys[:200], Options{Horizon: 12, Seasons: []int{12}, Levels: []float64{0.025, 0.5, 0.975}})
			if err != nil {
				t.Fatal(err)
			}
			var miss float64
			for k, y := range ys[200:] {
				miss += math.Abs(f.Mean[k]-y) / unit.size / 12
				if q := f.Quantiles[k]; !(q[0] < q[1] && q[1] < q[2]) {
					t.Errorf("step %d: quantiles %v", k+1, q)
				}
			}
			if miss > 3 { // the season's own deviation is 7
				t.Errorf("mean error %.2f, in a series with noise of 1", miss)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		"horizon 30 is longer than the series of 20": {Horizon: 30},
		"season 24 is longer than the series of 20":  {Horizon: 3, Seasons: []int{24}},
		`model "prophet" unknown`:                    {Horizon: 3, Model: "prophet"},
		"quantiles [2]":                              {Horizon: 3, Levels: []float64{2}},
	} {
		if _, err := Ahead(make([]float64, 20), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestNewPlan(t *testing.T) {
	tests := map[string]struct {
		n, horizon, origins int
		want                []int
	}{
		"few":               {13, 6, 100, []int{6, 7}},
		"spread":            {100, 10, 5, []int{50, 60, 70, 80, 90}},
		"one":               {100, 10, 1, []int{90}},
		"horizon past half": {10, 8, 100, []int{2}},
	}
	for name, test := range tests {
		p, err := NewPlan(seasonal(test.n, 0), Options{Horizon: test.horizon}, nil, 1, test.origins)
		if err != nil || !slices.Equal(p.Origins, test.want) {
			t.Errorf("%s: got %v, %v, want %v", name, p.Origins, err, test.want)
		}
	}
	if _, err := NewPlan(make([]float64, 50), Options{Horizon: 5}, nil, 1, 10); !errors.Is(err, ErrConstant) {
		t.Errorf("a constant series: got %v", err)
	}
	if _, err := NewPlan(seasonal(5, 0), Options{Horizon: 5}, nil, 1, 10); err == nil || !strings.Contains(err.Error(), "want more than the horizon of 5") {
		t.Errorf("no value to start from: got %v", err)
	}
}

func TestPlanIsWithinTheSeries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 3000).Draw(t, "n")
		horizon := rapid.IntRange(1, n-1).Draw(t, "horizon")
		origins := rapid.IntRange(1, 300).Draw(t, "origins")
		p, err := NewPlan(seasonal(n, 0), Options{Horizon: horizon}, nil, 1, origins)
		if err != nil {
			t.Fatal(err)
		}
		first, last := p.Origins[0], p.Origins[len(p.Origins)-1]
		if len(p.Origins) > origins || first < 1 || last != n-horizon || !slices.IsSorted(p.Origins) {
			t.Fatalf("origins %v", p.Origins)
		}
	})
}

// The naive forecast is known: its error can be counted by hand.
func TestRunScoresWhatTheForecasterSaid(t *testing.T) {
	ys := seasonal(300, 50)
	o := Options{Model: "naive", Horizon: 5, Levels: []float64{0.05, 0.5, 0.95}}
	p, err := NewPlan(ys, o, []int{1, 5}, 1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	scores, err := Run(ys, o, p)
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range p.Steps {
		var want float64
		for _, at := range p.Origins {
			want += math.Abs(ys[at+step-1]-ys[at-1]) / p.Scale / float64(len(p.Origins))
		}
		if math.Abs(scores[i].MASE-want) > 1e-9 || scores[i].N != len(p.Origins) {
			t.Errorf("step %d: %+v, want a MASE of %v", step, scores[i], want)
		}
	}
	all, err := Run(ys, o, Plan{Origins: p.Origins, Scale: p.Scale})
	if err != nil || len(all) != 1 || all[0].N != 5*len(p.Origins) {
		t.Errorf("all steps: %+v, %v", all, err)
	}
}

func TestRunPassesOverMissingValues(t *testing.T) {
	ys := seasonal(200, 50)
	for i := 120; i < 200; i += 7 {
		ys[i] = math.NaN()
	}
	o := Options{Horizon: 3}
	p, err := NewPlan(ys, o, nil, 1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	scores, err := Run(ys, o, p)
	if err != nil || math.IsNaN(scores[0].MASE) || scores[0].N >= 3*len(p.Origins) {
		t.Errorf("got %+v, %v", scores, err)
	}
}
