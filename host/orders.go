package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

const (
	// orderTimeout bounds what the hypervisor may take to start a VM.
	orderTimeout = 100 * time.Second

	// associateTimeout is how long an order waits for the VM's shadow.
	associateTimeout = 30 * time.Second

	// maxOrderError bounds what is told of an error, in bytes.
	maxOrderError = 2000
)

// The reasons that the server is told for what was not done.
const (
	reasonTaken        = "ALREADY_EXISTS"
	reasonDefinition   = "INVALID_DEFINITION"
	reasonOverCapacity = "OVER_CAPACITY"
	reasonNotPossible  = "NOT_POSSIBLE_NOW"
)

// order is one order of the server's, from when it is first heard of until the
// server does not have it any more.
type order struct {
	*serverpb.Order
	outcome *serverpb.Outcome // nil until it was carried out
	telling bool

	// Of a deployment.
	began, started time.Time
	chosen         bool // whether the VM is taken in had been chosen before
}

// orderKey names one attempt at an order.
type orderKey struct{ id, attempt string }

var errOverCapacity = errors.New("over capacity")

// ordered takes the server's orders in. What it does not name any more is
// settled, or has expired.
func (d *Daemon) ordered(list []*serverpb.Order) {
	current := make(map[orderKey]bool, len(list))
	for _, o := range list {
		key := orderKey{o.GetId(), o.GetAttempt()}
		current[key] = true
		if d.orders[key] == nil {
			d.orders[key] = &order{Order: o}
			d.queue = append(d.queue, key)
		}
	}
	for key, o := range d.orders {
		if !current[key] && o != d.carrying {
			delete(d.orders, key)
		}
	}
	d.nextOrder()
	d.settle()
}

// nextOrder begins with the next order when none is under way: each then sees
// what the one before has left.
func (d *Daemon) nextOrder() {
	for d.carrying == nil && len(d.queue) > 0 && !d.stopping {
		o := d.orders[d.queue[0]]
		d.queue = d.queue[1:]
		if o == nil {
			continue
		}
		d.carrying = o
		d.carryOut(o)
	}
}

func (d *Daemon) carryOut(o *order) {
	switch what := o.What.(type) {
	case *serverpb.Order_Deploy:
		d.deploy(o, what.Deploy)
	case *serverpb.Order_Describe:
		d.describeMove(o, what.Describe)
	case *serverpb.Order_Receive:
		d.receive(o, what.Receive)
	case *serverpb.Order_Move:
		d.move(o, what.Move)
	default:
		d.carriedOut(o, &serverpb.Outcome{Reason: reasonNotPossible, Error: fmt.Sprintf("gnomon %s does not know this kind of order: upgrade it", d.opt.Version)})
	}
}

// carriedOut notes what became of the order under way and goes on to the next.
func (d *Daemon) carriedOut(o *order, out *serverpb.Outcome) {
	o.outcome = out
	if d.carrying == o {
		d.carrying = nil
	}
	d.settle()
	d.nextOrder()
}

// settle tells the server of what was carried out. What does not reach it is
// told again.
func (d *Daemon) settle() {
	if d.server != hostlink.Connected {
		return
	}
	for _, o := range d.orders {
		if o.outcome == nil || o.telling {
			continue
		}
		o.telling = true
		go func() {
			ctx, cancel := context.WithTimeout(d.ctx, reconcileInterval)
			defer cancel()
			err := d.link.Settle(ctx, &serverpb.SettleRequest{Host: d.opt.Name, Order: o.GetId(), Attempt: o.GetAttempt(), Outcome: o.outcome})
			d.post(func() {
				o.telling = err == nil // then it is told
				if err != nil {
					d.log.Warn("outcome of an order not delivered; it is told again", "order", o.GetId(), "err", err)
				}
			})
		}()
	}
}

// deploy starts a VM, if there is room for it.
func (d *Daemon) deploy(o *order, what *serverpb.Deploy) {
	id := gnomon.VMID(what.GetVm())
	if err := d.admit(id, what.GetNeeds()); err != nil {
		d.carriedOut(o, failed(err))
		return
	}
	if !what.GetValidateOnly() {
		// It is to have a shadow whatever the selection by name says, and before
		// the first list of machines has it.
		_, o.chosen = d.state.enrolled(id)
		if !o.chosen {
			if err := d.state.enroll(id, true); err != nil {
				d.carriedOut(o, failed(err))
				return
			}
		}
	}
	o.began = time.Now()
	d.busy++
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, orderTimeout)
		defer cancel()
		err := d.opt.Deployer.Deploy(ctx, hypervisor.Deployment{
			Definition: what.GetDefinition(), ID: id, Name: what.GetVmName(), Order: o.GetId(), ValidateOnly: what.GetValidateOnly(),
		})
		started := time.Now()
		d.post(func() {
			d.busy--
			d.startedVM(o, what, started, err)
		})
	}()
}

// admit returns an error if the host has too little free for what a VM begins
// with. Where it runs already, as after a lost answer, it has what it needs.
func (d *Daemon) admit(id gnomon.VMID, needs map[string]int64) error {
	if _, runs := d.seen[id]; runs {
		return nil
	}
	free := d.spare()
	for r := range gnomon.AllResources() {
		if need := needs[r.String()]; need > free[r] {
			return fmt.Errorf("%w: %s of %s is free and the VM begins with %s", errOverCapacity,
				gnomon.Format(r, free[r]), r, gnomon.Format(r, need))
		}
	}
	return nil
}

func (d *Daemon) startedVM(o *order, what *serverpb.Deploy, started time.Time, err error) {
	if err != nil || what.GetValidateOnly() {
		if err != nil {
			d.log.Warn("VM not deployed", "vm", what.GetVmName(), "order", o.GetId(), "err", err)
			if !what.GetValidateOnly() && !o.chosen {
				d.unenroll(gnomon.VMID(what.GetVm()))
			}
		}
		d.carriedOut(o, failed(err))
		return
	}
	d.log.Info("VM deployed", "vm", what.GetVmName(), "id", what.GetVm(), "account", what.GetAccount(), "order", o.GetId())
	o.started = started
	time.AfterFunc(associateTimeout, func() { d.post(func() { d.tellAssociated(true) }) })
	d.tellAssociated(false)
	d.reconcile()
}

// unenroll takes back the choice that was made for a VM that did not start.
func (d *Daemon) unenroll(id gnomon.VMID) {
	if err := d.state.unenroll(id); err != nil {
		d.log.Warn("state not saved", "err", err)
	}
}

// tellAssociated settles the deployment under way once its VM has a shadow, is
// to have none, or has waited for long enough.
func (d *Daemon) tellAssociated(late bool) {
	o := d.carrying
	if o == nil || o.GetDeploy() == nil || o.started.IsZero() {
		return
	}
	if late && time.Since(o.started) < associateTimeout {
		return // that of an earlier order
	}
	v := d.vms[gnomon.VMID(o.GetDeploy().GetVm())]
	out := &serverpb.Outcome{StartNs: int64(o.started.Sub(o.began)), AssociateNs: max(int64(time.Since(o.started)), 1)}
	switch {
	case v != nil && v.shadow != nil && v.shadow.id != "":
		out.Shadow, out.Warm = v.shadow.name, v.shadow.waited
	case v != nil && !v.params.ShadowEnabled || late:
		out.AssociateNs = 0
	default:
		return
	}
	d.carriedOut(o, out)
}

// failed is the outcome of an order that met with an error; that of a success
// for none.
func failed(err error) *serverpb.Outcome {
	if err == nil {
		return &serverpb.Outcome{}
	}
	out := &serverpb.Outcome{Error: strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")}
	if len(out.Error) > maxOrderError {
		out.Error = out.Error[:maxOrderError]
	}
	switch {
	case errors.Is(err, hypervisor.ErrTaken):
		out.Reason = reasonTaken
	case errors.Is(err, hypervisor.ErrDefinition):
		out.Reason = reasonDefinition
	case errors.Is(err, errOverCapacity):
		out.Reason = reasonOverCapacity
	}
	return out
}
