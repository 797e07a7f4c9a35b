package main

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// stage is how long one stage took each time.
type stage struct {
	name   string
	metric string
	count  uint64
	upTo   []bound
}

// bound is how many took at most so long, in seconds.
type bound struct {
	seconds float64
	count   uint64
}

// stages are those that the daemon times itself.
func stages() []stage {
	return []stage{
		{name: "usage event → proposal", metric: "gnomon_host_proposal_seconds"},
		{name: "event → decision", metric: "gnomon_host_step_seconds"},
		{name: "decision → applied", metric: "gnomon_host_apply_seconds"},
	}
}

// read returns the stages as counted so far, whatever their labels.
func read(registry *prometheus.Registry) ([]stage, error) {
	families, err := registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	all := stages()
	for i := range all {
		s := &all[i]
		for _, family := range families {
			if family.GetName() != s.metric {
				continue
			}
			for _, m := range family.GetMetric() {
				s.count += m.GetHistogram().GetSampleCount()
				for j, b := range m.GetHistogram().GetBucket() {
					if j == len(s.upTo) {
						s.upTo = append(s.upTo, bound{seconds: b.GetUpperBound()})
					}
					s.upTo[j].count += b.GetCumulativeCount()
				}
			}
		}
	}
	return all, nil
}

// since returns what was counted in between.
func since(before, after []stage) []stage {
	for i := range after {
		after[i].count -= before[i].count
		for j := range before[i].upTo {
			after[i].upTo[j].count -= before[i].upTo[j].count
		}
	}
	return after
}

// quantile returns the time that the share q of all did not exceed, evenly between
// the bounds; above the last it is the last.
func (s stage) quantile(q float64) float64 {
	rank, last := q*float64(s.count), bound{}
	for _, b := range s.upTo {
		if in := float64(b.count - last.count); float64(b.count) >= rank && in > 0 {
			return last.seconds + (b.seconds-last.seconds)*(rank-float64(last.count))/in
		}
		last = b
	}
	return last.seconds
}
