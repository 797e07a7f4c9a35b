// Package accuracy measures forecasts by what came: scaled and percentage errors
// of the mean, and the quality of quantiles and intervals.
package accuracy

import "math"

// Pinball returns the loss of a forecast quantile given the outcome y (Koenker
// and Bassett 1978), in the unit of y: level times what is missing, or 1-level
// times what is too much. The level is between 0 and 1.
func Pinball(level, quantile, y float64) float64 {
	if y > quantile {
		return level * (y - quantile)
	}
	return (1 - level) * (quantile - y)
}

// IntervalScore returns the score of the interval from the quantile low of level
// below to the quantile high of level above, given the outcome y, in the unit of
// y: its width and a penalty for missing (Winkler 1972; Gneiting and Raftery
// 2007, equation 43, whose 2/α is 1/below and 1/(1-above) here, so that the
// levels need not be symmetric). Less is better.
func IntervalScore(below, above, low, high, y float64) float64 {
	score := high - low
	switch {
	case y < low:
		score += (low - y) / below
	case y > high:
		score += (y - high) / (1 - above)
	}
	return score
}

// SMAPE returns one term of the symmetric mean absolute percentage error, 0 to
// 200, as the M4 competition defines it (Makridakis, Spiliotis and Assimakopoulos
// 2020): 200 |y - forecast| / (|y| + |forecast|). It is 0 where both are 0.
func SMAPE(forecast, y float64) float64 {
	sum := math.Abs(y) + math.Abs(forecast)
	if sum == 0 {
		return 0
	}
	return 200 * math.Abs(y-forecast) / sum
}

// Scale returns the mean absolute difference between values that are season
// steps apart: the divisor of the mean absolute scaled error (Hyndman and
// Koehler 2006). A season less than 1 counts as 1. NaN is a missing value. It is
// 0 where all differences are, and where there is none.
func Scale(ys []float64, season int) float64 {
	season = max(1, season)
	var sum, n float64
	for t := season; t < len(ys); t++ {
		if d := math.Abs(ys[t] - ys[t-season]); !math.IsNaN(d) {
			sum += d
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / n
}
