package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

const (
	// moveTimeout bounds a move.
	moveTimeout = time.Hour

	// arriveTimeout is how long a host is ready for a VM that is to come.
	arriveTimeout = moveTimeout + time.Minute

	// maxHandedState bounds what goes with a VM of what its agent learned, in
	// bytes. A larger state stays behind: the next agent learns from the history.
	maxHandedState = 512 << 10
)

var errNotHere = errors.New("the VM does not run here, or is not taken in")

// describeMove tells what goes with a VM to another host: its own limits, which
// are not those it has now; what its agent learned; and what it needs. For
// one that cannot be moved it tells why instead, before the other host knows of it.
func (d *Daemon) describeMove(o *order, what *serverpb.Describe) {
	id := gnomon.VMID(what.GetVm())
	v := d.vms[id]
	if v == nil {
		d.carriedOut(o, failed(errNotHere))
		return
	}
	own, ok := d.state.data.Originals[id]
	if !ok {
		own.Original = v.machine.Original
	}
	needs := v.needs()
	needs[gnomon.Memory] = max(needs[gnomon.Memory], v.last.Allocation[gnomon.Memory])
	h := &serverpb.Handover{Needs: amountsByName(needs), Limits: amountsByName(gnomon.Resources(own.Limits)), LimitsDetail: own.Detail, Vcpus: int64(own.VCPUs)}
	d.busy++
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, applyTimeout)
		defer cancel()
		refused := d.opt.Mover.Movable(ctx, id)
		state, err := d.states.recall(id)
		d.post(func() {
			d.busy--
			if refused != nil {
				d.carriedOut(o, failed(refused))
				return
			}
			if err != nil {
				d.log.Warn("a VM is moved without what its shadow learned", "vm", v.machine.Name, "err", err)
			}
			if len(state) <= maxHandedState {
				h.AgentState = state
			}
			d.carriedOut(o, &serverpb.Outcome{Handover: h})
		})
	}()
}

// receive gets ready for a VM that comes from another host: its own limits and
// what its shadow learned are on disk before it is here.
func (d *Daemon) receive(o *order, what *serverpb.Receive) {
	id, h := gnomon.VMID(what.GetVm()), what.GetHandover()
	if err := d.admit(id, h.GetNeeds()); err != nil {
		d.carriedOut(o, failed(err))
		return
	}
	own := hypervisor.Original{Detail: h.GetLimitsDetail(), VCPUs: int(h.GetVcpus())}
	for r := range gnomon.AllResources() {
		own.Limits[r] = hypervisor.Unlimited
		if limit, ok := h.GetLimits()[r.String()]; ok {
			own.Limits[r] = limit
		}
	}
	due := expected{original{Name: what.GetVmName(), Original: own}, d.now.Add(arriveTimeout)}
	if err := d.state.expect(id, due, d.now); err != nil {
		d.carriedOut(o, failed(err))
		return
	}
	d.busy++
	go func() {
		var err error
		if len(h.GetAgentState()) > 0 {
			err = d.states.keep(id, h.GetAgentState())
		}
		d.post(func() {
			d.busy--
			d.log.Info("ready for a VM from another host", "vm", what.GetVmName(), "id", id, "learned_bytes", len(h.GetAgentState()))
			d.carriedOut(o, failed(err))
		})
	}()
}

// move moves a VM away. Until it is gone it is served as ever.
func (d *Daemon) move(o *order, what *serverpb.Move) {
	id := gnomon.VMID(what.GetVm())
	v := d.vms[id]
	if v == nil {
		d.carriedOut(o, failed(errNotHere))
		return
	}
	v.leaving = true
	began := time.Now()
	d.busy++
	d.log.Info("VM moves", "vm", what.GetVmName(), "to", what.GetToHost(), "uri", what.GetToUri())
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, moveTimeout)
		defer cancel()
		err := d.opt.Mover.Move(ctx, id, what.GetToUri())
		took := time.Since(began)
		d.post(func() {
			d.busy--
			v.leaving = err == nil
			if err != nil {
				d.log.Warn("VM not moved; it stays", "vm", what.GetVmName(), "err", err)
				d.carriedOut(o, failed(fmt.Errorf("%w; it runs where it was", err)))
				return
			}
			d.log.Info("VM moved", "vm", what.GetVmName(), "to", what.GetToHost(), "took", took)
			d.unenroll(id)
			d.carriedOut(o, &serverpb.Outcome{MoveNs: int64(took)})
		})
	}()
}

// endShadowOfMoved ends the shadow of a VM that went to another host, whatever is
// configured for VMs that end: it has one there.
func (d *Daemon) endShadowOfMoved(v *vm) {
	if s := v.shadow; s != nil {
		v.shadow = nil
		d.retireAs(s, config.Terminate)
	}
}
