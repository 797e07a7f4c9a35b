package plan

import (
	"math"

	"github.com/gnomon-vm/gnomon/config"
)

const (
	stepUp   = 0.5 // share of the ceiling from which a stepped shadow is large
	stepDown = 0.4 // share below which it is small again
	// proportions is how many sizes above the base a proportional shadow can
	// have: few, so that it is not resized at every sample.
	proportions = 16
)

// ShadowSize returns how large a shadow should be. peakShare is the predicted
// peak of its VM over the VM's ceiling, from 0 to 1, the largest over the
// resources; current is the shadow's present size. The result is within base
// and max, where a max below base counts as base, and never falls as peakShare
// rises. An unknown policy is taken as fixed.
func ShadowSize(policy config.ScalingPolicy, base, max config.Size, peakShare float64, current config.Size) config.Size {
	if max.CPU < base.CPU {
		max.CPU = base.CPU
	}
	if max.Memory < base.Memory {
		max.Memory = base.Memory
	}
	if !(peakShare > 0) { // NaN too
		peakShare = 0
	}
	if peakShare > 1 {
		peakShare = 1
	}
	switch policy {
	case config.Proportional:
		n := int64(math.Ceil(peakShare * proportions))
		return config.Size{
			CPU:    between(base.CPU, max.CPU, n),
			Memory: between(base.Memory, max.Memory, n),
		}
	case config.Step:
		large := current == max && max != base
		if peakShare >= stepUp || large && peakShare >= stepDown {
			return max
		}
	}
	return base
}

// between returns the n-th of the sizes from lo (0) to hi (proportions).
func between(lo, hi, n int64) int64 {
	if n == proportions {
		return hi
	}
	return lo + (hi-lo)/proportions*n
}
