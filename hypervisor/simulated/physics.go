package simulated

import (
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

const (
	page        = 4 << 10
	frame       = 1500
	diskRequest = 64 << 10

	// diskService is how long a request takes when none is before it.
	diskService = 100 * time.Microsecond

	// shaperDepth is how long a packet waits in a full shaper, as in the
	// package shaper.
	shaperDepth = 50 * time.Millisecond

	// refault is the part per second of what is swapped out that a guest short
	// of memory needs back, for which it swaps out as much.
	refault = 0.1
)

// step lets one step pass: it shares the rates out among the VMs, then moves
// the balloons.
func (d *Driver) step() {
	d.now = d.now.Add(d.opts.Step)
	for _, r := range []gnomon.Resource{gnomon.CPU, gnomon.Disk, gnomon.Network} {
		d.share(r)
	}
	free := d.opts.Total[gnomon.Memory]
	for _, v := range d.vms {
		free -= v.size
	}
	for _, v := range d.vms {
		if !v.paused {
			free -= v.useMemory(d.opts, d.now, max(free, 0))
		}
	}
}

// share gives each VM of a rate what it wants, up to its limit; where the host
// has too little for all, each gets the same at most (max-min fairness).
func (d *Driver) share(r gnomon.Resource) {
	dt := d.opts.Step.Seconds()
	wants := make([]float64, len(d.vms))
	for i, v := range d.vms {
		wants[i] = v.want(r, d.now, dt)
	}
	level := -1.0
	if total := d.opts.Total[r]; total > 0 {
		level = fairLevel(wants, float64(total)*dt)
	}
	for i, v := range d.vms {
		got := wants[i]
		if level >= 0 {
			got = min(got, level)
		}
		v.serve(r, got, dt)
	}
}

// fairLevel returns the level that, as a bound on each want, has them add up to
// the total, or -1 if they do not reach it.
func fairLevel(wants []float64, total float64) float64 {
	sum := 0.0
	for _, w := range wants {
		sum += w
	}
	if sum <= total {
		return -1
	}
	// Those below the even part leave the rest to the others, until none is.
	level := 0.0
	for {
		left, n := total, 0
		for _, w := range wants {
			if w <= level {
				left -= w
			} else {
				n++
			}
		}
		if n == 0 || left/float64(n) <= level*(1+1e-12) {
			return level
		}
		level = left / float64(n)
	}
}

// want adds a step's demand to the backlog and returns how much of it the VM
// could take in this step by itself: up to its limit and its vCPUs.
func (v *vm) want(r gnomon.Resource, now time.Time, dt float64) float64 {
	if v.paused || v.spec.why(r) != "" {
		return 0
	}
	rate := v.demand(r, now)
	v.backlog[r] += rate * dt
	v.total.Demanded[r] += rate * dt
	if v.spec.MaxBacklog > 0 {
		most := rate * max(v.spec.MaxBacklog.Seconds(), dt)
		if over := v.backlog[r] - most; over > 0 {
			v.backlog[r] = most
			v.total.GivenUp[r] += over
		}
	}
	take := v.backlog[r]
	if limit := v.limited[r]; limit != hypervisor.Unlimited {
		take = min(take, float64(limit)*dt)
	}
	if r == gnomon.CPU {
		take = min(take, float64(v.spec.VCPUs)*1000*dt)
	}
	return take
}

func (v *vm) demand(r gnomon.Resource, now time.Time) float64 {
	f := v.spec.Demand[r]
	if f == nil {
		return 0
	}
	return float64(max(f(now.Sub(v.added)), 0))
}

// serve takes what the VM got off its backlog, and counts the wait of the rest.
func (v *vm) serve(r gnomon.Resource, got, dt float64) {
	wanted := v.backlog[r]
	v.backlog[r] = max(wanted-got, 0)
	v.total.Served[r] += got
	if v.backlog[r] > 1e-9*wanted {
		v.total.Short[r] += seconds(dt)
	}
	switch r {
	case gnomon.CPU:
		// As many vCPUs as there is work for were runnable; those that did not
		// run waited.
		runnable := min(wanted, float64(v.spec.VCPUs)*1000*dt)
		v.waited += seconds(max(runnable-got, 0) / 1000)
	case gnomon.Disk:
		// By Little's law the time spent in the queue is its length times dt.
		v.diskTime += seconds(v.backlog[r]/diskRequest*dt + got/diskRequest*diskService.Seconds())
	case gnomon.Network:
		v.enqueue(dt)
	}
}

// enqueue puts the network's backlog into the shaper's queue as far as it fits;
// what arrives beyond is dropped, and stays with the sender to be sent again.
func (v *vm) enqueue(dt float64) {
	limit := v.limited[gnomon.Network]
	if limit == hypervisor.Unlimited {
		v.queued = 0
		return
	}
	room := float64(limit) * shaperDepth.Seconds()
	grown := v.backlog[gnomon.Network] - v.queued
	v.queued = min(v.backlog[gnomon.Network], room)
	if over := v.backlog[gnomon.Network] - room; over > 0 && grown > 0 {
		v.drops += min(over, float64(limit)*dt) / frame
	}
}

// useMemory moves the balloon and has the guest use its memory. It returns the
// bytes taken from what the host has free, less than 0 if some were given back.
func (v *vm) useMemory(o Options, now time.Time, free int64) (taken int64) {
	dt := o.Step.Seconds()
	used := int64(v.demand(gnomon.Memory, now))
	kernel := v.spec.Memory / kernelMemory
	before := v.size
	if v.size < v.target {
		v.size = min(v.target, v.size+bytes(o.Deflate, dt), v.size+free)
	} else if least := max(v.target, v.size-bytes(o.Inflate, dt), used+kernel); least < v.size {
		v.size = least // a guest gives back what it does not use, no more
	}
	available := max(v.size-kernel, 0)
	v.swap(float64(max(used-available, 0)), dt)
	v.total.Demanded[gnomon.Memory] += float64(used) * dt
	v.total.Served[gnomon.Memory] += float64(min(used, available)) * dt
	if used > available {
		v.total.Short[gnomon.Memory] += o.Step
	}
	if !now.Before(v.nextStats) {
		v.told = memoryStats{at: now, available: available, usable: max(available-used, 0), in: v.in, out: v.out}
		v.nextStats = now.Add(o.StatsPeriod)
	}
	return v.size - before
}

// swap has the guest keep excess bytes in swap.
func (v *vm) swap(excess, dt float64) {
	again := excess * refault * dt
	v.out += again + max(excess-v.swapped, 0)
	v.in += again + max(v.swapped-excess, 0)
	v.swapped = excess
}

func bytes(rate int64, dt float64) int64 { return int64(float64(rate) * dt) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
