package forecast

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestPeriod(t *testing.T) {
	wave := func(n, period int, noise float64) []float64 {
		r := rand.New(rand.NewPCG(uint64(n), uint64(period)))
		ys := make([]float64, n)
		for t := range ys {
			ys[t] = 500 + 100*math.Sin(2*math.Pi*float64(t)/float64(period)) + noise*r.NormFloat64()
		}
		return ys
	}
	tilted := wave(500, 40, 20)
	for t := range tilted {
		tilted[t] += 2 * float64(t)
	}
	pair := make([]float64, 480) // two bursts per period, unlike each other
	for t := range pair {
		pair[t] = []float64{10, 10, 10, 400, 10, 10, 10, 900}[t%48/6]
	}
	tests := []struct {
		name   string
		ys     []float64
		lo, hi int
	}{
		{"wave", wave(300, 30, 10), 30, 30},
		{"noisy wave", wave(600, 30, 60), 29, 31},
		{"shortest", wave(200, 4, 5), 4, 4},
		{"longest", wave(1024, 500, 5), 490, 510},
		{"tilted wave", tilted, 39, 41},
		{"square", signal("square", 1, 200), 12, 12},
		{"unlike pair", pair, 48, 48},
		{"white", signal("white", 1, 1000), 0, 0},
		{"line", wave(500, 1<<40, 0), 0, 0},
		{"zero", make([]float64, 100), 0, 0},
		{"short", wave(7, 4, 0), 0, 0},
		{"none", nil, 0, 0},
	}
	for _, tt := range tests {
		w := &workspace{}
		if got := w.period(tt.ys); got < tt.lo || got > tt.hi {
			t.Errorf("%s: period %d, want %d to %d", tt.name, got, tt.lo, tt.hi)
		}
	}
}

func TestRegimes(t *testing.T) {
	s := newSeries(0)
	for i := range 200 {
		s.append([]float64{50, 60, 70, 500, 600}[i%5])
	}
	s.append(1e18)
	s.examine()
	if s.split < 70 || s.split > 500 || s.duo != 1 {
		t.Errorf("split at %v, duo %v: want between 70 and 500, 1", s.split, s.duo)
	}
	bell := newSeries(0)
	for _, y := range signal("white", 1, 1000) {
		bell.append(y)
	}
	bell.examine()
	if bell.duo > 0.2 {
		t.Errorf("a bell curve seems two regimes: %v", bell.duo)
	}
}

func TestMinimise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		target := []float64{rapid.Float64Range(-1, 2).Draw(t, "a"), rapid.Float64Range(-1, 2).Draw(t, "b")}
		lo, hi := []float64{0, 0.1}, []float64{1, 0.9}
		x := []float64{0.5, 0.5}
		f := func(p []float64) float64 {
			if p[0] < 0 || p[0] > 1 || p[1] < 0.1 || p[1] > 0.9 {
				t.Fatalf("left the box: %v", p)
			}
			return 1 + (p[0]-target[0])*(p[0]-target[0]) + 3*(p[1]-target[1])*(p[1]-target[1])
		}
		minimise(f, x, lo, hi, 10)
		for i := range x {
			if want := min(hi[i], max(lo[i], target[i])); math.Abs(x[i]-want) > 0.01 {
				t.Fatalf("found %v, want near %v", x, target)
			}
		}
	})
}

func TestSolve(t *testing.T) {
	a := [][]float64{{4}, {2, 5}, {1, 3, 6}}
	want := []float64{1, -2, 3}
	c := []float64{4*1 + 2*-2 + 1*3, 2*1 + 5*-2 + 3*3, 1*1 + 3*-2 + 6*3}
	b := make([]float64, 3)
	if !solve(a, c, b) {
		t.Fatal("refused")
	}
	for i := range b {
		if math.Abs(b[i]-want[i]) > 1e-12 {
			t.Fatalf("got %v, want %v", b, want)
		}
	}
	if solve([][]float64{{1}, {1, 1}}, c[:2], b[:2]) {
		t.Error("solved a singular system")
	}
}

// feed gives ys to a model as a forecaster would.
func feed(m model, ys []float64) *series {
	s := newSeries(0)
	for _, y := range ys {
		s.push(y)
		m.observe(s)
		m.refit(s)
	}
	return s
}

// oneStep returns the mean squared error one step ahead after warm samples.
func oneStep(m model, ys []float64, warm int) float64 {
	s := newSeries(0)
	var sum, n float64
	next := make([]float64, 1)
	for i, y := range ys {
		if i > warm && m.ready(s) {
			m.path(s, next)
			sum += (y - next[0]) * (y - next[0])
			n++
		}
		s.push(y)
		m.observe(s)
		m.refit(s)
	}
	return sum / n
}

// Nothing can foresee the shocks, whose variance is 100.
func TestArimaReachesTheNoise(t *testing.T) {
	for _, name := range []string{"white", "ar", "ma"} {
		if mse := oneStep(&arima{}, signal(name, 3, 2000), 300); mse < 85 || mse > 112 {
			t.Errorf("%s: mean squared error %.1f, want about 100", name, mse)
		}
	}
	if mse := oneStep(&arima{}, signal("walk", 3, 2000), 300); mse > 28 {
		t.Errorf("walk: mean squared error %.1f, want about 25", mse)
	}
}

func TestArimaRecoversParameters(t *testing.T) {
	m := &arima{}
	ys := signal("ar", 8, 4000)
	x, e := make([]float64, len(ys)), make([]float64, len(ys))
	copy(x, ys)
	shocksOf(x, e, 0)
	c := &arima{}
	c.order(2, 0, true, false, false)
	if _, ok := c.solve(crossProducts(x, e, 0, longAR)); !ok || math.Abs(c.coef[1]-1.2) > 0.05 || math.Abs(c.coef[2]+0.5) > 0.05 {
		t.Errorf("got %v, want 1.2, -0.5", c.coef[1:3])
	}
	ys = signal("ma", 8, 4000)
	shocksOf(ys, e, 0)
	c = &arima{}
	c.order(0, 1, true, false, false)
	if _, ok := c.solve(crossProducts(ys, e, 0, longAR)); !ok || math.Abs(c.coef[firstMA]-0.6) > 0.06 {
		t.Errorf("got %v, want 0.6", c.coef[firstMA])
	}
	feed(m, signal("walk", 8, 1000))
	if m.d != 1 {
		t.Errorf("a random walk is taken as %d times integrated", m.d)
	}
}

func TestStable(t *testing.T) {
	for _, tt := range []struct {
		coef []float64
		want bool
	}{{nil, true}, {[]float64{0.9}, true}, {[]float64{1}, false}, {[]float64{1.2, -0.5}, true}, {[]float64{1.5, -0.4}, false}, {[]float64{0, -1.1}, false}} {
		if got := dies(tt.coef, 0, 0, 1); got != tt.want {
			t.Errorf("%v: stable %v, want %v", tt.coef, got, tt.want)
		}
	}
}

func TestSmoothingIsFittedAsWellAsAGrid(t *testing.T) {
	for _, name := range []string{"white", "ar", "walk"} {
		ys := signal(name, 4, fitWindow)
		var m exponential
		p, state := m.fit(ys)
		alpha := p[0]
		got := m.run(ys, p, state)
		for a := 0.02; a <= 1; a += 0.01 {
			if v := m.project(ys, []float64{a}, m.begin(ys), state); v < 0.995*got {
				t.Errorf("%s: error %v at alpha %v fitted, %v at %v", name, got, alpha, v, a)
				break
			}
		}
	}
}

func TestTrendAndSeasonAreContinued(t *testing.T) {
	line := make([]float64, 300)
	wave := make([]float64, 300)
	for t := range line {
		line[t] = 100 + 2*float64(t)
		wave[t] = 1000 + float64(t) + 100*math.Sin(2*math.Pi*float64(t)/20)
	}
	dst := make([]float64, 10)
	holt := &exponential{trend: linearTrend}
	holt.path(feed(holt, line), dst)
	if want := 100 + 2*309.0; math.Abs(dst[9]-want) > 4 {
		t.Errorf("holt: %v ten steps on, want %v", dst[9], want)
	}
	hw := &winters{}
	s := feed(hw, wave)
	hw.path(s, dst)
	for k, got := range dst {
		at := 300 + k
		if want := 1000 + float64(at) + 100*math.Sin(2*math.Pi*float64(at)/20); s.period != 20 || math.Abs(got-want) > 8 {
			t.Errorf("holt-winters, period %d: %v at step %d, want %v", s.period, got, k+1, want)
		}
	}
}

func TestMovingAverageFitsItsSpan(t *testing.T) {
	m := &movingAverage{}
	feed(m, signal("white", 2, 500))
	if m.span < 32 {
		t.Errorf("span %d on noise, want a long one", m.span)
	}
	feed(m, signal("walk", 2, 1000))
	if m.span != 2 {
		t.Errorf("span %d on a random walk, want the shortest", m.span)
	}
}

// The analog model's quantiles are those of how long pauses last.
func TestAnalogKnowsThePause(t *testing.T) {
	ys, onsets := bursts(12, 1000, 12, 1, 4, 60, 600)
	m := newAnalog()
	s := newSeries(0)
	quantile := func(step int, level float64) float64 {
		var v [1]float64
		m.quantiles(s, step, []float64{level}, v[:])
		return v[0]
	}
	var early, atLast, n float64
	k := 0
	for i, y := range ys {
		s.push(y)
		m.observe(s)
		m.refit(s)
		for k < len(onsets) && onsets[k] <= i {
			k++
		}
		if i < 200 || k == 0 || k == len(onsets) {
			continue
		}
		switch i - onsets[k-1] {
		case 5: // two into the pause: the next burst is at least five away
			if quantile(1, 0.95) > 300 {
				early++
			}
			n++
		case 11: // the pause has lasted eight of seven to nine
			if quantile(2, 0.6) > 300 {
				atLast++
			}
		}
	}
	if early > 0.05*n {
		t.Errorf("%v of %v early alarms", early, n)
	}
	if atLast < 0.3*n {
		t.Errorf("%v of %v late pauses expected to end", atLast, n)
	}
}

// However far values jump, no path holds a NaN.
func TestPathsAreNumbers(t *testing.T) {
	for _, c := range catalogue {
		for _, tiny := range []float64{math.SmallestNonzeroFloat64, 1e-300, 1e-127, 1} {
			for _, big := range []float64{1e-30, 1, maxValue} {
				for _, rest := range []float64{tiny, big} {
					for _, season := range []int{2, 60} {
						ys := slices.Repeat([]float64{tiny, tiny, tiny, 0}, 18)
						ys = append(ys, slices.Repeat([]float64{tiny, tiny, tiny, tiny, tiny, tiny, rest}, 60)...)
						ys = append(ys, slices.Repeat([]float64{tiny}, 300)...)
						ys = append(ys, big, big, big, big, big)
						ys = append(ys, slices.Repeat([]float64{rest}, 200)...)
						if i := firstNaN(c.make(), season, ys); i >= 0 {
							t.Errorf("%s, season %d, from %v to %v to %v: a NaN after %d samples", c.name, season, tiny, big, rest, i+1)
						}
					}
				}
			}
		}
	}
}

// firstNaN returns the index of the value after which a path holds a NaN, -1 if
// there is none.
func firstNaN(m model, season int, ys []float64) int {
	s, dst := newSeries(season), make([]float64, 70)
	for i, y := range ys {
		s.push(y)
		m.observe(s)
		m.refit(s)
		if !m.ready(s) {
			continue
		}
		m.path(s, dst)
		if slices.ContainsFunc(dst, math.IsNaN) {
			return i
		}
	}
	return -1
}

// BenchmarkModels is the cost of each model by itself for a sample and its path.
func BenchmarkModels(b *testing.B) {
	ys := signal("season", 1, 4096)
	for _, c := range catalogue {
		b.Run(c.name, func(b *testing.B) {
			m, s := c.make(), newSeries(30)
			dst := make([]float64, 10)
			i := 0
			for b.Loop() {
				s.append(ys[i%len(ys)])
				if s.count == 64 || s.count == 256 {
					s.examine()
				}
				m.observe(s)
				m.refit(s)
				if m.ready(s) {
					m.path(s, dst)
				}
				i++
			}
		})
	}
}
