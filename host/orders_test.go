package host

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// deployer starts VMs on the simulated hypervisor. A definition is not read.
type deployer struct {
	sim    *simulated.Driver
	orders map[gnomon.VMID]string
}

func (d deployer) Deploy(_ context.Context, dep hypervisor.Deployment) error {
	switch order, known := d.orders[dep.ID]; {
	case known && order != dep.Order:
		return fmt.Errorf("%w: %s", hypervisor.ErrTaken, dep.ID)
	case known || dep.ValidateOnly:
		return nil
	case dep.Definition == "":
		return fmt.Errorf("%w: it is empty", hypervisor.ErrDefinition)
	}
	d.orders[dep.ID] = dep.Order
	spec := web(dep.ID)
	spec.Name = dep.Name
	return d.sim.AddVM(spec)
}

// order gives the daemon orders, as the whole of what the server wants done,
// and waits for what becomes of the last.
func (r *rig) order(orders ...*serverpb.Order) *serverpb.Outcome {
	r.t.Helper()
	r.do(func() { r.daemon.ordered(orders) })
	last := orders[len(orders)-1]
	var out *serverpb.Outcome
	r.eventually("the order is carried out", func() bool {
		out = r.daemon.orders[orderKey{last.GetId(), last.GetAttempt()}].outcome
		return out != nil
	})
	return out
}

func deployment(order, vm string, change func(*serverpb.Deploy)) *serverpb.Order {
	d := &serverpb.Deploy{Definition: "<domain/>", Vm: vm, VmName: vm + "-name", Account: "acme", Needs: map[string]int64{"cpu": 1000, "memory": 1 << 30}}
	if change != nil {
		change(d)
	}
	return &serverpb.Order{Id: order, What: &serverpb.Order_Deploy{Deploy: d}}
}

func TestDeployedVMTakesItsAccountsShadow(t *testing.T) {
	r := newRig(t)
	r.opt.Deployer = deployer{r.sim, map[gnomon.VMID]string{}}
	r.opt.Select, _ = ParseSelection("none")
	r.configure(nil)
	r.start()
	r.do(func() {
		want := r.daemon.desired
		want.Accounts = []string{"acme"}
		r.daemon.instructed(want)
	})
	warm := ""
	r.eventually("a warm shadow waits", func() bool {
		for _, s := range r.daemon.shadows {
			warm = s.name
			return s.vm == "" && s.warmState() == "warm"
		}
		return false
	})

	trial := r.order(deployment("o0", "vm1", func(d *serverpb.Deploy) { d.ValidateOnly = true }))
	if trial.GetError() != "" || trial.GetShadow() != "" {
		t.Errorf("a trial: %v", trial)
	}
	r.do(func() {
		if _, explicit := r.daemon.state.enrolled("vm1"); explicit || len(r.daemon.vms) > 0 {
			t.Error("a trial changed something")
		}
	})

	out := r.order(deployment("o1", "vm1", nil))
	if out.GetError() != "" || out.GetShadow() != warm || !out.GetWarm() || out.GetAssociateNs() <= 0 || out.GetStartNs() <= 0 {
		t.Errorf("got %v, want the warm shadow %s", out, warm)
	}
	r.eventually("the agent is attached", r.attached("vm1"))
	if again := r.order(&serverpb.Order{Id: "o1", Attempt: "2", What: deployment("o1", "vm1", nil).What}); again.GetError() != "" || again.GetShadow() != warm {
		t.Errorf("the same order once more: %v", again)
	}
	if next := r.order(deployment("o2", "vm2", nil)); next.GetError() != "" || next.GetShadow() == "" || next.GetWarm() {
		t.Errorf("the account's second VM: %v; want a shadow that did not wait", next)
	}
	r.do(func() {
		r.daemon.ordered(nil)
		if len(r.daemon.orders) > 0 {
			t.Errorf("what the server has settled is kept: %v", r.daemon.orders)
		}
	})
}

func TestOrdersThatCannotBe(t *testing.T) {
	r := newRig(t)
	r.opt.Deployer = deployer{r.sim, map[gnomon.VMID]string{"vm9": "another"}}
	r.configure(nil)
	r.start()
	for name, c := range map[string]struct {
		order        *serverpb.Order
		reason, says string
	}{
		"too large":        {deployment("a", "vm1", func(d *serverpb.Deploy) { d.Needs["memory"] = 1 << 50 }), reasonOverCapacity, "of memory is free and the VM begins with"},
		"taken":            {deployment("b", "vm9", nil), reasonTaken, "vm9"},
		"refused":          {deployment("c", "vm1", func(d *serverpb.Deploy) { d.Definition = "" }), reasonDefinition, "it is empty"},
		"of another kind":  {&serverpb.Order{Id: "d"}, reasonNotPossible, "does not know this kind of order"},
		"after the others": {deployment("e", "vm8", nil), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			out := r.order(c.order)
			if out.GetReason() != c.reason || !strings.Contains(out.GetError(), c.says) || (out.GetError() == "") != (c.says == "") {
				t.Errorf("got %v, want %s with %q", out, c.reason, c.says)
			}
		})
	}
	r.do(func() {
		if _, explicit := r.daemon.state.enrolled("vm1"); explicit {
			t.Error("a choice is kept for a VM that never was")
		}
	})
}
