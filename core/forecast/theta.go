package forecast

import (
	"math"
	"slices"
)

// seasonalRatio is the ratio of variances from which a season is beyond chance:
// for three seasons of twelve about one in fifteen has it by chance, for more of
// them fewer.
const seasonalRatio = 2

// theta is the Theta method (Assimakopoulos and Nikolopoulos 2000) in the form
// of Hyndman and Billah (2003): simple exponential smoothing with a drift of
// half the slope of the least-squares line. Where there is a season beyond chance
// the series is first divided by its seasonal factors, or less its terms where
// values near 0 allow no factors, as of a classical decomposition.
type theta struct {
	smooth exponential
	drift  float64 // slope of the line, per step
	n      int     // samples smoothed

	period         int // 0 without a season
	multiplicative bool
	season         []float64
	phase          int // of the value to come
}

func (m *theta) observe(s *series) {
	if m.n == 0 {
		return
	}
	m.smooth.step(m.deseasonalised(s.last()))
	m.n++
	m.advance()
}

func (m *theta) refit(s *series) bool {
	due := s.period != m.period && s.period > 0 || s.rareRefitDue(72)
	if due {
		m.fit(s.tail(min(window, max(fitWindow, 4*s.period))), s.period)
	}
	return due
}

func (m *theta) advance() {
	if m.phase++; m.phase >= len(m.season) {
		m.phase = 0
	}
}

func (m *theta) deseasonalised(y float64) float64 {
	switch {
	case len(m.season) == 0:
		return y
	case m.multiplicative:
		return y / m.season[m.phase]
	}
	return y - m.season[m.phase]
}

func (m *theta) fit(ys []float64, period int) {
	m.decompose(ys, period)
	x := slices.Clone(ys)
	for t := range x {
		x[t] = m.deseasonalised(x[t])
		m.advance()
	}
	m.drift = slopeOf(x)
	m.n = len(x)
	m.smooth.fit(x)
}

// slopeOf returns the slope of the least-squares line through ys.
func slopeOf(ys []float64) float64 {
	n := float64(len(ys))
	if n < 2 {
		return 0
	}
	var sum float64
	for t, y := range ys {
		sum += (float64(t) - (n-1)/2) * y
	}
	return sum / (n * (n*n - 1) / 12)
}

// decompose finds the seasonal factors or terms of ys by classical
// decomposition: the mean by phase of what a centred moving average over a
// season leaves.
func (m *theta) decompose(ys []float64, period int) {
	m.period, m.phase, m.season = period, 0, m.season[:0]
	if period == 0 || len(ys) < 2*period || !isSeasonal(ys, period) {
		return
	}
	least, level := ys[0], mean(ys)
	for _, y := range ys {
		least = min(least, y)
	}
	m.multiplicative = least > leastShare*level
	if cap(m.season) < period {
		m.season = make([]float64, period)
	}
	m.season = m.season[:period]
	if m.multiplicative && m.average(ys, true) <= leastShare {
		m.multiplicative = false
	}
	if !m.multiplicative {
		m.average(ys, false)
	}
}

// average fills m.season and returns the least of it.
func (m *theta) average(ys []float64, factors bool) float64 {
	p := m.period
	half := p / 2
	w := &fitting{}
	w.errs, w.moved = sized(w.errs, p), sized(w.moved, p)
	sums, counts := w.errs, w.moved
	clear(sums)
	clear(counts)
	for t := half; t+half < len(ys); t++ {
		var trend float64
		for i := t - half; i <= t+half; i++ {
			trend += ys[i]
		}
		if p%2 == 0 { // the ends count half each
			trend -= (ys[t-half] + ys[t+half]) / 2
		}
		trend /= float64(p)
		if factors {
			sums[t%p] += ys[t] / trend
		} else {
			sums[t%p] += ys[t] - trend
		}
		counts[t%p]++
	}
	for i := range sums {
		sums[i] /= max(1, counts[i])
	}
	centre, least := mean(sums), math.Inf(1)
	for i, v := range sums {
		if factors {
			v /= centre
		} else {
			v -= centre
		}
		m.season[i] = v
		least = min(least, v)
	}
	return least
}

// isSeasonal reports whether phases differ more than chance lets them: the
// variance between the means by phase of what a line leaves, over that within
// phases, as in the stable seasonality test of X-11 (Shiskin, Young and Musgrave
// 1967). A test of the autocorrelation has no power in three seasons.
func isSeasonal(ys []float64, period int) bool {
	n, p := float64(len(ys)), float64(period)
	slope, level := slopeOf(ys), mean(ys)
	var between, within float64
	for i := range period {
		var sum, sumSquares, k float64
		for t := i; t < len(ys); t += period {
			v := ys[t] - level - slope*(float64(t)-(n-1)/2)
			sum += v
			sumSquares += v * v
			k++
		}
		between += sum * sum / k
		within += sumSquares - sum*sum/k
	}
	return between/(p-1) > seasonalRatio*within/(n-p)
}

// ready waits for a season that is known to come: what the model does without it
// says nothing of its errors with it.
func (m *theta) ready(s *series) bool {
	return m.n >= 4 && (s.period == 0 || s.period == m.period) && len(s.buf) >= 2*s.season
}
func (m *theta) path(_ *series, dst []float64) {
	a := max(m.smooth.alpha, 0.01)
	lead := (1 - math.Pow(1-a, float64(m.n))) / a
	phase := m.phase
	for i := range dst {
		v := m.smooth.level + m.drift/2*(float64(i)+lead)
		if len(m.season) > 0 {
			if m.multiplicative {
				v *= m.season[phase]
			} else {
				v += m.season[phase]
			}
			if phase++; phase == len(m.season) {
				phase = 0
			}
		}
		dst[i] = v
	}
}
