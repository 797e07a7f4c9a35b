package forecast

import "math"

const (
	maxNeighbours = 24
	minNeighbours = 5
	// analogReach is how many steps ahead the neighbours' futures are read.
	analogReach = 256
	// tailOfRange is the mean excess of a tail, of the range of what followed
	// the neighbours.
	tailOfRange = 0.1
	lags        = 4 // newest values compared one by one
	// leastDeviation keeps squared distances finite, as a share of the largest
	// value, until the deviation of what a jump brought is known.
	leastDeviation = 1e-100
)

// Weights of squared differences between two contexts, values in units of the
// series' standard deviation.
var (
	lagWeight   = [lags]float64{1, 0.5, 0.25, 0.125}
	shortWeight = 0.25 // mean of about 8 values
	longWeight  = 0.1  // mean of about 32 values
	ageWeight   = 0.15 // samples spent in the present regime, compressed
)

// analog forecasts by analogy (Lorenz 1969; k nearest neighbours in a delay
// embedding, Farmer and Sidorowich 1987): it looks for the past moments most
// like now, and what followed them is the forecast, as a distribution. A
// moment is described at several scales: the last values, a short and a long
// mean, and for how long the series has been in its present regime, high or
// low. The last is what foresees bursts at jittered intervals: no season is
// needed, only how long pauses tend to last.
type analog struct {
	epoch int // of the series, at the last rebuild
	high  []bool
	age   []float32 // compressed, see compress
	run   int       // samples in the present regime
	short []float32
	long  []float32

	found    []neighbour // nearest first
	searched int         // count of the series at the last search
	reach    int
	order    []valued // what followed them, sorted, for the step below
	sortedOf int      // count of the series
	sortedAt int      // step
	total    float64  // weight of order
}

type neighbour struct {
	at       int // index into the series of the moment itself
	distance float64
	weight   float64
	shift    float64 // added to what followed
}

type valued struct{ value, weight float64 }

func newAnalog() *analog {
	n := window + slack
	return &analog{
		high:  make([]bool, 0, n),
		age:   make([]float32, 0, n),
		short: make([]float32, 0, n),
		long:  make([]float32, 0, n),
		found: make([]neighbour, 0, maxNeighbours+1),
		order: make([]valued, 0, maxNeighbours),
	}
}

func (m *analog) observe(s *series) {
	if m.epoch == s.epoch && len(m.age) == len(s.buf)-1 {
		m.describe(s, len(s.buf)-1)
		return
	}
	m.epoch = s.epoch
	m.high, m.age, m.short, m.long = m.high[:0], m.age[:0], m.short[:0], m.long[:0]
	m.run = 0
	for i := range s.buf {
		m.describe(s, i)
	}
}

func (m *analog) refit(*series) bool { return false }

// describe appends the features of the moment at i.
func (m *analog) describe(s *series, i int) {
	y := s.buf[i]
	high := y > s.split
	short, long := y, y
	if i > 0 {
		short = float64(m.short[i-1]) + (y-float64(m.short[i-1]))/8
		long = float64(m.long[i-1]) + (y-float64(m.long[i-1]))/32
		if was := m.high[i-1]; was != high && math.Abs(y-s.split) < s.gap/10 {
			high = was // noise about the boundary is no change of regime
		}
		if m.high[i-1] != high {
			m.run = 0
		}
	}
	m.run++
	m.high = append(m.high, high)
	m.age = append(m.age, compress(m.run))
	m.short = append(m.short, float32(short))
	m.long = append(m.long, float32(long))
}

// compress makes the difference between long ages matter less than the same
// difference between short ones.
func compress(age int) float32 {
	if age <= 16 {
		return float32(age)
	}
	return float32(16 + 16*math.Log(float64(age)/16))
}

func (m *analog) ready(s *series) bool { return len(s.buf) >= 16 }

// search finds the nearest past moments of the newest one, once per sample.
func (m *analog) search(s *series) {
	if m.searched == s.count {
		return
	}
	m.searched = s.count
	n := len(s.buf)
	m.reach = min(analogReach, n/3)
	k := max(minNeighbours, min(maxNeighbours, n/10))
	m.found = m.found[:0]
	std := max(s.std, leastDeviation*s.hi)
	unit := 1 / (std * std)
	now := n - 1
	ageWeight := ageWeight * s.duo
	worst := math.Inf(1)
	newest := s.buf[now-lags+1:]
	for i := n - 2; i >= lags; i-- { // what is near in time is likely to be alike
		x := s.buf[i] - newest[lags-1]
		a := float64(m.age[i] - m.age[now])
		d := unit*x*x + ageWeight*a*a
		if d >= worst {
			continue
		}
		past := s.buf[i-lags+1 : i+1]
		for j := 1; j < lags; j++ {
			x := past[lags-1-j] - newest[lags-1-j]
			d += unit * lagWeight[j] * x * x
		}
		if d >= worst {
			continue
		}
		x = float64(m.short[i] - m.short[now])
		z := float64(m.long[i] - m.long[now])
		d += unit * (shortWeight*x*x + longWeight*z*z)
		if d < worst {
			m.insert(neighbour{at: i, distance: d}, k)
			if len(m.found) == k {
				worst = m.found[k-1].distance
			}
		}
	}
	m.weigh(s)
}

func (m *analog) insert(c neighbour, k int) {
	if len(m.found) == k {
		m.found = m.found[:k-1]
	}
	i := len(m.found)
	m.found = append(m.found, c)
	for i > 0 && m.found[i-1].distance > c.distance {
		m.found[i] = m.found[i-1]
		i--
	}
	m.found[i] = c
}

// weigh gives near and recent neighbours more weight, and moves the futures of
// those at another level than now by the difference, the more so the larger it
// is: noise is not worth following, a level never seen before is.
func (m *analog) weigh(s *series) {
	if len(m.found) == 0 {
		return
	}
	n := len(s.buf)
	floor := 0.05 + m.found[0].distance
	for i := range m.found {
		c := &m.found[i]
		c.weight = floor / (floor + c.distance) * (0.5 + 0.5*float64(c.at+1)/float64(n))
		gap := s.last() - s.buf[c.at]
		x := gap / max(s.std, leastDeviation*s.hi)
		c.shift = gap * x * x / (0.25 + x*x)
	}
}

// within returns the step in reach that stands for step: one whole seasons
// earlier if there is a season, else the last.
func (m *analog) within(s *series, step int) int {
	over := step - m.reach
	if over <= 0 {
		return step
	}
	if s.period > 0 && s.period <= m.reach {
		return step - (over+s.period-1)/s.period*s.period
	}
	return m.reach
}

// futures fills m.order with what followed the neighbours after step steps, and
// returns the total weight.
func (m *analog) futures(s *series, step int) (total float64) {
	step = m.within(s, step)
	m.order = m.order[:0]
	for _, c := range m.found {
		if c.at+step >= len(s.buf) {
			continue // its future is still to come
		}
		m.order = append(m.order, valued{max(0, s.buf[c.at+step]+c.shift), c.weight})
		total += c.weight
	}
	return total
}

// sort orders what futures found by value. There are few, and sorting them is
// most of the model's work: an insertion sort without calls is fastest.
func (m *analog) sort() {
	v := m.order
	for i := 1; i < len(v); i++ {
		x := v[i]
		j := i
		for j > 0 && v[j-1].value > x.value {
			v[j] = v[j-1]
			j--
		}
		v[j] = x
	}
}

// quantiles writes the quantiles of the value step steps ahead. What it finds for
// one step is kept until another is asked for.
func (m *analog) quantiles(s *series, step int, levels, dst []float64) {
	m.search(s)
	if m.sortedOf != s.count || m.sortedAt != step {
		m.sortedOf, m.sortedAt = s.count, step
		m.total = m.futures(s, step)
		m.sort()
	}
	n := len(m.order)
	if n == 0 {
		for q := range dst {
			dst[q] = s.last()
		}
		return
	}
	least, most := m.order[0].value, m.order[n-1].value
	sum, next := 0.0, 0
	for q, level := range levels {
		if below := level * float64(n+1); below < 1 {
			dst[q] = least - tailOfRange*(most-least)*math.Log(1/below)
			continue
		}
		if above := (1 - level) * float64(n+1); above < 1 {
			dst[q] = most + tailOfRange*(most-least)*math.Log(1/above)
			continue
		}
		for next < n && (next == 0 || sum < level*m.total) {
			sum += m.order[next].weight
			next++
		}
		dst[q] = m.order[next-1].value
	}
}

// path writes the weighted mean of the neighbours' futures.
func (m *analog) path(s *series, dst []float64) {
	m.search(s)
	for k := range dst {
		if from := m.within(s, k+1) - 1; from < k {
			dst[k] = dst[from]
			continue
		}
		m.sortedOf = 0
		total := m.futures(s, k+1)
		if total == 0 {
			dst[k] = s.last()
			continue
		}
		var sum float64
		for _, v := range m.order {
			sum += v.value * (v.weight / total)
		}
		dst[k] = sum
	}
}
