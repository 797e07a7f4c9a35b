package forecast

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// Whatever the excesses, quantiles beyond the followed ones ascend and are finite.
func TestTailAscends(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newTail(true)
		for _, v := range rapid.SliceOfN(rapid.Float64Range(0, 1e12), 0, 200).Draw(t, "excesses") {
			x.add(v)
		}
		last := 0.0
		for _, level := range []float64{tailLevel, 0.976, 0.98, 0.99, 0.995, 0.999, 0.9999, 0.99999, 1 - 1e-9, 1 - 1e-16} {
			v := x.quantile(level)
			if !(v >= last) || math.IsInf(v, 1) {
				t.Fatalf("level %v: %v units, after %v", level, v, last)
			}
			last = v
		}
	})
}

// The quantiles of a distribution are found from a few dozen excesses, with the
// error that so few allow: as its tail is exponential or heavy.
func TestTailIsFound(t *testing.T) {
	for name, index := range map[string]float64{"exponential": 0, "heavy": 0.3} {
		truth := func(level float64) float64 { // generalised Pareto of scale 0.3
			p := (1 - level) / (1 - tailLevel)
			if index == 0 {
				return -0.3 * math.Log(p)
			}
			return 0.3 / index * (math.Pow(p, -index) - 1)
		}
		r := rand.New(rand.NewPCG(3, 4))
		for _, level := range []float64{0.99, 0.999, 0.99999} {
			var ratio float64
			const trials = 200
			for range trials {
				x := newTail(true)
				for range 60 {
					x.add(truth(1 - (1-tailLevel)*r.Float64()))
				}
				ratio += math.Log(x.quantile(level)/truth(level)) / trials
			}
			if off := math.Exp(ratio); off < 0.65 || off > 1.5 {
				t.Errorf("%s: the %v quantile is found %.2f times as far out as it is", name, level, off)
			}
		}
	}
}

// A rare quantile is exceeded as rarely as it claims, with few samples too.
func TestRareQuantiles(t *testing.T) {
	const series, n, warm = 12, 1200, 100
	o := Options{Horizon: 2, Quantiles: []float64{0.5, 0.99, 0.999, 0.99999}}
	for _, name := range []string{"white", "skewed", "ar"} {
		over := make([]float64, len(o.Quantiles))
		for seed := range uint64(series) {
			f := newForecaster(t, o)
			for i, y := range signal(name, seed, n) {
				if i >= warm {
					for q, v := range f.Forecast().Quantiles[0] {
						if y > v {
							over[q] += 1.0 / (series * (n - warm))
						}
					}
				}
				f.Update(y)
			}
		}
		t.Logf("%s: %.5f", name, over)
		for q, level := range o.Quantiles[1:] {
			if share := over[q+1]; share > 2*(1-level)+2e-4 || level < 0.999 && share < (1-level)/3 {
				t.Errorf("%s: %.5f above the %v quantile", name, share, level)
			}
		}
	}
}

// A series that never changes has no tail.
func TestTailOfAConstant(t *testing.T) {
	f := newForecaster(t, Options{Horizon: 3, Quantiles: []float64{0.0001, 0.5, 0.9999}})
	for range 200 {
		f.Update(42)
	}
	for _, v := range f.Forecast().Quantiles[2] {
		if v != 42 {
			t.Errorf("quantiles %v of a constant 42", f.Forecast().Quantiles[2])
		}
	}
}
