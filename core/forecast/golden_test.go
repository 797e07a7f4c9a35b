package forecast

import (
	"encoding/json"
	"math"
	"os"
	"testing"
)

// golden is what testdata/golden.py wrote of statsmodels.
type golden struct {
	Series map[string]struct {
		Values []float64
		Period int
	}
	Cases []goldenCase
}

type goldenCase struct {
	Series, Model string
	Given         map[string]float64
	Init          struct {
		Level    float64   `json:"initial_level"`
		Trend    float64   `json:"initial_trend"`
		Seasonal []float64 `json:"initial_seasonal"`
	}
	Forecast      []float64
	SSE           float64
	FittedSSE     float64 `json:"fitted_sse"`
	D             int
	SeasonalD     int `json:"seasonal_d"`
	AR, MA        []int
	Fitted        map[string]float64
	FittedLoglike float64 `json:"fitted_loglike"`
}

func readGolden(t testing.TB) golden {
	t.Helper()
	raw, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// agree fails unless got is want to a relative tolerance.
func agree(t *testing.T, c goldenCase, got []float64, tolerance float64) {
	t.Helper()
	for i, want := range c.Forecast {
		if math.Abs(got[i]-want) > tolerance*math.Abs(want) {
			t.Errorf("%s of %s: %.9g at step %d, statsmodels %.9g", c.Model, c.Series, got[i], i+1, want)
			return
		}
	}
}

func trendOf(model string) trendKind {
	return map[string]trendKind{"ses": noTrend, "holt": linearTrend, "holt-damped": dampedTrend}[model]
}

// The same parameters and starting states give statsmodels' forecasts.
func TestGoldenForecasts(t *testing.T) {
	g := readGolden(t)
	for _, c := range g.Cases {
		ys, period := g.Series[c.Series].Values, g.Series[c.Series].Period
		got := make([]float64, len(c.Forecast))
		switch c.Model {
		case "ses", "holt", "holt-damped":
			m := &exponential{trend: trendOf(c.Model)}
			p := []float64{c.Given["smoothing_level"], c.Given["smoothing_trend"], c.Given["damping_trend"]}
			sse := m.run(ys, p, []float64{c.Init.Level, c.Init.Trend})
			m.path(nil, got)
			agree(t, c, got, 1e-9)
			if math.Abs(sse-c.SSE) > 1e-9*c.SSE {
				t.Errorf("%s of %s: squared error %v, statsmodels %v", c.Model, c.Series, sse, c.SSE)
			}
		case "holt-winters", "holt-winters-mul":
			m := &winters{multiplicative: c.Model == "holt-winters-mul", period: period, phi: c.Given["damping_trend"]}
			m.alpha, m.beta, m.gamma = c.Given["smoothing_level"], c.Given["smoothing_trend"], c.Given["smoothing_seasonal"]
			m.start(append([]float64{c.Init.Level, c.Init.Trend}, c.Init.Seasonal...))
			for _, y := range ys {
				m.step(y)
			}
			m.path(nil, got)
			agree(t, c, got, 1e-6)
		case "theta":
			m := &theta{}
			m.fitGiven(ys, period, c.Given["alpha"])
			m.path(nil, got)
			agree(t, c, got, 1e-6)
		case "arima":
			m, s := arimaOf(c, ys, period)
			m.path(s, got)
			agree(t, c, got, 1e-6)
		}
	}
}

// fitGiven is fit with the smoothing parameter given and started at the first
// value, as statsmodels does.
func (m *theta) fitGiven(ys []float64, period int, alpha float64) {
	m.fit(ys, period)
	m.phase = 0
	x := make([]float64, len(ys))
	for t, y := range ys {
		x[t] = m.deseasonalised(y)
		m.advance()
	}
	m.smooth.run(x, []float64{alpha}, x[:1])
}

// arimaOf is the model of a case, filtered over ys.
func arimaOf(c goldenCase, ys []float64, period int) (*arima, *series) {
	m := newArima(c, period)
	s := newSeries(0)
	for _, y := range ys {
		s.append(y)
	}
	s.examine()
	m.take(c.Given)
	m.sigma = 1
	for t := m.need(); t <= len(ys); t++ {
		m.follow(ys[:t])
	}
	return m, s
}

func newArima(c goldenCase, period int) *arima {
	m := &arima{d: c.D, scale: 1, fitted: true, season: period, past: make([]float32, period), differenced: c.SeasonalD == 1}
	nonseasonal := func(lags []int) (n int) {
		for _, l := range lags {
			if l != period {
				n++
			}
		}
		return n
	}
	p, q := nonseasonal(c.AR), nonseasonal(c.MA)
	_, constant := c.Given["intercept"]
	m.order(p, q, constant, p < len(c.AR), q < len(c.MA))
	return m
}

// take takes over statsmodels' parameters by name.
func (m *arima) take(params map[string]float64) {
	m.coef = [regressors]float64{
		0: params["intercept"], 1: params["ar.L1"], 2: params["ar.L2"],
		firstMA: params["ma.L1"], seasonalMA: params["ma.L12"],
	}
}

// Our fits reach the squared error that statsmodels' own do.
func TestGoldenFits(t *testing.T) {
	g := readGolden(t)
	for _, c := range g.Cases {
		ys, period := g.Series[c.Series].Values, g.Series[c.Series].Period
		var sse float64
		want := c.FittedSSE
		switch c.Model {
		case "ses", "holt", "holt-damped":
			m := &exponential{trend: trendOf(c.Model)}
			p, state := m.fit(ys)
			sse = m.run(ys, p, state)
		case "holt-winters", "holt-winters-mul":
			m := &winters{multiplicative: c.Model == "holt-winters-mul"}
			sse = m.fit(ys, period)
		case "arima":
			sse, want = arimaSquares(c, ys, period)
		default:
			continue
		}
		t.Logf("%s of %s: squared error %.5g, statsmodels %.5g", c.Model, c.Series, sse, want)
		if !(sse <= 1.01*want) {
			t.Errorf("%s of %s: squared error %.5g, statsmodels %.5g", c.Model, c.Series, sse, want)
		}
	}
}

// arimaSquares returns the squared shocks of our fit and of statsmodels'
// parameters, of the same order on the same values.
func arimaSquares(c goldenCase, ys []float64, period int) (own, reference float64) {
	w := &fitting{}
	m := newArima(c, period)
	x, e, from := w.prepare(m, ys, max(longAR+1, period+maxAR+1))
	first := append([]float64(nil), e...)
	m.take(c.Fitted)
	m.filter(x, e, from)
	reference = squares(e[from:])
	copy(e, first)
	m.solve(crossProducts(x, e, period, from))
	m.polish(w, x, e, from)
	return squares(e[from:]), reference
}
