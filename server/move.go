package server

import (
	"cmp"
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

const (
	// prepareLifetime is for how long hosts may take to get ready for a move,
	// moveLifetime for how long one may begin with it.
	prepareLifetime = 30 * time.Second
	moveLifetime    = time.Hour
)

// MoveVM implements ManagementService. The host that has the VM tells what has to
// go with it, the other gets ready, and only then it moves: until that nothing has
// changed for the VM.
func (s *Server) MoveVM(ctx context.Context, req *connect.Request[serverpb.MoveVMRequest]) (*connect.Response[serverpb.MoveVMResponse], error) {
	m := req.Msg
	if err := checkRequestID(m.GetRequestId()); err != nil {
		return nil, err
	}
	if err := checkText("advice", m.GetAdvice(), true); err != nil {
		return nil, err
	}
	id, request := identify(m)
	order := &serverpb.OrderRecord{Request: request, Order: &serverpb.Order{Id: id}}
	var before *serverpb.OrderRecord
	var move *serverpb.Move
	var since int64
	err := s.read(ctx, func(v *view) (err error) {
		since = v.revision
		if before = v.orders[id]; before != nil && before.GetOutcome().GetError() == "" {
			return checkSame(before, request)
		}
		before = nil
		order.Host, move, err = v.move(m)
		return err
	})
	if err != nil {
		return nil, err
	}
	if before == nil {
		if err := s.prepareMove(ctx, id, order.GetHost(), move); err != nil {
			return nil, err
		}
		order.Order.What = &serverpb.Order_Move{Move: move}
		if since, err = s.hand(ctx, order, moveLifetime, func(v *view) error { return v.checkMoving(order.GetHost(), move.GetToHost()) }); err != nil {
			return nil, err
		}
	}
	done, err := s.settled(ctx, id, since)
	if err != nil {
		return nil, err
	}
	return respond(movedVM(done))
}

func movedVM(o *serverpb.OrderRecord) (*serverpb.MoveVMResponse, error) {
	if o.GetOutcome().GetError() != "" {
		return nil, orderError(o)
	}
	m := o.GetOrder().GetMove()
	return &serverpb.MoveVMResponse{Vm: m.GetVm(), VmName: m.GetVmName(), FromHost: o.GetHost(), ToHost: m.GetToHost(), MoveNs: o.GetOutcome().GetMoveNs()}, nil
}

// move checks whether a VM can go where it is to.
func (v *view) move(m *serverpb.MoveVMRequest) (from string, move *serverpb.Move, err error) {
	c, err := v.resolveVM(m.GetVm())
	if err != nil {
		return "", nil, err
	}
	guest, known := v.vm(c.name)
	to := v.hosts[m.GetHost()]
	_, there := v.online[m.GetHost()]
	_, here := v.online[guest.host]
	name := cmp.Or(guest.name, m.GetVm())
	switch {
	case !known || !here:
		return "", nil, refuse(connect.CodeNotFound, "vm %q runs on no host that is connected", shorten(name))
	case to == nil:
		return "", nil, v.errNoHost(m.GetHost())
	case guest.host == m.GetHost():
		return "", nil, refuse(connect.CodeFailedPrecondition, "vm %q is on host %q already", name, guest.host)
	case !there:
		return "", nil, refuse(connect.CodeFailedPrecondition, "host %q is not connected", m.GetHost())
	case !v.hosts[guest.host].GetTakesOrders() || !to.GetTakesOrders():
		return "", nil, refuse(connect.CodeFailedPrecondition, "host %q or %q runs a gnomon that moves no VMs: upgrade it", guest.host, m.GetHost())
	case to.GetMigrationUri() == "":
		return "", nil, refuse(connect.CodeFailedPrecondition, "host %q does not say where its libvirt is reached: start its daemon with --migration-uri", m.GetHost())
	}
	return guest.host, &serverpb.Move{Vm: guest.id, VmName: guest.name, ToHost: m.GetHost(), ToUri: to.GetMigrationUri(), Advice: m.GetAdvice()},
		v.checkMoving(guest.host, m.GetHost())
}

// checkMoving returns an error if one of the hosts has part in a move.
func (v *view) checkMoving(hosts ...string) error {
	for host := range v.pending {
		for _, o := range v.ordersFor(host) {
			m := o.GetMove()
			for _, busy := range hosts {
				if m != nil && (host == busy || m.GetToHost() == busy) {
					return refuse(connect.CodeFailedPrecondition, "host %q has part in the move of %q: wait for its end", busy, m.GetVmName())
				}
			}
		}
	}
	return nil
}

// prepareMove has what goes with the VM be where it is to be.
func (s *Server) prepareMove(ctx context.Context, id, from string, move *serverpb.Move) error {
	ctx = withoutChange(ctx)
	out, err := s.carry(ctx, &serverpb.OrderRecord{Host: from, Order: &serverpb.Order{Id: id + "-describe",
		What: &serverpb.Order_Describe{Describe: &serverpb.Describe{Vm: move.GetVm()}}}})
	if err != nil {
		return err
	}
	_, err = s.carry(ctx, &serverpb.OrderRecord{Host: move.GetToHost(), Order: &serverpb.Order{Id: id + "-receive",
		What: &serverpb.Order_Receive{Receive: &serverpb.Receive{Vm: move.GetVm(), VmName: move.GetVmName(), Handover: out.GetHandover()}}}})
	return err
}
