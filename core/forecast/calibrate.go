package forecast

import "math"

const (
	// calibrationRate is the step of adaptive conformal inference: gamma of
	// Gibbs and Candès (2021).
	calibrationRate = 0.02
	// calibrationBound limits how far the logit of a level is moved; outerBound of
	// one so far out that a miss is rare. There a few misses in a row would have
	// the quantile so high that it takes hundreds of samples to come down, and as
	// often as claimed is then too high for most of the time.
	calibrationBound, outerBound = 6.0, 1.2
	// outer levels are those more than so far from the median.
	outer = 0.46
	// extremeLevel is how near to 0 and 1 a moved level comes.
	extremeLevel = 1e-6
	// tie is the relative difference below which an outcome is the quantile.
	tie = 1e-12
	// central levels are those at most so far from the median.
	central = 0.3
)

// calibration keeps one quantile at one step at the level it claims: adaptive
// conformal inference (Gibbs and Candès 2021), but of the level's logit. So the
// level read stays between 0 and 1, and with exponential tails beyond the errors
// known it moves the quantile as far as it takes. The move is the sum of all
// misses less those due, times the rate: what was missed is made good.
type calibration struct {
	level float64
	rate  float64 // of the logit, per miss
	bound float64 // of moved
	moved float64 // of the logit
}

// newCalibration returns the calibration of a level whose outcomes come delay
// forecasts later: the longer that takes, the slower it is to be, lest it
// overshoot before its first effect is seen. Levels about the median are moved
// less: they follow the points, and swing with them.
func newCalibration(level, delay float64) calibration {
	slow := math.Sqrt(delay)
	if math.Abs(level-0.5) < central {
		slow = delay
	}
	bound := calibrationBound
	if math.Abs(level-0.5) > outer {
		bound = outerBound
	}
	return calibration{level: level, rate: calibrationRate / (level * (1 - level) * slow), bound: bound}
}

// judge takes in an outcome and the quantile forecast of it. An outcome that is
// the quantile says nothing: of a series with ties no quantile may be exact.
func (c *calibration) judge(quantile, y float64) {
	over := y - quantile
	if math.Abs(over) <= tie*y {
		return
	}
	if over > 0 {
		c.moved += c.rate * c.level
	} else {
		c.moved -= c.rate * (1 - c.level)
	}
	c.moved = min(c.bound, max(-c.bound, c.moved))
}

// adjusted returns the level to read.
func (c *calibration) adjusted() float64 {
	odds := c.level / (1 - c.level) * math.Exp(c.moved)
	return min(1-extremeLevel, max(extremeLevel, odds/(1+odds)))
}
