package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync"

	"github.com/gnomon-vm/gnomon/backtest"
	"github.com/gnomon-vm/gnomon/core/accuracy"
	"github.com/gnomon-vm/gnomon/trace"
)

// backtestReport is what "gnomon forecast --backtest" found.
type backtestReport struct {
	Horizon int       `json:"horizon"`
	Levels  []float64 `json:"levels"`
	// Nominal is the share of outcomes that coverage should be.
	Nominal *float64       `json:"nominal_coverage"`
	Results []modelScore   `json:"results"`
	Series  []seriesScores `json:"series"`
	LeftOut []leftOut      `json:"left_out"`
}

// modelScore is a model's score on a series, or on average over all.
type modelScore struct {
	Model    string   `json:"model"`
	Step     string   `json:"step"` // a number, or like 1-48
	MASE     *float64 `json:"mase"`
	SMAPE    *float64 `json:"smape"`
	Pinball  *float64 `json:"pinball"`
	Coverage *float64 `json:"coverage"`
	Interval *float64 `json:"interval_score"`
	Outcomes int      `json:"outcomes"`
}

// seriesScores says where a series was forecast from, for others to compare, and
// how good each model was at it.
type seriesScores struct {
	Series  string       `json:"series"`
	Values  int          `json:"values"`
	Scale   float64      `json:"scale"`
	Origins []int        `json:"origins"` // numbers of values known
	Results []modelScore `json:"results"`
}

// leftOut is a series that nothing can be measured on.
type leftOut struct {
	Series string `json:"series"`
	Reason string `json:"reason"`
}

// measure runs the backtest.
func (r forecastRun) measure(ctx context.Context, series []trace.Series, p *progress) (*backtestReport, error) {
	out := &backtestReport{Horizon: r.options.Horizon, Levels: r.options.Levels, LeftOut: []leftOut{}}
	if n := len(r.options.Levels); n > 1 {
		out.Nominal = known(r.options.Levels[n-1] - r.options.Levels[0])
	}
	var plans []backtest.Plan
	var used []trace.Series
	for _, s := range series {
		plan, err := backtest.NewPlan(s.Values, r.options, r.steps, r.scaled, r.origins)
		if errors.Is(err, backtest.ErrConstant) {
			out.LeftOut = append(out.LeftOut, leftOut{s.Name, err.Error()})
			continue
		}
		if err != nil {
			return nil, usagef("%s: series %q: %w", s.Place, s.Name, err)
		}
		plans, used = append(plans, plan), append(used, s)
		out.Series = append(out.Series, seriesScores{Series: s.Name, Values: len(s.Values), Scale: plan.Scale, Origins: plan.Origins})
	}
	if len(used) == 0 {
		return nil, errors.New("backtest: all series are constant: want one that changes, to measure errors by its changes")
	}
	// By model and step of the plan, then by series.
	steps := max(1, len(r.steps))
	scores := make([][]accuracy.Score, len(r.models)*steps)
	for i := range scores {
		scores[i] = make([]accuracy.Score, len(used))
	}
	var mu sync.Mutex
	err := inParallel(ctx, len(r.models)*len(used), p, func(i int) error {
		model, s := i%len(r.models), i/len(r.models)
		o := r.options
		o.Model = r.models[model]
		got, err := backtest.Run(used[s].Values, o, plans[s])
		if err != nil {
			return fmt.Errorf("backtest series %q: %w", used[s].Name, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for step, score := range got {
			scores[model*steps+step][s] = score
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, of := range scores {
		out.Results = append(out.Results, r.result(r.models[i/steps], i%steps, accuracy.Average(of)))
		for k, score := range of {
			out.Series[k].Results = append(out.Series[k].Results, r.result(r.models[i/steps], i%steps, score))
		}
	}
	return out, nil
}

func (r forecastRun) result(model string, step int, s accuracy.Score) modelScore {
	name := "1-" + strconv.Itoa(r.options.Horizon)
	if len(r.steps) > 0 {
		name = strconv.Itoa(r.steps[step])
	}
	return modelScore{model, name, known(s.MASE), known(s.SMAPE), known(s.Pinball), known(s.Coverage), known(s.Interval), s.N}
}

// known returns nil for NaN, which JSON has no word for.
func known(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// writer returns what writes the report.
func (b *backtestReport) writer(format string) func(io.Writer) error {
	return func(w io.Writer) error {
		switch format {
		case "json":
			return printJSON(w, b)
		case "csv":
			return b.writeCSV(w)
		}
		return b.writeTable(w)
	}
}

var backtestHeader = []string{"model", "step", "mase", "smape", "pinball", "coverage", "interval_score", "outcomes"}

// rows returns the results as text, numbers as format has them.
func (b *backtestReport) rows(format func(float64) string) [][]string {
	var rows [][]string
	for _, r := range b.Results {
		row := []string{r.Model, r.Step}
		for _, v := range []*float64{r.MASE, r.SMAPE, r.Pinball, r.Coverage, r.Interval} {
			text := ""
			if v != nil {
				text = format(*v)
			}
			row = append(row, text)
		}
		rows = append(rows, append(row, strconv.Itoa(r.Outcomes)))
	}
	return rows
}

func (b *backtestReport) writeCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	return errors.Join(out.Write(backtestHeader), out.WriteAll(b.rows(value)))
}

func (b *backtestReport) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "%d series", len(b.Series))
	if len(b.LeftOut) > 0 {
		fmt.Fprintf(w, ", %d more left out that never change", len(b.LeftOut))
	}
	if b.Nominal != nil {
		fmt.Fprintf(w, "; coverage is to be %.4g", *b.Nominal)
	}
	fmt.Fprint(w, ". MASE, pinball loss and interval score are in units of a series' mean change.\n\n")
	return printTable(w, backtestHeader, b.rows(func(v float64) string { return strconv.FormatFloat(v, 'f', 4, 64) }))
}
