package report

import (
	"math"
	"slices"
)

// Span is a value with the bounds between which 95 % of the resamples of the
// VMs lie. Without at least two VMs Low and High are NaN: one VM tells nothing
// of others.
type Span struct{ Value, Low, High float64 }

// Row is one policy at one setting of its knob, over all VMs of a data set.
// Shares are means over VMs, each counting the same.
type Row struct {
	Dataset, Resource, Policy string
	Knob                      float64
	VMs                       int
	Hours                     float64 // VM-hours counted

	Violation Span // share of time, 0..1
	Slack     Span // share of the allocation, 0..1

	Demand, Allocation float64 // mean over VMs, in cores, bytes or bytes/s
	Unmet              float64 // unit-seconds, all VMs together
	UnmetShare         float64 // of what was demanded, 0..1
	DelayP99           float64 // seconds, mean over VMs
	DelayWorst         float64 // seconds, the p99 of the worst VM

	ResizesPerHour float64 // a VM-hour
	KillsPerDay    float64 // a VM-day
	HitRate        float64 // of increases of demand, 0..1; NaN where none was counted
	Lead           float64 // seconds, median over the VMs with hits; NaN without
	Waste          float64 // unit-seconds, all VMs together
	WasteShare     float64 // of the allocation, 0..1
}

// rowOf sums up one setting.
func rowOf(c cell, l line, s setting, draws [][]int) Row {
	r := Row{Dataset: c.dataset, Resource: c.resource, Policy: l.policy, Knob: s.knob, VMs: len(c.vms), Lead: math.NaN(), HitRate: math.NaN()}
	var resizes, kills, hits, misses int
	var demanded, allocated float64
	var leads []float64
	n := float64(len(s.outcomes))
	for _, o := range s.outcomes {
		r.Hours += o.Seconds / 3600
		r.Demand += o.Demand / n
		r.Allocation += o.Allocation / n
		r.Unmet += o.Unmet
		r.Waste += o.Waste
		demanded += o.Demand * o.Seconds
		allocated += o.Allocation * o.Seconds
		r.DelayP99 += o.DelayP99 / n
		r.DelayWorst = max(r.DelayWorst, o.DelayP99)
		resizes, kills, hits, misses = resizes+o.Resizes, kills+o.Kills, hits+o.Hits, misses+o.Misses
		if o.Hits > 0 {
			leads = append(leads, o.LeadP50)
		}
	}
	r.Violation = meanSpan(s.violations, draws)
	r.Slack = meanSpan(s.slacks, draws)
	r.ResizesPerHour = float64(resizes) / r.Hours
	r.KillsPerDay = float64(kills) / r.Hours * 24
	r.UnmetShare = ratio(r.Unmet, demanded)
	r.WasteShare = ratio(r.Waste, allocated)
	if hits+misses > 0 {
		r.HitRate = float64(hits) / float64(hits+misses)
	}
	if len(leads) > 0 {
		slices.Sort(leads)
		r.Lead = leads[len(leads)/2]
	}
	return r
}

// ratio returns a / b, 0 where b is 0.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// meanSpan returns the mean over VMs with its interval.
func meanSpan(values []float64, draws [][]int) Span {
	resampled := make([]float64, len(draws))
	for b, drawn := range draws {
		resampled[b] = meanOf(values, drawn)
	}
	return spanOf(meanOf(values, everyone(len(values))), resampled)
}

// meanOf returns the mean of the values drawn, by their indices.
func meanOf(values []float64, drawn []int) float64 {
	sum := 0.0
	for _, i := range drawn {
		sum += values[i]
	}
	return sum / float64(len(drawn))
}
