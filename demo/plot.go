package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gnomon-vm/gnomon/chart"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/history/figure"
)

// The names of the plots in the output directory.
const (
	plotSVG = "plot.svg"
	plotPNG = "plot.png"
)

// The plots' size in pixels.
const (
	plotWidth  = 1500
	plotHeight = 900
)

// plotLimit bounds how long the history may take to answer.
const plotLimit = 20 * time.Second

// plot draws usage, forecast band, allocation and reservation of both VMs over
// the window, from the history.
func (r *run) plot(ctx context.Context, m *measurement) error {
	ctx, cancel := context.WithTimeout(ctx, plotLimit)
	defer cancel()
	client, err := history.New(r.stack.history, nil)
	if err != nil {
		return err
	}
	var names []string
	for _, s := range r.subjects {
		names = append(names, s.name)
	}
	f, err := figure.Of(ctx, client, figure.Options{VMs: names, Start: m.begin, End: m.end, Elapsed: true})
	if err != nil {
		return err
	}
	return errors.Join(
		writePlot(filepath.Join(r.Out, plotSVG), f, chart.SVG),
		writePlot(filepath.Join(r.Out, plotPNG), f, chart.PNG))
}

func writePlot(path string, f chart.Figure, format chart.Format) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return errors.Join(chart.Render(file, f, format, plotWidth, plotHeight), file.Close())
}
