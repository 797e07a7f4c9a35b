package forecast

import (
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// signal is a stationary series by name.
func signal(name string, seed uint64, n int) []float64 {
	r := rand.New(rand.NewPCG(seed, 3))
	ys := make([]float64, n)
	var a, b, last float64
	for t := range ys {
		e := r.NormFloat64()
		switch name {
		case "white":
			ys[t] = 100 + 10*e
		case "skewed":
			ys[t] = 100 * math.Exp(0.5*e)
		case "ar":
			a, b = 1.2*a-0.5*b+10*e, a
			ys[t] = 200 + a
		case "ma":
			ys[t] = 200 + 10*e + 6*last
		case "season":
			ys[t] = 300 + 100*math.Sin(2*math.Pi*float64(t)/30) + 10*e
		case "square":
			ys[t] = 60 + 6*e
			if t%12 >= 8 {
				ys[t] += 540 + 54*e
			}
		case "walk":
			a += 5 * e
			ys[t] = 5000 + a
		case "trend":
			ys[t] = 1000 + 3*float64(t) + 10*e
		default:
			panic(name)
		}
		last = e
	}
	return ys
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		o    Options
		want string
	}{
		{Options{Model: "oracle", Horizon: 5}, `model "oracle" unknown: want one of auto, naive,`},
		{Options{Horizon: 0}, "horizon 0 out of range: want 1 to 3600"},
		{Options{Horizon: 3601}, "horizon 3601 out of range"},
		{Options{Horizon: 5, Season: 1}, "season 1 out of range: want 0 (find it) or 2 to 512"},
		{Options{Horizon: 5, Season: 513}, "season 513"},
		{Options{Horizon: 5, Season: -1}, "season -1"},
		{Options{Horizon: 5, Seasons: []int{7}}, "seasons [7]: want a main season too"},
		{Options{Horizon: 5, Season: 7, Seasons: []int{7}}, "7 given twice"},
		{Options{Horizon: 5, Season: 7, Seasons: []int{8, 1}}, "1 out of range"},
		{Options{Horizon: 5, Season: 7, Seasons: []int{8, 9, 10}}, "want at most 2"},
		{Options{Horizon: 5, Quantiles: []float64{0.5, 0.5}}, "quantiles [0.5 0.5]: want ascending"},
		{Options{Horizon: 5, Quantiles: []float64{0.5, 1}}, "quantiles [0.5 1]"},
		{Options{Horizon: 5, Quantiles: []float64{0}}, "quantiles [0]"},
		{Options{Horizon: 5, Quantiles: []float64{math.NaN()}}, "quantiles [NaN]"},
		{Options{Horizon: 5, Quantiles: make([]float64, 17)}, "quantiles: 17 given: want at most 16"},
	}
	for _, tt := range tests {
		if _, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.o, err, tt.want)
		}
	}
	for _, m := range Models() {
		if _, err := New(Options{Model: m, Horizon: 1}); err != nil {
			t.Error(err)
		}
	}
}

// check fails unless the forecast is well formed.
func check(t interface{ Fatalf(string, ...any) }, o Options, f Forecast) {
	if !slices.Contains(Models()[1:], f.Model) {
		t.Fatalf("model %q", f.Model)
	}
	if len(f.Mean) != o.Horizon || len(f.Quantiles) != o.Horizon {
		t.Fatalf("%d means and %d quantiles for a horizon of %d", len(f.Mean), len(f.Quantiles), o.Horizon)
	}
	good := func(v float64) bool { return v >= 0 && v <= maxValue }
	for k, qs := range f.Quantiles {
		if !good(f.Mean[k]) || len(qs) != len(f.Levels) {
			t.Fatalf("step %d: mean %v, quantiles %v", k, f.Mean[k], qs)
		}
		for q, v := range qs {
			if !good(v) || q > 0 && v < qs[q-1] {
				t.Fatalf("step %d: quantiles %v", k, qs)
			}
		}
	}
}

// coverage returns, per step of the horizon, the share of outcomes that were at
// most each quantile.
func coverage(t *testing.T, o Options, ys []float64, warm int) [][]float64 {
	t.Helper()
	f := newForecaster(t, o)
	below := make([][]float64, o.Horizon)
	for k := range below {
		below[k] = make([]float64, len(o.Quantiles))
	}
	n := float64(len(ys) - warm - o.Horizon)
	for i, y := range ys[:len(ys)-o.Horizon] {
		f.Update(y)
		if i < warm {
			continue
		}
		for k, qs := range f.Forecast().Quantiles {
			for q, v := range qs {
				if ys[i+1+k] <= v {
					below[k][q] += 1 / n
				}
			}
		}
	}
	return below
}

func TestIntervalsCover(t *testing.T) {
	for _, name := range []string{"white", "skewed", "ar", "ma", "season", "square"} {
		ys := signal(name, 11, 1200)
		for _, model := range Models() {
			o := Options{Model: model, Horizon: 10, Quantiles: []float64{0.05, 0.5, 0.95}}
			c := coverage(t, o, ys, 100)
			for _, r := range newLadder(o.Horizon) {
				step := r.step
				low, high := c[step-1][0], c[step-1][2]
				if inside := high - low; inside < 0.86 || inside > 0.94 {
					t.Errorf("%s, %s, step %d: %.3f inside the 90 %% interval", name, model, step, inside)
				}
				if math.Abs(high-0.95) > 0.03 {
					t.Errorf("%s, %s, step %d: %.3f below the 0.95 quantile", name, model, step, high)
				}
			}
			if model != Auto {
				continue
			}
			for k := range c { // between the probes, as interpolated
				if inside := c[k][2] - c[k][0]; inside < 0.85 || inside > 0.95 {
					t.Errorf("%s, step %d: %.3f inside the 90 %% interval", name, k+1, inside)
				}
			}
		}
	}
}

// meanLoss returns the mean loss over steps and quantiles after warm samples.
func meanLoss(t *testing.T, o Options, ys []float64, warm int) float64 {
	t.Helper()
	f := newForecaster(t, o)
	var sum, n float64
	for i := 0; i+o.Horizon < len(ys); i++ {
		f.Update(ys[i])
		if i < warm {
			continue
		}
		fc := f.Forecast()
		for k, qs := range fc.Quantiles {
			for j, level := range fc.Levels {
				e := ys[i+1+k] - qs[j]
				sum += max(level*e, (level-1)*e)
				n++
			}
		}
	}
	return sum / n
}

// Auto is nearly as good as the best model is in hindsight.
func TestAutoIsNearTheBest(t *testing.T) {
	series := map[string][]float64{}
	for _, name := range []string{"white", "ar", "season", "square", "walk", "trend"} {
		series[name] = signal(name, 5, 900)
	}
	series["bursts"], _ = bursts(5, 900, 12, 1, 4, 60, 600)
	series["ramps"], _ = ramps(5, 900, 20, 2, 6, 3, 2e8, 8e8)
	for name, ys := range series {
		best, by := math.Inf(1), ""
		for _, model := range Models()[1:] {
			if loss := meanLoss(t, Options{Model: model, Horizon: 10}, ys, 150); loss < best {
				best, by = loss, model
			}
		}
		auto := meanLoss(t, Options{Horizon: 10}, ys, 150)
		t.Logf("%s: auto %.4g, %s %.4g", name, auto, by, best)
		if auto > 1.1*best {
			t.Errorf("%s: auto loses %.4g, %s alone %.4g", name, auto, by, best)
		}
	}
}

func TestAutoNamesAFittingModel(t *testing.T) {
	jittered, _ := bursts(2, 400, 12, 1, 4, 60, 600)
	tests := map[string]struct {
		ys   []float64
		want []string
	}{
		"season":   {signal("season", 2, 400), []string{"holt-winters"}},
		"trend":    {signal("trend", 2, 400), []string{"holt", "arima"}},
		"constant": {slices.Repeat([]float64{42}, 400), []string{"naive"}},
		"zero":     {make([]float64, 400), []string{"naive"}},
		"bursts":   {jittered, []string{"analog"}},
		"walk":     {signal("walk", 2, 400), []string{"naive", "ses", "arima"}},
	}
	for name, tt := range tests {
		f := newForecaster(t, Options{Horizon: 5})
		f.Train(tt.ys)
		if got := f.Forecast().Model; !slices.Contains(tt.want, got) {
			t.Errorf("%s: %s chosen, want one of %v", name, got, tt.want)
		}
	}
}

func TestAdaptsToANewRegime(t *testing.T) {
	flat := signal("white", 9, 400)
	on, onsets := bursts(9, 300, 12, 1, 4, 60, 600)
	for i := range onsets {
		onsets[i] += len(flat)
	}
	f := newForecaster(t, Options{Horizon: 5})
	seen, all, _, _ := foresight(t, f, append(slices.Clone(flat), on...), onsets, len(flat)+72, 4, 2, 300)
	if seen*3 < all*2 {
		t.Errorf("bursts began: foresaw %d of %d onsets from the seventh on", seen, all)
	}
	low := 0
	for i := range 100 {
		f.Update(60 + float64(i%7))
		if qs := f.Forecast().Quantiles; i >= 40 && max(qs[0][2], qs[1][2], qs[2][2]) < 300 {
			low++
		}
	}
	if low < 55 {
		t.Errorf("bursts ended: low at %d of 60 moments, want 55", low)
	}
	for range 30 {
		f.Update(2000)
	}
	if got := f.Forecast().Quantiles[4]; math.Abs(got[1]-2000) > 200 {
		t.Errorf("the level shifted to 2000: median %v after 30 samples", got[1])
	}
}

// Another unit changes nothing but the unit.
func TestScales(t *testing.T) {
	const unit = 1 << 20
	ys, _ := bursts(4, 500, 12, 1, 4, 60, 600)
	a, b := newForecaster(t, Options{Horizon: 5}), newForecaster(t, Options{Horizon: 5})
	for i, y := range ys {
		a.Update(y)
		b.Update(y * unit)
		x, z := a.Forecast(), b.Forecast()
		for k := range x.Mean {
			for q := range x.Levels {
				if u, v := x.Quantiles[k][q]*unit, z.Quantiles[k][q]; math.Abs(u-v) > 1e-6*u {
					t.Fatalf("sample %d, step %d: %v by %s, %v by %s in the other unit", i, k, u, x.Model, v, z.Model)
				}
			}
		}
	}
}

func TestIsDeterministic(t *testing.T) {
	ys, _ := bursts(4, 600, 12, 1, 4, 60, 600)
	other := signal("ar", 4, 600)
	a, b, c := newForecaster(t, Options{Horizon: 5}), newForecaster(t, Options{Horizon: 5}), newForecaster(t, Options{Horizon: 9})
	for i, y := range ys {
		a.Update(y)
		c.Update(other[i])
		c.Forecast()
		a.Forecast() // looking changes nothing
		b.Update(y)
		if x, z := a.Forecast(), b.Forecast(); !reflect.DeepEqual(x, z) {
			t.Fatalf("sample %d: %+v and %+v", i, x, z)
		}
	}
	a.Train(ys)
	b.Train(ys)
	if !reflect.DeepEqual(a.Forecast(), b.Forecast()) {
		t.Error("the same training gives different forecasts")
	}
}

func TestTrainingKnowsAtOnce(t *testing.T) {
	ys, onsets := bursts(6, 1500, 12, 1, 4, 60, 600)
	f := newForecaster(t, Options{Horizon: 5})
	f.Train(ys[:1400])
	if got := f.Forecast().Model; got != "analog" {
		t.Errorf("%s chosen after training, want analog", got)
	}
	seen, all := 0, 0
	for i, y := range ys[1400:] {
		f.Update(y)
		if slices.Contains(onsets, 1400+i+1) {
			all++
			if qs := f.Forecast().Quantiles; max(qs[0][2], qs[1][2], qs[2][2]) > 300 {
				seen++
			}
		}
	}
	if seen*3 < all*2 || all < 5 {
		t.Errorf("foresaw %d of %d onsets", seen, all)
	}
}

func TestNothingKnown(t *testing.T) {
	o := Options{Horizon: 3}
	f := newForecaster(t, o)
	f.Update(math.NaN())
	f.Update(math.Inf(1))
	f.Train([]float64{math.NaN(), math.NaN()})
	f.Train(nil)
	got := f.Forecast()
	check(t, o, got)
	if got.Model != "naive" || got.Quantiles[2][3] != 0 {
		t.Errorf("got %+v, want zeros", got)
	}
	f.Update(7)
	if got := f.Forecast(); got.Mean[2] != 7 {
		t.Errorf("got %v after one sample of 7", got.Mean)
	}
}

// A named model that lacks what it needs says that it was not used.
func TestNamesTheModelUsed(t *testing.T) {
	f := newForecaster(t, Options{Model: "holt-winters", Horizon: 5})
	for range 100 {
		f.Update(5)
	}
	if got := f.Forecast().Model; got != "naive" {
		t.Errorf("%s used without a season, want naive", got)
	}
	f.Train(signal("season", 1, 300))
	if got := f.Forecast().Model; got != "holt-winters" {
		t.Errorf("%s used, want holt-winters", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	ys, _ := bursts(4, 4000, 12, 1, 4, 60, 600)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 5
	before := heap()
	fs := make([]*Forecaster, n)
	for i := range fs {
		fs[i] = newForecaster(t, Options{Horizon: 10})
		for _, y := range ys {
			fs[i].Update(y)
		}
	}
	each := int(heap()-before) / n
	runtime.KeepAlive(fs)
	t.Logf("%d bytes each", each)
	if each > 64<<10 {
		t.Errorf("a forecaster holds %d bytes, want at most 64 KiB", each)
	}
}
