package forecast

// model is one way to forecast. All see the same series; each keeps only what
// it needs beside it.
type model interface {
	// observe takes in the newest value of s.
	observe(s *series)
	// refit finds the parameters anew if that is due, and reports whether it was;
	// once per sample at most: it is dear, and can wait until the sample's forecast
	// is made.
	refit(s *series) bool
	// ready reports whether the model has what it needs to forecast s.
	ready(s *series) bool
	// path writes the forecasts of the steps 1, 2, … after the newest value
	// of s into dst. They may be anything but NaN; the caller bounds them.
	path(s *series, dst []float64)
}

// distribution is a model that gives quantiles of its own: of the value step
// steps ahead of the newest of s, one for each level, which ascend.
type distribution interface {
	quantiles(s *series, step int, levels, dst []float64)
}

// Auto is the name that leaves the choice of model to the forecaster.
const Auto = "auto"

const (
	naiveIndex = 0
	naiveName  = "naive"
	analogName = "analog"
)

// catalogue lists the models, the fallback first.
var catalogue = []struct {
	name string
	make func() model
}{
	{naiveName, func() model { return naive{} }},
	{"seasonal-naive", func() model { return seasonalNaive{} }},
	{"sma", func() model { return &movingAverage{span: spans[1]} }},
	{"ses", func() model { return &exponential{} }},
	{"holt", func() model { return &exponential{trend: linearTrend} }},
	{"holt-damped", func() model { return &exponential{trend: dampedTrend} }},
	{"holt-winters", func() model { return &winters{} }},
	{"holt-winters-mul", func() model { return &winters{multiplicative: true} }},
	{"theta", func() model { return &theta{} }},
	{"arima", func() model { return &arima{} }},
	{"multi-season", func() model { return &multiSeason{} }},
	{analogName, func() model { return newAnalog() }},
}

// Models returns the names that Options.Model accepts.
func Models() []string {
	names := []string{Auto}
	for _, c := range catalogue {
		names = append(names, c.name)
	}
	return names
}

// naive repeats the last value.
type naive struct{}

func (naive) observe(*series)      {}
func (naive) refit(*series) bool   { return false }
func (naive) ready(s *series) bool { return len(s.buf) > 0 }
func (naive) path(s *series, dst []float64) {
	for i := range dst {
		dst[i] = s.last()
	}
}

// seasonalNaive repeats the last season.
type seasonalNaive struct{}

func (seasonalNaive) observe(*series)      {}
func (seasonalNaive) refit(*series) bool   { return false }
func (seasonalNaive) ready(s *series) bool { return s.period > 0 }
func (seasonalNaive) path(s *series, dst []float64) {
	season := s.tail(s.period)
	for i := range dst {
		dst[i] = season[i%len(season)]
	}
}

// movingAverage is the mean of the last few values; how many is fitted.
type movingAverage struct{ span int }

var spans = [...]int{2, 4, 8, 16, 32, 64}

func (m *movingAverage) observe(*series) {}
func (m *movingAverage) refit(s *series) bool {
	if !s.refitDue(0) {
		return false
	}
	m.fit(s.tail(fitWindow))
	return true
}

// fit takes the span with the least squared error one step ahead.
func (m *movingAverage) fit(ys []float64) {
	var best float64
	start := min(spans[len(spans)-1], len(ys)/2)
	for _, span := range spans {
		if span > start {
			break
		}
		var sum, sse float64
		for t, y := range ys {
			if t >= start {
				e := y - sum/float64(span)
				sse += e * e
			}
			sum += y
			if t >= span {
				sum -= ys[t-span]
			}
		}
		if span == spans[0] || sse < best {
			best, m.span = sse, span
		}
	}
}

func (m *movingAverage) ready(s *series) bool { return len(s.buf) >= 2 }
func (m *movingAverage) path(s *series, dst []float64) {
	ys := s.tail(m.span)
	var sum float64
	for _, y := range ys {
		sum += y
	}
	for i := range dst {
		dst[i] = sum / float64(len(ys))
	}
}
