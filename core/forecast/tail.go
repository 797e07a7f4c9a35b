package forecast

import (
	"math"
	"slices"
)

const (
	// tailLevel is the highest level that is followed up by itself. What lies
	// beyond is too rare for that, and is read from the tail instead; the lowest
	// is 1 - tailLevel.
	tailLevel = 0.975
	// priorExcesses is how many excesses count as much as what is believed
	// before there are any: a mean of priorMean, and a tail index of priorIndex,
	// which more excesses are needed to move.
	priorExcesses = 8.0
	priorMean     = 0.35 // of an exponential tail 0.27, of Student's t with 3 degrees 0.58
	priorIndex    = 0.1
	priorShapes   = 40.0
	// heaviest bounds the index of a tail: its variance is finite.
	heaviest = 0.45
	// trusted is the number of excesses from which their own quantiles count
	// more than those of the distribution fitted to them.
	trusted = 16.0
	// mostExcess bounds what a jump out of nothing is worth, in units.
	mostExcess = 1e9
	// leastUnit is the least unit of excesses, in standard deviations of the series.
	leastUnit = 0.05
)

// levels are the quantiles' levels that a forecaster follows up and those that
// it is asked for.
type levels struct {
	tracked []float64 // ascending, in [1-tailLevel, tailLevel]; the median among them
	median  int       // index into tracked
	wanted  []float64 // ascending
	at      []int     // per wanted one: its index in tracked, or that of the end it is beyond
	below   bool      // whether one is, at either end; then that end is 1-tailLevel
	above   bool      // or tailLevel
}

func newLevels(wanted []float64) levels {
	l := levels{wanted: wanted, tracked: []float64{0.5}}
	for _, level := range wanted {
		l.below = l.below || level < 1-tailLevel
		l.above = l.above || level > tailLevel
		l.tracked = append(l.tracked, min(tailLevel, max(1-tailLevel, level)))
	}
	slices.Sort(l.tracked)
	l.tracked = slices.Compact(l.tracked)
	l.median = slices.Index(l.tracked, 0.5)
	for _, level := range wanted {
		i, _ := slices.BinarySearch(l.tracked, level)
		l.at = append(l.at, min(i, len(l.tracked)-1))
	}
	return l
}

// tail is what is known of the outcomes beyond the outermost quantile followed
// up, on one side: by how much they exceeded it, in units of its distance from
// the median. Peaks over a threshold have a generalised Pareto distribution, the
// better the higher it is (Balkema and de Haan 1974; Pickands 1975); over a
// quantile forecast, which moves with level and spread of the series, they do
// where what is left has no memory (McNeil and Frey 2000).
type tail struct {
	excesses     residuals
	mean, index  float64 // of the distribution fitted
	within       float64 // share of the distribution below the largest excess
	fittedWithin float64 // quantile of within
}

func newTail(wanted bool) *tail {
	if !wanted {
		return nil
	}
	t := &tail{}
	t.fit()
	return t
}

// add takes in an excess, in units.
func (t *tail) add(excess float64) {
	t.excesses.add(min(excess, mostExcess))
	t.fit()
}

// fit finds the tail's index by probability-weighted moments (Hosking and Wallis
// 1987), and draws it and the mean towards what is believed beforehand.
func (t *tail) fit() {
	n := int(t.excesses.n)
	var sum, weighted float64
	for i := range n {
		v := t.excesses.at(i)
		sum += v
		weighted += v * (float64(n-1-i) + 0.65) / float64(n)
	}
	k := float64(n)
	t.mean = (sum + priorExcesses*priorMean) / (k + priorExcesses)
	index := priorIndex
	if n > 1 && sum > 0 {
		index = 2 - sum/(sum-2*weighted)
		if !(index > 0) { // also if the moments have none
			index = 0
		}
	}
	t.index = min(heaviest, (k*index+priorShapes*priorIndex)/(k+priorShapes))
	t.within = k / (k + 1)
	t.fittedWithin = t.pareto(t.within)
}

// pareto is the quantile of the distribution fitted.
func (t *tail) pareto(level float64) float64 {
	return t.mean * (1 - t.index) / t.index * (math.Pow(1-level, -t.index) - 1)
}

// quantile returns by how much, in units, the quantile of a level above
// tailLevel lies beyond that of tailLevel; of a level below 1-tailLevel the same
// with 1-level.
func (t *tail) quantile(level float64) float64 {
	level = max(0, 1-(1-level)/(1-tailLevel))
	fitted := t.pareto(level)
	n := int(t.excesses.n)
	if n == 0 {
		return fitted
	}
	own := t.excesses.at(n-1) + fitted - t.fittedWithin
	if level < t.within {
		own = t.excesses.quantile(level)
		if level*float64(n+1) < 1 {
			own = t.excesses.at(0) * level * float64(n+1)
		}
	}
	share := float64(n) / (float64(n) + trusted)
	return share*own + (1-share)*fitted
}

// unit returns the unit of excesses over a quantile that is so far from the
// median.
func (s *series) unit(distance float64) float64 {
	if s.hi == s.lo {
		return 0
	}
	return distance + leastUnit*s.std
}

// exceed takes in an outcome that lies beyond the quantiles forecast of it.
func (j *junction) exceed(l levels, s *series, quantiles []float64, y float64) {
	low, median, high := quantiles[0], quantiles[l.median], quantiles[len(quantiles)-1]
	unit := 0.0
	switch {
	case l.above && y > high:
		if unit = s.unit(high - median); unit > 0 {
			j.above.add((y - high) / unit)
		}
	case l.below && y < low:
		if unit = s.unit(median - low); unit > 0 {
			j.below.add((low - y) / unit)
		}
	}
	if unit > 0 {
		j.stretch(l)
	}
}

// stretch says how far beyond the outermost quantiles those lie that are wanted.
func (j *junction) stretch(l levels) {
	for i, level := range l.wanted {
		switch {
		case level > tailLevel:
			j.beyond[i] = j.above.quantile(level)
		case level < 1-tailLevel:
			j.beyond[i] = -j.below.quantile(1 - level)
		}
	}
}
