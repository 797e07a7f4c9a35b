package chart

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"time"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

var (
	ink    = rgb(0x1f2328)
	muted  = rgb(0x636c76)
	hair   = rgb(0xe4e8ec)
	ground = rgb(0xffffff)
)

// pixels returns CSS pixels as a length.
func pixels(n int) vg.Length { return vg.Length(n) * vg.Inch / 96 }

func renderPNG(w io.Writer, f Figure, width, height int) error {
	c := vgimg.NewWith(vgimg.UseWH(pixels(width), pixels(height)), vgimg.UseDPI(192), vgimg.UseBackgroundColor(ground))
	layout(draw.New(c), f)
	if _, err := (vgimg.PngCanvas{Canvas: c}).WriteTo(w); err != nil {
		return fmt.Errorf("write PNG: %w", err)
	}
	return nil
}

func renderSVG(w io.Writer, f Figure, width, height int) error {
	c := vgsvg.New(pixels(width), pixels(height))
	dc := draw.New(c)
	dc.SetColor(ground)
	dc.Fill(dc.Rectangle.Path())
	layout(dc, f)
	var buf bytes.Buffer
	if _, err := c.WriteTo(&buf); err != nil {
		return fmt.Errorf("write SVG: %w", err)
	}
	// Where Liberation is not installed, fonts of the same widths.
	out := bytes.ReplaceAll(buf.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("write SVG: %w", err)
	}
	return nil
}

func textStyle(size float64, bold bool, c color.Color) text.Style {
	f := font.Font{Typeface: "Liberation", Variant: "Sans"}
	if bold {
		f.Weight = xfont.WeightBold
	}
	return text.Style{Font: font.From(f, vg.Points(size)), Color: c, Handler: plot.DefaultTextHandler, YAlign: draw.YCenter}
}

const (
	margin     = vg.Length(14) // points
	headLine   = vg.Length(18) // the title's line
	legendLine = vg.Length(16)
	panelHead  = vg.Length(20) // above each panel
	columnHead = vg.Length(16)
	columnGap  = vg.Length(18)
)

// layout draws the figure: title, legend, then the grid of panels.
func layout(c draw.Canvas, f Figure) {
	c = draw.Crop(c, margin, -margin, margin*3/4, -margin*3/4)
	y := c.Max.Y
	if f.Title != "" {
		y -= headLine / 2
		style := textStyle(13, true, ink)
		c.FillText(style, vg.Point{X: c.Min.X, Y: y}, f.Title)
		if f.Subtitle != "" {
			c.FillText(textStyle(9.5, false, muted), vg.Point{X: c.Min.X + style.Width(f.Title) + 10, Y: y - 1}, f.Subtitle)
		}
		y -= headLine / 2
	}
	y = drawLegend(c, legendOf(f), y)
	cols := max(f.Columns, 1)
	rows := (len(f.Panels) + cols - 1) / cols
	if rows == 0 {
		return
	}
	top := panelHead
	if len(f.ColumnTitles) > 0 {
		top += columnHead
	}
	c.Max.Y = y
	drawGrid(c, f, rows, cols, top)
}

func drawGrid(c draw.Canvas, f Figure, rows, cols int, top vg.Length) {
	tiles := draw.Tiles{Rows: rows, Cols: cols, PadX: columnGap, PadY: panelHead, PadTop: top}
	marks := int(float64(c.Size().X) / float64(cols) / 75)
	ticks := timeTicks(f.Start, f.End, f.Elapsed, marks)
	if f.Steps {
		ticks = stepTicks(f.End.Sub(f.Start).Seconds(), marks)
	}
	grid := make([][]*plot.Plot, rows)
	for i := range grid {
		grid[i] = make([]*plot.Plot, cols)
		for j := range grid[i] {
			if n := i*cols + j; n < len(f.Panels) && !f.Panels[n].empty() {
				last := n+cols >= len(f.Panels) || f.Panels[n+cols].empty()
				grid[i][j] = newPanel(f, &f.Panels[n], ticks, last)
			}
		}
	}
	canvases := plot.Align(grid, tiles, c)
	for i := range grid {
		for j, p := range grid[i] {
			if p == nil {
				continue
			}
			p.Draw(canvases[i][j])
			if i == 0 && j < len(f.ColumnTitles) {
				data := p.DataCanvas(canvases[i][j])
				style := textStyle(11, true, ink)
				style.XAlign = draw.XCenter
				c.FillText(style, vg.Point{X: data.Center().X, Y: data.Max.Y + panelHead + columnHead/2}, f.ColumnTitles[j])
			}
		}
	}
}

// newPanel returns the panel as a plot with axes of its own.
func newPanel(f Figure, p *Panel, ticks []plot.Tick, last bool) *plot.Plot {
	pl := plot.New()
	pl.BackgroundColor = nil
	start := 0.0
	end, marks, unit := valueTicks(p.Unit, p.top(f))
	if low, high, some := p.extent(f); p.Fit && some {
		start, end, marks, unit = fitTicks(p.Unit, low, high)
	}
	if !last { // the time is told once, below the column
		ticks = slices.Clone(ticks)
		for i := range ticks {
			ticks[i].Label = ""
		}
	}
	axis(&pl.X, 0, f.End.Sub(f.Start).Seconds(), ticks)
	axis(&pl.Y, start, end, marks)
	pl.Y.LineStyle.Width = 0
	pl.Add(gridLines{})
	addContent(pl, f, p)
	pl.Add(heading{p.Title, unit, p.top(f) < 0})
	return pl
}

func axis(a *plot.Axis, from, to float64, ticks []plot.Tick) {
	a.Min, a.Max, a.Padding = from, to, 0
	a.Tick.Marker = plot.ConstantTicks(ticks)
	a.Tick.Label.Font = textStyle(8.5, false, muted).Font
	a.Tick.Label.Color = muted
	a.Tick.Length = 4
	a.Tick.LineStyle.Color, a.LineStyle.Color = hair, muted
	a.Tick.LineStyle.Width, a.LineStyle.Width = 0.6, 0.6
}

// gridLines are thin lines at the marks of both axes.
type gridLines struct{}

// Plot implements plot.Plotter.
func (gridLines) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	style := draw.LineStyle{Color: hair, Width: 0.6}
	for _, t := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		c.StrokeLine2(style, c.Min.X, y(t.Value), c.Max.X, y(t.Value))
	}
	for _, t := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		if t.Value <= p.X.Max {
			c.StrokeLine2(style, x(t.Value), c.Min.Y, x(t.Value), c.Max.Y)
		}
	}
}

// heading is the panel's title and unit above it, and a word where there is
// nothing to see.
type heading struct {
	title, unit string
	none        bool
}

// Plot implements plot.Plotter.
func (h heading) Plot(c draw.Canvas, _ *plot.Plot) {
	title := textStyle(9.5, true, ink)
	at := vg.Point{X: c.Min.X, Y: c.Max.Y + 9}
	c.FillText(title, at, h.title)
	if h.title != "" {
		at.X += title.Width(h.title) + 5
	}
	c.FillText(textStyle(8.5, false, muted), at, h.unit)
	if h.none {
		style := textStyle(9.5, false, muted)
		style.XAlign = draw.XCenter
		c.FillText(style, c.Center(), "no data")
	}
}

// extent returns the least and the largest value to be seen, and whether there
// is any.
func (p *Panel) extent(f Figure) (low, high float64, some bool) {
	low, high = math.Inf(1), math.Inf(-1)
	see := func(at time.Time, from, to float64) {
		if finite(from) && finite(to) && !at.Before(f.Start) && !at.After(f.End) {
			low, high = min(low, from), max(high, to)
		}
	}
	for _, l := range p.Series {
		for _, pt := range l.Points {
			see(pt.At, pt.Value, pt.Value)
		}
	}
	for _, b := range p.Bands {
		for _, r := range b.Points {
			see(r.At, r.Low, r.High)
		}
	}
	return low, high, low <= high
}

// top returns the largest value to be seen, less than 0 if there is none.
func (p *Panel) top(f Figure) float64 {
	_, top, some := p.extent(f)
	if !some {
		return -1
	}
	return math.Max(0, top) * 1.04 // air above
}
