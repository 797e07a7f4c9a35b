package simulated

import (
	"context"
	"sync"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// watcher delivers changes from a queue without bound: the host never waits.
type watcher struct {
	ready chan struct{} // holds a token while the queue is not empty
	ended chan struct{}
	once  sync.Once
	queue []hypervisor.Change // the driver's mu guards it
}

func (w *watcher) stop() { w.once.Do(func() { close(w.ended) }) }

// Watch delivers changes until ctx ends or the driver is closed.
func (d *Driver) Watch(ctx context.Context) (<-chan hypervisor.Change, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	w := &watcher{ready: make(chan struct{}, 1), ended: make(chan struct{})}
	d.watchers[w] = struct{}{}
	out := make(chan hypervisor.Change)
	go func() {
		defer close(out)
		defer d.unwatch(w)
		for {
			select {
			case <-w.ready:
			case <-ctx.Done():
				return
			case <-w.ended:
				return
			}
			for _, c := range d.take(w) {
				select {
				case out <- c:
				case <-ctx.Done():
					return
				case <-w.ended:
					return
				}
			}
		}
	}()
	return out, nil
}

func (d *Driver) unwatch(w *watcher) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.watchers, w)
}

func (d *Driver) take(w *watcher) []hypervisor.Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := w.queue
	w.queue = nil
	return q
}

func (d *Driver) tell(kind hypervisor.ChangeKind, v *vm) {
	for w := range d.watchers {
		w.queue = append(w.queue, hypervisor.Change{Kind: kind, VM: v.spec.ID, Name: v.spec.Name})
		select {
		case w.ready <- struct{}{}:
		default:
		}
	}
}
