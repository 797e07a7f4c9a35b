package chart

import (
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// addContent adds what the panel shows, from the back to the front: bands,
// fills, marks, lines.
func addContent(pl *plot.Plot, f Figure, p *Panel) {
	for _, b := range p.Bands {
		for _, part := range bandParts(b, f) {
			pl.Add(area{part, faded(b.Style.Color, 0x48)})
		}
	}
	for _, l := range p.Series {
		if !l.Style.Fill {
			continue
		}
		for _, part := range lineParts(l, f) {
			first, last := part[0], part[len(part)-1]
			pl.Add(area{append(append(plotter.XYs{{X: first.X}}, part...), plotter.XY{X: last.X}), faded(l.Style.Color, 0x26)})
		}
	}
	for _, m := range p.Marks {
		pl.Add(flags{m, f})
	}
	for _, l := range p.Series {
		for _, part := range lineParts(l, f) {
			pl.Add(trace{part, lineStyle(l.Style)})
		}
	}
}

func lineStyle(s Style) draw.LineStyle {
	out := draw.LineStyle{Color: s.Color, Width: vg.Points(s.Width)}
	if s.Width == 0 {
		out.Width = 1.4
	}
	for _, d := range s.Dash {
		out.Dashes = append(out.Dashes, vg.Points(d))
	}
	return out
}

// maxPoints is how many points of an unbroken line are drawn; of more, each
// stretch keeps its lowest and highest.
const maxPoints = 3000

// lineParts returns the unbroken parts of a line within the figure, in seconds
// since its start.
func lineParts(l Line, f Figure) []plotter.XYs {
	var parts []plotter.XYs
	var part plotter.XYs
	end := func() {
		if len(part) > 0 {
			parts = append(parts, thin(part, maxPoints))
		}
		part = nil
	}
	for _, p := range l.Points {
		if p.At.Before(f.Start) || p.At.After(f.End) {
			continue
		}
		if !finite(p.Value) {
			end()
			continue
		}
		xy := plotter.XY{X: p.At.Sub(f.Start).Seconds(), Y: p.Value}
		if n := len(part); l.Style.Step && n > 0 && part[n-1].Y != xy.Y {
			part = append(part, plotter.XY{X: xy.X, Y: part[n-1].Y})
		}
		part = append(part, xy)
	}
	end()
	return parts
}

// bandParts returns the outlines of the unbroken parts of a band.
func bandParts(b Band, f Figure) []plotter.XYs {
	low, high := Line{Style: b.Style}, Line{Style: b.Style}
	for _, r := range b.Points {
		if !finite(r.Low) || !finite(r.High) { // break both at the same place
			r.Low, r.High = math.NaN(), math.NaN()
		}
		low.Points = append(low.Points, Point{r.At, r.Low})
		high.Points = append(high.Points, Point{r.At, r.High})
	}
	lows, outlines := lineParts(low, f), lineParts(high, f)
	for i, back := range lows {
		slices.Reverse(back)
		outlines[i] = append(outlines[i], back...)
	}
	return outlines
}

// thin returns at most about n points that look the same: the lowest and the
// highest of each of n/2 stretches, in their order.
func thin(part plotter.XYs, n int) plotter.XYs {
	if len(part) <= n {
		return part
	}
	out := plotter.XYs{part[0]}
	stretches := n / 2
	for s := range stretches {
		from, to := s*len(part)/stretches, (s+1)*len(part)/stretches
		lo, hi := from, from
		for i := from; i < to; i++ {
			if part[i].Y < part[lo].Y {
				lo = i
			}
			if part[i].Y > part[hi].Y {
				hi = i
			}
		}
		out = append(out, part[min(lo, hi)])
		if lo != hi {
			out = append(out, part[max(lo, hi)])
		}
	}
	return append(out, part[len(part)-1])
}

// area is a filled polygon.
type area struct {
	outline plotter.XYs
	color   color.Color
}

// Plot implements plot.Plotter.
func (a area) Plot(c draw.Canvas, p *plot.Plot) {
	c.FillPolygon(a.color, points(c, p, a.outline))
}

// trace is a line; of a single point, a dot.
type trace struct {
	part  plotter.XYs
	style draw.LineStyle
}

// Plot implements plot.Plotter.
func (t trace) Plot(c draw.Canvas, p *plot.Plot) {
	pts := points(c, p, t.part)
	if len(pts) == 1 {
		c.DrawGlyph(draw.GlyphStyle{Color: t.style.Color, Radius: t.style.Width, Shape: draw.CircleGlyph{}}, pts[0])
		return
	}
	c.StrokeLines(t.style, pts)
}

func points(c draw.Canvas, p *plot.Plot, xys plotter.XYs) []vg.Point {
	x, y := p.Transforms(&c)
	out := make([]vg.Point, len(xys))
	for i, xy := range xys {
		out[i] = vg.Point{X: x(xy.X), Y: y(math.Max(p.Y.Min, xy.Y))}
	}
	return out
}

// maxMarkLines is of how many marks the lines are drawn; of more they would
// hide the rest.
const maxMarkLines = 40

// flags draws marks.
type flags struct {
	Marks
	f Figure
}

// Plot implements plot.Plotter.
func (m flags) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	for _, at := range m.Times {
		if at.Before(m.f.Start) || at.After(m.f.End) {
			continue
		}
		px := x(at.Sub(m.f.Start).Seconds())
		if len(m.Times) <= maxMarkLines {
			c.StrokeLine2(draw.LineStyle{Color: m.Color, Width: 0.4}, px, c.Min.Y, px, c.Max.Y)
		}
		c.FillPolygon(m.Color, flag(px, c.Max.Y))
	}
}

// flag returns a small triangle that points down to a line at x.
func flag(x, y vg.Length) []vg.Point {
	return []vg.Point{{X: x - 3, Y: y + 1}, {X: x + 3, Y: y + 1}, {X: x, Y: y - 4}}
}
