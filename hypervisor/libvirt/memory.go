package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

const (
	// balloonPage is the largest page a guest's balloon may count in.
	balloonPage = 64 << 10

	// dyingTime is how long libvirt may take to notice that a VM's process ended.
	dyingTime = 5 * time.Second

	// balloonPoll is how often the guest's size is read while it moves. One
	// question costs QEMU 1 to 2 ms.
	balloonPoll = 15 * time.Millisecond

	// settle is for how long after a change libvirt's own figure of the size
	// may lag: QEMU tells it at most once a second.
	settle = 3 * time.Second
)

// errUntold is one of the errors of a QEMU that is dying.
var errUntold = errors.New("read balloon: its size is not told")

// looksDying reports whether an error may be that of a VM whose process has
// ended, before libvirt has noticed.
func looksDying(err error) bool {
	var refused lv.Error
	return errors.Is(err, errUntold) || errors.As(err, &refused)
}

// setMemory moves the balloon and plugs or unplugs. If the guest does not follow
// in time it is left where it is if pin, and else to go on.
func (d *Driver) setMemory(ctx context.Context, dm *domain, amount int64, pin bool) (int64, error) {
	if err := dm.def.checkMemory(amount); err != nil {
		size, sizeErr := d.memorySize(ctx, dm)
		return size, errors.Join(sizeErr, err)
	}
	want := dm.def.divide(amount)
	if err := d.moveMemory(ctx, dm, want); err != nil {
		return 0, d.awaitEnd(ctx, dm, err)
	}
	reached, err := d.awaitMemory(ctx, dm, want.sum())
	if err == nil {
		return reached.sum(), nil
	}
	if errors.Is(d.goneOr(ctx, dm.Domain, err), hypervisor.ErrGone) {
		return 0, hypervisor.ErrGone
	}
	if pin { // the caller's time is up: do so in time of our own
		late, cancel := context.WithTimeout(d.ctx, 2*time.Second)
		defer cancel()
		if now, partsErr := d.memoryParts(late, dm); partsErr == nil {
			reached = now
			err = errors.Join(err, d.moveMemory(late, dm, reached))
		}
	}
	return reached.sum(), fmt.Errorf("the guest reached %d bytes of %d: %w", reached.sum(), amount, err)
}

// awaitEnd returns ErrGone if an error proves to be that of a VM whose process has
// ended, else the error.
func (d *Driver) awaitEnd(ctx context.Context, dm *domain, err error) error {
	tick := time.NewTicker(balloonPoll)
	defer tick.Stop()
	for late := time.After(dyingTime); ; {
		if err = d.goneOr(ctx, dm.Domain, err); !looksDying(err) {
			return err
		}
		select {
		case <-tick.C:
		case <-late:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// checkMemory reports what keeps a guest of that definition from an amount.
func (def *definition) checkMemory(amount int64) error {
	if amount > def.maxMemory {
		return fmt.Errorf("%d bytes are more than the maximum of %d", amount, def.maxMemory)
	}
	if !def.balloon && amount < def.booted {
		return fmt.Errorf("%d bytes are less than the %d it booted with, and it has no balloon", amount, def.booted)
	}
	return nil
}

// moveMemory tells the guest what to have.
func (d *Driver) moveMemory(ctx context.Context, dm *domain, to parts) error {
	dm.setMoved()
	for i, size := range to.plugged {
		if err := d.request(ctx, dm, i, size); err != nil {
			return err
		}
	}
	if !dm.def.balloon {
		return nil
	}
	return doOn(ctx, d, dm.live, func(l *lv.Libvirt) error {
		return l.DomainSetMemoryFlags(dm.Domain, uint64(to.booted/1024), uint32(lv.DomainMemLive))
	})
}

// awaitMemory waits until the guest has the size and returns what it has.
func (d *Driver) awaitMemory(ctx context.Context, dm *domain, want int64) (reached parts, err error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.opts.Timeout)
		defer cancel()
	}
	tick := time.NewTicker(balloonPoll)
	defer tick.Stop()
	var failing time.Time // since when
	for {
		now, err := d.memoryParts(ctx, dm)
		if err != nil {
			if failing.IsZero() {
				failing = time.Now()
			}
			if time.Since(failing) > dyingTime || !looksDying(d.goneOr(ctx, dm.Domain, err)) {
				return reached, err
			}
		} else {
			reached, failing = now, time.Time{}
			if off := now.sum() - want; max(off, -off) < balloonPage {
				return reached, nil
			}
		}
		dm.setMoved()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return reached, ctx.Err()
		}
	}
}

// memoryParts returns the memory the guest has now, balloon or not.
func (d *Driver) memoryParts(ctx context.Context, dm *domain) (parts, error) {
	p := parts{booted: dm.def.booted}
	if dm.def.balloon {
		b, err := d.balloon(ctx, dm)
		if err != nil {
			return p, err
		}
		return b.parts, nil
	}
	var err error
	p.plugged, err = d.plugged(ctx, dm)
	return p, err
}

// memorySize is the sum of memoryParts.
func (d *Driver) memorySize(ctx context.Context, dm *domain) (int64, error) {
	p, err := d.memoryParts(ctx, dm)
	return p.sum(), err
}

// balloon is what QEMU tells of a guest's memory, in bytes.
type balloon struct {
	parts
	actual, usable int64     // actual is the sum of the parts
	told           time.Time // when the guest told what is usable, or zero
}

func (d *Driver) balloon(ctx context.Context, dm *domain) (balloon, error) {
	stats, err := callOn(ctx, d, dm.live, func(l *lv.Libvirt) ([]lv.DomainMemoryStat, error) {
		return l.DomainMemoryStats(dm.Domain, uint32(lv.DomainMemoryStatNr), 0)
	})
	if err != nil {
		return balloon{}, fmt.Errorf("read balloon: %w", err)
	}
	b, err := decodeStats(stats)
	if err != nil {
		return b, err
	}
	b.plugged, err = d.plugged(ctx, dm)
	b.actual = b.sum()
	return b, err
}

func decodeStats(stats []lv.DomainMemoryStat) (b balloon, err error) {
	var sized, usable bool
	var told uint64
	for _, s := range stats {
		switch lv.DomainMemoryStatTags(s.Tag) {
		case lv.DomainMemoryStatActualBalloon:
			b.booted, sized = int64(s.Val)*1024, true
		case lv.DomainMemoryStatUsable:
			b.usable, usable = int64(s.Val)*1024, true
		case lv.DomainMemoryStatLastUpdate:
			told = s.Val
		}
	}
	if !sized {
		return b, errUntold
	}
	if usable && told > 0 {
		b.told = time.Unix(int64(told), 0)
	}
	b.actual = b.booted
	return b, nil
}

// readMemory corrects what libvirt and the guest tell of a guest's memory.
func (d *Driver) readMemory(ctx context.Context, dm *domain, c *hypervisor.Counters) error {
	var now parts
	// libvirt's own sum is late, and counts plugged memory more than once.
	if dm.movedLately() || len(dm.def.plugs) > 0 {
		var err error
		switch now, err = d.memoryParts(ctx, dm); {
		case err == nil:
			c.MemoryActual = now.sum()
		case errors.Is(err, errHeld):
			c.Known = c.Known.Without(gnomon.Memory)
		default:
			return err
		}
	}
	if dm.def.deflates {
		c.MemoryAvailable = dm.withoutBalloon(*c, now.sum()-now.booted)
	}
	c.Allocation[gnomon.Memory] = c.MemoryActual
	return nil
}

func (dm *domain) setMoved() {
	dm.mu.Lock()
	defer dm.mu.Unlock()
	dm.moved = time.Now()
}

// movedLately reports whether the balloon moved so lately that libvirt may not
// know.
func (dm *domain) movedLately() bool {
	dm.mu.Lock()
	defer dm.mu.Unlock()
	return !dm.moved.IsZero() && time.Since(dm.moved) < settle
}
