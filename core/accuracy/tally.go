package accuracy

import (
	"math"
	"slices"
)

// Tally sums up forecasts and their outcomes. All its forecasts have the same
// quantiles' levels.
type Tally struct {
	levels []float64
	sums   Score // sums of what Score averages
}

// Score holds the averages over forecasts and outcomes. What is scaled is in
// units of the series' Scale, so that series of any unit can be averaged. A
// measure that needs what is not there is NaN.
type Score struct {
	// N is the number of outcomes that were compared.
	N int
	// MASE is the mean absolute scaled error of the mean (Hyndman and Koehler
	// 2006): below 1 is better than repeating the value of a season ago, one
	// step ahead.
	MASE float64
	// SMAPE is the symmetric mean absolute percentage error of the mean, 0 to 200.
	SMAPE float64
	// Pinball is the mean pinball loss over all levels, scaled.
	Pinball float64
	// Coverage is the share of outcomes within the interval between the lowest
	// and the highest quantile, 0 to 1.
	Coverage float64
	// Interval is the mean score of that interval, scaled.
	Interval float64
}

// NewTally returns an empty Tally for quantiles of these levels: ascending,
// between 0 and 1.
func NewTally(levels []float64) *Tally { return &Tally{levels: slices.Clone(levels)} }

// Add takes in a forecast of one step, its quantiles by level, and the outcome.
// Scale is that of the series; above 0. A missing outcome, NaN, is passed over.
func (t *Tally) Add(mean float64, quantiles []float64, y, scale float64) {
	if math.IsNaN(y) {
		return
	}
	s := &t.sums
	s.N++
	s.MASE += math.Abs(y-mean) / scale
	s.SMAPE += SMAPE(mean, y)
	for i, level := range t.levels {
		s.Pinball += Pinball(level, quantiles[i], y) / scale / float64(len(t.levels))
	}
	if last := len(t.levels) - 1; last > 0 {
		low, high := quantiles[0], quantiles[last]
		if low <= y && y <= high {
			s.Coverage++
		}
		s.Interval += IntervalScore(t.levels[0], t.levels[last], low, high, y) / scale
	}
}

// Score returns the averages.
func (t *Tally) Score() Score {
	n := float64(t.sums.N)
	s := Score{
		N: t.sums.N, MASE: t.sums.MASE / n, SMAPE: t.sums.SMAPE / n,
		Pinball: t.sums.Pinball / n, Coverage: t.sums.Coverage / n, Interval: t.sums.Interval / n,
	}
	if len(t.levels) == 0 {
		s.Pinball = math.NaN()
	}
	if len(t.levels) < 2 {
		s.Coverage, s.Interval = math.NaN(), math.NaN()
	}
	return s
}

// Average returns the averages of scores, each counting the same however many
// outcomes it has, as competitions average series; N is the sum. Scores without
// outcomes do not count.
func Average(scores []Score) Score {
	var sum Score
	var n float64
	for _, s := range scores {
		if s.N == 0 {
			continue
		}
		n++
		sum.N += s.N
		sum.MASE += s.MASE
		sum.SMAPE += s.SMAPE
		sum.Pinball += s.Pinball
		sum.Coverage += s.Coverage
		sum.Interval += s.Interval
	}
	return Score{N: sum.N, MASE: sum.MASE / n, SMAPE: sum.SMAPE / n, Pinball: sum.Pinball / n, Coverage: sum.Coverage / n, Interval: sum.Interval / n}
}
