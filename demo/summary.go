package demo

import (
	"math"
	"slices"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/demo/workload"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// Summary is what a demonstration measured, as summary.json holds it.
type Summary struct {
	Accel   string      `json:"accel"`
	Seconds float64     `json:"seconds"` // of the measured window
	Seed    uint64      `json:"seed"`
	VMs     []VMSummary `json:"vms"`
	Cost    Cost        `json:"cost"`
}

// The policies of a VMSummary.
const (
	PolicyShadow   = "gnomon"   // a shadow proposes
	PolicyReactive = "reactive" // the standard path alone
)

// VMSummary is one VM's part of a Summary.
type VMSummary struct {
	Name   string `json:"name"`
	Policy string `json:"policy"`

	// StarvedSeconds is how long the VM wanted more than it got. CPU: run-queue
	// wait of its vCPUs. Memory: under 5 % usable, or swapping. Disk and
	// network: at the limit with work queued.
	StarvedSeconds PerResource `json:"starved_s"`

	// WorkLatency is of the CPU work items that arrived in the window, from
	// arrival to completion; Work counts them.
	WorkLatency Quantiles `json:"work_latency_ms"`
	Work        Work      `json:"work_items"`

	MeanAllocation  Amounts `json:"mean_allocation"`
	MeanReservation Amounts `json:"mean_reservation"`

	Reservations Reservations `json:"reservations"`

	// HitRate is the share of demands served from a reservation, 0 to 1; null
	// where there was no demand.
	HitRate *float64 `json:"hit_rate"`

	// Waste is what was reserved and never used, times how long.
	Waste Waste `json:"waste"`

	// Handover is the time from a demand that a reservation served to the
	// hypervisor's confirmation of the new limit.
	Handover Quantiles `json:"handover_ms"`

	// Bursts counts the whole bursts that the VM's guest finished.
	Bursts PerResource `json:"bursts"`
}

// PerResource is a figure for each resource.
type PerResource struct {
	CPU     float64 `json:"cpu"`
	Memory  float64 `json:"memory"`
	Disk    float64 `json:"disk"`
	Network float64 `json:"network"`
}

// Amounts is an amount of each resource.
type Amounts struct {
	CPU     float64 `json:"cpu_cores"`
	Memory  float64 `json:"memory_bytes"`
	Disk    float64 `json:"disk_bytes_per_second"`
	Network float64 `json:"network_bytes_per_second"`
}

// Waste is an amount of each resource times a duration.
type Waste struct {
	CPU     float64 `json:"cpu_core_seconds"`
	Memory  float64 `json:"memory_byte_seconds"`
	Disk    float64 `json:"disk_bytes"`
	Network float64 `json:"network_bytes"`
}

// Quantiles are of N values; null where there were none.
type Quantiles struct {
	P50 *float64 `json:"p50"`
	P99 *float64 `json:"p99"`
	N   int      `json:"n"`
}

// Work counts CPU work items. One that waited for longer than its patience was
// given up; its latency is how long it waited.
type Work struct {
	Arrived int `json:"arrived"`
	Done    int `json:"done"`
	GivenUp int `json:"given_up"`
}

// Reservations counts what was asked ahead and how it ended.
type Reservations struct {
	Requested int64 `json:"requested"`
	Granted   int64 `json:"granted"`
	Partial   int64 `json:"partial"`
	Denied    int64 `json:"denied"`
	Expired   int64 `json:"expired"`
	Revoked   int64 `json:"revoked"`
}

// Cost is what gnomon itself took in the window.
type Cost struct {
	Shadow ProcessCost `json:"shadow"` // the shadow's QEMU, its guest included
	Daemon ProcessCost `json:"daemon"` // host daemon, server, etcd and history in one
}

// ProcessCost is CPU time over the window and proportional memory at its end.
type ProcessCost struct {
	CPUSeconds  float64 `json:"cpu_seconds"`
	MemoryBytes int64   `json:"memory_bytes"`
}

// meter adds up what a VM's samples tell within a window.
type meter struct {
	begin, end time.Time // end is zero while the window is open

	starved     [gnomon.NumResources]float64
	allocation  [gnomon.NumResources]float64 // unit-seconds
	reservation [gnomon.NumResources]float64
	seconds     float64
}

// add counts a sample, the part of it that lies in the window.
func (m *meter) add(e *hostpb.UsageEvent) {
	to := time.Unix(0, e.GetAtUnixNano())
	from := to.Add(-time.Duration(e.GetIntervalNs()))
	whole := to.Sub(from).Seconds()
	if m.begin.IsZero() || whole <= 0 {
		return
	}
	if from.Before(m.begin) {
		from = m.begin
	}
	if !m.end.IsZero() && to.After(m.end) {
		to = m.end
	}
	part := to.Sub(from).Seconds()
	if part <= 0 {
		return
	}
	m.seconds += part
	for i, state := range e.GetResources() {
		r, err := gnomon.ParseResource(state.GetResource())
		if err != nil {
			continue
		}
		m.allocation[r] += float64(allocated(state)) * part
		m.reservation[r] += float64(state.GetReservation()) * part
		if i < len(e.GetStarvedSeconds()) {
			m.starved[r] += e.GetStarvedSeconds()[i] * part / whole
		}
	}
}

// allocated returns the limit in force; what has none may use its ceiling.
func allocated(state *hostpb.ResourceState) int64 {
	if a := state.GetAllocation(); a >= 0 {
		return a
	}
	return state.GetCeiling()
}

// mean returns an integral over the window as a mean.
func (m *meter) mean(of [gnomon.NumResources]float64) Amounts {
	if m.seconds == 0 {
		return Amounts{}
	}
	for r := range of {
		of[r] /= m.seconds
	}
	return Amounts{
		CPU: of[gnomon.CPU] / 1000, Memory: of[gnomon.Memory],
		Disk: of[gnomon.Disk], Network: of[gnomon.Network],
	}
}

func perResource(of [gnomon.NumResources]float64) PerResource {
	return PerResource{CPU: of[gnomon.CPU], Memory: of[gnomon.Memory], Disk: of[gnomon.Disk], Network: of[gnomon.Network]}
}

// quantiles returns the nearest-rank quantiles of some durations, in ms.
func quantiles(of []time.Duration) Quantiles {
	if len(of) == 0 {
		return Quantiles{}
	}
	sorted := slices.Sorted(slices.Values(of))
	at := func(q float64) *float64 {
		rank := int(math.Ceil(q*float64(len(sorted)))) - 1
		v := float64(sorted[max(rank, 0)]) / float64(time.Millisecond)
		return &v
	}
	return Quantiles{P50: at(0.50), P99: at(0.99), N: len(sorted)}
}

// counted is what a VM's counters tell of a window.
type counted struct {
	reservations Reservations
	hits, misses int64
	waste        [gnomon.NumResources]float64 // unit-seconds
	handovers    []time.Duration
}

// between returns what happened from one reading of a VM's counters to a later.
// Only the latest handovers are known one by one; older ones are left out.
func between(before, after *hostpb.VMStats) counted {
	var c counted
	old := map[string]*hostpb.ResourceStats{}
	for _, s := range before.GetResources() {
		old[s.GetResource()] = s
	}
	for _, s := range after.GetResources() {
		r, err := gnomon.ParseResource(s.GetResource())
		if err != nil {
			continue
		}
		was := old[s.GetResource()]
		c.reservations.Requested += s.GetRequested() - was.GetRequested()
		c.reservations.Granted += s.GetGranted() - was.GetGranted()
		c.reservations.Partial += s.GetPartial() - was.GetPartial()
		c.reservations.Denied += s.GetDenied() - was.GetDenied()
		c.reservations.Expired += s.GetExpired() - was.GetExpired()
		c.reservations.Revoked += s.GetRevoked() - was.GetRevoked()
		c.hits += s.GetHits() - was.GetHits()
		c.misses += s.GetMisses() - was.GetMisses()
		c.waste[r] += float64(s.GetWasteUnitMs()-was.GetWasteUnitMs()) / 1000
		latest := s.GetHandoverNs()
		n := min(int(s.GetHandovers()-was.GetHandovers()), len(latest))
		for _, ns := range latest[len(latest)-max(n, 0):] {
			c.handovers = append(c.handovers, time.Duration(ns))
		}
	}
	return c
}

// hitRate returns the share of hits, nil where there was no demand.
func (c counted) hitRate() *float64 {
	all := c.hits + c.misses
	if all == 0 {
		return nil
	}
	rate := float64(c.hits) / float64(all)
	return &rate
}

// workDone is what a guest's reports tell of a window.
type workDone struct {
	latencies []time.Duration
	givenUp   int           // of the latencies
	latest    time.Duration // arrival of the latest item that is over
	bursts    [gnomon.NumResources]float64
	troubles  []string
}

// maxTroubles bounds how many of a guest's complaints are kept.
const maxTroubles = 5

// add counts a report. Items and bursts that arrive outside the window, given
// on the guest's clock, are left out; end 0 is an open window.
func (w *workDone) add(r workload.Report, begin, end time.Duration) {
	inside := r.At >= begin && (end == 0 || r.At < end)
	switch r.Kind {
	case workload.Item, workload.GivenUp:
		w.latest = r.At
		if !inside {
			return
		}
		w.latencies = append(w.latencies, r.Took)
		if r.Kind == workload.GivenUp {
			w.givenUp++
		}
	case workload.Over:
		if inside && (end == 0 || r.At+r.Took <= end) && r.Resource.Valid() {
			w.bursts[r.Resource]++
		}
	case workload.Trouble:
		if len(w.troubles) < maxTroubles {
			w.troubles = append(w.troubles, r.Text)
		}
	}
}

// arrived returns how many items the schedule holds within a window.
func arrived(seed uint64, begin, end time.Duration) int {
	n := 0
	for at := range workload.Items(seed) {
		if at >= end {
			break
		}
		if at >= begin {
			n++
		}
	}
	return n
}

// summarise puts one VM's figures together.
func summarise(name, policy string, m *meter, c counted, w *workDone, items int) VMSummary {
	return VMSummary{
		Name: name, Policy: policy,
		StarvedSeconds:  perResource(m.starved),
		WorkLatency:     quantiles(w.latencies),
		Work:            Work{Arrived: items, Done: len(w.latencies) - w.givenUp, GivenUp: w.givenUp},
		MeanAllocation:  m.mean(m.allocation),
		MeanReservation: m.mean(m.reservation),
		Reservations:    c.reservations,
		HitRate:         c.hitRate(),
		Waste: Waste{
			CPU: c.waste[gnomon.CPU] / 1000, Memory: c.waste[gnomon.Memory],
			Disk: c.waste[gnomon.Disk], Network: c.waste[gnomon.Network],
		},
		Handover: quantiles(c.handovers),
		Bursts:   perResource(w.bursts),
	}
}
