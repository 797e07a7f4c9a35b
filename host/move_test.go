package host

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// mover moves VMs off the simulated host, to nowhere.
type mover struct {
	sim    *simulated.Driver
	err    error
	pinned error // why nothing can be moved
}

func (m *mover) Movable(context.Context, gnomon.VMID) error { return m.pinned }

func (m *mover) Move(_ context.Context, id gnomon.VMID, _ string) error {
	if m.err != nil {
		return m.err
	}
	return m.sim.RemoveVM(id)
}

func describeOrder(vm string) *serverpb.Order {
	return &serverpb.Order{Id: "describe", What: &serverpb.Order_Describe{Describe: &serverpb.Describe{Vm: vm}}}
}

func moveOrder(id, vm string) *serverpb.Order {
	return &serverpb.Order{Id: id, What: &serverpb.Order_Move{Move: &serverpb.Move{Vm: vm, VmName: vm, ToHost: "other", ToUri: "qemu://other"}}}
}

// A VM that goes takes its own limits and what its agent learned along, and its
// shadow does not stay, whatever is configured for VMs that end.
func TestVMMovesAway(t *testing.T) {
	r := newRig(t)
	m := &mover{sim: r.sim, err: errors.New("the other host does not answer")}
	r.opt.Mover, r.opt.Deployer = m, deployer{r.sim, map[gnomon.VMID]string{}}
	r.configure(map[string]string{"onTermination": "suspend"})
	r.start()
	spec := web("vm1")
	spec.Demand[gnomon.CPU] = simulated.Constant(50)
	r.add(spec)
	r.eventually("the agent is attached", r.attached("vm1"))
	r.eventually("the CPU limit was lowered", func() bool { return r.limit("vm1", gnomon.CPU) == 100 })
	r.eventually("what the agent learned is kept", func() bool {
		state, err := r.daemon.states.recall("vm1")
		return err == nil && len(state) > 0
	})

	m.pinned = errors.New("its disk is a file of this host")
	if out := r.order(describeOrder("vm1")); !strings.Contains(out.GetError(), m.pinned.Error()) || out.GetHandover() != nil {
		t.Errorf("what goes with a VM that cannot be moved: %v", out)
	}
	m.pinned = nil
	again := describeOrder("vm1")
	again.Id = "describe-again"
	h := r.order(again).GetHandover()
	if h.GetLimits()["cpu"] != hypervisor.Unlimited || len(h.GetAgentState()) == 0 || h.GetNeeds()["memory"] < 300<<20 {
		t.Errorf("with it go limits %v, %d bytes learned, needs %v", h.GetLimits(), len(h.GetAgentState()), h.GetNeeds())
	}
	out := r.order(moveOrder("a", "vm1"))
	if !strings.Contains(out.GetError(), "the other host does not answer; it runs where it was") {
		t.Errorf("a move that fails: %v", out)
	}
	r.do(func() {
		if v := r.daemon.vms["vm1"]; v == nil || v.leaving || v.shadow == nil {
			t.Errorf("after a move that failed it is %+v", v)
		}
	})
	m.err = nil
	if out := r.order(moveOrder("b", "vm1")); out.GetError() != "" || out.GetMoveNs() <= 0 {
		t.Errorf("moved: %v", out)
	}
	r.eventually("nothing is left of it", func() bool {
		running, _ := r.agents.count()
		_, chosen := r.daemon.state.enrolled("vm1")
		return running == 0 && len(r.daemon.vms) == 0 && len(r.daemon.shadows) == 0 && !chosen
	})
	for _, o := range []*serverpb.Order{describeOrder("vm9"), moveOrder("c", "vm9")} {
		if out := r.order(o); !strings.Contains(out.GetError(), "does not run here") {
			t.Errorf("a VM that is not here: %v", out)
		}
	}
}

// A VM that comes is taken in whatever is selected, and has the limits that it had
// on its first host, also if the daemon begins anew before it is here.
func TestVMComesFromAnotherHost(t *testing.T) {
	r := newRig(t)
	r.opt.Select, _ = ParseSelection("none")
	r.configure(nil)
	r.start()
	receive := &serverpb.Order{Id: "a", What: &serverpb.Order_Receive{Receive: &serverpb.Receive{Vm: "vm1", VmName: "vm1", Handover: &serverpb.Handover{
		Needs: map[string]int64{"cpu": 100}, Limits: map[string]int64{"cpu": 700, "memory": 1 << 30}, AgentState: []byte("learned"), LimitsDetail: "detail", Vcpus: 2}}}}
	if out := r.order(receive); out.GetError() != "" {
		t.Fatal(out)
	}
	r.stop()
	r.start()
	r.eventually("the machines are listed", func() bool { return r.daemon.seen != nil && !r.daemon.listing })
	if state, err := r.daemon.states.recall("vm1"); err != nil || string(state) != "learned" {
		t.Errorf("its agent will be given %q, %v", state, err)
	}
	r.add(web("vm1"))
	r.eventually("it is taken in", func() bool { return r.daemon.vms["vm1"] != nil })
	r.do(func() {
		own := r.daemon.state.data.Originals["vm1"].Original
		if want := (hypervisor.Original{Limits: hypervisor.Limits{700, 1 << 30, hypervisor.Unlimited, hypervisor.Unlimited}, VCPUs: 2, Detail: "detail"}); own != want {
			t.Errorf("its own limits are %v, want %v", own, want)
		}
		if len(r.daemon.state.data.Expected) > 0 {
			t.Errorf("it is still expected: %v", r.daemon.state.data.Expected)
		}
	})
	over := &serverpb.Order{Id: "b", What: &serverpb.Order_Receive{Receive: &serverpb.Receive{Vm: "vm2", VmName: "vm2", Handover: &serverpb.Handover{
		Needs: map[string]int64{"memory": 1 << 50}}}}}
	if out := r.order(over); out.GetReason() != reasonOverCapacity {
		t.Errorf("one that is too large: %v", out)
	}
}
