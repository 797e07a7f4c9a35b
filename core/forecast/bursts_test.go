package forecast

import (
	"math"
	"math/rand/v2"
	"testing"
)

// bursts is an on/off series: every period steps, jittered, a burst of length
// steps at high, else low, each with a tenth of noise. It returns the series
// and the indices at which bursts begin.
func bursts(seed uint64, n, period, jitter, length int, low, high float64) (ys []float64, onsets []int) {
	r := rand.New(rand.NewPCG(seed, 1))
	noisy := func(v float64) float64 { return max(0, v*(1+0.1*r.NormFloat64())) }
	next := period - length + r.IntN(2*jitter+1) - jitter
	for len(ys) < n {
		for len(ys) < n && len(ys) < next {
			ys = append(ys, noisy(low))
		}
		if len(ys) < n {
			onsets = append(onsets, len(ys))
		}
		for i := 0; i < length && len(ys) < n; i++ {
			ys = append(ys, noisy(high))
		}
		next += period + r.IntN(2*jitter+1) - jitter
	}
	return ys, onsets
}

// ramps is a memory-like series: up over rise steps, flat, released at once.
func ramps(seed uint64, n, period, jitter, rise, flat int, low, high float64) (ys []float64, onsets []int) {
	r := rand.New(rand.NewPCG(seed, 2))
	next := period - rise - flat + r.IntN(2*jitter+1) - jitter
	for len(ys) < n {
		for len(ys) < n && len(ys) < next {
			ys = append(ys, low*(1+0.02*r.NormFloat64()))
		}
		if len(ys) < n {
			onsets = append(onsets, len(ys))
		}
		for i := 1; i <= rise+flat && len(ys) < n; i++ {
			v := low + (high-low)*min(1, float64(i)/float64(rise))
			ys = append(ys, v*(1+0.02*r.NormFloat64()))
		}
		next += period + r.IntN(2*jitter+1) - jitter
	}
	return ys, onsets
}

func newForecaster(t testing.TB, o Options) *Forecaster {
	t.Helper()
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// foresight feeds ys and counts, after warm-up, for how many onsets the 0.9
// quantile of the first three steps exceeded bar just before, and at how many
// moments with no onset in reach it did not.
func foresight(t testing.TB, f *Forecaster, ys []float64, onsets []int, warm, length, calm int, bar float64) (seen, bursts, low, quiet int) {
	t.Helper()
	since := math.MaxInt
	k := 0
	for i, y := range ys {
		f.Update(y)
		for k < len(onsets) && onsets[k] <= i {
			since = onsets[k]
			k++
		}
		if i < warm {
			continue
		}
		high := 0.0
		for _, q := range f.Forecast().Quantiles[:3] {
			high = max(high, q[2])
		}
		if k < len(onsets) && onsets[k] == i+1 {
			bursts++
			if high > bar {
				seen++
			}
		}
		if idle := i - since - length; since <= i && idle >= 1 && idle <= calm {
			quiet++
			if high <= bar {
				low++
			}
		}
	}
	return seen, bursts, low, quiet
}

func TestForeseesJitteredBursts(t *testing.T) {
	foresees(t, func(seed uint64) ([]float64, []int) { return bursts(seed, 180, 12, 1, 4, 60, 600) }, 60, 4, 2, 300)
}

func TestForeseesRamps(t *testing.T) {
	foresees(t, func(seed uint64) ([]float64, []int) { return ramps(seed, 240, 20, 1, 6, 3, 2e8, 8e8) }, 80, 9, 5, 3.5e8)
}

// foresees wants of twenty series that two thirds of onsets are foreseen and most
// calm moments are not taken for one.
func foresees(t *testing.T, draw func(seed uint64) (ys []float64, onsets []int), warm, length, calm int, bar float64) {
	t.Helper()
	var seen, all, low, quiet int
	for seed := range uint64(20) {
		ys, onsets := draw(seed)
		f := newForecaster(t, Options{Horizon: 5})
		s, b, l, q := foresight(t, f, ys, onsets, warm, length, calm, bar)
		seen, all, low, quiet = seen+s, all+b, low+l, quiet+q
		t.Logf("seed %d: %d of %d onsets foreseen, %d of %d calm moments low, model %s", seed, s, b, l, q, f.Forecast().Model)
	}
	t.Logf("%d of %d, %d of %d", seen, all, low, quiet)
	if seen*3 < all*2 {
		t.Errorf("foresaw %d of %d onsets, want two thirds", seen, all)
	}
	if low*2 < quiet {
		t.Errorf("low at %d of %d calm moments, want most", low, quiet)
	}
}

func BenchmarkAuto(b *testing.B) {
	ys, _ := bursts(1, 4096, 12, 1, 4, 60, 600)
	f := newForecaster(b, Options{Horizon: 10})
	f.Train(ys[:2048])
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		f.Update(ys[2048+i%2048])
		f.Forecast()
		i++
	}
}
