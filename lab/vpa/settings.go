package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	recommenderconfig "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/config"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/logic"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/model"
	updaterconfig "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/updater/config"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/updater/priority"
)

// fastFactor is how much faster everything passes with --fast: it makes of the
// default loop of a minute one of a second, and of a day 24 minutes.
const fastFactor = 60

// settings are the autoscaler's, all of them its own defaults but for what the
// flags change.
type settings struct {
	aggregation *model.AggregationsConfig
	recommend   logic.RecommendationConfig
	format      logic.RecommendationFormat
	update      priority.UpdateConfig
	always      bool          // apply every target
	loop        time.Duration // between runs of the recommender, and of the updater
	step        time.Duration // between a VM's requests
}

// defaults returns what the recommender and the updater run with where nobody
// sets a flag of theirs.
func defaults() settings {
	r, u := recommenderconfig.DefaultRecommenderConfig(), updaterconfig.DefaultUpdaterConfig()
	return settings{
		aggregation: model.NewAggregationsConfig(r.MemoryAggregationInterval, r.MemoryAggregationIntervalCount,
			r.MemoryHistogramDecayHalfLife, r.CpuHistogramDecayHalfLife, r.OOMBumpUpRatio, r.OOMMinBumpUp),
		recommend: logic.RecommendationConfig{
			SafetyMarginFraction:       r.SafetyMarginFraction,
			PodMinCPUMillicores:        r.PodMinCPUMillicores,
			PodMinMemoryMb:             r.PodMinMemoryMb,
			TargetCPUPercentile:        r.TargetCPUPercentile,
			LowerBoundCPUPercentile:    r.LowerBoundCPUPercentile,
			UpperBoundCPUPercentile:    r.UpperBoundCPUPercentile,
			ConfidenceIntervalCPU:      r.ConfidenceIntervalCPU,
			TargetMemoryPercentile:     r.TargetMemoryPercentile,
			LowerBoundMemoryPercentile: r.LowerBoundMemoryPercentile,
			UpperBoundMemoryPercentile: r.UpperBoundMemoryPercentile,
			ConfidenceIntervalMemory:   r.ConfidenceIntervalMemory,
		},
		format: logic.RecommendationFormat{
			HumanizeMemory:     r.HumanizeMemory,
			RoundCPUMillicores: r.RoundCPUMillicores,
			RoundMemoryBytes:   r.RoundMemoryBytes,
		},
		update: priority.UpdateConfig{
			MinChangePriority:          u.DefaultUpdateThreshold,
			PodLifetimeUpdateThreshold: u.PodLifetimeUpdateThreshold,
			EvictAfterOOMThreshold:     u.EvictAfterOOMThreshold,
		},
		loop: r.MetricsFetcherInterval,
		step: r.MetricsFetcherInterval,
	}
}

// parseFlags returns the settings that the arguments ask for. The error is
// flag.ErrHelp where they ask for help, which is then written.
func parseFlags(args []string, stderr io.Writer) (settings, error) {
	s := defaults()
	fs := flag.NewFlagSet("gnomon-lab-vpa", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	percentile := fs.Float64("percentile", s.recommend.TargetCPUPercentile, "of usage that the target covers, above 0 to 1")
	margin := fs.Float64("margin", s.recommend.SafetyMarginFraction, "fraction added to it, 0 to 10")
	apply := fs.String("apply", "updater", "what makes an answer's target apply: updater (its rule), or always")
	fast := fs.Bool("fast", false, "loop each second, and forget as much faster")
	step := fs.Duration("step", s.step, "time between a VM's requests, from 1ms")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stderr, "Usage: gnomon-lab-vpa [flags] < requests > answers")
		fs.SetOutput(stderr)
		fs.PrintDefaults()
		return s, err
	} else if err != nil {
		return s, fmt.Errorf("read flags: %w", err)
	}
	switch {
	case fs.NArg() > 0:
		return s, fmt.Errorf("read flags: argument %q is not wanted; requests come from standard input", fs.Arg(0))
	case !(*percentile > 0 && *percentile <= 1):
		return s, fmt.Errorf("read flags: --percentile is %g; want above 0 to 1", *percentile)
	case !(*margin >= 0 && *margin <= 10):
		return s, fmt.Errorf("read flags: --margin is %g; want 0 to 10", *margin)
	case *apply != "updater" && *apply != "always":
		return s, fmt.Errorf("read flags: --apply is %q; want updater or always", *apply)
	case *step < time.Millisecond:
		return s, fmt.Errorf("read flags: --step is %v; want 1ms or more", *step)
	}
	s.aim(*percentile, *margin)
	s.always, s.step = *apply == "always", *step
	if *fast {
		s.hasten()
	}
	return s, nil
}

// aim sets the target's percentile and margin. The bounds make way for a
// percentile outside of theirs: a target beyond its own bounds would be applied
// anew in every loop.
func (s *settings) aim(percentile, margin float64) {
	r := &s.recommend
	r.SafetyMarginFraction = margin
	r.TargetCPUPercentile, r.TargetMemoryPercentile = percentile, percentile
	r.LowerBoundCPUPercentile = min(r.LowerBoundCPUPercentile, percentile)
	r.LowerBoundMemoryPercentile = min(r.LowerBoundMemoryPercentile, percentile)
	r.UpperBoundCPUPercentile = max(r.UpperBoundCPUPercentile, percentile)
	r.UpperBoundMemoryPercentile = max(r.UpperBoundMemoryPercentile, percentile)
}

// hasten shortens every duration alike, so that the proportions between them,
// which are what the autoscaler was tuned for, stay.
func (s *settings) hasten() {
	a := s.aggregation
	for _, d := range []*time.Duration{
		&a.MemoryAggregationIntervalDuration, &a.MemoryHistogramDecayHalfLife, &a.CPUHistogramDecayHalfLife,
		&s.recommend.ConfidenceIntervalCPU, &s.recommend.ConfidenceIntervalMemory,
		&s.update.PodLifetimeUpdateThreshold, &s.update.EvictAfterOOMThreshold,
		&s.loop,
	} {
		*d /= fastFactor
	}
}
