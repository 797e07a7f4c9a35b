// Package demand turns a VM's counters into samples: what it used over an
// interval and what it would have used had nothing limited it. A forecaster fed
// with usage alone would learn the limit, not the VM.
package demand

import (
	"math/bits"
	"time"

	"github.com/gnomon-vm/gnomon"
)

const (
	// A guest's memory figures count as long as they are not older than
	// staleIntervals intervals, or staleAge if that is longer.
	staleIntervals = 3
	staleAge       = 5 * time.Second

	// scarcePart: less usable than available memory divided by it is scarce.
	scarcePart = 20

	// busyQueue is the mean number of disk requests under way from which a disk
	// at its limit holds somebody up.
	busyQueue = 0.8

	pageSize   = 4096 // bytes a major fault brings in
	packetSize = 1500 // bytes a dropped packet is taken to have had

	// maxAmount bounds every figure of a sample.
	maxAmount = int64(1) << 50
)

// Meter turns one VM's successive counters into samples. The zero value is
// ready for use; it is not safe for concurrent use.
type Meter struct {
	// OperationSize is how many bytes an operation of a disk counts as at least; 0
	// counts bytes alone.
	OperationSize int64

	last     gnomon.Counters
	started  bool
	reserved int64     // bytes given to the guest that its kernel does not manage
	moved    time.Time // when its balloon was last seen to have another size
}

// Next returns the sample of the interval from the previous counters to c. It
// returns false for the first counters, for those not later than their
// predecessors, which are ignored, and for those that went back because the VM
// was restarted, which count as first.
func (m *Meter) Next(c gnomon.Counters) (gnomon.Sample, bool) {
	last := m.last
	if m.started && !c.At.After(last.At) {
		return gnomon.Sample{}, false
	}
	first := !m.started || c.VM != last.VM || wentBack(last, c)
	m.reserve(c, first)
	m.last, m.started = c, true
	if first {
		return gnomon.Sample{}, false
	}
	s := gnomon.Sample{VM: c.VM, At: c.At, Interval: c.At.Sub(last.At), Allocation: allocation(c)}
	cpu(&s, last, c)
	m.memory(&s, last, c)
	m.disk(&s, last, c)
	network(&s, last, c)
	return s, true
}

// Ahead returns the sample of what passed since the last counters, urgent, and
// leaves the intervals of Next as they are.
func (m Meter) Ahead(c gnomon.Counters) (gnomon.Sample, bool) {
	return urgent(m.Next(c))
}

// Between returns the urgent sample from one reading of CPU, disk or network to
// a later one, and leaves the intervals of Next as they are. It may be short:
// what passed before does not count.
func (m Meter) Between(from, to gnomon.Counters) (gnomon.Sample, bool) {
	m = Meter{OperationSize: m.OperationSize}
	m.Next(from)
	return urgent(m.Next(to))
}

func urgent(s gnomon.Sample, ok bool) (gnomon.Sample, bool) {
	s.Urgent = ok
	return s, ok
}

func wentBack(a, b gnomon.Counters) bool {
	both := a.Known & b.Known
	return both.Has(gnomon.CPU) && (b.CPUTime < a.CPUTime || b.CPUWait < a.CPUWait) ||
		both.Has(gnomon.Disk) && (b.DiskBytes < a.DiskBytes || b.DiskTime < a.DiskTime) ||
		both.Has(gnomon.Network) && b.NetworkBytes < a.NetworkBytes
}

// allocation names what no limit amounts to, where that is known.
func allocation(c gnomon.Counters) gnomon.Resources {
	a := gnomon.Resources(c.Allocation)
	if a[gnomon.CPU] < 0 && c.VCPUs > 0 {
		a[gnomon.CPU] = int64(c.VCPUs) * 1000
	}
	if a[gnomon.Memory] < 0 {
		a[gnomon.Memory] = max(0, c.MemoryActual)
	}
	return a
}

// cpu: demand is the time the vCPUs ran and the time they were ready to run and
// did not, which includes all throttling; at most all vCPUs all the time.
func cpu(s *gnomon.Sample, last, c gnomon.Counters) {
	if !(last.Known & c.Known).Has(gnomon.CPU) {
		return
	}
	run, wait := rise(c.CPUTime, last.CPUTime), rise(c.CPUWait, last.CPUWait)
	usage := mulDiv(int64(run), 1000, s.Interval)
	wanted := mulDiv(int64(run), 1000, s.Interval) + mulDiv(int64(wait), 1000, s.Interval)
	if c.VCPUs > 0 {
		wanted = min(wanted, int64(c.VCPUs)*1000)
	}
	set(s, gnomon.CPU, usage, wanted, wait)
}

// reserve learns how much of what the guest was given its kernel keeps to
// itself, from figures that were taken while the balloon stood still: after it
// was last seen to move. (They carry whole seconds, so that they may seem older
// than they are.)
func (m *Meter) reserve(c gnomon.Counters, first bool) {
	if !first && c.MemoryActual != m.last.MemoryActual {
		m.moved = c.At
	}
	still := c.MemoryAt.After(m.moved)
	if c.Known.Has(gnomon.Memory) && (first || still) {
		m.reserved = max(0, min(c.MemoryActual, c.MemoryActual-c.MemoryAvailable))
	}
}

// memory: usage is what the guest was given less what it could still use, so
// that what its kernel keeps to itself counts as used. The guest's figures may
// be older than the balloon's size; they are combined with each other only.
//
// A guest is short when less than a twentieth is usable. So demand is what has a
// twentieth left beside what is used, and by what was swapped more, and faulted
// in when it is short. Both starve the VM for the interval.
func (m *Meter) memory(s *gnomon.Sample, last, c gnomon.Counters) {
	stale := max(staleIntervals*s.Interval, staleAge)
	if !c.Known.Has(gnomon.Memory) || c.MemoryAt.IsZero() || c.At.Sub(c.MemoryAt) > stale {
		return
	}
	usable := max(0, min(c.MemoryUsable, c.MemoryAvailable))
	usage := max(0, min(c.MemoryAvailable-usable+m.reserved, c.MemoryActual))
	var swapped, faulted int64
	if last.Known.Has(gnomon.Memory) {
		swapped = max(0, c.SwapIn-last.SwapIn) + max(0, c.SwapOut-last.SwapOut)
		faulted = min(max(0, c.MajorFaults-last.MajorFaults), maxAmount/pageSize) * pageSize
	}
	scarce := usable < c.MemoryAvailable/scarcePart
	if scarce {
		swapped += faulted
	}
	reserve := max(0, usage-m.reserved) / (scarcePart - 1)
	wanted, starved := usage+max(reserve, min(swapped, c.MemoryActual)), time.Duration(0)
	if scarce || swapped > 0 {
		starved = s.Interval
	}
	set(s, gnomon.Memory, usage, wanted, starved)
}

// disk: by Little's law the queue, the mean number of requests under way, is
// the time of all requests over the interval. One writer that waits for each of
// its requests makes a queue of 1 where it is held up all the time. So at nine
// tenths of the limit with a queue of busyQueue or more the VM is short, and
// demand is usage × (1 + queue / 4), at most twice the usage: how much more an
// open limit would let through, a queue cannot tell.
//
// Operations count as bytes, those that are small as OperationSize each: whether
// a VM is at its limit by the one or by the other is the same.
func (m *Meter) disk(s *gnomon.Sample, last, c gnomon.Counters) {
	if !(last.Known & c.Known).Has(gnomon.Disk) {
		return
	}
	s.Operations = perSecond(c.DiskRequests-last.DiskRequests, s.Interval)
	usage := max(perSecond(c.DiskBytes-last.DiskBytes, s.Interval), min(s.Operations, maxAmount/(m.OperationSize+1))*m.OperationSize)
	limit := c.Allocation[gnomon.Disk]
	wanted, starved := usage, time.Duration(0)
	if queue := float64(c.DiskTime-last.DiskTime) / float64(s.Interval); limit > 0 && usage >= limit-limit/10 && queue >= busyQueue {
		wanted = int64(float64(usage) * min(2, 1+queue/4))
		starved = share(s.Interval, usage, limit)
	}
	set(s, gnomon.Disk, usage, wanted, starved)
}

// network: what waits in the shaper or was dropped by it is demand on top of
// usage, at most as much again as the limit.
func network(s *gnomon.Sample, last, c gnomon.Counters) {
	if !(last.Known & c.Known).Has(gnomon.Network) {
		return
	}
	usage := perSecond(c.NetworkBytes-last.NetworkBytes, s.Interval)
	limit := c.Allocation[gnomon.Network]
	wanted, starved := usage, time.Duration(0)
	drops := min(max(0, c.NetworkDrops-last.NetworkDrops), maxAmount/packetSize)
	if waiting := max(0, min(c.NetworkBacklog, maxAmount)) + drops*packetSize; limit > 0 && waiting > 0 {
		wanted += min(perSecond(waiting, s.Interval), limit)
		starved = share(s.Interval, usage, limit)
	}
	set(s, gnomon.Network, usage, wanted, starved)
}

// rise is how far a counter rose, 0 where the difference is none a counter can
// make.
func rise(now, before time.Duration) time.Duration { return max(0, now-before) }

// share is the part of the interval for which usage would have been at the
// limit, had it been at it or at nothing.
func share(interval time.Duration, usage, limit int64) time.Duration {
	return time.Duration(float64(interval) * min(1, float64(usage)/float64(limit)))
}

func set(s *gnomon.Sample, r gnomon.Resource, usage, wanted int64, starved time.Duration) {
	usage = max(0, min(usage, maxAmount))
	s.Known = s.Known.With(r)
	s.Usage[r] = usage
	s.Demand[r] = max(usage, min(wanted, maxAmount))
	s.Starved[r] = starved
}

func perSecond(delta int64, interval time.Duration) int64 {
	return mulDiv(delta, int64(time.Second), interval)
}

// mulDiv returns a × b / c, without overflow, 0 to maxAmount.
func mulDiv(a, b int64, c time.Duration) int64 {
	hi, lo := bits.Mul64(uint64(max(0, a)), uint64(b))
	if hi >= uint64(c) {
		return maxAmount
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(min(q, uint64(maxAmount)))
}
