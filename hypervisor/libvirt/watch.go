package libvirt

import (
	"context"
	"sync"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/domainxml"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// backlog is how many changes wait for a slow watcher; more than that, and it
// is told to list again.
const backlog = 256

// watched are the events that make a definition stale, or a size. A change of
// the metadata or of a device is told as a Resync.
var watched = []lv.DomainEventID{
	lv.DomainEventIDLifecycle,
	lv.DomainEventIDMetadataChange,
	lv.DomainEventIDDeviceAdded,
	lv.DomainEventIDDeviceRemoved,
	lv.DomainEventIDBalloonChange, // QEMU tells one a second and VM at most
}

// Watch delivers changes until ctx ends or the driver is closed.
func (d *Driver) Watch(ctx context.Context) (<-chan hypervisor.Change, error) {
	if _, err := d.current(); err != nil {
		return nil, err
	}
	w := d.changes.add()
	out := make(chan hypervisor.Change)
	err := d.spawn(func() {
		defer close(out)
		defer d.changes.remove(w)
		for {
			select {
			case <-w.ready:
			case <-ctx.Done():
				return
			case <-d.ctx.Done():
				return
			}
			for _, c := range w.take() {
				select {
				case out <- c:
				case <-ctx.Done():
					return
				case <-d.ctx.Done():
					return
				}
			}
		}
	})
	if err != nil {
		d.changes.remove(w)
		return nil, err
	}
	return out, nil
}

// subscribe has the session's events handled until it ends.
func (d *Driver) subscribe(s *session) error {
	for _, id := range watched {
		ctx, cancel := context.WithTimeout(d.ctx, d.opts.Timeout)
		events, err := subscribeOne(ctx, d, s, id)
		cancel()
		if err != nil {
			return err
		}
		err = d.spawn(func() {
			for e := range events {
				d.handle(e)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// subscribeOne registers for one kind of event, bounded by ctx.
func subscribeOne(ctx context.Context, d *Driver, s *session, id lv.DomainEventID) (<-chan any, error) {
	type result struct {
		events <-chan any
		err    error
	}
	done := make(chan result, 1)
	go func() {
		events, err := s.SubscribeEvents(d.ctx, id, nil)
		done <- result{events, err}
	}()
	select {
	case r := <-done:
		return r.events, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *Driver) handle(event any) {
	switch e := event.(type) {
	case *lv.DomainEventCallbackLifecycleMsg:
		kind, ok := kindOf(lv.DomainEventType(e.Msg.Event))
		if !ok {
			return
		}
		if kind == hypervisor.Started || kind == hypervisor.Stopped {
			d.forget(e.Msg.Dom.UUID)
		}
		if kind == hypervisor.Stopped {
			_ = d.shape.Sweep()
		}
		d.changes.publish(hypervisor.Change{Kind: kind, VM: idOf(e.Msg.Dom), Name: e.Msg.Dom.Name})
	case *lv.DomainEventCallbackMetadataChangeMsg:
		if len(e.Nsuri) != 1 {
			return
		}
		switch e.Nsuri[0] {
		case Namespace:
			d.relearn(e.Dom.UUID)
			d.changes.resync()
		case domainxml.OwnNamespace: // by this driver, or by somebody who can wait
			d.relearn(e.Dom.UUID)
		}
	case *lv.DomainEventCallbackBalloonChangeMsg:
		d.changes.publish(hypervisor.Change{Kind: hypervisor.Resized, VM: idOf(e.Msg.Dom), Name: e.Msg.Dom.Name})
	case *lv.DomainEventCallbackDeviceAddedMsg:
		d.relearn(e.Dom.UUID)
		d.changes.resync()
	case *lv.DomainEventCallbackDeviceRemovedMsg:
		d.relearn(e.Msg.Dom.UUID)
		d.changes.resync()
	}
}

func kindOf(e lv.DomainEventType) (hypervisor.ChangeKind, bool) {
	switch e {
	case lv.DomainEventStarted:
		return hypervisor.Started, true
	case lv.DomainEventStopped:
		return hypervisor.Stopped, true
	case lv.DomainEventSuspended, lv.DomainEventPmsuspended:
		return hypervisor.Suspended, true
	case lv.DomainEventResumed:
		return hypervisor.Resumed, true
	}
	return "", false
}

// hub hands changes to watchers without ever waiting for one.
type hub struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{}
}

type watcher struct {
	ready chan struct{} // holds a token while there is something to take
	mu    sync.Mutex
	queue []hypervisor.Change
}

func (h *hub) add() *watcher {
	w := &watcher{ready: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		h.watchers = make(map[*watcher]struct{})
	}
	h.watchers[w] = struct{}{}
	return w
}

func (h *hub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

func (h *hub) resync() { h.publish(hypervisor.Change{Kind: hypervisor.Resync}) }

func (h *hub) publish(c hypervisor.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.put(c)
	}
}

func (w *watcher) put(c hypervisor.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) >= backlog {
		// To list again tells all that the changes waiting would.
		w.queue = append(w.queue[:0], hypervisor.Change{Kind: hypervisor.Resync})
	} else {
		w.queue = append(w.queue, c)
	}
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *watcher) take() []hypervisor.Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.queue
	w.queue = nil
	return q
}

func idOf(d lv.Domain) gnomon.VMID { return gnomon.VMID(formatUUID(d.UUID)) }
