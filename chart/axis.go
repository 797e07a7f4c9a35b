package chart

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"gonum.org/v1/plot"
)

// Unit is what a panel's values are.
type Unit int

// The units.
const (
	Plain          Unit = iota // numbers
	Cores                      // CPU cores
	Bytes                      // shown in KiB, MiB, GiB, TiB
	BytesPerSecond             // shown in kB/s, MB/s, GB/s
	Seconds                    // shown in s, min, h
	Percent                    // of 100
)

var scales = map[Unit][]struct {
	name string
	size float64
}{
	Cores:          {{"cores", 1}},
	Bytes:          {{"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}},
	BytesPerSecond: {{"B/s", 1}, {"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}},
	Seconds:        {{"ms", 1e-3}, {"s", 1}, {"min", 60}, {"h", 3600}},
	Percent:        {{"%", 1}},
}

// scale returns the name and size of the multiple of the unit that suits
// values up to top.
func (u Unit) scale(top float64) (name string, size float64) {
	name, size = "", 1
	for i, s := range scales[u] {
		if i == 0 || top >= s.size {
			name, size = s.name, s.size
		}
	}
	return name, size
}

// valueTicks returns the vertical axis for values up to top: its end, marks
// from 0 in round steps of a multiple of the unit, and that multiple's name.
func valueTicks(u Unit, top float64) (end float64, ticks []plot.Tick, unit string) {
	if !(top > 0) {
		if top = 1; u == Bytes || u == BytesPerSecond {
			_, top = u.scale(1e6)
		}
	}
	unit, size := u.scale(top)
	step := roundStep(top/size/4, u == Bytes)
	n := int(math.Ceil(top/size/step - 1e-9))
	decimals := 0
	for s := step; decimals < 6 && math.Abs(s-math.Round(s)) > 1e-9; s *= 10 {
		decimals++
	}
	for i := 0; i <= n; i++ {
		v := float64(i) * step
		ticks = append(ticks, plot.Tick{Value: v * size, Label: strconv.FormatFloat(v, 'f', decimals, 64)})
	}
	return float64(n) * step * size, ticks, unit
}

// fitTicks returns the vertical axis for values from low to high: its ends, marks
// between them in round steps of a multiple of the unit, and that multiple's
// name.
func fitTicks(u Unit, low, high float64) (start, end float64, ticks []plot.Tick, unit string) {
	if low == high {
		air := math.Abs(low) / 10
		if air == 0 {
			air = 1
		}
		low, high = low-air, high+air
	}
	unit, size := u.scale(math.Max(math.Abs(low), math.Abs(high)))
	step := roundStep((high-low)/size/4, false)
	first, last := math.Floor(low/size/step+1e-9), math.Ceil(high/size/step-1e-9)
	for i := first; i <= last; i++ {
		ticks = append(ticks, plot.Tick{Value: i * step * size, Label: roundLabel(i*step, step)})
	}
	return first * step * size, last * step * size, ticks, unit
}

// roundLabel returns a multiple of a round step as text.
func roundLabel(v, step float64) string {
	if step < 1e-6 || math.Abs(v) >= 1e7 {
		return strconv.FormatFloat(v, 'g', 6, 64)
	}
	decimals := 0
	for s := step; decimals < 6 && math.Abs(s-math.Round(s)) > 1e-9; s *= 10 {
		decimals++
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// stepTicks returns about n marks from 0 to end, at round numbers.
func stepTicks(end float64, n int) []plot.Tick {
	step := math.Max(1, roundStep(end/float64(max(n, 1)), false))
	var ticks []plot.Tick
	for v := 0.0; v <= end; v += step {
		ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', 0, 64)})
	}
	return ticks
}

// roundStep returns the least round number that is at least v: 1, 2 or 5 times
// a power of ten; from 1 on, a power of two where binary.
func roundStep(v float64, binary bool) float64 {
	if binary && v > 1 {
		return math.Exp2(math.Ceil(math.Log2(v) - 1e-9))
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= v*(1-1e-9) {
			return m * power
		}
	}
	return 10 * power
}

var timeSteps = []time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	day, 2 * day, 7 * day, 14 * day, 28 * day, 91 * day, 364 * day,
}

const day = 24 * time.Hour

// timeTicks returns about n marks between start and end, at round times, with
// values in seconds since start.
func timeTicks(start, end time.Time, elapsed bool, n int) []plot.Tick {
	span := end.Sub(start)
	step := timeSteps[len(timeSteps)-1]
	for _, s := range timeSteps {
		if span <= s*time.Duration(max(n, 1)) {
			step = s
			break
		}
	}
	var ticks []plot.Tick
	if elapsed {
		for d := time.Duration(0); d <= span; d += step {
			ticks = append(ticks, plot.Tick{Value: d.Seconds(), Label: elapsedLabel(d, step)})
		}
		return ticks
	}
	for t := firstTick(start, step); !t.After(end); t = t.Add(step) {
		ticks = append(ticks, plot.Tick{Value: t.Sub(start).Seconds(), Label: clockLabel(t, step)})
	}
	return ticks
}

// firstTick returns the first multiple of step since local midnight, not
// before start.
func firstTick(start time.Time, step time.Duration) time.Time {
	y, m, d := start.Date()
	t := time.Date(y, m, d, 0, 0, 0, 0, start.Location())
	if behind := start.Sub(t); behind > 0 {
		t = t.Add((behind + step - 1) / step * step)
	}
	return t
}

func clockLabel(t time.Time, step time.Duration) string {
	switch {
	case step >= day:
		return t.Format("2 Jan")
	case step < time.Second:
		return t.Format("15:04:05.000")
	case step < time.Minute:
		return t.Format("15:04:05")
	case step >= time.Hour && t.Hour() == 0:
		return t.Format("2 Jan")
	}
	return t.Format("15:04")
}

func elapsedLabel(d, step time.Duration) string {
	f := func(v float64, unit string) string { return strconv.FormatFloat(v, 'f', -1, 64) + " " + unit }
	switch {
	case d == 0:
		return "0"
	case step >= day:
		return f(d.Hours()/24, "d")
	case step >= time.Hour:
		return f(d.Hours(), "h")
	case step >= time.Minute:
		return f(d.Minutes(), "min")
	case step >= time.Second:
		if d >= 2*time.Minute {
			return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
		}
		return f(d.Seconds(), "s")
	}
	return f(float64(d.Milliseconds()), "ms")
}
