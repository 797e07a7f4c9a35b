package faulty

import (
	"context"
	"slices"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// watcher holds the changes that are still to be delivered; the driver's mu
// guards it.
type watcher struct {
	ready chan struct{}
	queue []hypervisor.Change
}

func (w *watcher) put(c hypervisor.Change) {
	w.queue = append(w.queue, c)
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *watcher) resync() { w.put(hypervisor.Change{Kind: hypervisor.Resync}) }

// Watch passes changes on, but for those of VMs that are gone, and those that
// happen while the connection is lost.
func (d *Driver) Watch(ctx context.Context) (<-chan hypervisor.Change, error) {
	late, err := d.before(ctx, Watch, nil, 0)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	changes, err := d.inner.Watch(ctx)
	if err = late.join(err); err != nil {
		cancel()
		return nil, err
	}
	w := &watcher{ready: make(chan struct{}, 1)}
	d.mu.Lock()
	d.watchers[w] = struct{}{}
	d.mu.Unlock()
	out := make(chan hypervisor.Change)
	go func() {
		defer close(out)
		defer cancel()
		defer d.unwatch(w)
		d.relay(ctx, w, changes, out)
	}()
	return out, nil
}

func (d *Driver) relay(ctx context.Context, w *watcher, changes <-chan hypervisor.Change, out chan<- hypervisor.Change) {
	for {
		select {
		case c, open := <-changes:
			if !open {
				return
			}
			d.pass(w, c)
		case <-w.ready:
		}
		for _, c := range d.take(w) {
			select {
			case out <- c:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (d *Driver) pass(w *watcher, c hypervisor.Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.disconnected || slices.Contains(d.gone, c.VM) {
		return
	}
	w.put(c)
}

func (d *Driver) take(w *watcher) []hypervisor.Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := w.queue
	w.queue = nil
	return q
}

func (d *Driver) unwatch(w *watcher) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.watchers, w)
}
