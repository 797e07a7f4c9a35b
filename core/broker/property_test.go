package broker_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"pgregory.net/rapid"
)

var names = []gnomon.VMID{"a", "b", "c", "d"}

func drawVM(t *rapid.T, id gnomon.VMID) gnomon.Found {
	f := gnomon.Found{VM: gnomon.VM{ID: id, Name: string(id), Account: drawAccount(t), Limits: gnomon.ResourceSet(rapid.IntRange(0, 15).Draw(t, "limits"))}}
	for r := range gnomon.AllResources() {
		f.VM.Floor[r] = rapid.Int64Range(0, 500).Draw(t, "floor")
		f.VM.Ceiling[r] = f.VM.Floor[r] + rapid.Int64Range(1, 3000).Draw(t, "room")
		f.Allocation[r] = rapid.Int64Range(-1, 3000).Draw(t, "allocation")
		if r == gnomon.Memory {
			f.VM.Floor[r] <<= 20
			f.VM.Ceiling[r] <<= 20
			f.Allocation[r] = max(0, f.Allocation[r]) << 20
		}
	}
	f.Policy = drawPolicy(t)
	return f
}

func drawAccount(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "acme"}).Draw(t, "account")
}

func drawQuota(t *rapid.T) (q gnomon.Resources) {
	for r := range gnomon.AllResources() {
		if rapid.Bool().Draw(t, "limited") {
			q[r] = drawAmount(t, r, "quota") / 4
		}
	}
	return q
}

func drawPolicy(t *rapid.T) gnomon.Policy {
	return gnomon.Policy{
		Shadow:          rapid.Bool().Draw(t, "shadow"),
		HeadroomPercent: rapid.Int64Range(0, 100).Draw(t, "headroom"),
		Hold:            time.Duration(rapid.IntRange(0, 10).Draw(t, "hold")) * time.Second,
		Release:         rapid.Bool().Draw(t, "release"),
		Adopt:           rapid.Bool().Draw(t, "adopt"),
		Priority:        rapid.Int64Range(0, 2).Draw(t, "priority"),
	}
}

// drawAmount is an amount of r, mostly sane.
func drawAmount(t *rapid.T, r gnomon.Resource, label string) int64 {
	v := rapid.Int64Range(0, 3500).Draw(t, label)
	if r == gnomon.Memory {
		v <<= 20
	}
	return v
}

func drawProposal(t *rapid.T, id gnomon.VMID, session, seq uint64, now time.Time) gnomon.Proposal {
	p := gnomon.Proposal{VM: id, Session: session, Seq: seq, At: now}
	for r := range gnomon.AllResources() {
		if rapid.IntRange(0, 2).Draw(t, "wants") == 0 {
			continue
		}
		want := gnomon.Want{Resource: r, Level: drawAmount(t, r, "level"),
			NeedIn:   time.Duration(rapid.IntRange(0, 10).Draw(t, "in")) * time.Second,
			Lifetime: time.Duration(rapid.IntRange(1, 20).Draw(t, "lifetime")) * time.Second}
		if rapid.Bool().Draw(t, "says what is enough") {
			want.Enough = drawAmount(t, r, "enough")
		}
		if rapid.IntRange(0, 9).Draw(t, "hostile") == 0 {
			want.Level, want.Enough = rapid.Int64().Draw(t, "level"), rapid.Int64().Draw(t, "enough")
			want.NeedIn = time.Duration(rapid.Int64().Draw(t, "in"))
			want.Lifetime = time.Duration(rapid.Int64().Draw(t, "lifetime"))
		}
		p.Wants = append(p.Wants, want)
	}
	return p
}

func drawDemand(t *rapid.T) (usage, demand gnomon.Resources, starved [gnomon.NumResources]time.Duration) {
	for r := range gnomon.AllResources() {
		demand[r] = drawAmount(t, r, "demand")
		usage[r] = demand[r] * rapid.Int64Range(50, 100).Draw(t, "got") / 100
		if rapid.Bool().Draw(t, "starving") {
			starved[r] = time.Duration(rapid.IntRange(0, 2000).Draw(t, "starved")) * time.Millisecond
		}
	}
	return usage, demand, starved
}

// TestAnyEvents drives the broker with random events, late, failing and lost
// actions, and holds its promises at each step; then it replays the recording,
// through JSON, and expects the same.
func TestAnyEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		sessions := map[gnomon.VMID]uint64{}
		seq := uint64(0)
		w.setCapacity(drawCapacity(t))
		known := func() gnomon.VMID {
			if len(w.vms) == 0 {
				t.Skip("no VM")
			}
			return rapid.SampledFrom(w.ids()).Draw(t, "vm")
		}
		t.Repeat(map[string]func(*rapid.T){
			"found": func(t *rapid.T) {
				f := drawVM(t, rapid.SampledFrom(names).Draw(t, "vm"))
				w.found(f)
			},
			"gone": func(t *rapid.T) {
				id := known()
				delete(w.vms, id)
				for r := range gnomon.AllResources() {
					delete(w.issued, line{id, r})
				}
				w.step(gnomon.Event{Gone: &gnomon.Gone{VM: id}})
			},
			"capacity": func(t *rapid.T) { w.setCapacity(drawCapacity(t)) },
			"quota":    func(t *rapid.T) { w.setQuota(drawAccount(t), drawQuota(t)) },
			"policy": func(t *rapid.T) {
				g := w.vms[known()]
				f := drawVM(t, g.vm.ID)
				g.vm.Account, g.vm.Floor, g.vm.Ceiling, g.policy = f.VM.Account, f.VM.Floor, f.VM.Ceiling, f.Policy
				w.step(gnomon.Event{Policy: &gnomon.PolicyChanged{VM: g.vm.ID, Account: g.vm.Account, Policy: g.policy, Limits: g.vm.Limits, Floor: g.vm.Floor, Ceiling: g.vm.Ceiling}})
			},
			"attach": func(t *rapid.T) {
				id := known()
				sessions[id]++
				w.step(gnomon.Event{Attached: &gnomon.Attached{VM: id, Session: sessions[id]}})
				for r := range gnomon.AllResources() {
					if s := state(w.b, id, r); s != nil && s.Reservation != nil && s.Reservation.Session != 0 {
						t.Fatalf("a reservation outlived its session: %+v", s.Reservation)
					}
				}
			},
			"detach": func(t *rapid.T) {
				id := known()
				w.step(gnomon.Event{Detached: &gnomon.Detached{VM: id, Session: sessions[id]}})
			},
			"propose": func(t *rapid.T) {
				id := known()
				seq++
				p := drawProposal(t, id, rapid.SampledFrom([]uint64{0, sessions[id], 77}).Draw(t, "session"), seq, w.now)
				w.step(gnomon.Event{Proposed: &p})
			},
			"demand": func(t *rapid.T) {
				_, levels, _ := drawDemand(t)
				w.step(gnomon.Event{Demanded: &gnomon.Demanded{VM: known(), Levels: levels}})
			},
			"sample": func(t *rapid.T) {
				id := known()
				w.now = w.now.Add(time.Second)
				usage, demand, starved := drawDemand(t)
				w.sample(id, usage, demand, starved)
			},
			"behind our back": func(t *rapid.T) {
				g := w.vms[known()]
				r := gnomon.Resource(rapid.IntRange(0, gnomon.NumResources-1).Draw(t, "resource"))
				g.limits[r] = drawAmount(t, r, "limit")
			},
			"land": func(t *rapid.T) {
				if len(w.pending) == 0 {
					t.Skip("nothing pending")
				}
				i := rapid.IntRange(0, len(w.pending)-1).Draw(t, "action")
				a := w.pending[i]
				switch rapid.IntRange(0, 9).Draw(t, "outcome") {
				case 0:
					w.land(i, a.From, "it failed")
				case 1:
					w.land(i, a.From+(a.To-a.From)/2, "")
				case 2: // the outcome is lost
					w.pending = slices.Delete(w.pending, i, i+1)
				default:
					w.land(i, a.To, "")
				}
			},
			"settle": func(t *rapid.T) { w.settle() },
			"wait": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(0, 40000).Draw(t, "ms")) * time.Millisecond)
				w.step(gnomon.Event{Tick: &gnomon.Tick{}})
			},
		})
		w.replay()
	})
}

func drawCapacity(t *rapid.T) (c gnomon.Resources) {
	for r := range gnomon.AllResources() {
		c[r] = 2 * drawAmount(t, r, "capacity")
	}
	return c
}
