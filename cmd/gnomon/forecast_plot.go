package main

import (
	"fmt"
	"io"
	"time"

	"github.com/gnomon-vm/gnomon/chart"
	"github.com/gnomon-vm/gnomon/core/forecast"
	"github.com/gnomon-vm/gnomon/trace"
)

// maxPlotted is how many series one image shows.
const maxPlotted = 12

// plotForecasts draws the first series and their forecasts into a file.
func plotForecasts(path string, format chart.Format, series []trace.Series, forecasts []forecast.Forecast) error {
	n := min(maxPlotted, len(series))
	columns := 1 + (n-1)/4
	f := chart.Figure{Title: "Forecasts", Columns: columns, Start: time.Unix(0, 0), Steps: true}
	if n < len(series) {
		f.Subtitle = fmt.Sprintf("of the first %d of %d series", n, len(series))
	}
	// The axis is one for all: as much of the past as three horizons, at least 60
	// steps, and the horizon. The last value known stands at the same place.
	horizon := len(forecasts[0].Mean)
	past := 0
	for _, s := range series[:n] {
		past = max(past, min(len(s.Values), max(60, 3*horizon)))
	}
	f.End = f.Start.Add(time.Duration(past-1+horizon) * time.Second)
	for i, s := range series[:n] {
		f.Panels = append(f.Panels, forecastPanel(f.Start, past, s, forecasts[i]))
	}
	rows := (n + columns - 1) / columns
	return writeWhole(nil, path, func(w io.Writer) error {
		return chart.Render(w, f, format, 260+620*columns, 90+200*max(rows, 1))
	})
}

// forecastPanel draws the values so that the last of them is number past.
func forecastPanel(start time.Time, past int, s trace.Series, f forecast.Forecast) chart.Panel {
	at := func(n int) time.Time { return start.Add(time.Duration(n-1) * time.Second) }
	values := s.Values[max(0, len(s.Values)-past):]
	var known []chart.Point
	for i, v := range values {
		known = append(known, chart.Point{At: at(past - len(values) + i + 1), Value: v})
	}
	last := values[len(values)-1]
	mean := []chart.Point{{At: at(past), Value: last}}
	var bands []chart.Band
	levels := len(f.Levels)
	for outer := range levels / 2 {
		low, high := f.Levels[outer], f.Levels[levels-1-outer]
		band := chart.Band{Name: fmt.Sprintf("%s to %s", levelName(low), levelName(high)), Style: chart.Forecast}
		band.Points = append(band.Points, chart.Range{At: at(past), Low: last, High: last})
		for k, q := range f.Quantiles {
			band.Points = append(band.Points, chart.Range{At: at(past + k + 1), Low: q[outer], High: q[levels-1-outer]})
		}
		bands = append(bands, band)
	}
	for k, v := range f.Mean {
		mean = append(mean, chart.Point{At: at(past + k + 1), Value: v})
	}
	return chart.Panel{
		Title: s.Name + " (" + f.Model + ")", Fit: true, Bands: bands,
		Series: []chart.Line{{Name: "values", Points: known, Style: chart.Style{Color: chart.Usage.Color}}, {Name: "forecast", Points: mean, Style: chart.Demand}},
	}
}
