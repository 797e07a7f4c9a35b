package forecast

import "math"

const (
	// maxTried is how many orders are tried for stability before giving up.
	maxTried = 8
	// rowsPerTerm is how many values there are to be for each parameter: the
	// criterion lets too many in where a series is short.
	rowsPerTerm = 6
)

// design holds the cross products of one regression, from which every smaller
// order is solved.
type design struct {
	a    [regressors][regressors]float64
	b    [regressors]float64
	yy   float64
	rows float64
}

// ranked is an order with its AICc.
type ranked struct {
	model arima
	score float64
}

// fit chooses order and coefficients on ys, in units of scale, by the method of
// Hannan and Rissanen (1982): a long autoregression estimates the shocks, least
// squares on lags and shocks gives coefficients for every order, and the order
// with the least AICc (Hurvich and Tsai 1989) among the stable and invertible
// is taken. Its coefficients are then brought to the least sum of squared
// shocks by Gauss-Newton steps (Box and Jenkins 1976, section 7.2).
func (m *arima) fit(ys []float64, scale float64, season int) {
	if !(scale > 0) { // of the smallest number there is, a part is nothing
		m.fitted = false
		return
	}
	if len(ys) < 2*season {
		season = 0
	}
	w := &fitting{}
	var best [maxTried]ranked
	for i := range best {
		best[i].score = math.Inf(1)
	}
	target := max(longAR+1, season+maxAR+1) // the first value explained, for any order
	// As in Hyndman and Khandakar (2008), a clear season is differenced; the
	// criterion cannot tell from few seasons.
	differenced := season > 0 && isSeasonal(ys, season)
	for d := 0; d <= 1; d++ {
		c := arima{d: d, season: season, differenced: differenced, scale: scale}
		x, e, from := w.prepare(&c, ys, target)
		c.rank(crossProducts(x, e, season, from), &best)
	}
	past := m.past
	m.fitted = false
	for _, r := range best {
		if !math.IsInf(r.score, 1) && r.model.stable() {
			*m = r.model
			m.fitted = true
			break
		}
	}
	if !m.fitted {
		m.past = past
		return
	}
	x, e, from := w.prepare(m, ys, target)
	m.polish(w, x, e, from)
	m.keep(x, e, past, from)
}

// prepare returns ys differenced as c has it and scaled, first estimates of the
// shocks, and the index of the target.
func (w *fitting) prepare(c *arima, ys []float64, target int) (x, e []float64, from int) {
	skip := c.d
	if c.differenced {
		skip += c.season
	}
	n := len(ys) - skip
	w.values, w.shocks = sized(w.values, n), sized(w.shocks, n)
	x, e = w.values, w.shocks
	for i := range x {
		x[i] = c.diff(ys, nil, i+skip)
	}
	shocksOf(x, e, c.season)
	return x, e, target - skip
}

// shocksOf estimates the shocks as the residuals of a long autoregression, and
// those of one at the season's lag.
func shocksOf(x, e []float64, season int) {
	phi, mean := yuleWalker(x)
	for t := range x {
		v := x[t] - mean
		for i := 0; i < longAR && i < t; i++ {
			v -= phi[i] * (x[t-i-1] - mean)
		}
		e[t] = v
	}
	if season == 0 {
		return
	}
	var product, energy float64
	for t := season; t < len(e); t++ {
		product += e[t] * e[t-season]
		energy += e[t-season] * e[t-season]
	}
	if energy == 0 {
		return
	}
	rho := min(0.95, max(-0.95, product/energy))
	for t := len(e) - 1; t >= season; t-- {
		e[t] -= rho * e[t-season]
	}
}

// yuleWalker fits the long autoregression by the Levinson-Durbin recursion.
func yuleWalker(x []float64) (phi [longAR]float64, mean float64) {
	order := min(longAR, len(x)/6)
	for _, v := range x {
		mean += v / float64(len(x))
	}
	var r [longAR + 1]float64
	for lag := range r {
		for t := lag; t < len(x); t++ {
			r[lag] += (x[t] - mean) * (x[t-lag] - mean)
		}
	}
	v := r[0] * (1 + 1e-9)
	for k := range order {
		if v <= 1e-12*r[0] || r[0] == 0 {
			break
		}
		acc := r[k+1]
		for i := range k {
			acc -= phi[i] * r[k-i]
		}
		reflection := acc / v
		old := phi
		phi[k] = reflection
		for i := range k {
			phi[i] = old[i] - reflection*old[k-1-i]
		}
		v *= 1 - reflection*reflection
	}
	return phi, mean
}

// crossProducts gathers the regression of x on its lags and the lagged shocks,
// from index from on, where the shocks are good.
func crossProducts(x, e []float64, season, from int) *design {
	g := &design{}
	row := [regressors]float64{1}
	for t := from; t < len(x); t++ {
		for i := 1; i <= maxAR; i++ {
			row[i] = x[t-i]
		}
		for i := 1; i <= maxMA; i++ {
			row[firstMA+i-1] = e[t-i]
		}
		if season > 0 && t >= season {
			row[seasonalAR], row[seasonalMA] = x[t-season], e[t-season]
		}
		for i, u := range row {
			for j, v := range row[:i+1] {
				g.a[i][j] += u * v
			}
			g.b[i] += u * x[t]
		}
		g.yy += x[t] * x[t]
		g.rows++
	}
	return g
}

// rank fits every order with the differences of m and keeps the best.
func (m *arima) rank(g *design, best *[maxTried]ranked) {
	orders := m.differences()
	longest := maxAR
	if m.season > 0 {
		longest = 3
	}
	for variant := range 8 {
		constant, sar, sma := variant&1 == 1, variant&2 != 0, variant&4 != 0
		if orders == 0 && !constant || orders == 2 && constant ||
			m.season == 0 && (sar || sma) || m.differenced && sar {
			continue
		}
		for p := 0; p <= longest; p++ {
			for q := 0; q <= maxMA; q++ {
				c := *m
				c.order(p, q, constant, sar, sma)
				score, ok := c.solve(g)
				if !ok || !(score < best[maxTried-1].score) {
					continue
				}
				i := maxTried - 1
				for ; i > 0 && best[i-1].score > score; i-- {
					best[i] = best[i-1]
				}
				best[i] = ranked{c, score}
			}
		}
	}
}

func (m *arima) differences() int {
	n := m.d
	if m.differenced {
		n++
	}
	return n
}

// order sets the terms in use.
func (m *arima) order(p, q int, constant, sar, sma bool) {
	m.p, m.q = p, q
	m.used = [regressors]bool{0: constant, seasonalAR: sar, seasonalMA: sma}
	for i := range p {
		m.used[1+i] = true
	}
	for i := range q {
		m.used[firstMA+i] = true
	}
}

// solve fits m's order and returns its AICc.
func (m *arima) solve(g *design) (float64, bool) {
	var pick [regressors]int
	k := m.picks(&pick)
	params := float64(k + 1)
	if g.rows < rowsPerTerm*params {
		return 0, false
	}
	var store [regressors][regressors]float64
	var a [regressors][]float64
	var rhs, sol [regressors]float64
	for i := range k {
		a[i] = store[i][:]
		for j := 0; j <= i; j++ {
			a[i][j] = g.a[pick[i]][pick[j]]
		}
		a[i][i] *= 1 + 1e-8
		rhs[i] = g.b[pick[i]]
	}
	if k > 0 && !solve(a[:k], rhs[:k], sol[:k]) {
		return 0, false
	}
	sse := g.yy
	m.coef = [regressors]float64{}
	for i := range k {
		sse -= sol[i] * rhs[i]
		m.coef[pick[i]] = sol[i]
	}
	sse = max(sse, 1e-9*g.rows)
	return g.rows*math.Log(sse/g.rows) + 2*params + 2*params*(params+1)/(g.rows-params-1), true
}

// stable reports whether the effect of one shock dies out, on the values and on
// the estimates of later shocks.
func (m *arima) stable() bool {
	return dies(m.coef[1:1+m.p], m.coef[seasonalAR], m.season, 1) &&
		dies(m.coef[firstMA:firstMA+m.q], m.coef[seasonalMA], m.season, -1)
}

// filter writes the shocks of x from index from on into e, given the earlier.
func (m *arima) filter(x, e []float64, from int) {
	for t := from; t < len(x); t++ {
		v := m.coef[0]
		for i := 1; i <= m.p; i++ {
			v += m.coef[i] * x[t-i]
		}
		for i := range m.q {
			v += m.coef[firstMA+i] * e[t-1-i]
		}
		if m.season > 0 && t >= m.season {
			v += m.coef[seasonalAR]*x[t-m.season] + m.coef[seasonalMA]*e[t-m.season]
		}
		e[t] = x[t] - v
	}
}

// polish brings the coefficients to the least squares of the shocks and leaves
// those in e, or as far on the way there as the model is stable.
func (m *arima) polish(w *fitting, x, e []float64, from int) {
	var pick [regressors]int
	k := m.picks(&pick)
	before := m.coef
	var point [regressors]float64
	for i := range k {
		point[i] = m.coef[pick[i]]
	}
	set := func(p []float64) {
		for i, v := range p {
			m.coef[pick[i]] = v
		}
		m.filter(x, e, from)
	}
	if m.q > 0 || m.used[seasonalMA] { // else least squares is what we have
		w.refine(func(p, errs []float64) {
			set(p)
			copy(errs, e[from:])
		}, point[:k], 1e-5, len(x)-from, 0, 3)
	}
	set(point[:k])
	for share := 0.5; !m.stable(); share /= 2 {
		if share < 0.1 {
			share = 0
		}
		for i := range k {
			slot := pick[i]
			m.coef[slot] = before[slot] + share*(point[i]-before[slot])
		}
		m.filter(x, e, from)
		if share == 0 {
			break
		}
	}
}

// keep takes over from a fit what forecasts and updates need.
func (m *arima) keep(x, e []float64, past []float32, from int) {
	n := len(e)
	m.shocks = [maxMA]float64{e[n-1], e[n-2]}
	m.sigma = math.Sqrt(squares(e[from:]) / float64(n-from))
	if cap(past) < m.season {
		past = make([]float32, m.season)
	}
	m.past, m.oldest = past[:m.season], 0
	for i := range m.past {
		m.past[i] = 0
		if at := n - m.season + i; at >= 0 {
			m.past[i] = float32(e[at])
		}
	}
	m.gain = m.inverse(crossProducts(x, e, m.season, from))
}

// inverse returns the inverse of the cross products in use, nil if there is
// none.
func (m *arima) inverse(g *design) [][]float64 {
	var pick [regressors]int
	k := m.picks(&pick)
	if k == 0 {
		return nil
	}
	out, cells := make([][]float64, k), make([]float64, k*k)
	for col := range k {
		out[col] = cells[col*k : (col+1)*k]
		var store [regressors][regressors]float64
		var a [regressors][]float64
		var unit [regressors]float64
		unit[col] = 1
		for i := range k {
			a[i] = store[i][:]
			for j := 0; j <= i; j++ {
				a[i][j] = g.a[pick[i]][pick[j]]
			}
			a[i][i] *= 1 + 1e-8
		}
		if !solve(a[:k], unit[:k], out[col]) {
			return nil
		}
	}
	return out
}
