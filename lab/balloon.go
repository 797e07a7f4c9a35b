package lab

import "math"

// mom is the guest's part of oVirt MOM's balloon.rules while the host is short
// of memory: a guest keeps a share free, and moves by a step at most, but at
// once up to what it uses and that share.
type mom struct {
	free, step float64
	mean       int // samples that use is the mean of
	uses       []float64
}

// momLeast is the change below which it leaves the balloon.
const momLeast = 0.0025

func (m *mom) next(o observation) float64 {
	m.uses = append(m.uses, o.usage)
	m.uses = m.uses[max(0, len(m.uses)-m.mean):]
	used := 0.0
	for _, u := range m.uses {
		used += u / float64(len(m.uses))
	}
	need := used + m.free*o.allocation
	to := max(o.allocation*(1-m.step), need)
	if need >= o.allocation {
		to = max(o.allocation*(1+m.step), need)
	}
	if math.Abs(to-o.allocation) < momLeast*o.allocation {
		return leave
	}
	return to
}

// proxmox moves a balloon by a step at most towards the size of which a target
// share is in use.
type proxmox struct{ target, step float64 }

// proxmoxLeast is the change, in bytes, below which it leaves the balloon.
const proxmoxLeast = 10 << 20

func (p *proxmox) next(o observation) float64 {
	change := o.usage/p.target - o.allocation
	if math.Abs(change) <= min(proxmoxLeast, p.step/10) {
		return leave
	}
	return o.allocation + max(-p.step, min(p.step, change))
}
