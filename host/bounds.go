package host

import (
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// The default floors, where the operator sets none: shares of what the VM's
// definition allows at most.
const (
	floorCPUPercent    = 10
	floorMemoryPercent = 50
	floorRatePercent   = 10 // of the ceiling of disk and network
	minFloorCPU        = 100
)

// bounds are what the broker may do with one VM.
type bounds struct {
	floor, ceiling gnomon.Resources
	limits         gnomon.ResourceSet
	why            [gnomon.NumResources]string // for each resource not in limits
}

// boundsOf combines a VM's definition with the operator's parameters. A
// resource without any ceiling is watched and not limited: nobody has said how
// much is much.
func boundsOf(m hypervisor.Machine, p config.Parameters) bounds {
	b := bounds{why: m.Why}
	for r := range gnomon.AllResources() {
		ceiling := m.Max[r]
		if c := p.Ceiling[r]; c > 0 && (ceiling == 0 || c < ceiling) {
			ceiling = c
		}
		floor := p.Floor[r]
		if floor == 0 {
			floor = defaultFloor(r, ceiling)
			if r == gnomon.CPU && m.VCPUs > 0 { // not of vCPUs that are yet to be plugged
				floor = defaultFloor(r, min(ceiling, int64(m.VCPUs)*1000))
			}
		}
		b.ceiling[r], b.floor[r] = ceiling, min(floor, ceiling)
		switch {
		case !m.Limits.Has(r):
		case ceiling == 0:
			b.why[r] = "no ceiling is known: set limits.ceiling to have it limited"
		default:
			b.limits = b.limits.With(r)
		}
	}
	return b
}

func defaultFloor(r gnomon.Resource, ceiling int64) int64 {
	switch r {
	case gnomon.CPU:
		return max(ceiling*floorCPUPercent/100, minFloorCPU)
	case gnomon.Memory:
		return ceiling * floorMemoryPercent / 100
	}
	return ceiling * floorRatePercent / 100
}

// policyOf returns the broker's part of the parameters.
func policyOf(p config.Parameters) gnomon.Policy {
	return gnomon.Policy{Shadow: p.ShadowEnabled, HeadroomPercent: p.HeadroomPercent, Hold: p.Hold,
		Release: p.ShadowEnabled && p.Release == config.ByForecast, Priority: p.Priority,
		Adopt: p.OnOverride == config.Adopt}
}

// hostReserve is the memory kept for the host itself.
const hostReserve = int64(1) << 30

// capacityOf returns what the host may promise to active VMs.
func capacityOf(h hypervisor.Host, p config.Parameters, shadows int64) gnomon.Resources {
	var c gnomon.Resources
	for r := range gnomon.AllResources() {
		total := h.Total[r]
		if r == gnomon.Memory {
			total = max(total-hostReserve, total/2)
		}
		if p.Capacity[r] > 0 {
			total = p.Capacity[r]
		}
		if total == 0 {
			c[r] = gnomon.UnboundedCapacity
			continue
		}
		c[r] = total / 100 * p.OvercommitPercent[r]
	}
	c[gnomon.Memory] = max(c[gnomon.Memory]-shadows, 0)
	return c
}
