// Package figure turns the history of VMs into a figure: a column for each VM,
// a row for each resource.
package figure

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/chart"
	"github.com/gnomon-vm/gnomon/history"
)

// ErrNoHistory is returned when a VM has no values in the time asked for.
var ErrNoHistory = errors.New("no history of this VM")

// Options say what to show.
type Options struct {
	VMs        []string          // names or IDs
	Resources  []gnomon.Resource // all where it is empty
	Start, End time.Time
	Title      string // made from the VMs where it is empty
	Elapsed    bool   // label the time since Start
}

// steps is about how many values a line has.
const steps = 600

var titles = [gnomon.NumResources]struct {
	name string
	unit chart.Unit
}{
	gnomon.CPU:     {"CPU", chart.Cores},
	gnomon.Memory:  {"Memory", chart.Bytes},
	gnomon.Disk:    {"Disk", chart.BytesPerSecond},
	gnomon.Network: {"Network", chart.BytesPerSecond},
}

// Of reads the history of VMs and returns the figure. It returns ErrNoHistory
// if one of them has none.
func Of(ctx context.Context, c *history.Client, o Options) (chart.Figure, error) {
	span := o.End.Sub(o.Start)
	if span <= 0 || len(o.VMs) == 0 {
		return chart.Figure{}, errors.New("draw history: want a VM and an end after the start")
	}
	if len(o.Resources) == 0 {
		for r := range gnomon.AllResources() {
			o.Resources = append(o.Resources, r)
		}
	}
	f := chart.Figure{
		Title: o.Title, Columns: len(o.VMs), Start: o.Start, End: o.End, Elapsed: o.Elapsed,
		Subtitle: o.Start.Format("2 Jan 2006 15:04:05") + o.End.Format(" – 15:04:05 MST"),
	}
	if f.Title == "" {
		f.Title = strings.Join(o.VMs, ", ")
	}
	if len(o.VMs) > 1 || f.Title != o.VMs[0] {
		f.ColumnTitles = o.VMs
	}
	readers := make([]reader, len(o.VMs))
	for i, vm := range o.VMs {
		readers[i] = reader{c: c, vm: vm, start: o.Start, end: o.End, step: stepOf(span)}
		if err := readers[i].measure(ctx); err != nil {
			return chart.Figure{}, fmt.Errorf("draw history of VM %s: %w", vm, err)
		}
	}
	for _, r := range o.Resources {
		for i := range readers {
			p, err := readers[i].panel(ctx, r)
			if err != nil {
				return chart.Figure{}, fmt.Errorf("draw history of VM %s: %w", readers[i].vm, err)
			}
			f.Panels = append(f.Panels, p)
		}
	}
	return f, nil
}

// stepOf returns a step of whole seconds, or of tenths for a short span.
func stepOf(span time.Duration) time.Duration {
	unit := time.Second
	if span < 2*time.Minute {
		unit = 100 * time.Millisecond
	}
	return max(unit, (span / steps).Round(unit))
}

// reader reads one VM's series.
type reader struct {
	c          *history.Client
	vm         string
	start, end time.Time
	step       time.Duration
	gap        time.Duration // between values; longer is a break of the line
}

// measure finds out how often the VM was sampled.
func (r *reader) measure(ctx context.Context) error {
	span := r.end.Sub(r.start)
	var counts []string
	for res := range gnomon.AllResources() {
		for _, label := range []string{"vm", "vm_id"} {
			metric, of := history.Metric(res, history.Usage), history.Equal(label, r.vm)
			counts = append(counts, fmt.Sprintf("count_over_time(%s{%s}[%s])", metric, of, ms(span)))
			if l, ok := history.LevelFor(r.step); ok { // nothing else may be left
				counts = append(counts, fmt.Sprintf("count_over_time(%s{%s}[%s])", l.Max(metric), of, ms(span)))
			}
		}
	}
	expr := "max(" + strings.Join(counts, " or ") + ")"
	v, err := r.c.Query(ctx, expr, r.end)
	if err != nil {
		return err
	}
	vector, ok := v.(model.Vector)
	if !ok || len(vector) == 0 || vector[0].Value == 0 {
		return ErrNoHistory
	}
	r.gap = max(r.step, time.Duration(float64(span)/float64(vector[0].Value)*2.5))
	return nil
}

// panel returns one resource of the VM.
func (r *reader) panel(ctx context.Context, res gnomon.Resource) (chart.Panel, error) {
	p := chart.Panel{Title: titles[res].name, Unit: titles[res].unit}
	var err error
	read := func(q history.Quantity, more string) []chart.Point {
		if err != nil {
			return nil
		}
		var points []chart.Point
		points, err = r.line(ctx, history.Metric(res, q), more)
		return points
	}
	allocation, reservation := read(history.Allocation, ""), read(history.Reservation, "")
	low, high := read(history.Forecast, `,quantile="low"`), read(history.Forecast, `,quantile="high"`)
	for _, l := range []chart.Line{
		{Name: "demand", Points: read(history.Demand, ""), Style: chart.Demand},
		{Name: "usage", Points: read(history.Usage, ""), Style: chart.Usage},
		{Name: "allocation", Points: allocation, Style: chart.Allocation},
	} {
		if len(l.Points) > 0 {
			p.Series = append(p.Series, l)
		}
	}
	if len(low) > 0 && len(low) == len(high) {
		p.Bands = append(p.Bands, chart.Band{Name: "forecast", Points: between(low, high, false), Style: chart.Forecast})
	}
	if len(allocation) > 0 && len(allocation) == len(reservation) {
		p.Bands = append(p.Bands, chart.Band{Name: "reserved", Points: between(allocation, reservation, true), Style: chart.Reservation})
	}
	for _, m := range []struct {
		kind  gnomon.DecisionKind
		color uint32
	}{{gnomon.DecideHit, 0x00805c}, {gnomon.DecideMiss, 0xcc3311}} {
		times, merr := r.decisions(ctx, res, m.kind)
		if err == nil {
			err = merr
		}
		if len(times) > 0 {
			p.Marks = append(p.Marks, chart.Marks{Name: string(m.kind), Times: times, Color: chart.RGB(m.color)})
		}
	}
	return p, err
}

// between returns the band from low to high; where stacked, high is on top of
// low, and nothing is shown where it is 0.
func between(low, high []chart.Point, stacked bool) []chart.Range {
	out := make([]chart.Range, len(low))
	for i := range low {
		out[i] = chart.Range{At: low[i].At, Low: low[i].Value, High: high[i].Value}
		if stacked {
			out[i].High += low[i].Value
			if high[i].Value == 0 {
				out[i].Low, out[i].High = math.NaN(), math.NaN()
			}
		}
	}
	return out
}

// line returns a value for each step, NaN where the history has none; nothing
// if it has none at all. Of the values within a step it is the largest.
func (r *reader) line(ctx context.Context, metric, more string) ([]chart.Point, error) {
	pick := func(label string) string {
		of := history.Equal(label, r.vm) + more
		return fmt.Sprintf("%s or last_over_time(%s{%s}[%s])", history.MaxOver(metric, of, r.step), metric, of, ms(r.gap))
	}
	m, err := r.c.Range(ctx, "max("+pick("vm")+" or "+pick("vm_id")+")", r.start, r.end, r.step)
	if err != nil || len(m) == 0 {
		return nil, err
	}
	var points []chart.Point
	values := m[0].Values
	first := r.start.UnixMilli() - r.start.UnixMilli()%r.step.Milliseconds()
	for t := first; t <= r.end.UnixMilli(); t += r.step.Milliseconds() {
		p := chart.Point{At: time.UnixMilli(t), Value: math.NaN()}
		if len(values) > 0 && int64(values[0].Timestamp) == t {
			p.Value = float64(values[0].Value)
			values = values[1:]
		}
		points = append(points, p)
	}
	return points, nil
}

// decisions returns the steps in which a kind of decision was taken.
func (r *reader) decisions(ctx context.Context, res gnomon.Resource, kind gnomon.DecisionKind) ([]time.Time, error) {
	pick := func(label string) string {
		return fmt.Sprintf("count_over_time(%s{%s=%s,resource=%q,kind=%q}[%s])", history.Decisions, label, strconv.Quote(r.vm), res, kind, ms(r.step-time.Millisecond))
	}
	m, err := r.c.Range(ctx, "sum("+pick("vm")+" or "+pick("vm_id")+")", r.start, r.end, r.step)
	if err != nil || len(m) == 0 {
		return nil, err
	}
	var times []time.Time
	for _, v := range m[0].Values {
		times = append(times, v.Timestamp.Time())
	}
	return times, nil
}

func ms(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) + "ms" }
