package main

import (
	"encoding/csv"
	"io"
	"strconv"

	"github.com/gnomon-vm/gnomon/core/forecast"
	"github.com/gnomon-vm/gnomon/trace"
)

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
