package broker_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/broker"
)

// tape reads values off fuzzed bytes, zeros once they are used up.
type tape []byte

func (b *tape) byte() byte {
	if len(*b) == 0 {
		return 0
	}
	c := (*b)[0]
	*b = (*b)[1:]
	return c
}

// int64 is small, large, or any.
func (b *tape) int64() int64 {
	switch c := b.byte(); c % 4 {
	case 0:
		return int64(c)
	case 1:
		return int64(c) << (b.byte() % 56)
	case 2:
		return -int64(c) << (b.byte() % 56)
	default:
		var raw [8]byte
		for i := range raw {
			raw[i] = b.byte()
		}
		return int64(binary.LittleEndian.Uint64(raw[:]))
	}
}

func (b *tape) resources() (r gnomon.Resources) {
	for i := range r {
		r[i] = b.int64()
	}
	return r
}

func (b *tape) duration() time.Duration { return time.Duration(b.int64()) }

func (b *tape) vm() gnomon.VMID { return names[int(b.byte())%len(names)] }

func (b *tape) account() string { return []string{"", "acme"}[b.byte()%2] }

func (b *tape) policy() gnomon.Policy {
	return gnomon.Policy{Shadow: b.byte()%4 > 0, HeadroomPercent: b.int64(), Hold: b.duration(), Priority: b.int64()}
}

func (b *tape) event(now *time.Time) gnomon.Event {
	*now = now.Add(b.duration() % time.Hour)
	e := gnomon.Event{At: *now}
	switch b.byte() % 12 {
	case 0:
		e.Capacity = &gnomon.Capacity{Total: b.resources()}
	case 1:
		e.Found = &gnomon.Found{VM: gnomon.VM{ID: b.vm(), Account: b.account(), Floor: b.resources(), Ceiling: b.resources(),
			Limits: gnomon.ResourceSet(b.byte())}, Policy: b.policy(), Allocation: b.resources()}
	case 2:
		e.Gone = &gnomon.Gone{VM: b.vm()}
	case 3:
		e.Policy = &gnomon.PolicyChanged{VM: b.vm(), Account: b.account(), Policy: b.policy(), Floor: b.resources(), Ceiling: b.resources(),
			Limits: gnomon.ResourceSet(b.byte())}
	case 4:
		e.Sampled = &gnomon.Sample{VM: b.vm(), At: now.Add(b.duration()), Interval: b.duration(),
			Known: gnomon.ResourceSet(b.byte()), Usage: b.resources(), Demand: b.resources(), Allocation: b.resources(),
			Starved: [gnomon.NumResources]time.Duration{b.duration(), b.duration(), b.duration(), b.duration()}}
	case 5:
		e.Attached = &gnomon.Attached{VM: b.vm(), Session: uint64(b.byte() % 4)}
	case 6:
		e.Detached = &gnomon.Detached{VM: b.vm(), Session: uint64(b.byte() % 4)}
	case 7:
		p := gnomon.Proposal{VM: b.vm(), Session: uint64(b.byte() % 4), Seq: uint64(b.byte()), At: now.Add(b.duration())}
		for range b.byte() % 7 {
			p.Wants = append(p.Wants, gnomon.Want{Resource: gnomon.Resource(b.byte() % 6), Low: b.int64(), Median: b.int64(),
				High: b.int64(), Level: b.int64(), NeedIn: b.duration(), Lifetime: b.duration(), Model: string(rune(b.int64()))})
		}
		e.Proposed = &p
	case 8:
		e.Demanded = &gnomon.Demanded{VM: b.vm(), Levels: b.resources()}
	case 9:
		e.Applied = &gnomon.Applied{Action: uint64(b.byte()), VM: b.vm(), Resource: gnomon.Resource(b.byte() % 6), Observed: b.int64()}
	case 10:
		e.Quota = &gnomon.Quota{Account: b.account(), Ahead: b.resources()}
	default:
		e.Tick = &gnomon.Tick{}
	}
	return e
}

// FuzzStep feeds events that no host would send. Whatever they are, nothing
// panics and no promise is broken.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 0, 4, 8, 12, 16})
	f.Add([]byte("capacity found attached proposed sampled applied"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, now, in := broker.New(broker.Options{}), epoch, tape(data)
		var pending []gnomon.Action
		for n := 0; len(in) > 0 && n < 300; n++ {
			e := in.event(&now)
			if e.Applied == nil && len(pending) > 0 && in.byte()%2 == 0 { // mostly, actions end as they should
				a := pending[0]
				pending = pending[1:]
				e = gnomon.Event{At: now, Applied: &gnomon.Applied{Action: a.ID, VM: a.VM, Resource: a.Resource, Observed: a.To}}
			}
			ready := b.Step(e)
			if ready.Err != nil {
				t.Fatalf("%s: %v", show(e), ready.Err)
			}
			pending = append(pending, ready.Actions...)
		}
	})
}

// BenchmarkStep is one sample with its proposal, by the number of VMs.
func BenchmarkStep(bench *testing.B) {
	for _, vms := range []int{1, 10, 50, 200} {
		bench.Run(fmt.Sprint(vms), func(bench *testing.B) { benchmarkStep(bench, vms) })
	}
}

func benchmarkStep(bench *testing.B, vms int) {
	b := broker.New(broker.Options{})
	all := gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk, gnomon.Network)
	level := gnomon.Resources{500, 512 << 20, 5e6, 5e6}
	step := func(e gnomon.Event) {
		for _, a := range b.Step(e).Actions {
			b.Step(gnomon.Event{At: e.At, Applied: &gnomon.Applied{Action: a.ID, VM: a.VM, Resource: a.Resource, Observed: a.To}})
		}
	}
	step(gnomon.Event{At: epoch, Capacity: &gnomon.Capacity{Total: gnomon.Resources{64000, 128 << 30, 1e9, 1e9}}})
	ids := make([]gnomon.VMID, vms)
	for i := range ids {
		ids[i] = gnomon.VMID([]byte{byte('a' + i/26), byte('a' + i%26)})
		step(gnomon.Event{At: epoch, Found: &gnomon.Found{VM: gnomon.VM{ID: ids[i], Limits: all,
			Ceiling: gnomon.Resources{4000, 8 << 30, 1e8, 1e8}},
			Policy: gnomon.Policy{Shadow: true, HeadroomPercent: 25, Hold: time.Minute}, Allocation: level}})
		step(gnomon.Event{At: epoch, Attached: &gnomon.Attached{VM: ids[i], Session: 1}})
	}
	now, n := epoch, uint64(0)
	for bench.Loop() {
		n++
		now = now.Add(time.Second / time.Duration(vms))
		id := ids[n%uint64(vms)]
		v, _ := b.View(id)
		used, allocated := level, gnomon.Resources{}
		p := gnomon.Proposal{VM: id, Session: 1, Seq: n, At: now}
		for r := range gnomon.AllResources() {
			used[r] = level[r] * int64(50+n*37%150) / 100
			allocated[r] = v.Resources[r].Allocated
			p.Wants = append(p.Wants, gnomon.Want{Resource: r, Level: 2 * used[r], NeedIn: 3 * time.Second, Lifetime: 10 * time.Second})
		}
		step(gnomon.Event{At: now, Sampled: &gnomon.Sample{VM: id, At: now, Interval: time.Second,
			Known: all, Usage: used, Demand: used, Allocation: allocated}})
		step(gnomon.Event{At: now, Proposed: &p})
	}
}
