package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The figure's size and margins, in the units of its view box.
const (
	figureWidth, figureHeight = 460.0, 320.0
	left, right, top, bottom  = 44.0, 18.0, 10.0, 40.0
)

// frame is what all figures share.
type frame struct {
	Width, Height            float64
	Left, Right, Top, Bottom float64 // edges of the plot
	X, Y, Targets            []tick
	MiddleX, MiddleY         float64
}

type tick struct {
	At    string
	Label string
}

// xOf places a violation, 0..1, on the logarithmic axis; yOf a slack, 0..1.
func xOf(violation float64) float64 {
	v := min(1, max(Floor, violation))
	return left + (figureWidth-left-right)*(1-math.Log(v)/math.Log(Floor))
}

func yOf(slack float64) float64 { return top + (figureHeight-top-bottom)*(1-slack) }

func coordinate(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

func newFrame(targets []float64) frame {
	f := frame{
		Width: figureWidth, Height: figureHeight,
		Left: left, Right: figureWidth - right, Top: top, Bottom: figureHeight - bottom,
		MiddleX: (left + figureWidth - right) / 2, MiddleY: (top + figureHeight - bottom) / 2,
	}
	for _, v := range []float64{1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1} {
		label := short(v * 100)
		if v == Floor {
			label = "≤ 0.001"
		}
		f.X = append(f.X, tick{coordinate(xOf(v)), label})
	}
	for _, s := range []float64{0, 0.25, 0.5, 0.75, 1} {
		f.Y = append(f.Y, tick{coordinate(yOf(s)), short(s * 100)})
	}
	for _, t := range targets {
		f.Targets = append(f.Targets, tick{coordinate(xOf(t)), short(t*100) + " %"})
	}
	return f
}

// panel draws one cell: the products last, so that they lie on top.
func (r *Report) panel(i int, c Cell, classes map[string]string) panelView {
	p := panelView{ID: "c" + strconv.Itoa(i), Dataset: c.Dataset, Resource: c.Resource, VMs: c.VMs, Details: r.details(c, classes)}
	kinds := r.kinds()
	for _, products := range []bool{false, true} {
		for _, e := range c.Entries {
			if (kinds[e.Policy] == Product) == products {
				p.Lines = append(p.Lines, lineOf(e, classes[e.Policy]))
			}
		}
	}
	return p
}

func lineOf(e Entry, class string) lineView {
	l := lineView{Class: class, Title: e.Policy}
	var path strings.Builder
	for _, pt := range e.Curve {
		x, y := coordinate(xOf(pt.Violation)), coordinate(yOf(pt.Slack))
		path.WriteString(x + "," + y + " ")
		atMost := ""
		if pt.Violation <= Floor {
			atMost = "≤ "
		}
		l.Dots = append(l.Dots, dotView{x, y, fmt.Sprintf("%s, knob %s: %s%s %% in violation, %s %% slack",
			e.Policy, short(pt.Knob), atMost, short(pt.Violation*100), short(pt.Slack*100))})
	}
	l.Path = strings.TrimSpace(path.String())
	return l
}
