package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// row is what the runs of one mode came to. Times are in milliseconds.
type row struct {
	Resource gnomon.Resource `json:"resource"`
	Mode     string          `json:"mode"`
	Runs     int             `json:"runs"`

	Median float64 `json:"median_ms"` // from the onset to the end of the work
	P99    float64 `json:"p99_ms"`
	Wait   float64 `json:"wait_median_ms"` // of it, without memory to go on with
	Acted  float64 `json:"acted_median_ms"`

	took, waited, acted []time.Duration
}

func (r *row) add(o outcome) {
	r.took, r.waited, r.acted = append(r.took, o.took), append(r.waited, o.waited), append(r.acted, o.acted)
	r.Runs++
	r.Median, r.P99 = quantile(r.took, 0.5), quantile(r.took, 0.99)
	r.Wait, r.Acted = quantile(r.waited, 0.5), quantile(r.acted, 0.5)
}

// quantile returns the nearest-rank quantile in milliseconds.
func quantile(all []time.Duration, q float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	at := int(math.Ceil(q*float64(len(sorted)))) - 1
	if at < 0 {
		return 0
	}
	return float64(sorted[at].Microseconds()) / 1000
}

// printTable prints one resource's rows, each beside the VM that had it all.
func printTable(w io.Writer, rows []row) {
	free := rows[len(rows)-1].Median
	if free == 0 {
		return // not one round was completed
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tmedian ms\tp99 ms\t÷ free\twaited ms\tlimit set in ms\n", rows[0].Resource)
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.2f\t%.0f\t%.1f\n", r.Mode, r.Median, r.P99, r.Median/free, r.Wait, r.Acted)
	}
	t.Flush()
	fmt.Fprintln(w)
}
