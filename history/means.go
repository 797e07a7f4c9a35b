package history

import (
	"strconv"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// Level is a length of time whose means and maxima are series of their own, for
// queries over months. Their names are those of Prometheus' recording rules:
// gnomon_vm_cpu_demand_cores:mean5m.
type Level struct {
	Name string        // "5m"
	Span time.Duration // of one value; a value is of the time until its own

	// Outlives is how many times as long as the values that they are of, means and
	// maxima are kept.
	Outlives int
}

// Levels are all levels, the shortest first.
var Levels = []Level{{"5m", 5 * time.Minute, 6}, {"1h", time.Hour, 25}}

// LevelFor returns the level to read steps of that length from, if they are long
// enough for any.
func LevelFor(step time.Duration) (Level, bool) {
	for i := len(Levels) - 1; i >= 0; i-- {
		if step >= Levels[i].Span {
			return Levels[i], true
		}
	}
	return Level{}, false
}

// LevelOf returns the level that a metric is of, if it is of one.
func LevelOf(metric string) (Level, bool) {
	for _, l := range Levels {
		if strings.HasSuffix(metric, ":mean"+l.Name) || strings.HasSuffix(metric, ":max"+l.Name) {
			return l, true
		}
	}
	return Level{}, false
}

// Mean returns the name of the metric of another's means.
func (l Level) Mean(metric string) string { return metric + ":mean" + l.Name }

// Max returns the name of the metric of another's maxima.
func (l Level) Max(metric string) string { return metric + ":max" + l.Name }

// Rule says how the values of one metric follow from another's.
type Rule struct {
	Metric string // that follows
	Expr   string // PromQL, for each Span of the level
}

// Rules are those of a level: from the values, or from the level before.
func (l Level) Rules() []Rule {
	mean, largest := func(m string) string { return m }, func(m string) string { return m }
	for i, other := range Levels {
		if other == l && i > 0 {
			mean, largest = Levels[i-1].Mean, Levels[i-1].Max
		}
	}
	// Engines differ on whether a window has both ends: it ends short of one.
	window := "[" + milliseconds(l.Span-time.Millisecond) + "]"
	var rules []Rule
	for _, m := range condensed() {
		rules = append(rules,
			Rule{l.Mean(m), "avg_over_time(" + mean(m) + window + ")"},
			Rule{l.Max(m), "max_over_time(" + largest(m) + window + ")"})
	}
	return rules
}

// condensed are the metrics that there are means and maxima of: what was, not
// what was forecast or decided.
func condensed() (metrics []string) {
	for r := range gnomon.AllResources() {
		for _, q := range []Quantity{Usage, Demand, Allocation, Reservation, Starved} {
			metrics = append(metrics, Metric(r, q))
		}
		for _, q := range []Quantity{Capacity, Allocated, Reserved, Free} {
			metrics = append(metrics, HostMetric(r, q))
		}
	}
	return metrics
}

// MeanOver returns an expression for the mean of a metric's series over each
// step, which is at least 1 ms: from its means where the steps are long enough
// for them, else from its values. Matchers are PromQL's, without the braces.
func MeanOver(metric, matchers string, step time.Duration) string {
	return over("avg_over_time", Level.Mean, metric, matchers, step)
}

// MaxOver is MeanOver for the largest value of each step.
func MaxOver(metric, matchers string, step time.Duration) string {
	return over("max_over_time", Level.Max, metric, matchers, step)
}

func over(function string, of func(Level, string) string, metric, matchers string, step time.Duration) string {
	read := func(metric string) string {
		return function + "(" + metric + "{" + matchers + "}[" + milliseconds(step-time.Millisecond) + "])"
	}
	if l, ok := LevelFor(step); ok {
		return read(of(l, metric)) + " or " + read(metric) // of the last hours there are none yet
	}
	return read(metric)
}

// Equal returns the matcher for a label's value.
func Equal(label, value string) string { return label + "=" + strconv.Quote(value) }
