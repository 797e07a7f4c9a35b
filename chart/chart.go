// Package chart draws figures of time series, as SVG and PNG: panels in rows
// and columns over one time axis, with lines, shaded bands and marks.
package chart

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"time"
)

// Figure is everything on one image.
type Figure struct {
	Title    string
	Subtitle string

	// Panels are in rows of Columns each, 1 where it is 0. An empty panel
	// keeps its place empty.
	Panels  []Panel
	Columns int

	// ColumnTitles stand above the columns; none where it is empty.
	ColumnTitles []string

	// Start and End bound the time axis of every panel; what lies outside is
	// not drawn.
	Start, End time.Time

	// Elapsed labels the time axis with the time since Start instead of the
	// time of day in Start's location.
	Elapsed bool

	// Steps labels the time axis with seconds as plain numbers, for figures of
	// what has steps and no times.
	Steps bool
}

// Panel is one set of axes. Later series lie on earlier ones.
type Panel struct {
	Title string
	Unit  Unit
	// Fit has the vertical axis span the values there are. Without it the axis
	// starts at 0.
	Fit    bool
	Series []Line
	Bands  []Band
	Marks  []Marks
}

func (p *Panel) empty() bool {
	return p.Title == "" && len(p.Series) == 0 && len(p.Bands) == 0 && len(p.Marks) == 0
}

// Point is a value at a time, in the panel's unit. At NaN a line is broken.
type Point struct {
	At    time.Time
	Value float64
}

// Line is one series. Lines of the same name share an entry of the legend.
type Line struct {
	Name   string
	Points []Point // in order of time
	Style  Style
}

// Band is the area between two series.
type Band struct {
	Name   string
	Points []Range // in order of time
	Style  Style   // of the colour; Step holds too
}

// Range is the extent of a band at a time. At NaN the band is broken.
type Range struct {
	At        time.Time
	Low, High float64
}

// Marks are instants, told by a small triangle at the top of the panel and a
// thin line below it.
type Marks struct {
	Name  string
	Times []time.Time
	Color color.Color
}

// Style is how a line looks.
type Style struct {
	Color color.NRGBA
	Width float64   // points; 1.4 where it is 0
	Dash  []float64 // points on and off; solid where it is empty
	Step  bool      // holds each value until the next
	Fill  bool      // shades what is below
}

// The styles of the quantities, in colours that people who see fewer of them
// can tell apart (the palette of Okabe and Ito).
var (
	Usage       = Style{Color: rgb(0x0072b2), Width: 1.6, Fill: true}
	Demand      = Style{Color: rgb(0xd55e00), Width: 1.6}
	Allocation  = Style{Color: rgb(0x00805c), Width: 2, Step: true}
	Reservation = Style{Color: rgb(0xb44f8a), Width: 1.4, Dash: []float64{4, 2}, Step: true}
	Forecast    = Style{Color: rgb(0xe69f00), Width: 1.2, Dash: []float64{3, 2}}
)

// RGB returns the opaque colour 0xrrggbb.
func RGB(v uint32) color.NRGBA { return rgb(v) }

func rgb(v uint32) color.NRGBA {
	return color.NRGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 0xff}
}

func faded(c color.NRGBA, alpha uint8) color.NRGBA { c.A = alpha; return c }

// Format is a kind of image file.
type Format string

// The formats.
const (
	SVG Format = "svg"
	PNG Format = "png"
)

// Render writes the figure to w. Width and height are in CSS pixels, 1/96 inch,
// from 200 to 10,000; a PNG has two pixels for each.
func Render(w io.Writer, f Figure, format Format, width, height int) error {
	if width < 200 || height < 200 || width > 10_000 || height > 10_000 {
		return fmt.Errorf("render chart: want a size of 200 to 10000 pixels each way, got %dx%d", width, height)
	}
	if !f.End.After(f.Start) {
		return fmt.Errorf("render chart: the end %v is not after the start %v", f.End, f.Start)
	}
	switch format {
	case SVG:
		return renderSVG(w, f, width, height)
	case PNG:
		return renderPNG(w, f, width, height)
	}
	return fmt.Errorf("render chart: unknown format %q: want svg or png", format)
}

// finite tells values that can be drawn.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
