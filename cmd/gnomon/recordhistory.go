package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/common/model"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/history"
)

// notFoundf returns an error that ends the program with exitNotFound.
func notFoundf(format string, args ...any) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf(format, args...))
}

// recordHistory writes what the history kept of VMs.
func recordHistory(ctx context.Context, f *recordFlags, log io.Writer) error {
	now := time.Now()
	start, err := parseTime("start", f.start, now)
	if err != nil {
		return err
	}
	end, err := parseTime("end", f.end, now)
	if err != nil {
		return err
	}
	if !start.Before(end) {
		return usagef("--start %s is not before --end %s", f.start, f.end)
	}
	c, err := openHistory(f.historyURL)
	if err != nil {
		return err
	}
	files := make([]*traceFile, len(f.vms))
	for i, vm := range f.vms {
		files[i] = newTraceFile(f.out, vm, 0, 0)
		if _, err := os.Lstat(files[i].path); err == nil {
			return usagef("record VM %s: %s is there already: choose another --out, or move it away", vm, files[i].path)
		}
	}
	for i, vm := range f.vms {
		rows, err := usageOf(ctx, c, vm, start, end, f.interval)
		if err != nil {
			return historyError(err)
		}
		if len(rows) == 0 {
			return notFoundf("the history knows no usage of VM %s from %s to %s", vm, start.Format(time.RFC3339), end.Format(time.RFC3339))
		}
		for _, row := range rows {
			if err = files[i].write(row.at, row.values); err != nil {
				break
			}
		}
		if err = errors.Join(err, files[i].close()); err != nil {
			return err
		}
		fmt.Fprintf(log, "wrote %d rows into %s\n", files[i].rows, files[i].path)
	}
	return nil
}

type timedRow struct {
	at     time.Time
	values traceRow
}

// usageOf returns the mean usage of a VM, by name or ID, in each step for which
// the history has a value.
func usageOf(ctx context.Context, c *history.Client, vm string, start, end time.Time, step time.Duration) ([]timedRow, error) {
	at := map[model.Time]*traceRow{}
	for column, r := range map[int]gnomon.Resource{0: gnomon.CPU, 2: gnomon.Memory, 3: gnomon.Disk, 4: gnomon.Network} {
		metric := history.Metric(r, history.Usage)
		pick := func(label string) string {
			return history.MeanOver(metric, history.Equal(label, vm), step)
		}
		matrix, err := c.Range(ctx, "max("+pick("vm")+" or "+pick("vm_id")+")", start, end, step)
		if err != nil {
			return nil, fmt.Errorf("read usage of VM %s: %w", vm, err)
		}
		for _, s := range matrix {
			for _, p := range s.Values {
				if at[p.Timestamp] == nil {
					row := traceRow{math.NaN(), math.NaN(), math.NaN(), math.NaN(), math.NaN()}
					at[p.Timestamp] = &row
				}
				at[p.Timestamp][column] = float64(p.Value)
			}
		}
	}
	rows := make([]timedRow, 0, len(at))
	for t, values := range at {
		rows = append(rows, timedRow{t.Time(), *values})
	}
	slices.SortFunc(rows, func(a, b timedRow) int { return a.at.Compare(b.at) })
	return rows, nil
}
