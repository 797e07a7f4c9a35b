package forecast

import "slices"

// maxSeasons is how many seasons a model follows at once.
const maxSeasons = 3

// multiSeason follows several seasons at once by exponential smoothing with one
// additive seasonal term for each and a first-order autoregression of the
// errors (Taylor 2003, with the trend left out as by Taylor 2010, equation 1).
// The further seasons are found in what the main one leaves, by its
// autocorrelation. The starting terms come from the means by phase of the window it is fitted
// on, the shortest season first; the parameters from a bounded search.
type multiSeason struct {
	period  int // the main season, 0 if there is none
	seasons [maxSeasons]term
	n       int // seasons followed, 0 while there is none

	level, alpha, gamma, delta float64
	rho, residual              float64 // of the errors, and the newest of those
}

// term is one seasonal component.
type term struct {
	value []float64 // by phase
	phase int       // of the value to come
}

func (m *multiSeason) observe(s *series) {
	if s.period == 0 {
		m.n, m.period = 0, 0
	}
	if m.n > 0 {
		m.step(s.last())
	}
}

func (m *multiSeason) refit(s *series) bool {
	if s.period == 0 || s.period == m.period && m.n >= 1+s.usable() && !s.rareRefitDue(56) {
		return false
	}
	m.period = s.period
	periods, n := m.seasonsIn(s.tail(window), s.further)
	m.fit(s.tail(min(window, max(fitWindow, 4*periods[n-1]))), periods[:n])
	return true
}

// seasonsIn returns the main season and those given beside it that the samples
// hold twice, ascending, and how many. If none is given, they are those found one
// by one in what is left without it. In few samples chance looks like seasons.
func (m *multiSeason) seasonsIn(ys []float64, given []int) (periods [maxSeasons]int, n int) {
	if len(given) > 0 {
		periods[0], n = m.period, 1
		for _, p := range given {
			if 2*p <= len(ys) {
				periods[n] = p
				n++
			}
		}
		slices.Sort(periods[:n])
		return periods, n
	}
	fits, finds := &fitting{}, &workspace{}
	periods[0], n = m.period, 1
	for n < maxSeasons && len(ys) >= 2*refitPeriod {
		m.begin(fits, ys, periods[:n])
		next := finds.period(fits.shocks)
		if next == 0 || 4*next > len(ys) || slices.Contains(periods[:n], next) {
			break
		}
		periods[n] = next
		n++
		slices.Sort(periods[:n])
	}
	return periods, n
}

// ahead returns level and seasonal terms of the value to come.
func (m *multiSeason) ahead() float64 {
	v := m.level
	for i := range m.n {
		v += m.seasons[i].value[m.seasons[i].phase]
	}
	return v
}

func (m *multiSeason) step(y float64) float64 {
	residual := y - m.ahead()
	e := residual - m.rho*m.residual
	m.residual = residual
	m.level += m.alpha * e
	for i := range m.n {
		gain := m.gamma
		if i > 0 {
			gain = m.delta
		}
		s := &m.seasons[i]
		s.value[s.phase] += gain * e
		if s.phase++; s.phase == len(s.value) {
			s.phase = 0
		}
	}
	return e
}

// begin finds the seasonal terms before the first of ys, which start holds from
// then on: those of each season are the means by phase of what the shorter ones
// leave, less their mean.
func (m *multiSeason) begin(w *fitting, ys []float64, periods []int) (level float64) {
	m.n = len(periods)
	level = mean(ys[:periods[0]*(len(ys)/periods[0])])
	slope := slopeOf(ys)
	total := 0
	for _, p := range periods {
		total += p
	}
	w.shocks, w.values = sized(w.shocks, len(ys)), sized(w.values, total)
	rest, start := w.shocks, w.values
	for t, y := range ys {
		rest[t] = y - level - slope*(float64(t)-float64(len(ys)-1)/2)
	}
	for i, p := range periods {
		part := start[:p]
		start = start[p:]
		for phase := range p {
			var sum, k float64
			for t := phase; t < len(rest); t += p {
				sum += rest[t]
				k++
			}
			part[phase] = sum / max(1, k)
		}
		centre := mean(part)
		for phase := range part {
			part[phase] -= centre
		}
		for t := range rest {
			rest[t] -= part[t%p]
		}
		if cap(m.seasons[i].value) < p {
			m.seasons[i].value = make([]float64, p)
		}
		m.seasons[i].value = m.seasons[i].value[:p]
	}
	return mean(ys[:min(periods[0], len(ys))])
}

// start takes the state that begin left in w.
func (m *multiSeason) start(w *fitting, level float64) {
	m.level, m.residual = level, 0
	from := w.values
	for i := range m.n {
		s := &m.seasons[i]
		s.phase = 0
		for j := range s.value {
			s.value[j] = from[j]
		}
		from = from[len(s.value):]
	}
}

func (m *multiSeason) fit(ys []float64, periods []int) {
	w := &fitting{}
	level := m.begin(w, ys, periods)
	sse := func(p []float64) (sum float64) {
		m.start(w, level)
		m.alpha, m.gamma, m.rho, m.delta = p[0], p[1], p[2], p[3]
		for _, y := range ys {
			e := m.step(y)
			sum += e * e
		}
		return sum
	}
	lo, hi := []float64{0, 0, 0, 0}, []float64{0.6, 0.5, 0.95, 0.5}
	if m.n == 1 {
		hi[3] = 0 // no second season to fit
	}
	best, bestSSE := []float64(nil), 0.0
	for _, p := range [][]float64{{0.05, 0.1, 0.5, 0.1}, {0.3, 0.05, 0.1, 0.05}} {
		p[3] = min(p[3], hi[3])
		if v := minimise(sse, p, lo, hi, 4); best == nil || v < bestSSE {
			best, bestSSE = p, v
		}
	}
	sse(best)
}

func (m *multiSeason) ready(s *series) bool { return m.n > 0 && s.period > 0 }
func (m *multiSeason) path(_ *series, dst []float64) {
	carried := m.residual
	for i := range dst {
		carried *= m.rho
		v := m.level + carried
		for j := range m.n {
			s := &m.seasons[j]
			v += s.value[(s.phase+i)%len(s.value)]
		}
		dst[i] = v
	}
}
