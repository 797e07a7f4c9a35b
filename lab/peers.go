package lab

import "github.com/gnomon-vm/gnomon"

// peers are other systems' policies, written anew from their formulas and
// published constants. Each has a variant for a loop of 1 s.
func peers() []policy {
	peer := func(name, title, knob, source string, sweep []float64, set gnomon.ResourceSet, control func(float64) (controller, error)) policy {
		return policy{PolicyInfo{Name: name, Title: title, Faithful: "approximate", Knob: knob, Sweep: sweep, Source: source}, set, control}
	}
	const (
		neonSource  = "github.com/neondatabase/autoscaling at a4bce09: pkg/agent/core/goalcu.go, and its vm-monitor"
		neonKnob    = "divides the target shares of load (0.9) and memory (0.75): 1 is the published"
		momSource   = "oVirt MOM: doc/balloon.rules, and vdsm's intervals"
		momKnob     = "share of its balloon that a guest keeps free: 0.2 is the published"
		pveSource   = "Proxmox VE: PVE/AutoBalloon.pm"
		pveKnob     = "target share of memory in use: 0.8 is the published"
		autoSource  = "Rzadca et al., Autopilot, EuroSys 2020: moving windows"
		autoKnob    = "safety margin: 0.1 to 0.15 is the published"
		cloudSource = "Shen et al., CloudScale, SoCC 2011; Gong et al., PRESS, CNSM 2010"
		cloudKnob   = "multiplies the padding: 1 is the published"
	)
	var (
		targets = []float64{0.6, 0.75, 0.9, 1, 1.15, 1.35, 1.6, 2, 3, 5, 10}
		frees   = []float64{0.01, 0.02, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8}
		used    = []float64{0.2, 0.4, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 1}
		padding = []float64{0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 10, 20}
		every   = func(seconds float64, make func(float64, gnomon.Resource, *script) rule) func(float64, gnomon.Resource, *script) rule {
			return func(k float64, r gnomon.Resource, s *script) rule {
				return &paced{every: seconds, memory: r == gnomon.Memory, rule: make(k, r, s)}
			}
		}
	)
	return []policy{
		peer("neon", "Neon's autoscaler: load average and memory in compute units, every 5 s", neonKnob, neonSource, targets, cpuAndMemory, playNeon(neonSettings)),
		peer("neon-fast", "The same every second: a load average of 5 s, small steps, each resource by itself", neonKnob, neonSource, targets, cpuAndMemory, playNeon(neonFast)),
		peer("mom", "oVirt's memory overcommitment manager as if its host were short of memory, every 15 s", momKnob, momSource, frees, memoryOnly,
			ruled(memoryOnly, every(15, func(k float64, _ gnomon.Resource, _ *script) rule { return &mom{free: k, step: 0.05, mean: 10} }))),
		peer("mom-fast", "The same every second, by steps of a quarter, from the last use", momKnob, momSource, frees, memoryOnly,
			ruled(memoryOnly, func(k float64, _ gnomon.Resource, _ *script) rule { return &mom{free: k, step: 0.25, mean: 1} })),
		peer("proxmox", "Proxmox's ballooning with the host's target as the guest's, ±100 MiB every 10 s", pveKnob, pveSource, used, memoryOnly,
			ruled(memoryOnly, every(10, func(k float64, _ gnomon.Resource, _ *script) rule { return &proxmox{target: k, step: 100 << 20} }))),
		peer("proxmox-fast", "The same every second, ±a tenth of the ceiling", pveKnob, pveSource, used, memoryOnly,
			ruled(memoryOnly, func(k float64, _ gnomon.Resource, s *script) rule {
				return &proxmox{target: k, step: s.ceiling[gnomon.Memory] / 10}
			})),
		peer("autopilot", "Autopilot's moving window: 5 min histograms, half-lives of 12 h and 48 h, held for 1 h", autoKnob, autoSource, margins, allResources,
			ruled(allResources, newAutopilot)),
		peer("autopilot-fast", "The same with half-lives of 60 s and 240 s (12 and 48 intervals at least), held for 30 s", autoKnob, autoSource, margins, allResources,
			ruled(allResources, newAutopilotFast)),
		peer("cloudscale", "CloudScale: signature or Markov chain, burst and remedial padding, fast correction, every 10 s", cloudKnob, cloudSource, padding, allResources,
			ruled(allResources, every(10, func(k float64, _ gnomon.Resource, _ *script) rule { return newCloudscale(k) }))),
		peer("cloudscale-fast", "The same every second, from demand rather than usage", cloudKnob, cloudSource, padding, allResources,
			ruled(allResources, func(k float64, _ gnomon.Resource, _ *script) rule { c := newCloudscale(k); c.sees = true; return c })),
	}
}

// paced has a rule decide only every so often, from means over the time since,
// and for memory from what was last.
type paced struct {
	every  float64 // seconds
	memory bool
	rule   rule

	sum observation
}

func (p *paced) next(o observation) float64 {
	if p.memory {
		p.sum.usage, p.sum.demand = 0, 0
	}
	weight := o.interval
	if p.memory {
		weight = 1
	}
	p.sum.usage += o.usage * weight
	p.sum.demand += o.demand * weight
	p.sum.interval += o.interval
	p.sum.starved = p.sum.starved || o.starved
	if p.sum.interval < p.every*(1-1e-6) {
		return leave
	}
	out := p.sum
	if !p.memory {
		out.usage /= out.interval
		out.demand /= out.interval
	}
	out.allocation, out.ceiling = o.allocation, o.ceiling
	p.sum = observation{}
	return p.rule.next(out)
}
