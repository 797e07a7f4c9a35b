package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gnomon-vm/gnomon/core/forecast"
	"github.com/gnomon-vm/gnomon/trace"
)

// writeWhole has write fill the file called name, which is there only once it is
// whole; or stdout where name is "-".
func writeWhole(stdout io.Writer, name string, write func(io.Writer) error) error {
	if name == "-" {
		b := bufio.NewWriter(stdout)
		if err := errors.Join(write(b), b.Flush()); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
		return nil
	}
	// A device or a pipe cannot be replaced.
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
		return errors.Join(writeWhole(f, "-", write), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	b := bufio.NewWriter(f)
	err = errors.Join(write(b), b.Flush(), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// forecastWriter returns what writes the forecasts of the series.
func forecastWriter(format string, series []trace.Series, forecasts []forecast.Forecast) func(io.Writer) error {
	return func(w io.Writer) error {
		if format == "json" {
			return writeForecastJSON(w, series, forecasts)
		}
		return writeForecastCSV(w, series, forecasts)
	}
}

func levelName(level float64) string { return "q" + value(level) }

func value(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func writeForecastCSV(w io.Writer, series []trace.Series, forecasts []forecast.Forecast) error {
	out := csv.NewWriter(w)
	header := []string{"series", "step", "mean"}
	for _, level := range forecasts[0].Levels {
		header = append(header, levelName(level))
	}
	// An error sticks to the writer and is told by Error.
	_ = out.Write(header)
	row := header
	for i, f := range forecasts {
		for k, mean := range f.Mean {
			row = append(row[:0], series[i].Name, strconv.Itoa(k+1), value(mean))
			for _, q := range f.Quantiles[k] {
				row = append(row, value(q))
			}
			_ = out.Write(row)
		}
	}
	out.Flush()
	return out.Error()
}

// forecastJSON is one series' forecast; element 0 of mean and quantiles is the
// next step.
type forecastJSON struct {
	Series    string      `json:"series"`
	Model     string      `json:"model"`
	Levels    []float64   `json:"levels"`
	Mean      []float64   `json:"mean"`
	Quantiles [][]float64 `json:"quantiles"`
}

func writeForecastJSON(w io.Writer, series []trace.Series, forecasts []forecast.Forecast) error {
	out := make([]forecastJSON, len(series))
	for i, f := range forecasts {
		out[i] = forecastJSON{series[i].Name, f.Model, f.Levels, f.Mean, f.Quantiles}
	}
	return printJSON(w, out)
}
