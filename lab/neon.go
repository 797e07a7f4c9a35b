package lab

import (
	"math"

	"github.com/gnomon-vm/gnomon"
)

// neonConfig are Neon's constants, and what the fast variant has in their place.
type neonConfig struct {
	every    float64 // seconds between decisions
	memory   float64 // constant of the load average, seconds
	whole    bool    // load counts whole runnable tasks
	coupled  bool    // CPU and memory change together
	cores    float64 // millicores of a compute unit
	down     float64 // compute units that go at once
	reserve  float64 // bytes that the guest's kernel is thought to use
	urgent   float64 // share of memory in use that asks for more at once
	standing float64 // seconds that such a request stands
}

var (
	neonSettings = neonConfig{every: 5, memory: 60, whole: true, coupled: true, cores: 250, down: 1,
		reserve: 100 << 20, urgent: 0.85, standing: 10}
	neonFast = neonConfig{every: 1, memory: 5, cores: 50, down: math.Inf(1), urgent: 0.95, standing: 10}
)

// leave is the limit that changes nothing.
var leave = math.NaN()

// neon sizes a guest in compute units: 250 millicores, and memory in the
// proportion of the guest's ceilings (1 GiB in Neon's service).
type neon struct {
	neonConfig
	load, use float64 // target shares
	unit      [gnomon.NumResources]float64

	load1   float64
	started bool
	since   float64 // seconds since the last decision
	asked   float64 // units that memory in use asked for
	stands  float64 // seconds that it still counts
}

func playNeon(c neonConfig) func(float64) (controller, error) {
	return func(knob float64) (controller, error) {
		return &independent{make: func(s *script) sizer {
			n := &neon{neonConfig: c, load: 0.9 / knob, use: 0.75 / knob}
			n.unit[gnomon.CPU] = c.cores
			n.unit[gnomon.Memory] = 1 << 30
			if cpu, memory := s.ceiling[gnomon.CPU], s.ceiling[gnomon.Memory]; cpu > 0 && memory > 0 {
				n.unit[gnomon.Memory] = memory * c.cores / cpu
			} else if memory > 0 {
				n.unit[gnomon.Memory] = min(1<<30, memory/16)
			}
			return n
		}}, nil
	}
}

func (n *neon) next(o *[gnomon.NumResources]observation, known gnomon.ResourceSet) (to [gnomon.NumResources]float64) {
	for r := range to {
		to[r] = leave
	}
	cpu, memory := &o[gnomon.CPU], &o[gnomon.Memory]
	interval := max(cpu.interval, memory.interval)
	if known.Has(gnomon.CPU) {
		n.average(cpu.demand/1000, interval)
	}
	n.stands -= interval
	if known.Has(gnomon.Memory) && memory.usage >= n.urgent*(memory.allocation-n.reserve) {
		n.asked, n.stands = 1+math.Floor(memory.allocation/n.unit[gnomon.Memory]), n.standing
	}
	n.since += interval
	if n.since >= n.every*(1-1e-6) {
		n.since = 0
	} else if !(n.stands == n.standing) {
		return to
	}
	goals := [2]float64{gnomon.CPU: n.load1 / n.load * 1000 / n.cores}
	if n.coupled {
		goals[gnomon.CPU] = math.Round(goals[gnomon.CPU])
	}
	if known.Has(gnomon.Memory) {
		goals[gnomon.Memory] = (memory.usage + n.reserve) / n.use / n.unit[gnomon.Memory]
		if n.stands > 0 {
			goals[gnomon.Memory] = max(goals[gnomon.Memory], n.asked)
		}
	}
	if n.coupled {
		goal := max(goals[gnomon.CPU], goals[gnomon.Memory])
		goals = [2]float64{goal, goal}
	}
	for r, goal := range goals {
		if known.Has(gnomon.Resource(r)) {
			to[r] = n.unit[r] * n.step(goal, o[r].allocation/n.unit[r], gnomon.Resource(r), memory)
		}
	}
	return to
}

// average moves the load average.
func (n *neon) average(load, interval float64) {
	if n.whole {
		load = math.Ceil(load)
	}
	if !n.started {
		n.load1, n.started = load, true
	}
	keep := math.Exp(-interval / n.memory)
	n.load1 = n.load1*keep + load*(1-keep)
}

// step returns the units to have: up at once, down one by one, and of memory not
// below what would ask for more at once.
func (n *neon) step(goal, have float64, r gnomon.Resource, memory *observation) float64 {
	goal = math.Ceil(goal)
	if goal >= have {
		return goal
	}
	to := max(goal, math.Ceil(have-n.down))
	if r == gnomon.Memory && n.urgent*(to*n.unit[r]-n.reserve) < memory.usage+n.reserve {
		return max(have, 1)
	}
	return to
}
