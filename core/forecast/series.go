package forecast

import (
	"math"
	"slices"
)

const (
	window      = 1024             // samples every model may look back on, at least
	slack       = 256              // further samples held before the oldest are dropped
	refresh     = 32               // samples between two looks at the whole window
	maxValue    = float64(1 << 62) // larger samples count as this: safe in int64 and when squared
	fitWindow   = 256              // samples that parameters are fitted on
	refitPeriod = 64               // samples between two fits of the same parameters
)

// series is the bounded history shared by the models, with statistics of it
// that are refreshed every few samples.
type series struct {
	buf   []float64 // oldest first; imputed where a sample was missing
	count int       // samples ever taken in

	// epoch grows when indices into buf or the statistics below changed.
	epoch int

	lo, hi float64 // smallest and largest value in buf
	std    float64 // standard deviation of buf, its extremes clipped; > 0
	split  float64 // boundary between the low and the high regime
	gap    float64 // distance between the regimes' means
	duo    float64 // how clearly there are two regimes: 0 not at all, 1 clearly

	season  int   // given by the caller, 0 to detect
	further []int // as season: further ones, none to detect
	period  int   // the season in force, 0 if there is none

	phase int // by which fits are shifted
}

func newSeries(season int) *series {
	return &series{buf: make([]float64, 0, window+slack), std: 1, season: season}
}

// last returns the newest value, 0 if there is none.
func (s *series) last() float64 {
	if len(s.buf) == 0 {
		return 0
	}
	return s.buf[len(s.buf)-1]
}

// tail returns the newest n values, or all if there are fewer.
func (s *series) tail(n int) []float64 { return s.buf[max(0, len(s.buf)-n):] }

// impute guesses a missing sample: one season ago, else the last value.
func (s *series) impute() float64 {
	if s.period > 0 && len(s.buf) >= s.period {
		return s.buf[len(s.buf)-s.period]
	}
	return s.last()
}

// usable returns how many of the further seasons given the history holds twice.
func (s *series) usable() (n int) {
	for _, p := range s.further {
		if 2*p <= len(s.buf) {
			n++
		}
	}
	return n
}

// push appends a sample and refreshes the statistics when that is due.
func (s *series) push(y float64) {
	s.append(y)
	every := refresh
	switch {
	case s.count < 4:
		every = 1
	case s.count < 2*refresh:
		every = 8
	case s.count >= window/2:
		every = 2 * refresh
	}
	if s.count%every == 0 {
		s.examine()
	}
}

func (s *series) append(y float64) {
	if len(s.buf) == cap(s.buf) {
		n := copy(s.buf, s.buf[len(s.buf)-window:])
		s.buf = s.buf[:n]
		s.epoch++
	}
	s.buf = append(s.buf, y)
	s.count++
	if len(s.buf) == 1 {
		s.lo, s.hi = y, y
	}
	s.lo, s.hi = min(s.lo, y), max(s.hi, y)
}

// examine recomputes the statistics and the period from the whole history.
func (s *series) examine() {
	s.epoch++
	w := &workspace{}
	v := append(w.sorted[:0], s.buf...)
	slices.Sort(v)
	w.sorted = v
	s.lo, s.hi = v[0], v[len(v)-1]
	s.regimes(v)
	s.period = s.season
	if s.period == 0 {
		s.period = w.period(s.buf)
	}
	if 2*s.period > len(s.buf) {
		s.period = 0
	}
}

// regimes splits the sorted values in two by Otsu's criterion (1979): the
// boundary that maximises the variance between the two classes. The extreme
// percent is clipped first, so that a lone spike is not a regime of its own.
func (s *series) regimes(v []float64) {
	n := len(v)
	top := v[n-1-n/100]
	s.std, s.split, s.gap, s.duo = 1, top, 0, 0
	if top > 0 {
		s.std = top // scales with the unit, as a deviation does
	}
	if top <= v[0] {
		return
	}
	var sum, sumSquares float64
	for _, y := range v {
		y = min(y, top) / top
		sum += y
		sumSquares += y * y
	}
	fn := float64(n)
	mean := sum / fn
	variance := sumSquares/fn - mean*mean
	if variance <= 1e-14 {
		return
	}
	var below, best float64
	for i := 1; i < n; i++ {
		below += min(v[i-1], top) / top
		if v[i] == v[i-1] {
			continue
		}
		f := float64(i) / fn
		m0, m1 := below/float64(i), (sum-below)/float64(n-i)
		if between := f * (1 - f) * (m1 - m0) * (m1 - m0); between > best {
			best = between
			s.gap = (m1 - m0) * top
			s.split = (m0 + m1) / 2 * top
		}
	}
	s.std = math.Sqrt(variance) * top
	// A bell curve split at its middle scores 0.64, a flat one 0.75.
	s.duo = min(1, max(0, (best/variance-0.72)/0.15))
}

// bounds returns what no point forecast may leave: zero, and as far above the
// largest value seen as twice the range seen.
func (s *series) bounds() (lo, hi float64) {
	return 0, min(maxValue, s.hi+2*(s.hi-s.lo))
}

// refitDue reports whether a model refits at this sample: often while there is
// little history, then every refitPeriod samples, each model at a phase of its
// own so that no single sample pays for all of them.
func (s *series) refitDue(phase int) bool {
	at := s.count + s.phase + phase
	switch {
	case s.count < refitPeriod:
		return s.count == 8 || s.count%16 == 0
	case s.count < 4*refitPeriod:
		return at%refitPeriod == 0
	}
	return at%(2*refitPeriod) == 0
}

// rareRefitDue is refitDue for models whose fits cost more once there is much to
// fit to, and matter more while there is little.
func (s *series) rareRefitDue(phase int) bool {
	at := s.count + s.phase + phase
	switch {
	case s.count < refitPeriod:
		return s.count%8 == 0
	case s.count < 2*refitPeriod:
		return at%32 == 0
	case s.count < 8*refitPeriod:
		return at%(2*refitPeriod) == 0
	}
	return at%(4*refitPeriod) == 0
}
