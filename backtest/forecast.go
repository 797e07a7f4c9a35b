// Package backtest forecasts series that are known as a whole: from their end,
// and from many moments within, to see how good the forecasts are.
package backtest

import (
	"fmt"
	"math"

	"github.com/gnomon-vm/gnomon/core/forecast"
)

// Options say how to forecast. The zero value of Model is auto; Horizon and
// Levels are as in forecast.Options.
type Options struct {
	Model   string
	Horizon int // steps
	// Seasons are their lengths in steps, none to find them; 1 says that there is
	// no season. Of several the first one is the main one.
	Seasons []int
	Levels  []float64
}

// Validate checks the options by themselves.
func (o Options) Validate() error {
	_, err := o.forecaster(0)
	return err
}

// ValidateFor checks that a series of n values is long enough for the options.
func (o Options) ValidateFor(n int) error {
	if o.Horizon > n {
		return fmt.Errorf("horizon %d is longer than the series of %d values: want at most its length", o.Horizon, n)
	}
	for _, season := range o.Seasons {
		if season > n {
			return fmt.Errorf("season %d is longer than the series of %d values: want at most its length, and half of that to use it", season, n)
		}
	}
	return nil
}

// forecaster returns a forecaster for a series of n values.
func (o Options) forecaster(n int) (*forecast.Forecaster, error) {
	season := 0
	if len(o.Seasons) > 0 {
		season = o.Seasons[0]
	}
	if season == 1 {
		season = 0
		if n < 2*forecast.MaxSeason {
			season = forecast.MaxSeason // longer than the series can tell: none
		}
	}
	var further []int
	if len(o.Seasons) > 1 {
		further = o.Seasons[1:]
	}
	return forecast.New(forecast.Options{Model: o.Model, Horizon: o.Horizon, Season: season, Seasons: further, Quantiles: o.Levels})
}

// Ahead forecasts what follows the series; NaN is a missing value.
func Ahead(ys []float64, o Options) (forecast.Forecast, error) {
	if err := o.ValidateFor(len(ys)); err != nil {
		return forecast.Forecast{}, err
	}
	f, err := o.forecaster(len(ys))
	if err != nil {
		return forecast.Forecast{}, err
	}
	u := unitFor(ys)
	f.Train(u.to(ys))
	out := f.Forecast()
	u.back(&out)
	return out, nil
}

// unit maps a series to what a Forecaster takes: demand, which is never negative
// and not astronomical. A series of demand is left as it is.
type unit struct{ offset, size float64 }

const (
	largest = 1e15 // values beyond are divided
	// headroom is how far above 0 a series with negative values is lifted, in
	// its range, so that its forecasts and their quantiles are not cut off at 0.
	headroom = 4
)

func unitFor(ys []float64) unit {
	low, high := math.Inf(1), math.Inf(-1)
	for _, y := range ys {
		if !math.IsNaN(y) {
			low, high = min(low, y), max(high, y)
		}
	}
	u := unit{size: 1}
	if top := max(math.Abs(low), math.Abs(high)); top > largest && !math.IsInf(top, 0) {
		u.size = top / largest
	}
	if low < 0 {
		u.offset = low/u.size - headroom*max(high/u.size-low/u.size, -low/u.size*1e-6)
	}
	return u
}

func (u unit) to(ys []float64) []float64 {
	if u == (unit{size: 1}) {
		return ys
	}
	out := make([]float64, len(ys))
	for i, y := range ys {
		out[i] = y/u.size - u.offset
	}
	return out
}

func (u unit) back(f *forecast.Forecast) {
	if u == (unit{size: 1}) {
		return
	}
	for k := range f.Mean {
		f.Mean[k] = (f.Mean[k] + u.offset) * u.size
		for q := range f.Quantiles[k] {
			f.Quantiles[k][q] = (f.Quantiles[k][q] + u.offset) * u.size
		}
	}
}
