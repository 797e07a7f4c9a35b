package forecast

import "math"

// winters is the Holt-Winters method (Winters 1960) with a damped trend and an
// additive or multiplicative season, in error-correction form (Hyndman et al.
// 2008, section 3.4). It needs a season, and the multiplicative form values
// clearly above 0. The parameters come from a bounded search with two starts;
// the starting state from the seasonal means of the window it is fitted on, and
// for seasons of up to stateSeason steps from least squares.
type winters struct {
	multiplicative bool

	period                  int // 0 while the model does not apply
	alpha, beta, gamma, phi float64
	level, slope            float64
	season                  []float64 // by phase
	phase                   int       // of the value to come
	floor                   float64   // the least level divided by
}

const (
	// trendDamping keeps a trend from outliving the horizon by much.
	trendDamping = 0.98
	// leastShare is the smallest value, as a share of the mean, that a
	// multiplicative season is taken to apply to, and its smallest factor.
	leastShare = 0.02
	// mostTimes bounds the factors from above: what is larger is no season.
	mostTimes = 1e4
	// stateSeason is the longest season of which the starting state is fitted.
	stateSeason = 24
)

func (m *winters) observe(s *series) {
	y := s.last()
	if s.period == 0 || m.multiplicative && y <= 0 {
		m.period = 0
	}
	if m.period > 0 {
		m.step(y)
	}
}

func (m *winters) refit(s *series) bool {
	phase := 32
	if m.multiplicative {
		phase = 96
	}
	another := s.period != m.period && (m.period != 0 || !m.multiplicative)
	if s.period == 0 || !another && !s.rareRefitDue(phase) {
		return false
	}
	m.fit(s.tail(min(window, max(fitWindow, 4*s.period))), s.period)
	return true
}

func (m *winters) step(y float64) float64 {
	if m.multiplicative {
		return m.stepFactor(y)
	}
	ahead := m.level + m.phi*m.slope
	e := y - ahead - m.season[m.phase]
	m.season[m.phase] += m.gamma * e
	m.advance(ahead, e)
	return e
}

// stepFactor is step for a multiplicative season.
func (m *winters) stepFactor(y float64) float64 {
	ahead := max(m.floor, m.level+m.phi*m.slope)
	factor := m.season[m.phase]
	e := y - ahead*factor
	m.season[m.phase] = min(mostTimes, max(leastShare, factor+m.gamma*e/ahead))
	m.advance(ahead, e/factor)
	return e
}

func (m *winters) advance(ahead, e float64) {
	m.level = ahead + m.alpha*e
	m.slope = m.phi*m.slope + m.alpha*m.beta*e
	if m.phase++; m.phase == m.period {
		m.phase = 0
	}
}

func mean(v []float64) (sum float64) {
	for _, y := range v {
		sum += y / float64(len(v))
	}
	return sum
}

// begin writes the state before the first of ys into x: level and trend from
// the means of the first and last season, seasonal terms as the mean of each
// phase less that line, or over it.
func (m *winters) begin(ys, x []float64) {
	p, n := m.period, len(ys)
	first, last := mean(ys[:p]), mean(ys[n-p:])
	slope := 0.0
	if n > p {
		slope = (last - first) / float64(n-p)
	}
	level := first - slope*float64(p+1)/2
	x[0], x[1] = level, slope
	for i := range p {
		var sum, k float64
		for t := i; t < n; t += p {
			line := level + slope*float64(t+1)
			if m.multiplicative {
				sum += ys[t] / max(m.floor, line)
			} else {
				sum += ys[t] - line
			}
			k++
		}
		x[2+i] = sum / k
	}
}

// start takes the state x, as begin wrote it.
func (m *winters) start(x []float64) {
	m.level, m.slope, m.phase = x[0], x[1], 0
	if cap(m.season) < m.period {
		m.season = make([]float64, m.period)
	}
	m.season = m.season[:m.period]
	for i, v := range x[2:] {
		if m.multiplicative {
			v = min(mostTimes, max(leastShare, v))
		}
		m.season[i] = v
	}
}

// applies reports whether a multiplicative season can be told from ys.
func (m *winters) applies(ys []float64) bool {
	level := mean(ys)
	m.floor = leastShare * level
	if !(m.floor > math.SmallestNonzeroFloat64/1e-16) {
		return false // shares of it are no numbers
	}
	for _, y := range ys {
		if y <= m.floor {
			return false
		}
	}
	return true
}

// fit returns the sum of squared errors.
func (m *winters) fit(ys []float64, period int) float64 {
	m.period, m.phi = period, trendDamping
	if m.multiplicative && !m.applies(ys) {
		m.period = 0
		return 0
	}
	w := &fitting{}
	w.values = sized(w.values, 2+period)
	x := w.values
	m.begin(ys, x)
	sse := func(p []float64) (sum float64) {
		m.start(x)
		m.alpha, m.beta, m.gamma = p[0], p[1], p[2]
		for _, y := range ys {
			e := m.step(y)
			sum += e * e
		}
		return sum
	}
	lo, hi := []float64{0, 0, 0}, []float64{0.99, 0.3, 0.9}
	best, bestSSE := []float64(nil), 0.0
	short := period <= stateSeason && len(ys) < fitWindow // the start matters most
	search := func(p []float64) float64 {
		if !short {
			return minimise(sse, p, lo, hi, 3)
		}
		var v float64
		for range 3 {
			sse(p)
			m.startFrom(w, ys, x)
			v = minimise(sse, p, lo, hi, 6)
		}
		return v
	}
	starts := [][]float64{{0.3, 0.02, 0.2}, {0.02, 0, 0.02}, {0, 0, 0}}
	if !short {
		starts = starts[:2]
	}
	for _, p := range starts {
		if v := search(p); best == nil || v < bestSSE {
			best, bestSSE = p, v
			w.state = append(w.state[:0], x...)
		}
		m.begin(ys, x)
	}
	copy(x, w.state)
	if period <= stateSeason && !short {
		sse(best)
		m.startFrom(w, ys, x)
		minimise(sse, best, lo, hi, 4)
	}
	return sse(best)
}

// startFrom moves the starting state x to the best for the present parameters.
// The residuals are linear in the state if the season is additive, and nearly
// so else. The unit of a seasonal factor is a level's.
func (m *winters) startFrom(w *fitting, ys, x []float64) {
	unit := 1.0
	if m.multiplicative {
		unit = mean(ys)
	}
	scale := func(by float64) {
		for i := range x[2:] {
			x[2+i] *= by
		}
	}
	scale(unit)
	w.refine(func(x, e []float64) {
		m.level, m.slope, m.phase = x[0], x[1], 0
		for i, v := range x[2:] {
			m.season[i] = v / unit
		}
		for t, y := range ys {
			e[t] = m.step(y)
		}
	}, x, 0.1*spread(ys), len(ys), statePrior, 2)
	scale(1 / unit)
}

func (m *winters) ready(s *series) bool { return m.period > 0 && m.period == s.period }
func (m *winters) path(_ *series, dst []float64) {
	v, slope, phase := m.level, m.slope, m.phase
	for i := range dst {
		slope *= m.phi
		v += slope
		if m.multiplicative {
			dst[i] = max(0, v) * m.season[phase]
		} else {
			dst[i] = v + m.season[phase]
		}
		if phase++; phase == m.period {
			phase = 0
		}
	}
}
