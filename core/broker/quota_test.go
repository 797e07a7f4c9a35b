package broker_test

import (
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"pgregory.net/rapid"
)

// VMs of two accounts forecast more than there is, under quotas and priorities
// that change: world's checks hold throughout. Once nothing new is asked for, no
// account has more ahead of demand than its quota.
func TestQuotasAndPriorities(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.setCapacity(drawCapacity(t))
		for _, id := range names {
			f := drawVM(t, id)
			f.VM.Limits, f.Policy.Shadow = 15, true
			w.found(f)
			w.step(gnomon.Event{Attached: &gnomon.Attached{VM: id, Session: 1}})
		}
		w.settle()
		seq := uint64(0)
		vm := rapid.SampledFrom(names)
		t.Repeat(map[string]func(*rapid.T){
			"quota": func(t *rapid.T) { w.setQuota(drawAccount(t), drawQuota(t)) },
			"policy": func(t *rapid.T) {
				g := w.vms[vm.Draw(t, "vm")]
				g.policy.Priority, g.vm.Account = drawPolicy(t).Priority, drawAccount(t)
				w.step(gnomon.Event{Policy: &gnomon.PolicyChanged{VM: g.vm.ID, Account: g.vm.Account, Policy: g.policy,
					Limits: g.vm.Limits, Floor: g.vm.Floor, Ceiling: g.vm.Ceiling}})
			},
			"propose": func(t *rapid.T) {
				id := vm.Draw(t, "vm")
				seq++
				p := drawProposal(t, id, 1, seq, w.now)
				w.step(gnomon.Event{Proposed: &p})
			},
			"sample": func(t *rapid.T) {
				w.now = w.now.Add(time.Second)
				usage, demand, starved := drawDemand(t)
				w.sample(vm.Draw(t, "vm"), usage, demand, starved)
			},
			"settle": func(*rapid.T) { w.settle() },
			"rest": func(t *rapid.T) {
				for range 40 { // memory shrinks in steps
					w.now = w.now.Add(time.Second)
					for _, id := range names {
						w.sample(id, gnomon.Resources{}, gnomon.Resources{}, [gnomon.NumResources]time.Duration{})
					}
					w.settle()
				}
				for account, sum := range w.ahead() {
					for r, quota := range w.quotas[account] {
						if quota > 0 && sum[r] > quota {
							t.Fatalf("account %q still has %d %v ahead of demand, its quota is %d", account, sum[r], gnomon.Resource(r), quota)
						}
					}
				}
			},
		})
	})
}
