package history

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// DemandOf returns a VM's demand for a resource, in the resource's unit, at
// every step of the span that ends at end, for training a forecast: values[i]
// is the mean over the step that ends at start + i·step, and NaN where the
// history has none. A step that a sample missed by a little is filled from the
// half step before it.
func DemandOf(ctx context.Context, c *Client, id gnomon.VMID, r gnomon.Resource, end time.Time, span, step time.Duration) (values []float64, start time.Time, err error) {
	step = step.Truncate(time.Millisecond)
	if !r.Valid() || step <= 0 || span < step {
		return nil, time.Time{}, fmt.Errorf("read demand of VM %s: want a resource and a step of at least 1ms within the span", id)
	}
	of := Equal("vm_id", string(id))
	expr := fmt.Sprintf("max(%s or last_over_time(%s{%s}[%s]))",
		MeanOver(Metric(r, Demand), of, step), Metric(r, Demand), of, milliseconds(step+step/2))
	last := align(end, step)
	n := int(span / step)
	start = last.Add(-time.Duration(n-1) * step)
	matrix, err := c.Range(ctx, expr, start, last, step)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read demand of VM %s: %w", id, err)
	}
	values = make([]float64, n)
	for i := range values {
		values[i] = math.NaN()
	}
	for _, s := range matrix {
		for _, p := range s.Values {
			if i := int(p.Timestamp.Time().Sub(start) / step); i >= 0 && i < n {
				values[i] = float64(p.Value) * units[r].per
			}
		}
	}
	return values, start, nil
}

// milliseconds writes d as PromQL does.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(1, d.Milliseconds()), 10) + "ms"
}
