package plan

import (
	"math"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/forecast"
)

const (
	// marginDivisor sets the margin of a request: a fiftieth above the
	// forecast, so that its being met exactly is no shortage.
	marginDivisor = 50
	// linger is how many intervals a reservation outlives the last step it is
	// needed for.
	linger = 2
	// maxAmount keeps sums of amounts within int64.
	maxAmount = math.MaxInt64 / 4
)

// Inputs are what one resource's request is decided from. Amounts are in the
// resource's unit.
type Inputs struct {
	Resource gnomon.Resource

	// Interval is the time between two samples, Horizon that of the whole
	// forecast. Both are positive.
	Interval, Horizon time.Duration

	// Usage is what the VM gets now, Demand what it would take, Allocation what
	// it may use, and Ceiling the most it may ever be allocated. A Ceiling of 0
	// allows no request.
	Usage, Demand, Allocation, Ceiling int64

	// Threshold is by how much the forecast must exceed Usage to be worth a
	// request.
	Threshold int64

	// Quantile is the level that the request is sized by; the nearest of the
	// forecast's levels is taken.
	Quantile float64

	Forecast forecast.Forecast
}

// Decide returns what to ask for. Low, Median and High are the largest values
// that the lowest quantile, the median and the sizing quantile take over the
// horizon.
//
// If High exceeds Usage by more than Threshold, Level is High and a fiftieth,
// at most Ceiling. NeedIn is the start of the first step whose sizing quantile
// exceeds Allocation, 0 if Demand does already, and Lifetime ends two intervals
// after the last such step. If no step exceeds Allocation, the request is one
// for keeping it, and Usage plus Threshold takes its place.
//
// Level is 0, no request, otherwise, and also when Ceiling leaves no level worth
// asking for. Level is never in (0, Usage+Threshold]; NeedIn is at most Horizon;
// Lifetime is from two intervals to three beyond Horizon.
func Decide(in Inputs) gnomon.Want {
	sizing := nearest(in.Forecast.Levels, in.Quantile)
	want := gnomon.Want{
		Resource: in.Resource,
		Low:      peak(in.Forecast, 0),
		Median:   peak(in.Forecast, nearest(in.Forecast.Levels, 0.5)),
		High:     peak(in.Forecast, sizing),
		Model:    in.Forecast.Model,
	}
	worth := min(maxAmount, max(0, in.Usage)) + min(maxAmount, max(0, in.Threshold))
	level := min(want.High+want.High/marginDivisor, in.Ceiling)
	if want.High <= worth || level <= worth {
		return want
	}
	want.Level = level
	bar := in.Allocation
	if want.High <= bar {
		bar = worth
	}
	first, last := exceeding(in.Forecast, sizing, bar)
	want.NeedIn = min(time.Duration(first)*in.Interval, in.Horizon)
	if in.Demand > in.Allocation {
		want.NeedIn = 0
	}
	want.Lifetime = min(time.Duration(last+1+linger)*in.Interval, in.Horizon+3*in.Interval)
	return want
}

// exceeding returns the first and last step, from 0, whose quantile is above
// bar. There is at least one.
func exceeding(f forecast.Forecast, quantile int, bar int64) (first, last int) {
	first = -1
	for k, step := range f.Quantiles {
		if amount(step[quantile]) > bar {
			if first < 0 {
				first = k
			}
			last = k
		}
	}
	return max(0, first), last
}

// nearest returns the index of the level nearest to want, the higher of two.
func nearest(levels []float64, want float64) int {
	best := 0
	for i, l := range levels {
		if math.Abs(l-want) <= math.Abs(levels[best]-want) {
			best = i
		}
	}
	return best
}

// peak returns the largest value of one quantile over the horizon, 0 if there
// is no forecast.
func peak(f forecast.Forecast, quantile int) int64 {
	var most int64
	for _, step := range f.Quantiles {
		if quantile < len(step) {
			most = max(most, amount(step[quantile]))
		}
	}
	return most
}

// amount rounds a forecast up to a whole unit.
func amount(v float64) int64 {
	switch {
	case !(v > 0):
		return 0
	case v >= maxAmount:
		return maxAmount
	}
	return int64(math.Ceil(v))
}
