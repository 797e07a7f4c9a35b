package chart

import (
	"image/color"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// entry is one swatch and name of the legend.
type entry struct {
	name  string
	style Style
	kind  entryKind
	color color.Color // of marks
}

type entryKind int

const (
	lineEntry entryKind = iota
	bandEntry
	markEntry
)

// legendOf returns what the legend tells: every name once, in the order of
// first appearance, lines before bands before marks.
func legendOf(f Figure) []entry {
	var lines, bands, marks []entry
	seen := map[string]bool{}
	add := func(to *[]entry, e entry) {
		if e.name != "" && !seen[e.name] {
			seen[e.name] = true
			*to = append(*to, e)
		}
	}
	for _, p := range f.Panels {
		for _, l := range p.Series {
			add(&lines, entry{name: l.Name, style: l.Style})
		}
	}
	for _, p := range f.Panels {
		for _, b := range p.Bands {
			add(&bands, entry{name: b.Name, style: b.Style, kind: bandEntry})
		}
		for _, m := range p.Marks {
			add(&marks, entry{name: m.Name, kind: markEntry, color: m.Color})
		}
	}
	return append(append(lines, bands...), marks...)
}

// drawLegend draws the entries in rows below top and returns where they end.
func drawLegend(c draw.Canvas, entries []entry, top vg.Length) vg.Length {
	const swatch, gap, between = 20, 5, 16
	if len(entries) == 0 {
		return top
	}
	style := textStyle(9.5, false, ink)
	x, y := c.Min.X, top-legendLine/2-1
	for _, e := range entries {
		width := swatch + gap + style.Width(e.name)
		if x > c.Min.X && x+width > c.Max.X {
			x, y = c.Min.X, y-legendLine
		}
		drawSwatch(c, e, x, y, swatch)
		c.FillText(style, vg.Point{X: x + swatch + gap, Y: y}, e.name)
		x += width + between
	}
	return y - legendLine/2
}

func drawSwatch(c draw.Canvas, e entry, x, y, width vg.Length) {
	box := func(h vg.Length) []vg.Point {
		return []vg.Point{{X: x, Y: y - h}, {X: x + width, Y: y - h}, {X: x + width, Y: y + h}, {X: x, Y: y + h}}
	}
	switch e.kind {
	case bandEntry:
		c.FillPolygon(faded(e.style.Color, 0x48), box(4))
	case markEntry:
		c.FillPolygon(e.color, flag(x+width/2, y+1.5))
	default:
		if e.style.Fill {
			p := box(4)
			p[2].Y, p[3].Y = y, y
			c.FillPolygon(faded(e.style.Color, 0x26), p)
		}
		c.StrokeLine2(lineStyle(e.style), x, y, x+width, y)
	}
}
