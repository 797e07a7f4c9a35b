package forecast

import "math"

const (
	maxAR       = 5
	maxMA       = 2
	seasonalAR  = 1 + maxAR // slots of the coefficients
	firstMA     = seasonalAR + 1
	seasonalMA  = firstMA + maxMA
	regressors  = seasonalMA + 1
	longAR      = 8   // order of the regression that estimates the shocks
	arimaSeason = 128 // the longest season with terms of its own
	// forgetting is the weight of a sample relative to the next in the online
	// update of the coefficients: as many count as a fit looks at.
	forgetting = 1 - 1.0/fitWindow
	// outlier bounds the shock an update learns from, in standard deviations.
	outlier = 3
	// farthest bounds a value in units of the deviation at the last fit, so that
	// all that is computed of it is finite.
	farthest = 1e12
)

// arima is an ARIMA(p,d,q) model with p <= 5, d <= 1, q <= 2, and at a season m
// a difference and one additive autoregressive and moving-average term at lag
// m. Order and coefficients come from a fit on the window now and then. Between two fits the coefficients follow by recursive extended least
// squares (Ljung and Soderstrom 1983, section 2.2).
type arima struct {
	p, d, q, season int
	differenced     bool // over the season
	// coef are the constant, the lags, the seasonal lag, the shocks, the
	// seasonal shock; 0 where not in the model.
	coef [regressors]float64
	used [regressors]bool

	scale  float64        // unit of all below
	sigma  float64        // standard deviation of the shocks
	shocks [maxMA]float64 // newest first
	past   []float32      // the last season of shocks, a ring
	oldest int            // index into past
	gain   [][]float64    // inverse of the discounted cross products
	lag    [maxAR]float64 // scratch
	fitted bool
}

func (m *arima) observe(s *series) {
	if m.fitted {
		m.follow(s.buf)
	}
}

func (m *arima) refit(s *series) bool {
	if !s.rareRefitDue(24) || len(s.buf) < 24 {
		return false
	}
	season := s.period
	if season > arimaSeason || season < 2 {
		season = 0
	}
	m.fit(s.tail(min(window, max(fitWindow, 4*season))), s.std, season)
	return true
}

// need is how many samples a forecast looks back on.
func (m *arima) need() int { return maxAR + 3 + m.season }

func (m *arima) ready(s *series) bool { return m.fitted && len(s.buf) >= m.need() }

// diff returns the differenced value at t in units of scale, of the samples ys
// and after them the forecasts.
func (m *arima) diff(ys, forecasts []float64, t int) float64 {
	at := func(t int) float64 {
		if t < len(ys) {
			return ys[t]
		}
		return forecasts[t-len(ys)]
	}
	v := at(t)
	if m.d == 1 {
		v -= at(t - 1)
	}
	if m.differenced {
		v -= at(t - m.season)
		if m.d == 1 {
			v += at(t - m.season - 1)
		}
	}
	return min(farthest, max(-farthest, v/m.scale))
}

// follow takes in the newest of ys: its shock, and what that says of the
// coefficients.
func (m *arima) follow(ys []float64) {
	if len(ys) < m.need() {
		return
	}
	t := len(ys) - 1
	row := [regressors]float64{1}
	for i := 1; i <= m.p; i++ {
		row[i] = m.diff(ys, nil, t-i)
	}
	if m.used[seasonalAR] {
		row[seasonalAR] = m.diff(ys, nil, t-m.season)
	}
	copy(row[firstMA:], m.shocks[:])
	if m.season > 0 {
		row[seasonalMA] = float64(m.past[m.oldest])
	}
	e := m.diff(ys, nil, t)
	for i, c := range m.coef {
		e -= c * row[i]
	}
	m.learn(&row, e)
	m.remember(e)
}

func (m *arima) remember(e float64) {
	m.shocks[1], m.shocks[0] = m.shocks[0], e
	if m.season > 0 {
		m.past[m.oldest] = float32(e)
		m.oldest = (m.oldest + 1) % m.season
	}
}

// learn moves the coefficients towards explaining the shock e of the regressors
// row. Of a coefficient that would leave the stable region nothing is learned
// until the next fit.
func (m *arima) learn(row *[regressors]float64, e float64) {
	k := len(m.gain)
	if k == 0 {
		return
	}
	e = min(outlier*m.sigma, max(-outlier*m.sigma, e))
	var pick [regressors]int
	var along [regressors]float64
	m.picks(&pick)
	denominator := forgetting
	for i, g := range m.gain {
		for j, v := range g {
			along[i] += v * row[pick[j]]
		}
		denominator += along[i] * row[pick[i]]
	}
	if !(denominator > 0) || math.IsInf(denominator, 0) {
		m.gain = nil
		return
	}
	before := m.coef
	for i, g := range m.gain {
		m.coef[pick[i]] += along[i] / denominator * e
		for j := range g {
			g[j] = (g[j] - along[i]*along[j]/denominator) / forgetting
		}
	}
	if !m.calm() {
		m.coef, m.gain = before, nil
	}
}

// calm is a cheap condition for stability that updates are held to: each
// polynomial's coefficients pass the test without the season, and the season's
// are below 1.
func (m *arima) calm() bool {
	return math.Abs(m.coef[seasonalAR]) < 0.97 && math.Abs(m.coef[seasonalMA]) < 0.97 &&
		dies(m.coef[1:1+m.p], 0, 0, 1) && dies(m.coef[firstMA:firstMA+m.q], 0, 0, -1)
}

// picks lists the slots in use and returns how many there are.
func (m *arima) picks(pick *[regressors]int) (k int) {
	for i, used := range m.used {
		if used {
			pick[k] = i
			k++
		}
	}
	return k
}

func (m *arima) path(s *series, dst []float64) {
	ys := s.buf
	lo, hi := s.bounds()
	shocks := m.shocks
	for k := range dst {
		t := len(ys) + k
		v := m.coef[0]
		for i := 1; i <= m.p; i++ {
			v += m.coef[i] * m.lagged(ys, dst, k, i)
		}
		if m.used[seasonalAR] {
			v += m.coef[seasonalAR] * m.diff(ys, dst, t-m.season)
		}
		for i := range m.q {
			v += m.coef[firstMA+i] * shocks[i]
		}
		shocks[1], shocks[0] = shocks[0], 0
		if m.used[seasonalMA] && k < m.season {
			v += m.coef[seasonalMA] * float64(m.past[(m.oldest+k)%m.season])
		}
		copy(m.lag[1:], m.lag[:maxAR-1])
		m.lag[0] = v
		// diff of zero is what has to be added back.
		dst[k] = 0
		dst[k] = min(hi, max(lo, (v-m.diff(ys, dst, t))*m.scale))
	}
}

// lagged returns the differenced value i steps before step k of a path.
func (m *arima) lagged(ys, dst []float64, k, i int) float64 {
	if i <= k {
		return m.lag[i-1]
	}
	return m.diff(ys, dst, len(ys)+k-i)
}

// dies reports whether u_t = sign (sum coef_i u_{t-i} + seasonal u_{t-m}) fades
// from u_0 = 1.
func dies(coef []float64, seasonal float64, m int, sign float64) bool {
	var u [arimaSeason]float64 // ring
	steps, span := 128, maxAR
	if seasonal != 0 {
		steps, span = 128+24*m, max(m, maxAR)
	}
	u[0] = 1
	at := 0
	for range steps {
		v := 0.0
		for i, c := range coef {
			j := at - i
			if j < 0 {
				j += span
			}
			v += c * u[j]
		}
		if at++; at == span {
			at = 0
		}
		if seasonal != 0 && m == span {
			v += seasonal * u[at] // m steps old
		} else if seasonal != 0 {
			v += seasonal * u[(at-m+span)%span]
		}
		v *= sign
		if u[at] = v; math.Abs(v) > 10 {
			return false
		}
	}
	var rest float64
	for _, v := range u[:span] {
		rest = max(rest, math.Abs(v))
	}
	return rest < 0.1
}
