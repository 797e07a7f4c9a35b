package forecast

import (
	"math"
	"testing"
)

// A multiplicative season is continued where there is one, and given up where
// values come near 0.
func TestMultiplicativeSeason(t *testing.T) {
	at := func(t int) float64 {
		return (200 + 3*float64(t)) * (1 + 0.4*math.Sin(2*math.Pi*float64(t)/12))
	}
	ys := make([]float64, 120)
	for t := range ys {
		ys[t] = at(t)
	}
	m := &winters{multiplicative: true}
	s := newSeries(12)
	for _, y := range ys {
		s.push(y)
		m.observe(s)
		m.refit(s)
	}
	if !m.ready(s) {
		t.Fatal("not ready with ten seasons above 0")
	}
	dst := make([]float64, 12)
	m.path(s, dst)
	for k, got := range dst {
		if want := at(120 + k); math.Abs(got-want) > 0.05*want {
			t.Errorf("%v at step %d, want %v", got, k+1, want)
		}
	}
	s.push(0)
	m.observe(s)
	m.refit(s)
	if m.ready(s) {
		t.Error("still ready after a value of 0")
	}
	for range 2 * refitPeriod {
		s.push(100)
		m.observe(s)
		m.refit(s)
	}
	if m.ready(s) {
		t.Error("ready while a 0 is in the window")
	}
}

// Two seasons at once, one four times the other, are told apart.
func TestSeveralSeasons(t *testing.T) {
	at := func(t int) float64 {
		return 500 + 60*math.Sin(2*math.Pi*float64(t)/12) + 150*math.Cos(2*math.Pi*float64(t)/96)
	}
	w := &fitting{}
	m := &multiSeason{}
	ys := make([]float64, 480)
	noise := signal("white", 6, len(ys))
	for t := range ys {
		ys[t] = at(t) + (noise[t]-100)/5
	}
	m.fit(ys, []int{12, 96})
	dst := make([]float64, 96)
	m.path(nil, dst)
	for k, got := range dst {
		if want := at(480 + k); math.Abs(got-want) > 10 {
			t.Errorf("%.1f at step %d, want %.1f", got, k+1, want)
		}
	}
	level := m.begin(w, ys, []int{12, 96})
	if math.Abs(level-mean(ys[:12])) > 1e-9 || len(m.seasons[0].value) != 12 || len(m.seasons[1].value) != 96 {
		t.Errorf("level %v, seasons %d", level, m.n)
	}
	var centre float64
	for _, v := range w.values[:12] {
		centre += v
	}
	if math.Abs(centre) > 1e-6 {
		t.Errorf("terms of the short season sum to %v, want 0", centre)
	}
}

// A second season is found in what the first leaves.
func TestFindsASecondSeason(t *testing.T) {
	noise := signal("white", 16, 900)
	at := func(t int) float64 {
		return 500 + 200*math.Sin(2*math.Pi*float64(t)/24) + 60*math.Cos(2*math.Pi*float64(t)/168)
	}
	for name, c := range map[string]struct {
		at   func(int) float64
		want []int
	}{
		"two": {at, []int{24, 168}},
		"one": {func(t int) float64 { return 500 + 200*math.Sin(2*math.Pi*float64(t)/24) }, []int{24}},
	} {
		s := newSeries(24)
		m := &multiSeason{}
		for i := range noise {
			s.push(c.at(i) + noise[i] - 100)
			m.observe(s)
			m.refit(s)
		}
		dst := make([]float64, 168)
		m.path(s, dst)
		var sum float64
		for k, v := range dst {
			sum += math.Abs(v-c.at(900+k)) / 168
		}
		if m.n != len(c.want) || sum > 15 { // of 38 without the second season
			t.Errorf("%s: %d seasons found, mean error %.1f, want %v and under 15", name, m.n, sum, c.want)
		}
		for i := range min(m.n, len(c.want)) {
			if got := len(m.seasons[i].value); got < c.want[i]-2 || got > c.want[i]+2 {
				t.Errorf("%s: season of %d steps, want about %d", name, got, c.want[i])
			}
		}
	}
}

// An error carries over to the next steps as far as errors have so far.
func TestErrorsCarryOver(t *testing.T) {
	m := &multiSeason{n: 1, level: 100, rho: 0.5}
	m.seasons[0].value = []float64{0, 10}
	m.step(120)
	dst := make([]float64, 3)
	m.path(nil, dst)
	for k, want := range []float64{100 + 10 + 10, 100 + 5, 100 + 10 + 2.5} {
		if math.Abs(dst[k]-want) > 1e-9 {
			t.Errorf("%v at step %d, want %v", dst[k], k+1, want)
		}
	}
}

// Coefficients move from one process to another between two fits.
func TestArimaFollows(t *testing.T) {
	m := &arima{}
	ys := signal("ar", 21, 600)
	m.fit(ys[:256], 10, 0)
	if !m.fitted || m.gain == nil {
		t.Fatal("not fitted")
	}
	m.order(2, 0, true, false, false)
	x, e := make([]float64, 256), make([]float64, 256)
	for t := range x {
		x[t] = ys[t] / 10
	}
	m.d, m.coef = 0, [regressors]float64{0: 20, 1: 0, 2: 0} // wrong: no memory
	m.gain = m.inverse(crossProducts(x, e, 0, longAR))
	m.sigma = 2
	for t := 256; t <= len(ys); t++ {
		m.follow(ys[:t])
	}
	if math.Abs(m.coef[1]-1.2) > 0.35 || math.Abs(m.coef[2]+0.5) > 0.35 {
		t.Errorf("coefficients %.2f after 344 samples, want about 1.2, -0.5", m.coef[1:3])
	}
	if !m.calm() {
		t.Errorf("coefficients %v are not stable", m.coef)
	}
}

// With a season ARIMA foresees what it cannot without.
func TestArimaKnowsTheSeason(t *testing.T) {
	ys := signal("square", 17, 400)
	s := newSeries(12)
	m := &arima{}
	var sum, n float64
	dst := make([]float64, 12)
	for i, y := range ys[:388] {
		s.push(y)
		m.observe(s)
		m.refit(s)
		if i < 300 {
			continue
		}
		m.path(s, dst)
		for k, v := range dst {
			sum += math.Abs(v - ys[i+1+k])
			n++
		}
	}
	if m.season != 12 || sum/n > 60 {
		t.Errorf("season %d, mean error %.1f, want under 60 of values from 60 to 600", m.season, sum/n)
	}
}

// Three seasons are enough for the seasonal models to continue trend and shape.
func TestShortSeasonalSeries(t *testing.T) {
	at := func(t int) float64 {
		return 300 + 2*float64(t) + 80*math.Sin(2*math.Pi*float64(t)/12)
	}
	for _, name := range []string{"holt-winters", "holt-winters-mul", "theta", "multi-season"} {
		f := newForecaster(t, Options{Model: name, Horizon: 18, Season: 12})
		noise := signal("white", 30, 38)
		for i := range 38 {
			f.Update(at(i) + (noise[i]-100)/2)
		}
		fc := f.Forecast()
		var sum float64
		for k, got := range fc.Mean {
			sum += math.Abs(got-at(38+k)) / float64(len(fc.Mean))
		}
		if fc.Model != name || sum > 35 {
			t.Errorf("%s: mean error %.1f by %s, want under 35 in a season of +-80", name, sum, fc.Model)
		}
	}
}

// The Theta method takes no season from noise.
func TestThetaTestsTheSeason(t *testing.T) {
	if ys := signal("white", 3, 120); isSeasonal(ys, 12) {
		t.Error("noise seems seasonal")
	}
	if ys := signal("season", 3, 120); !isSeasonal(ys, 30) {
		t.Error("a wave seems to have no season")
	}
	if isSeasonal(make([]float64, 60), 12) {
		t.Error("a constant seems seasonal")
	}
}
