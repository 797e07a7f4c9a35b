package backtest

import (
	"errors"
	"fmt"

	"github.com/gnomon-vm/gnomon/core/accuracy"
)

// ErrConstant is returned for a series that never changes: no error can be
// measured in units of its changes.
var ErrConstant = errors.New("the series is constant")

// Plan is the moments of a series from which to forecast, and what to compare.
type Plan struct {
	// Origins are the numbers of values known, ascending.
	Origins []int
	// Steps are the steps to score, ascending; all up to the horizon if empty.
	Steps []int
	// Scale is what errors are divided by: accuracy.Scale of the series.
	Scale float64
}

// NewPlan spreads at most origins moments evenly over the second half of a
// series; over less than half if the horizon leaves no more. At each of them
// the whole horizon is known. The season is that of the errors' scale, as in
// accuracy.Scale. ErrConstant is returned if the scale is 0.
func NewPlan(ys []float64, o Options, steps []int, season, origins int) (Plan, error) {
	if err := o.ValidateFor(len(ys)); err != nil {
		return Plan{}, err
	}
	last := len(ys) - o.Horizon
	if last < 1 {
		return Plan{}, fmt.Errorf("series of %d values: want more than the horizon of %d, to have a value to forecast from", len(ys), o.Horizon)
	}
	p := Plan{Steps: steps, Scale: accuracy.Scale(ys, season)}
	if p.Scale == 0 {
		return Plan{}, ErrConstant
	}
	first := min(max(1, len(ys)/2), last)
	n := min(origins, last-first+1)
	for i := n - 1; i >= 0; i-- {
		p.Origins = append(p.Origins, last-(last-first)*i/max(1, n-1))
	}
	return p, nil
}

// Run forecasts a series from each of the plan's origins, as a Forecaster does
// that was trained on what came before the first of them and then saw the rest
// value by value. It returns one score a step of the plan, or a single one over
// all steps where the plan names none.
func Run(ys []float64, o Options, p Plan) ([]accuracy.Score, error) {
	f, err := o.forecaster(len(ys))
	if err != nil {
		return nil, err
	}
	tallies := make([]*accuracy.Tally, max(1, len(p.Steps)))
	u := unitFor(ys)
	known, values := 0, u.to(ys)
	for _, origin := range p.Origins {
		if known == 0 {
			f.Train(values[:origin])
		} else {
			for _, y := range values[known:origin] {
				f.Update(y)
			}
		}
		known = origin
		out := f.Forecast()
		u.back(&out)
		add := func(tally, step int) {
			if tallies[tally] == nil {
				tallies[tally] = accuracy.NewTally(out.Levels)
			}
			tallies[tally].Add(out.Mean[step-1], out.Quantiles[step-1], ys[origin+step-1], p.Scale)
		}
		for i, step := range p.Steps {
			add(i, step)
		}
		for step := 1; len(p.Steps) == 0 && step <= o.Horizon; step++ {
			add(0, step)
		}
	}
	scores := make([]accuracy.Score, len(tallies))
	for i, t := range tallies {
		scores[i] = t.Score()
	}
	return scores, nil
}
