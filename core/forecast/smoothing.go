package forecast

// trendKind says what becomes of a trend.
type trendKind uint8

const (
	noTrend trendKind = iota
	linearTrend
	dampedTrend
)

// statePrior is how strongly a fitted starting state is drawn to the one read
// off the first values, in squared errors.
const statePrior = 0.02

// exponential is simple exponential smoothing (Brown 1956), Holt's method
// (1957) with a linear trend, or that with the trend damped by phi per step
// (Gardner and McKenzie 1985), in error-correction form (Hyndman et al. 2008,
// section 2.3). Parameters and starting state are those with the least squared
// error one step ahead on the newest fitWindow samples.
type exponential struct {
	trend trendKind

	alpha, beta, phi float64
	level, slope     float64
	started          bool
}

func (m *exponential) observe(s *series) {
	if !m.started {
		m.started = true
		m.alpha, m.beta, m.phi = 0.5, 0.1, 0.9
		m.level = s.last()
		return
	}
	m.step(s.last())
}

func (m *exponential) refit(s *series) bool {
	due := s.refitDue(8)
	if m.trend != noTrend {
		due = s.rareRefitDue(72 * int(m.trend))
	}
	if due {
		m.fit(s.tail(fitWindow))
	}
	return due
}

// step takes in one value and returns the error of its forecast.
func (m *exponential) step(y float64) float64 {
	ahead := m.level + m.phi*m.slope
	e := y - ahead
	m.level = ahead + m.alpha*e
	m.slope = m.phi*m.slope + m.alpha*m.beta*e
	return e
}

// set takes parameters as the search has them.
func (m *exponential) set(p []float64) {
	m.alpha, m.beta, m.phi = p[0], 0, 0
	if m.trend != noTrend {
		m.beta, m.phi = p[1], 1
	}
	if m.trend == dampedTrend {
		m.phi = p[2]
	}
}

// run filters ys from a starting state, leaves the state at the end, and
// returns the sum of squared errors.
func (m *exponential) run(ys, p, state []float64) (sse float64) {
	m.set(p)
	m.level, m.slope = state[0], 0
	if m.trend != noTrend {
		m.slope = state[1]
	}
	for _, y := range ys {
		e := m.step(y)
		sse += e * e
	}
	return sse
}

// begin reads a starting state off the first values.
func (m *exponential) begin(ys []float64) []float64 {
	if m.trend == noTrend {
		return []float64{ys[0]}
	}
	slope := (ys[min(3, len(ys)-1)] - ys[0]) / 3
	return []float64{ys[0] - slope, slope}
}

// fit leaves the state at the end of ys and returns parameters and starting
// state.
func (m *exponential) fit(ys []float64) (p, state []float64) {
	k := 1 + int(m.trend)
	lo, hi := []float64{0, 0, 0.8}[:k], []float64{1, 1, 0.995}[:k]
	guess := m.begin(ys)
	state = make([]float64, len(guess))
	sse := func(p []float64) float64 { return m.project(ys, p, guess, state) }
	bestSSE := 0.0
	for _, start := range [][]float64{{0.8, 0.5, 0.95}, {0.1, 0.02, 0.9}} {
		if v := minimise(sse, start[:k], lo, hi, 4); p == nil || v < bestSSE {
			p, bestSSE = start[:k], v
		}
	}
	sse(p)
	m.run(ys, p, state)
	return p, state
}

// project returns the least sum of squared errors over all starting states, and
// writes that state. The errors are linear in it: one pass yields those from
// the guess and how they change with level and slope.
func (m *exponential) project(ys, p, guess, state []float64) float64 {
	m.set(p)
	m.level, m.slope = guess[0], 0
	l1, b1, l2, b2 := 1.0, 0.0, 0.0, 0.0 // responses to level and slope
	if m.trend != noTrend {
		m.slope, b2 = guess[1], 1
	}
	var ee, e1, e2, g12 float64
	g11, g22 := statePrior, statePrior
	for _, y := range ys {
		a1, a2 := l1+m.phi*b1, l2+m.phi*b2
		e := m.step(y)
		ee += e * e
		e1 += e * a1
		e2 += e * a2
		g11 += a1 * a1
		g12 += a1 * a2
		g22 += a2 * a2
		l1, b1 = a1-m.alpha*a1, m.phi*b1-m.alpha*m.beta*a1
		l2, b2 = a2-m.alpha*a2, m.phi*b2-m.alpha*m.beta*a2
	}
	det := g11*g22 - g12*g12
	level, slope := (e1*g22-e2*g12)/det, (e2*g11-e1*g12)/det
	state[0] = guess[0] + level
	if m.trend != noTrend {
		state[1] = guess[1] + slope
	}
	return max(0, ee-level*e1-slope*e2)
}

// spread is the range of ys.
func spread(ys []float64) float64 {
	lo, hi := ys[0], ys[0]
	for _, y := range ys {
		lo, hi = min(lo, y), max(hi, y)
	}
	return hi - lo
}

func (m *exponential) ready(s *series) bool { return len(s.buf) >= 3 }
func (m *exponential) path(_ *series, dst []float64) {
	v, slope := m.level, m.slope
	for i := range dst {
		slope *= m.phi
		v += slope
		dst[i] = v
	}
}
