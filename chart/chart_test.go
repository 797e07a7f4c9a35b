package chart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// example is a figure of two VMs with a bit of everything.
func example() Figure {
	f := Figure{
		Title: "Two VMs & their shadows", Subtitle: "an example", Columns: 2, ColumnTitles: []string{"web-1", "db <main>"},
		Start: epoch, End: at(600), Elapsed: true,
	}
	for _, row := range []struct {
		name string
		unit Unit
		size float64
	}{{"CPU", Cores, 1}, {"Memory", Bytes, 1 << 30}, {"Disk", BytesPerSecond, 40e6}} {
		for vm := range 2 {
			f.Panels = append(f.Panels, examplePanel(row.name, row.unit, row.size*float64(1+vm), vm))
		}
	}
	return f
}

func examplePanel(name string, unit Unit, size float64, vm int) Panel {
	var usage, demand, allocation []Point
	var reserved, forecast []Range
	for s := 0.0; s <= 600; s++ {
		want := size * (0.5 + 0.3*math.Sin(s/60+float64(vm)) + 0.04*math.Sin(s*1.7) + 0.5*math.Exp(-(s-380)/30*(s-380)/30))
		limit := size * (0.75 + 0.25*math.Floor(2*(1+math.Sin(s/60+0.3+float64(vm))))/2)
		got := math.Min(want, limit)
		if s > 200 && s < 230 {
			want, got = math.NaN(), math.NaN()
		}
		usage = append(usage, Point{at(s), got})
		demand = append(demand, Point{at(s), want})
		allocation = append(allocation, Point{at(s), limit})
		reserved = append(reserved, Range{at(s), limit, limit * 1.1})
		forecast = append(forecast, Range{at(s), want * 0.9, want * 1.2})
	}
	return Panel{
		Title: name, Unit: unit,
		Bands: []Band{{"forecast", forecast, Forecast}, {"reserved", reserved, Reservation}},
		Series: []Line{
			{"demand", demand, Demand}, {"usage", usage, Usage}, {"allocation", allocation, Allocation},
		},
		Marks: []Marks{{"miss", []time.Time{at(100), at(361)}, rgb(0xcc3311)}},
	}
}

// Set GNOMON_CHART_DIR to look at the images.
func TestRenderBothFormats(t *testing.T) {
	dir := os.Getenv("GNOMON_CHART_DIR")
	single := example()
	single.Columns, single.ColumnTitles, single.Elapsed = 0, nil, false
	single.Panels = []Panel{single.Panels[0], single.Panels[2], single.Panels[4], {Title: "Network", Unit: BytesPerSecond}}
	for name, f := range map[string]Figure{"grid": example(), "single": single, "bare": {Start: epoch, End: at(1), Panels: []Panel{{}, {Title: "x"}}}} {
		for _, format := range []Format{SVG, PNG} {
			var buf bytes.Buffer
			if err := Render(&buf, f, format, 1100, 800); err != nil {
				t.Fatal(err)
			}
			if dir != "" {
				if err := os.WriteFile(filepath.Join(dir, name+"."+string(format)), buf.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if format == PNG {
				img, err := png.Decode(&buf)
				if err != nil {
					t.Fatal(err)
				}
				if b := img.Bounds(); b.Dx() != 2200 || b.Dy() != 1600 {
					t.Errorf("%s: the image is %v, want 2200x1600", name, b)
				}
				continue
			}
			text := svgText(t, buf.Bytes())
			for _, p := range f.Panels {
				if !strings.Contains(text, p.Title) {
					t.Errorf("%s: the SVG does not show %q", name, p.Title)
				}
			}
			for _, word := range f.ColumnTitles {
				if !strings.Contains(text, word) {
					t.Errorf("%s: the SVG does not show %q", name, word)
				}
			}
			if name != "bare" && strings.Count(text, "allocation") != 1 {
				t.Errorf("%s: the legend should tell each name once: %q", name, text)
			}
			if name != "grid" && !strings.Contains(text, "no data") {
				t.Errorf("%s: an empty panel does not say so", name)
			}
		}
	}
}

// svgText returns the text of a well-formed SVG.
func svgText(t *testing.T, doc []byte) string {
	t.Helper()
	var text strings.Builder
	d := xml.NewDecoder(bytes.NewReader(doc))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatalf("the SVG is not well-formed: %v", err)
		}
		if c, ok := tok.(xml.CharData); ok {
			text.Write(c)
			text.WriteByte('\n')
		}
	}
}

func TestRenderIsDeterministic(t *testing.T) {
	var a, b bytes.Buffer
	for _, buf := range []*bytes.Buffer{&a, &b} {
		if err := Render(buf, example(), SVG, 600, 400); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the same figure gives two images")
	}
}

func TestRenderRefuses(t *testing.T) {
	ok := Figure{Start: epoch, End: at(1)}
	for _, c := range []struct {
		f      Figure
		format Format
		w, h   int
		says   string
	}{
		{ok, "gif", 500, 500, "gif"},
		{ok, SVG, 100, 500, "100x500"},
		{ok, PNG, 500, 20000, "500x20000"},
		{Figure{Start: epoch, End: epoch}, PNG, 500, 500, "not after"},
	} {
		if err := Render(io.Discard, c.f, c.format, c.w, c.h); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("error %v, want one with %q", err, c.says)
		}
	}
}

// Whatever comes is drawn without a panic.
func TestRenderAnything(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, -1, 1e-12, math.MaxFloat64}))
		var l Line
		var b Band
		n := rapid.IntRange(0, 20).Draw(rt, "n")
		for i := range n {
			l.Points = append(l.Points, Point{at(float64(i - 2)), value.Draw(rt, "value")})
			b.Points = append(b.Points, Range{at(float64(i - 2)), value.Draw(rt, "low"), value.Draw(rt, "high")})
		}
		l.Style.Step, l.Style.Fill = rapid.Bool().Draw(rt, "step"), rapid.Bool().Draw(rt, "fill")
		f := Figure{Start: epoch, End: at(rapid.Float64Range(0.001, 1e7).Draw(rt, "span")), Elapsed: rapid.Bool().Draw(rt, "elapsed"),
			Panels: []Panel{{Title: "x", Unit: Unit(rapid.IntRange(0, 5).Draw(rt, "unit")), Series: []Line{l}, Bands: []Band{b}}}}
		var buf bytes.Buffer
		if err := Render(&buf, f, SVG, 300, 200); err != nil {
			rt.Fatal(err)
		}
		svgText(t, buf.Bytes())
	})
}

func TestLinePartsBreakAtNaN(t *testing.T) {
	nan := math.NaN()
	var l Line
	for i, v := range []float64{9, 1, 2, nan, nan, 3, nan, 4, 5, 9} {
		l.Points = append(l.Points, Point{at(float64(i - 1)), v})
	}
	parts := lineParts(l, Figure{Start: epoch, End: at(7)})
	var ys [][]float64
	for _, p := range parts {
		var y []float64
		for _, xy := range p {
			y = append(y, xy.Y)
		}
		ys = append(ys, y)
	}
	want := [][]float64{{1, 2}, {3}, {4, 5}}
	if len(ys) != 3 || !slices.Equal(ys[0], want[0]) || !slices.Equal(ys[1], want[1]) || !slices.Equal(ys[2], want[2]) {
		t.Errorf("parts %v, want %v", ys, want)
	}
}

func TestThinKeepsExtremes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ys := rapid.SliceOfN(rapid.Float64Range(-10, 10), 1, 500).Draw(t, "ys")
		n := rapid.IntRange(4, 100).Draw(t, "n")
		var part plotter.XYs
		for i, y := range ys {
			part = append(part, plotter.XY{X: float64(i), Y: y})
		}
		out := thin(part, n)
		if len(out) > n+2 && len(out) > len(part) {
			t.Fatalf("%d points of %d, want about %d", len(out), len(part), n)
		}
		less := func(a, b plotter.XY) int { return int(math.Copysign(1, a.Y-b.Y)) }
		if slices.MaxFunc(out, less).Y != slices.Max(ys) || slices.MinFunc(out, less).Y != slices.Min(ys) {
			t.Fatal("an extreme is lost")
		}
		if out[0] != part[0] || out[len(out)-1] != part[len(part)-1] || !slices.IsSortedFunc(out, func(a, b plotter.XY) int { return int(a.X - b.X) }) {
			t.Fatal("want the ends kept and the order of time")
		}
	})
}

func labels(ticks []plot.Tick) string {
	var out []string
	for _, t := range ticks {
		out = append(out, t.Label)
	}
	return strings.Join(out, " ")
}

func TestValueTicks(t *testing.T) {
	for _, c := range []struct {
		unit Unit
		top  float64
		want string
	}{
		{Cores, 3.7, "0 1 2 3 4 cores"},
		{Cores, 0.37, "0.0 0.1 0.2 0.3 0.4 cores"},
		{Bytes, 900 << 20, "0 256 512 768 1024 MiB"},
		{Bytes, 3 << 30, "0 1 2 3 GiB"},
		{Bytes, 0, "0.0 0.5 1.0 KiB"},
		{BytesPerSecond, 37e6, "0 10 20 30 40 MB/s"},
		{BytesPerSecond, 950, "0 500 1000 B/s"},
		{Percent, 99, "0 50 100 %"},
		{Plain, -1, "0.0 0.5 1.0 "},
	} {
		end, ticks, unit := valueTicks(c.unit, c.top)
		if got := labels(ticks) + " " + unit; got != c.want {
			t.Errorf("valueTicks(%v, %v) = %q, want %q", c.unit, c.top, got, c.want)
		}
		if end < c.top {
			t.Errorf("valueTicks(%v, %v) ends at %v", c.unit, c.top, end)
		}
	}
}

func TestTimeTicks(t *testing.T) {
	for _, c := range []struct {
		span    time.Duration
		elapsed bool
		want    string
	}{
		{10 * time.Minute, false, "10:00 10:02 10:04 10:06 10:08 10:10"},
		{time.Minute, false, "10:00:00 10:00:10 10:00:20 10:00:30 10:00:40 10:00:50 10:01:00"},
		{24 * time.Hour, false, "12:00 18:00 2 Mar 06:00"},
		{10 * 24 * time.Hour, false, "3 Mar 5 Mar 7 Mar 9 Mar 11 Mar"},
		{10 * time.Minute, true, "0 2 min 4 min 6 min 8 min 10 min"},
		{3 * time.Minute, true, "0 30 s 60 s 90 s 2:00 2:30 3:00"},
		{time.Second, true, "0 200 ms 400 ms 600 ms 800 ms 1000 ms"},
	} {
		if got := labels(timeTicks(epoch, epoch.Add(c.span), c.elapsed, 6)); got != c.want {
			t.Errorf("timeTicks over %v = %q, want %q", c.span, got, c.want)
		}
	}
}

func TestFitTicksSpanTheValues(t *testing.T) {
	for _, test := range []struct{ low, high, start, end float64 }{
		{-8, 3, -10, 5}, {1003, 1017, 1000, 1020}, {5, 5, 4.5, 5.5}, {0, 0, -1, 1}, {-2e-9, 1e-9, -2e-9, 1e-9},
	} {
		start, end, ticks, _ := fitTicks(Plain, test.low, test.high)
		if math.Abs(start-test.start) > 1e-9*math.Abs(test.start)+1e-15 || math.Abs(end-test.end) > 1e-9*math.Abs(test.end)+1e-15 {
			t.Errorf("%v to %v: axis %v to %v, want %v to %v", test.low, test.high, start, end, test.start, test.end)
		}
		seen := map[string]bool{}
		for _, tick := range ticks {
			if seen[tick.Label] {
				t.Errorf("%v to %v: two marks say %s", test.low, test.high, tick.Label)
			}
			seen[tick.Label] = true
		}
		if len(ticks) < 3 || len(ticks) > 12 {
			t.Errorf("%v to %v: %d marks", test.low, test.high, len(ticks))
		}
	}
}

func TestStepTicksAreWholeNumbers(t *testing.T) {
	var labels []string
	for _, tick := range stepTicks(190, 8) {
		labels = append(labels, tick.Label)
	}
	if got := strings.Join(labels, " "); got != "0 50 100 150" {
		t.Errorf("got %s", got)
	}
	if got := stepTicks(2, 8); len(got) != 3 {
		t.Errorf("marks for two steps: %v", got)
	}
}

func TestPanelFitsNegativeValues(t *testing.T) {
	start := time.Unix(0, 0)
	f := Figure{Start: start, End: start.Add(10 * time.Second), Steps: true, Panels: []Panel{{
		Title: "below", Fit: true,
		Series: []Line{{Name: "values", Points: []Point{{start, -5}, {start.Add(10 * time.Second), 5}}}},
	}}}
	var b bytes.Buffer
	if err := Render(&b, f, SVG, 600, 300); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), ">-5.0<") && !strings.Contains(b.String(), ">-5<") {
		t.Error("the axis does not reach below 0")
	}
}
