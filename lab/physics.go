package lab

import (
	"math"
	"time"

	"github.com/gnomon-vm/gnomon"
)

const (
	// Delays and speeds of the actuators, the same for every policy: from a
	// call to its effect on a quota and on the shapers, and of a balloon that
	// deflates or inflates.
	cpuDelay    = 50 * time.Millisecond
	shaperDelay = 40 * time.Millisecond
	memoryUp    = float64(1.6 * (1 << 30)) // bytes/s
	memoryDown  = float64(450 * (1 << 20)) // bytes/s

	// patience bounds the work that waits to what arrives in that time at the
	// present demand; what comes on top is given up, as by clients that time
	// out. Work that waits wants to be done within it.
	patience = 10.0 // seconds

	// refault is the part per second of what is swapped out that a guest needs
	// back, for which it swaps out as much.
	refault = 0.1

	// swapPart is the share of the ceiling that fits into swap. A guest that
	// needs more is killed.
	swapPart = 0.25

	requestSize = 64 << 10 // bytes a disk request moves
)

// lane is one resource of one guest: its demand, its limit, and what waits. It
// is exact between events, since demand is constant there and a limit constant
// or linear.
type lane struct {
	r       gnomon.Resource
	ceiling float64
	at      time.Duration // up to which it was played
	demand  float64
	limit   float64 // in force
	target  float64
	lands   time.Duration // when target is in force, of rates
	moving  bool

	backlog float64 // unit-seconds
	served  float64 // unit-seconds
	waited  float64 // unit-seconds, of CPU's run-queue wait
	queued  float64 // backlog over time, of disk
	in, out float64 // swapped bytes
	killed  bool    // and not back within what it has
	deaths  int

	tally *tally
}

// set asks for another limit at the lane's present time.
func (l *lane) set(to float64) {
	if to == l.target {
		return
	}
	l.target, l.moving = to, true
	l.tally.resize()
	switch l.r {
	case gnomon.Memory:
	case gnomon.CPU:
		l.lands = l.at + cpuDelay
	default:
		l.lands = l.at + shaperDelay
	}
}

// settles returns when the change under way ends if demand stays, and false if
// none is. A balloon that meets memory in use ends there.
func (l *lane) settles() (time.Duration, bool) {
	if !l.moving || l.r != gnomon.Memory {
		return l.lands, l.moving
	}
	left := (l.target - l.limit) / memoryUp
	if l.target < l.limit {
		left = max(0, l.limit-max(l.target, l.demand)) / memoryDown
	}
	return l.at + time.Duration(math.Ceil(left*float64(time.Second))), true
}

// settle ends the change under way, whose time has come.
func (l *lane) settle() {
	if l.r == gnomon.Memory && l.target < l.limit {
		l.target = min(l.limit, max(l.target, l.demand))
	}
	l.limit, l.moving = l.target, false
}

// short reports whether demand exceeds the limit.
func (l *lane) short() bool { return l.demand > l.limit*(1+1e-9) }

// advance plays the lane up to a time before which no change ends.
func (l *lane) advance(to time.Duration) {
	dt := (to - l.at).Seconds()
	if dt <= 0 {
		return
	}
	if l.r == gnomon.Memory {
		l.advanceMemory(dt)
	} else {
		l.advanceRate(dt)
	}
	l.at = to
}

func (l *lane) advanceRate(dt float64) {
	if l.backlog > 0 && l.limit > l.demand {
		if drained := l.backlog / (l.limit - l.demand); drained < dt {
			l.serve(drained, 0)
			dt -= drained
		}
	}
	most := max(l.backlog, patience*l.demand)
	grown := l.backlog + (l.demand-l.limit)*dt
	if over := grown - most; over > 0 { // the first part until the queue is full
		full := max(0, dt-over/(l.demand-l.limit))
		l.serve(full, most)
		l.tally.giveUp((l.demand - l.limit) * (dt - full))
		dt -= full
	}
	l.serve(dt, min(most, max(0, grown)))
}

// serve lets dt seconds pass in which the backlog goes linearly to after.
func (l *lane) serve(dt, after float64) {
	before := l.backlog
	l.backlog = after
	rate := min(l.limit, l.demand)
	if before > 0 || after > 0 {
		rate = l.limit
	}
	l.served += rate * dt
	mean := (before + after) / 2
	if mean > 0 { // what waits is at least one request
		l.queued += max(mean, requestSize) * dt
	}
	if wanted := min(l.ceiling, l.demand+mean/patience); wanted > rate {
		l.waited += (wanted - rate) * dt
	}
	l.tally.count(dt, l.demand, l.limit)
	if l.limit > 0 {
		l.tally.delay(l.demand*dt, mean/l.limit)
	} else {
		l.tally.delay(l.demand*dt, patience)
	}
}

// advanceMemory moves the balloon and has the guest use its memory.
func (l *lane) advanceMemory(dt float64) {
	speed := 0.0
	if l.moving && l.target > l.limit {
		speed = memoryUp
	} else if l.moving && l.target < l.limit && l.limit > l.demand {
		speed = -memoryDown
	}
	after := l.limit + speed*dt
	switch {
	case speed > 0:
		after = min(after, l.target)
	case speed < 0:
		after = max(after, l.target, min(l.demand, l.limit))
	}
	// The time of the way, and within it that until the guest has enough.
	way := dt
	if speed != 0 {
		way = min(dt, math.Abs(after-l.limit)/math.Abs(speed))
	}
	if l.demand > l.limit && l.demand < after {
		enough := (l.demand - l.limit) / speed
		l.use(enough, l.limit, l.demand)
		l.use(way-enough, l.demand, after)
	} else {
		l.use(way, l.limit, after)
	}
	l.use(dt-way, after, after)
}

// use lets dt seconds pass in which the limit goes linearly from one to another
// value, both on the same side of demand.
func (l *lane) use(dt, from, to float64) {
	mean := (from + to) / 2
	excess := max(0, l.demand-mean)
	l.out += excess*refault*dt + max(0, max(0, l.demand-to)-l.swapped(from))
	l.in += excess*refault*dt + max(0, l.swapped(from)-max(0, l.demand-to))
	l.limit = to
	l.served += min(l.demand, mean) * dt
	l.tally.count(dt, l.demand, mean)
	switch over := l.demand - to; {
	case over > swapPart*l.ceiling && !l.killed:
		l.tally.kill()
		l.killed = true
		l.deaths++
	case over <= 0:
		l.killed = false
	}
}

func (l *lane) swapped(limit float64) float64 { return max(0, l.demand-limit) }

// want changes the demand at the lane's present time. Memory that is wanted
// beyond the limit is swapped out, and back in when it is not.
func (l *lane) want(demand float64) {
	if l.r == gnomon.Memory {
		before, after := l.swapped(l.limit), max(0, demand-l.limit)
		l.out += max(0, after-before)
		l.in += max(0, before-after)
	}
	l.demand = demand
}
