package host

import (
	"context"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// subscriber is one open SubscribeUsage stream.
type subscriber struct {
	vm     gnomon.VMID // empty for all
	events chan *hostpb.UsageEvent
}

// subscriberQueue is how many events a slow subscriber may lag behind before
// it misses some. The daemon never waits for it.
const subscriberQueue = 64

// SubscribeUsage implements the API.
func (a API) SubscribeUsage(ctx context.Context, req *connect.Request[hostpb.SubscribeUsageRequest], stream *connect.ServerStream[hostpb.UsageEvent]) error {
	sub := &subscriber{events: make(chan *hostpb.UsageEvent, subscriberQueue)}
	// Also if the call below fails: ctx may end while it runs.
	defer a.d.post(func() { delete(a.d.subscribers, sub) })
	err := a.d.call(ctx, func() error {
		if ref := req.Msg.GetVm(); ref != "" {
			v, err := a.d.managed(ref)
			if err != nil {
				return err
			}
			sub.vm = v.machine.ID
		}
		a.d.subscribers[sub] = struct{}{}
		return nil
	})
	if err != nil {
		return err
	}
	// The headers go out now: a client waits for them before it reads.
	if err := stream.Send(nil); err != nil {
		return err
	}
	for {
		select {
		case e := <-sub.events:
			if err := stream.Send(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case <-a.d.done:
			return connect.NewError(connect.CodeUnavailable, errStopping)
		}
	}
}

// publish pushes a VM's latest sample to the subscribers.
func (d *Daemon) publish(v *vm) {
	if len(d.subscribers) == 0 {
		return
	}
	e := &hostpb.UsageEvent{
		Vm: string(v.machine.ID), Name: v.machine.Name,
		AtUnixNano: v.last.At.UnixNano(), IntervalNs: int64(v.last.Interval),
		Resources: d.resourceStates(v),
	}
	for r := range gnomon.AllResources() {
		e.StarvedSeconds = append(e.StarvedSeconds, v.last.Starved[r].Seconds())
	}
	for sub := range d.subscribers {
		if sub.vm != "" && sub.vm != v.machine.ID {
			continue
		}
		select {
		case sub.events <- e:
		default:
		}
	}
}
