package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gnomon-vm/gnomon/backtest"
	"github.com/gnomon-vm/gnomon/chart"
	"github.com/gnomon-vm/gnomon/core/forecast"
	"github.com/gnomon-vm/gnomon/trace"
)

// forecastFlags are the flags of "gnomon forecast" as they were typed.
type forecastFlags struct {
	models   []string
	horizons []int
	season   string
	levels   []float64
	metrics  []string
	wide     bool
	backtest bool
	origins  int
	format   string
	output   string
	plot     string
}

// forecastRun is what they mean.
type forecastRun struct {
	options  backtest.Options // of the first model, where there are several
	models   []string
	steps    []int // to score in a backtest, all if empty
	origins  int
	scaled   int // the season that errors are scaled by
	format   string
	image    chart.Format
	backtest bool
}

func forecastCommand() *cobra.Command {
	var f forecastFlags
	cmd := &cobra.Command{
		Use:   "forecast [FILE|FOLDER]...",
		Short: "Forecast any series of numbers, or see how well each model would have",
		Long: `Forecasts series of numbers from CSV files, all such files below folders, or the
standard input; compressed with gzip or not. A file is one of

  a column of values, with or without a name in the first line;
  a header "t_s,<metric>,…" or "timestamp_s,<metric>,…", and rows: each metric is a series;
  with --wide: a header line, then an identifier and the values of one series a row.

Writes a line for each series and step: series,step,mean,q0.025,q0.5,…

With --backtest it forecasts from many moments of the second half of each series
instead, and prints how good each model was there.`,
		Example: `  gnomon forecast --wide --season 24 --horizon 48 --quantiles 0.025,0.5,0.975 < series.csv > forecasts.csv
  gnomon forecast --horizon 60 --plot web.svg --output web-forecast.csv web.csv
  gnomon forecast --backtest --horizon 1,5,10,30,60 traces/`,
		ValidArgsFunction: completeFiles,

		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.models, "model", nil, "model: "+strings.Join(forecast.Models(), ", ")+"; with --backtest a list (default auto, with --backtest all)")
	fl.IntSliceVar(&f.horizons, "horizon", []int{10}, "steps to forecast; with --backtest a list to score these steps, a single one to score all up to it")
	fl.StringVar(&f.season, "season", "auto", "length of the season in steps, a list of them, 1 for none, or auto to find it")
	fl.Float64SliceVar(&f.levels, "quantiles", []float64{0.025, 0.5, 0.975}, "levels of the quantiles, ascending between 0 and 1; with --backtest coverage is that of the lowest to the highest")
	fl.StringSliceVar(&f.metrics, "metric", nil, "the series to take, by name (default: all)")
	fl.BoolVar(&f.wide, "wide", false, "one series a row, below a header line")
	fl.BoolVar(&f.backtest, "backtest", false, "measure the models on the series themselves, by forecasts from a rolling origin")
	fl.IntVar(&f.origins, "origins", 200, "moments of a series to forecast from with --backtest, at most")
	fl.StringVar(&f.format, "format", "", "csv, json, or with --backtest table (default csv, with --backtest table)")
	fl.StringVarP(&f.output, "output", "o", "-", "file to write, once it is whole; - for the standard output")
	fl.StringVar(&f.plot, "plot", "", "also draw the forecasts into this file, by its ending .svg or .png (the first 12 series)")
	completeValues(cmd, "model", forecast.Models()...)
	completeValues(cmd, "format", "csv", "json", "table")
	completeValues(cmd, "season", "auto")
	return cmd
}

func (f *forecastFlags) run(cmd *cobra.Command, args []string) error {
	r, err := f.parse()
	if err != nil {
		return err
	}
	series, err := f.read(cmd, args)
	if err != nil {
		return err
	}
	progress := newProgress(cmd.ErrOrStderr(), "forecast")
	if r.backtest {
		report, err := r.measure(cmd.Context(), series, progress)
		if err != nil {
			return err
		}
		return writeWhole(cmd.OutOrStdout(), f.output, report.writer(r.format))
	}
	forecasts, err := r.ahead(cmd.Context(), series, progress)
	if err != nil {
		return err
	}
	if f.plot != "" {
		if err := plotForecasts(f.plot, r.image, series, forecasts); err != nil {
			return err
		}
	}
	return writeWhole(cmd.OutOrStdout(), f.output, forecastWriter(r.format, series, forecasts))
}

// parse checks the flags.
func (f *forecastFlags) parse() (forecastRun, error) {
	r := forecastRun{models: f.models, origins: f.origins, backtest: f.backtest, format: f.format, scaled: 1}
	if len(r.models) == 0 {
		r.models = []string{forecast.Auto}
		if f.backtest {
			r.models = forecast.Models()
		}
	}
	if len(f.horizons) == 0 || !f.backtest && len(f.horizons) > 1 {
		return r, usagef("--horizon: %d given: want one (a list goes with --backtest)", len(f.horizons))
	}
	if !f.backtest && len(r.models) > 1 {
		return r, usagef("--model: %d given: want one (a list goes with --backtest)", len(r.models))
	}
	for i, h := range f.horizons {
		if i > 0 && h <= f.horizons[i-1] {
			return r, usagef("--horizon %v: want ascending steps", f.horizons)
		}
		r.options.Horizon = h
	}
	if len(f.horizons) > 1 {
		r.steps = f.horizons
	}
	if f.origins < 1 {
		return r, usagef("--origins %d: want at least 1", f.origins)
	}
	var err error
	if r.options.Seasons, err = parseSeasons(f.season); err != nil {
		return r, err
	}
	if len(r.options.Seasons) > 0 {
		r.scaled = r.options.Seasons[0]
	}
	r.options.Levels = f.levels
	for _, r.options.Model = range r.models {
		if err := r.options.Validate(); err != nil {
			return r, usageError{err}
		}
	}
	r.options.Model = r.models[0]
	return r, f.parseOutput(&r)
}

func (f *forecastFlags) parseOutput(r *forecastRun) error {
	if r.format == "" {
		if r.format = "csv"; f.backtest {
			r.format = "table"
		}
	}
	if r.format != "csv" && r.format != "json" && (r.format != "table" || !f.backtest) {
		return usagef("--format %q: want csv or json, or with --backtest table", f.format)
	}
	if f.plot == "" {
		return nil
	}
	if f.backtest {
		return usagef("--plot draws forecasts: want it without --backtest")
	}
	var err error
	if r.image, err = formatOf(f.plot); err != nil || f.plot == "-" {
		return usagef("--plot %q: want a name that ends in .svg or .png", f.plot)
	}
	return nil
}

// parseSeasons reads --season; none means to find them.
func parseSeasons(text string) ([]int, error) {
	if text == "auto" {
		return nil, nil
	}
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 {
			return nil, usagef("--season %q: want steps of at least 1, a list like 24,168, or auto", text)
		}
		out = append(out, n)
	}
	return out, nil
}

// read reads the series of all files, or of the standard input.
func (f *forecastFlags) read(cmd *cobra.Command, args []string) ([]trace.Series, error) {
	read := trace.ReadSeries
	if f.wide {
		read = trace.ReadWide
	}
	var all []trace.Series
	if len(args) == 0 {
		if _, ok := terminal(cmd.InOrStdin()); ok {
			return nil, usagef("want files, or series on the standard input; see \"gnomon forecast --help\"")
		}
		series, err := read(input(cmd), "stdin")
		if err != nil {
			return nil, err
		}
		all = f.wanted(series)
	}
	for _, arg := range args {
		files, folder, err := filesOf(arg)
		if err != nil {
			return nil, err
		}
		for _, path := range files {
			series, err := readSeriesFile(path, read)
			if err != nil {
				return nil, err
			}
			for _, s := range f.wanted(series) {
				if folder || len(args) > 1 {
					s.Name = qualified(path, s.Name)
				}
				all = append(all, s)
			}
		}
	}
	if len(all) == 0 {
		return nil, usagef("--metric %s: no series of that name", strings.Join(f.metrics, ","))
	}
	return all, nil
}

// wanted returns the series that --metric names.
func (f *forecastFlags) wanted(series []trace.Series) []trace.Series {
	if len(f.metrics) == 0 {
		return series
	}
	var out []trace.Series
	for _, s := range series {
		for _, m := range f.metrics {
			if s.Name == m {
				out = append(out, s)
			}
		}
	}
	return out
}

// filesOf returns the file named, or those in the folder named.
func filesOf(path string) (files []string, folder bool, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, false, fmt.Errorf("read series: %w", err)
	}
	if !st.IsDir() {
		return []string{path}, false, nil
	}
	files, err = trace.FindFiles(path)
	return files, true, err
}

func readSeriesFile(path string, read func(io.Reader, string) ([]trace.Series, error)) ([]trace.Series, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read series: %w", err)
	}
	defer file.Close()
	return read(file, path)
}

// qualified tells series of the same name in several files apart.
func qualified(path, name string) string {
	path = strings.TrimSuffix(strings.TrimSuffix(path, ".gz"), ".csv")
	if trace.Base(path) == name {
		return path
	}
	return path + "/" + name
}

// ahead forecasts each series.
func (r forecastRun) ahead(ctx context.Context, series []trace.Series, p *progress) ([]forecast.Forecast, error) {
	out := make([]forecast.Forecast, len(series))
	for _, s := range series {
		if err := r.options.ValidateFor(len(s.Values)); err != nil {
			return nil, usagef("%s: series %q: %w", s.Place, s.Name, err)
		}
	}
	err := inParallel(ctx, len(series), p, func(i int) (err error) {
		out[i], err = backtest.Ahead(series[i].Values, r.options)
		return err
	})
	return out, err
}
