// Package trace reads and writes series of measurements as CSV: what machines
// used over time, and plain series as forecasters exchange them.
package trace

import (
	"math"
	"slices"
)

// Trace is one machine's resource usage over time.
type Trace struct {
	// Name tells the trace from others: of a file, its name without folder and
	// extensions.
	Name string
	// Times holds seconds since the first row, ascending.
	Times []float64
	// Columns are the metrics, in the file's order, each as long as Times.
	Columns []Column
}

// Column is one metric of a trace, in whatever unit it was measured.
type Column struct {
	Name   string
	Values []float64 // NaN where missing
}

// Column returns the values of a metric, nil if the trace has none of that name.
func (t *Trace) Column(name string) []float64 {
	for _, c := range t.Columns {
		if c.Name == name {
			return c.Values
		}
	}
	return nil
}

// Interval returns the median time between two rows in seconds, 0 if there are
// fewer than two rows.
func (t *Trace) Interval() float64 {
	if len(t.Times) < 2 {
		return 0
	}
	steps := make([]float64, len(t.Times)-1)
	for i := range steps {
		steps[i] = t.Times[i+1] - t.Times[i]
	}
	slices.Sort(steps)
	return steps[len(steps)/2]
}

// maxGap bounds the values put in for one gap, in steps.
const maxGap = 2048

// Regular returns a column's values at equal distances of Interval: NaN stands
// for the rows that are not there, at most 2,048 of one gap. Rows that come
// early take a step of their own.
func (t *Trace) Regular(values []float64) []float64 {
	interval := t.Interval()
	out := make([]float64, 0, len(values))
	for i, v := range values {
		if i > 0 {
			steps := math.Round((t.Times[i] - t.Times[i-1]) / interval)
			for step := 1.0; step < steps && step <= maxGap; step++ {
				out = append(out, math.NaN())
			}
		}
		out = append(out, v)
	}
	return out
}
