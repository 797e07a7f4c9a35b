package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	prom "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/chart"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/history/figure"
)

// historyCommand reads what was: every sample, forecast and decision.
func historyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Query and plot what was: samples, forecasts, decisions",
		Long: `Query and plot the history: every sample, forecast and decision, in the
server's own database or an external one that speaks the Prometheus API.`,
	}
	url := cmd.PersistentFlags().String("history-url", defaultHistory(),
		"address of the history, below which /api/v1 is found (env GNOMON_HISTORY, or that of GNOMON_SERVER)")
	cmd.AddCommand(historyQueryCommand(url), historyPlotCommand(url), historyRulesCommand())
	return cmd
}

// defaultHistory is the history's address unless told otherwise.
func defaultHistory() string {
	byDefault := strings.TrimRight(envOr("GNOMON_SERVER", localServer()), "/") + "/history"
	return envOr("GNOMON_HISTORY", byDefault)
}

func historyQueryCommand(url *string) *cobra.Command {
	var start, end string
	var step time.Duration
	cmd := &cobra.Command{
		Use:   "query EXPR",
		Short: "Evaluate a PromQL expression, now or over a time",
		Example: `  gnomon history query 'gnomon_vm_cpu_demand_cores{vm="db"}'
  gnomon history query 'sum by (kind) (count_over_time(gnomon_decision[1h]))'
  gnomon history query 'gnomon_vm_memory_usage_bytes' --start 10m --step 1m -o json`,
		Args: exactArgs("EXPR"),
	}
	cmd.Flags().StringVar(&start, "start", "", "from when: a time (RFC 3339) or how long ago, like 10m; without it the value at the end")
	cmd.Flags().StringVar(&end, "end", "0s", "until when: a time (RFC 3339) or how long ago")
	durationFlag(cmd.Flags(), &step, "step", 0, "between values, at least 1ms (default: a hundredth of the time)")
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		c, err := openHistory(*url)
		if err != nil {
			return err
		}
		value, err := queryHistory(cmd.Context(), c, args[0], start, end, step)
		if err != nil {
			return err
		}
		return printValue(cmd.OutOrStdout(), value, asJSON)
	})
	return cmd
}

func queryHistory(ctx context.Context, c *history.Client, expr, start, end string, step time.Duration) (model.Value, error) {
	now := time.Now()
	to, err := parseTime("end", end, now)
	if err != nil {
		return nil, err
	}
	if start == "" {
		v, err := c.Query(ctx, expr, to)
		return v, historyError(err)
	}
	from, err := parseTime("start", start, now)
	if err != nil {
		return nil, err
	}
	if !from.Before(to) {
		return nil, usagef("--start %s is not before --end %s", start, end)
	}
	if step == 0 {
		step = max(time.Second, (to.Sub(from) / 100).Round(time.Second))
	}
	if step < time.Millisecond {
		return nil, usagef("--step %v: want at least 1ms", step)
	}
	v, err := c.Range(ctx, expr, from, to, step)
	return v, historyError(err)
}

func historyPlotCommand(url *string) *cobra.Command {
	var resources []string
	var last, end, out string
	var width, height int
	cmd := &cobra.Command{
		Use:   "plot VM...",
		Short: "Draw usage, demand, forecast and allocation of VMs, as SVG or PNG",
		Example: `  gnomon history plot db --last 1h --out db.png
  gnomon history plot web-1 web-2 --resource cpu,memory --out web.svg
  gnomon history plot db --last 365d --out year.svg`,
		Args: atLeastOne("VM"),
	}
	cmd.Flags().StringSliceVar(&resources, "resource", nil, "resources to draw: cpu,memory,disk,network (default: all)")
	cmd.Flags().StringVar(&last, "last", "10m", "length of the time, like 10m or 2d")
	cmd.Flags().StringVar(&end, "end", "0s", "until when: a time (RFC 3339) or how long ago")
	cmd.Flags().StringVar(&out, "out", "", "file to write, by its ending .svg or .png; - is SVG to the standard output (default: VM.svg)")
	cmd.Flags().IntVar(&width, "width", 0, "in pixels (default: by the number of VMs)")
	cmd.Flags().IntVar(&height, "height", 0, "in pixels (default: by the number of resources)")
	completeList(cmd, "resource", resourceNames()...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opts, err := plotOptions(args, resources, last, end)
		if err != nil {
			return err
		}
		if out == "" {
			out = strings.ReplaceAll(args[0], string(filepath.Separator), "_") + ".svg"
		}
		format, err := formatOf(out)
		if err != nil {
			return err
		}
		c, err := openHistory(*url)
		if err != nil {
			return err
		}
		f, err := figure.Of(cmd.Context(), c, opts)
		if err != nil {
			return historyError(err)
		}
		if width == 0 {
			width = min(10_000, 260+620*len(args))
		}
		if height == 0 {
			height = 90 + 200*len(f.Panels)/f.Columns
		}
		return writeFigure(cmd, f, format, width, height, out)
	}
	return cmd
}

func plotOptions(vms, resources []string, last, end string) (figure.Options, error) {
	o := figure.Options{VMs: vms}
	for _, name := range resources {
		r, err := gnomon.ParseResource(name)
		if err != nil {
			return o, usagef("--resource: %w", err)
		}
		o.Resources = append(o.Resources, r)
	}
	length, err := model.ParseDuration(last)
	if err != nil || length <= 0 {
		return o, usagef("--last %q: want a length of time like 10m or 2d", last)
	}
	if o.End, err = parseTime("end", end, time.Now()); err != nil {
		return o, err
	}
	o.Start = o.End.Add(-time.Duration(length))
	return o, nil
}

func formatOf(out string) (chart.Format, error) {
	switch ext := strings.ToLower(filepath.Ext(out)); {
	case out == "-", ext == ".svg":
		return chart.SVG, nil
	case ext == ".png":
		return chart.PNG, nil
	}
	return "", usagef("--out %q: want a name that ends in .svg or .png", out)
}

func writeFigure(cmd *cobra.Command, f chart.Figure, format chart.Format, width, height int, out string) error {
	err := writeWhole(cmd.OutOrStdout(), out, func(w io.Writer) error { return chart.Render(w, f, format, width, height) })
	if err != nil || out == "-" {
		return err
	}
	_, err = fmt.Fprintln(cmd.ErrOrStderr(), "wrote "+out)
	return err
}

func openHistory(url string) (*history.Client, error) {
	var transport http.RoundTripper
	if server, own := strings.CutSuffix(url, "/history"); own && !strings.HasPrefix(server, "http://") && checkServer(server) == nil {
		client, base, err := reach(server)
		if err != nil {
			return nil, err
		}
		transport, url = client.Transport, base+"/history"
	}
	c, err := history.New(url, transport)
	if err != nil {
		return nil, usagef("--history-url: %w", err)
	}
	return c, nil
}

// historyError gives an error of the history its exit code.
func historyError(err error) error {
	var network *net.OpError
	var answer *prom.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, figure.ErrNoHistory):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.As(err, &network):
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf(`%w: start it with "gnomon up" or "gnomon server", or name its address with --history-url`, err))
	case errors.As(err, &answer) && answer.Type == prom.ErrBadData:
		return usageError{err}
	}
	return err
}

// parseTime reads a flag that is a time or how long before now.
func parseTime(flag, text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if ago, err := model.ParseDuration(text); err == nil {
		return now.Add(-time.Duration(ago)), nil
	}
	return time.Time{}, usagef("--%s %q: want a time like 2026-03-01T10:00:00Z, or how long ago, like 10m", flag, text)
}

// printValue writes the answer to a query.
func printValue(w io.Writer, v model.Value, asJSON bool) error {
	if asJSON {
		return printJSON(w, map[string]any{"resultType": v.Type().String(), "result": v})
	}
	const clock = "2006-01-02T15:04:05.000Z07:00"
	var rows [][]string
	row := func(m model.Metric, at model.Time, value model.SampleValue) {
		rows = append(rows, []string{m.String(), at.Time().Format(clock), strconv.FormatFloat(float64(value), 'g', -1, 64)})
	}
	switch v := v.(type) {
	case model.Vector:
		for _, s := range v {
			row(s.Metric, s.Timestamp, s.Value)
		}
	case model.Matrix:
		for _, s := range v {
			for _, p := range s.Values {
				row(s.Metric, p.Timestamp, p.Value)
			}
		}
	case *model.Scalar:
		row(nil, v.Timestamp, v.Value)
	default:
		_, err := fmt.Fprintln(w, v.String())
		return err
	}
	return printTable(w, []string{"series", "time", "value"}, rows)
}
