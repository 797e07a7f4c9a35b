package demo

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/demo/workload"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

var t0 = time.Unix(1_000_000, 0)

func event(at time.Time, interval time.Duration, cpu, starvedCPU float64) *hostpb.UsageEvent {
	return &hostpb.UsageEvent{
		AtUnixNano: at.UnixNano(), IntervalNs: int64(interval),
		Resources: []*hostpb.ResourceState{
			{Resource: "cpu", Allocation: int64(cpu * 1000), Reservation: 100},
			{Resource: "memory", Allocation: -1, Ceiling: 1 << 20},
		},
		StarvedSeconds: []float64{starvedCPU, 0.5},
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestMeterCountsTheWindowOnly(t *testing.T) {
	m := meter{begin: t0, end: t0.Add(10 * time.Second)}
	m.add(event(t0, time.Second, 9, 9))                                            // ends where the window begins
	m.add(event(t0.Add(500*time.Millisecond), time.Second, 0.2, 1))                // half of it inside
	m.add(event(t0.Add(1500*time.Millisecond), time.Second, 0.4, 0.25))            // inside
	m.add(event(t0.Add(10*time.Second+500*time.Millisecond), time.Second, 0.8, 1)) // half of it inside
	m.add(event(t0.Add(12*time.Second), time.Second, 9, 9))                        // after

	if !near(m.seconds, 2) {
		t.Errorf("%v s counted, want 2", m.seconds)
	}
	if got, want := m.starved[gnomon.CPU], 0.5+0.25+0.5; !near(got, want) {
		t.Errorf("starved %v s of CPU, want %v", got, want)
	}
	mean := m.mean(m.allocation)
	if want := (0.2*0.5 + 0.4 + 0.8*0.5) / 2; !near(mean.CPU, want) {
		t.Errorf("mean allocation %v cores, want %v", mean.CPU, want)
	}
	if mean.Memory != 1<<20 {
		t.Errorf("mean allocation %v bytes, want the ceiling where nothing is limited", mean.Memory)
	}
	if got := m.mean(m.reservation).CPU; !near(got, 0.1) {
		t.Errorf("mean reservation %v cores, want 0.1", got)
	}
}

func TestMeterIgnoresSamplesBeforeItBegins(t *testing.T) {
	var m meter
	m.add(event(t0, time.Second, 1, 1))
	if m.seconds != 0 {
		t.Errorf("%v s counted before the window was opened", m.seconds)
	}
}

func TestQuantilesAreNearestRank(t *testing.T) {
	var values []time.Duration
	for i := 100; i >= 1; i-- {
		values = append(values, time.Duration(i)*time.Millisecond)
	}
	q := quantiles(values)
	if *q.P50 != 50 || *q.P99 != 99 || q.N != 100 {
		t.Errorf("p50 %v, p99 %v of %d, want 50 and 99 of 100", *q.P50, *q.P99, q.N)
	}
	one := quantiles([]time.Duration{7 * time.Millisecond})
	if *one.P50 != 7 || *one.P99 != 7 {
		t.Errorf("p50 %v, p99 %v of one value, want it", *one.P50, *one.P99)
	}
	if none := quantiles(nil); none.P50 != nil || none.N != 0 {
		t.Errorf("quantiles of nothing: %+v, want none", none)
	}
}

func TestBetweenIsTheDifference(t *testing.T) {
	before := &hostpb.VMStats{Resources: []*hostpb.ResourceStats{
		{Resource: "cpu", Requested: 2, Granted: 1, Denied: 1, Hits: 1, WasteUnitMs: 1000, Handovers: 1, HandoverNs: []int64{5e6}},
	}}
	after := &hostpb.VMStats{Resources: []*hostpb.ResourceStats{
		{Resource: "cpu", Requested: 10, Granted: 6, Partial: 1, Denied: 3, Expired: 2, Revoked: 1, Hits: 4, Misses: 1,
			WasteUnitMs: 3_001_000, Handovers: 3, HandoverNs: []int64{5e6, 6e6, 7e6}},
		{Resource: "memory", Requested: 1, Granted: 1, Hits: 1, Handovers: 1, HandoverNs: []int64{80e6}},
		{Resource: "unheard-of", Requested: 100},
	}}
	c := between(before, after)
	if want := (Reservations{Requested: 9, Granted: 6, Partial: 1, Denied: 2, Expired: 2, Revoked: 1}); c.reservations != want {
		t.Errorf("reservations %+v, want %+v", c.reservations, want)
	}
	if rate := c.hitRate(); rate == nil || !near(*rate, 0.8) {
		t.Errorf("hit rate %v, want 0.8", rate)
	}
	if got := summarise("", "", &meter{}, c, &workDone{}, 0).Waste.CPU; !near(got, 3) {
		t.Errorf("waste %v core-seconds, want 3", got)
	}
	if len(c.handovers) != 3 || c.handovers[0] != 6*time.Millisecond || c.handovers[2] != 80*time.Millisecond {
		t.Errorf("handovers %v, want 6, 7 and 80 ms", c.handovers)
	}
	if none := between(nil, nil); none.hitRate() != nil {
		t.Error("a hit rate without any demand")
	}
}

func TestWorkCountsTheWindowOnly(t *testing.T) {
	var w workDone
	const begin, end = 10 * time.Second, 20 * time.Second
	for _, at := range []time.Duration{9, 10, 19, 20} {
		w.add(workload.Report{Kind: workload.Item, At: at * time.Second, Took: at * time.Millisecond}, begin, end)
	}
	w.add(workload.Report{Kind: workload.GivenUp, At: 19 * time.Second, Took: 5 * time.Second}, begin, end)
	if len(w.latencies) != 3 || w.givenUp != 1 {
		t.Errorf("%d latencies, %d given up, want 3 and 1: who waited in vain has waited", len(w.latencies), w.givenUp)
	}
	w.latencies = w.latencies[:2]
	w.latest = 20 * time.Second
	w.add(workload.Report{Kind: workload.Over, Resource: gnomon.Disk, At: 12 * time.Second, Took: 4 * time.Second}, begin, end)
	w.add(workload.Report{Kind: workload.Over, Resource: gnomon.Disk, At: 18 * time.Second, Took: 4 * time.Second}, begin, end)
	if len(w.latencies) != 2 || w.latencies[0] != 10*time.Millisecond || w.latencies[1] != 19*time.Millisecond {
		t.Errorf("latencies %v, want those of 10 s and 19 s", w.latencies)
	}
	if w.latest != 20*time.Second {
		t.Errorf("latest %v, want 20 s", w.latest)
	}
	if w.bursts[gnomon.Disk] != 1 {
		t.Errorf("%v disk bursts, want the whole one", w.bursts[gnomon.Disk])
	}
}

func TestArrivedAgreesWithTheSchedule(t *testing.T) {
	whole, first, rest := arrived(1, 0, time.Minute), arrived(1, 0, 20*time.Second), arrived(1, 20*time.Second, time.Minute)
	if whole == 0 || first+rest != whole {
		t.Errorf("%d + %d items, want %d", first, rest, whole)
	}
}

// The keys of summary.json are a format that others read.
func TestSummaryFormat(t *testing.T) {
	s := Summary{VMs: []VMSummary{{}}}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"accel", "seconds", "vms", "cost"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %q in %s", key, b)
		}
	}
	vm := got["vms"].([]any)[0].(map[string]any)
	for key, inner := range map[string][]string{
		"name": nil, "policy": nil, "hit_rate": nil,
		"starved_s":       {"cpu", "memory", "disk", "network"},
		"work_latency_ms": {"p50", "p99"},
		"mean_allocation": {"cpu_cores", "memory_bytes", "disk_bytes_per_second", "network_bytes_per_second"},
		"reservations":    {"requested", "granted", "partial", "denied", "expired"},
		"waste":           {"cpu_core_seconds", "memory_byte_seconds", "disk_bytes", "network_bytes"},
		"handover_ms":     {"p50", "p99"},
	} {
		v, ok := vm[key]
		if !ok {
			t.Errorf("no %q in a VM's summary", key)
			continue
		}
		for _, k := range inner {
			if _, ok := v.(map[string]any)[k]; !ok {
				t.Errorf("no %q in %q", k, key)
			}
		}
	}
	cost := got["cost"].(map[string]any)
	for _, part := range []string{"shadow", "daemon"} {
		for _, k := range []string{"cpu_seconds", "memory_bytes"} {
			if _, ok := cost[part].(map[string]any)[k]; !ok {
				t.Errorf("no %q in the cost of the %s", k, part)
			}
		}
	}
}
