package lab

import (
	"math"

	"github.com/gnomon-vm/gnomon"
)

const (
	autopilotWindow = 300.0     // seconds of a histogram
	autopilotHold   = 3600.0    // seconds over which the highest limit holds
	autopilotCPU    = 12 * 3600 // half-lives in seconds
	autopilotMemory = 48 * 3600
	autopilotBins   = 400 // of the ceiling

	loadPercentile   = 0.95 // of load-weighted usage: serving jobs
	memoryPercentile = 0.98 // of windows' peaks: a low tolerance of kills
)

// autopilot is the moving-window recommender: histograms of windows, weighted by
// age, a percentile of them and a margin, the highest of the hold.
type autopilot struct {
	memory           bool
	sees             bool // demand rather than usage
	halfLife, window float64
	margin           float64
	held             window

	bins  [autopilotBins + 1]float64
	part  [autopilotBins + 1]float64 // the window's
	peak  float64
	since float64
}

func newAutopilot(margin float64, r gnomon.Resource, s *script) rule {
	interval := max(autopilotWindow, s.interval.Seconds())
	a := &autopilot{memory: r == gnomon.Memory, halfLife: autopilotCPU, window: autopilotWindow, margin: margin,
		held: window{values: make([]float64, max(1, int(autopilotHold/interval)))}}
	if a.memory {
		a.halfLife = autopilotMemory
	}
	return a
}

func newAutopilotFast(margin float64, r gnomon.Resource, s *script) rule {
	a := &autopilot{memory: r == gnomon.Memory, sees: true, halfLife: max(60, 12*s.interval.Seconds()), margin: margin,
		held: newWindow(30, 3, s)}
	if a.memory {
		a.halfLife = max(240, 48*s.interval.Seconds())
	}
	return a
}

func (a *autopilot) next(o observation) float64 {
	used := o.usage
	if a.sees {
		used = o.demand
	}
	bin := min(autopilotBins, int(math.Ceil(used/o.ceiling*autopilotBins)))
	a.part[bin] += o.interval
	a.peak = max(a.peak, used)
	if a.since += o.interval; a.since < a.window*(1-1e-6) {
		return leave
	}
	keep := math.Exp2(-a.since / a.halfLife)
	for i := range a.bins {
		a.bins[i] = a.bins[i]*keep + a.part[i]
	}
	if a.memory { // a window counts by its peak
		for i := range a.bins {
			a.bins[i] -= a.part[i]
		}
		a.bins[min(autopilotBins, int(math.Ceil(a.peak/o.ceiling*autopilotBins)))]++
	}
	a.part, a.peak, a.since = [autopilotBins + 1]float64{}, 0, 0
	return a.held.add(a.percentile() * o.ceiling * (1 + a.margin))
}

// percentile is the upper end of the bin, as a share of the ceiling, below which
// the wanted share of load or of windows is.
func (a *autopilot) percentile() float64 {
	want := loadPercentile
	weight := func(i int) float64 { return a.bins[i] * float64(i) }
	if a.memory {
		want, weight = memoryPercentile, func(i int) float64 { return a.bins[i] }
	}
	total, sum := 0.0, 0.0
	for i := range a.bins {
		total += weight(i)
	}
	for i := range a.bins {
		if sum += weight(i); sum >= want*total*(1-1e-12) {
			return float64(i) / autopilotBins
		}
	}
	return 1
}
