package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// Restore returns each limit that can be changed, and differs, to what original
// says. It tries all of them even if one fails, and if none does takes the note of
// them away.
//
// Memory is never lowered below what the guest uses and a tenth; if nothing but
// that is left to do, the error is hypervisor.ErrInUse. If it grows and the guest does not follow in time,
// which is an error too, the balloon is left to go on when the guest can.
func (d *Driver) Restore(ctx context.Context, id gnomon.VMID, original hypervisor.Original) error {
	dm, err := d.lookup(ctx, id)
	if err != nil {
		return err
	}
	var errs []error
	var inUse error
	// Memory comes last: a guest may take all the time there is to give it back.
	for _, r := range []gnomon.Resource{gnomon.CPU, gnomon.Disk, gnomon.Network, gnomon.Memory} {
		if !dm.limits.Has(r) {
			continue
		}
		err := d.restore(ctx, dm, r, original)
		if errors.Is(err, hypervisor.ErrGone) {
			return hypervisor.ErrGone
		}
		if errors.Is(err, hypervisor.ErrInUse) {
			inUse = err
			continue
		}
		errs = append(errs, err)
	}
	err = errors.Join(errs...)
	if err == nil && dm.def.own != nil {
		err = d.setNote(ctx, dm, nil)
	}
	if err == nil {
		err = inUse
	}
	if err != nil {
		return fmt.Errorf("restore limits: %w", err)
	}
	return nil
}

func (d *Driver) restore(ctx context.Context, dm *domain, r gnomon.Resource, original hypervisor.Original) error {
	want := original.Limits[r]
	return dm.change(ctx, d, r, want, func() error {
		of, err := parseDetail(original.Detail)
		switch {
		case err != nil:
			return err
		case r == gnomon.Disk && original.Detail != "" && of.Disks.of(dm.def.disks).amount() == want:
			return d.restoreDisk(ctx, dm, of.Disks)
		case r == gnomon.CPU && of.Quotas != nil:
			return d.restoreCPU(ctx, dm, original.VCPUs, dm.original(*of.Quotas, want, original.VCPUs))
		}
		// Another change may have been under way: only now does it count.
		if now, err := d.limit(ctx, dm, r); err == nil && now == want {
			return nil
		}
		if r == gnomon.Memory {
			return d.restoreMemory(ctx, dm, want)
		}
		_, err = d.set(ctx, dm, r, want, hypervisor.Terms{})
		return err
	})
}

func (d *Driver) restoreMemory(ctx context.Context, dm *domain, want int64) error {
	b, err := d.usedBalloon(ctx, dm, want)
	if err != nil {
		return err
	}
	to := max(want, min(b.actual, dm.needed(b)))
	if to != b.actual {
		if _, err := d.setMemory(ctx, dm, to, to < b.actual); err != nil {
			return err
		}
	}
	if to > want {
		return fmt.Errorf("left at %d bytes rather than %d: %w", to, want, hypervisor.ErrInUse)
	}
	return nil
}

// usedBalloon reads the balloon. If the guest seems to need more than want, it
// waits for it to tell anew: the balloon may have moved since it last did.
func (d *Driver) usedBalloon(ctx context.Context, dm *domain, want int64) (balloon, error) {
	tick := time.NewTicker(balloonPoll)
	defer tick.Stop()
	late := time.After(settle)
	first, err := d.balloon(ctx, dm)
	for b := first; ; b, err = d.balloon(ctx, dm) {
		if err != nil || b.actual <= want || dm.needed(b) <= want || !b.told.Equal(first.told) {
			return b, err
		}
		select {
		case <-tick.C:
		case <-late:
			return b, nil
		case <-ctx.Done():
			return b, ctx.Err()
		}
	}
}

// needed is the least memory the guest may be left with: what it uses and a
// tenth, or 0 if it does not tell.
func (dm *domain) needed(b balloon) int64 {
	if b.told.IsZero() {
		return 0
	}
	dm.mu.Lock()
	defer dm.mu.Unlock()
	given := b.actual // when it told
	if dm.told.at.Equal(b.told) {
		given = dm.told.actual
	}
	used := max(0, given-b.usable)
	return used + used/10
}
