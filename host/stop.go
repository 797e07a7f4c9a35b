package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

const (
	// settleTimeout is how long a stopping daemon waits for changes of limits
	// that are under way.
	settleTimeout = 5 * time.Second

	// restoreTimeout bounds the restore of one VM. A guest may take seconds to
	// give memory back.
	restoreTimeout = 20 * time.Second

	// endTimeout is how long a stopping daemon waits for its shadows to end.
	endTimeout = 15 * time.Second
)

// stop gives limits back or keeps them, and ends the shadows where limits are
// given back: without a daemon they have nothing to do.
func (d *Daemon) stop() error {
	d.stopping = true
	d.drain(&d.limiting, settleTimeout) // so that none undoes the restore
	kept, err := d.restoreAll()
	for _, s := range d.sortedShadows() {
		s.close()
		if s.id != "" && !d.keepsLimits() {
			d.endShadow(s)
		}
	}
	d.drain(&d.busy, endTimeout)
	if d.busy > 0 {
		d.log.Warn("not all shadows ended in time", "after", endTimeout)
	}
	d.log.Info("stopped", "kept", kept)
	return err
}

// keepsLimits reports whether limits and shadows are to outlive the daemon.
func (d *Daemon) keepsLimits() bool {
	return d.desired.parameters("", "", "").OnExit == config.Keep
}

// drain runs the loop until a count of things under way is 0, or for timeout.
func (d *Daemon) drain(count *int, timeout time.Duration) {
	late := time.NewTimer(timeout)
	defer late.Stop()
	for *count > 0 {
		select {
		case f := <-d.inbox:
			d.tick()
			f()
		case <-late.C:
			return
		}
	}
}

// restoreAll gives back the limits of all VMs noted, taken in or not, unless
// they are to be kept. It returns how many were, and which could not be restored.
func (d *Daemon) restoreAll() (kept int, failed error) {
	due := map[gnomon.VMID]original{}
	for id, o := range d.state.data.Originals {
		if d.keepsLimits() && d.wanted(hypervisor.Machine{ID: id, Name: o.Name}) {
			kept++
			continue
		}
		due[id] = o
	}
	outcomes := restoreEach(d.ctx, d.opt.Driver, due)
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(due)) {
		o, err := due[id], outcomes[id]
		d.restored(id, o.Name, err)
		if err != nil {
			errs = append(errs, fmt.Errorf("restore limits of %s: %w", o.Name, err))
		}
	}
	return kept, errors.Join(errs...)
}

// restoreEach puts back the limits that VMs had before gnomon, all at a time,
// and returns the errors. A VM that is gone has nothing to be put back.
func restoreEach(ctx context.Context, drv hypervisor.Driver, due map[gnomon.VMID]original) map[gnomon.VMID]error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := map[gnomon.VMID]error{}
	for id, o := range due {
		wg.Go(func() {
			if err := restore(ctx, drv, id, o.Original); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[id] = err
			}
		})
	}
	wg.Wait()
	return failed
}

func restore(ctx context.Context, drv hypervisor.Driver, id gnomon.VMID, own hypervisor.Original) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	err := drv.Restore(ctx, id, own)
	if errors.Is(err, hypervisor.ErrGone) || errors.Is(err, hypervisor.ErrInUse) {
		return nil // with more memory than before a VM is no worse off
	}
	return err
}
