package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	lv "github.com/digitalocean/go-libvirt"
)

// setDisk has the writable disks share the amount and the operations, whichever
// of them needs them. Where nothing is said of operations, and somebody else
// limits them, each disk keeps that limit and has an even part of the amount.
func (d *Driver) setDisk(ctx context.Context, dm *domain, amount, operations int64) (int64, error) {
	now, err := d.throttles(ctx, dm)
	if err != nil {
		return 0, err
	}
	want, err := now.limited(amount, operations)
	if err != nil {
		return 0, err
	}
	dm.throttle.forget()
	for _, disk := range dm.def.disks {
		if err := d.setThrottle(ctx, dm, disk, want[disk]); err != nil {
			return 0, err
		}
	}
	dm.throttle.forget()
	return d.diskLimit(ctx, dm)
}

// diskLimit returns what the disks may do together; Unlimited if any of them has
// no limit.
func (d *Driver) diskLimit(ctx context.Context, dm *domain) (int64, error) {
	found, err := d.throttles(ctx, dm)
	return found.amount(), err
}

// restoreDisk gives each disk the throttle back that it had.
func (d *Driver) restoreDisk(ctx context.Context, dm *domain, want throttles) error {
	dm.throttle.forget() // another change may have been under way
	now, err := d.throttles(ctx, dm)
	if err != nil {
		return err
	}
	defer dm.throttle.forget()
	for _, disk := range dm.def.disks {
		if now[disk].equal(want[disk]) {
			continue
		}
		if err := d.setThrottle(ctx, dm, disk, want[disk]); err != nil {
			return err
		}
	}
	return nil
}

// throttles returns those of all disks that can be written, asked for now and
// then. While the domain is held they are what was known last.
func (d *Driver) throttles(ctx context.Context, dm *domain) (throttles, error) {
	found, epoch, ok := dm.throttle.get()
	if ok {
		return found, nil
	}
	asked := time.Now()
	found = make(throttles, len(dm.def.disks))
	for _, disk := range dm.def.disks {
		t, err := d.askThrottle(ctx, dm, disk)
		if last, ok := dm.throttle.last(); ok && errors.Is(err, errHeld) {
			return last, nil
		}
		if err != nil {
			return nil, err
		}
		found[disk] = t
	}
	dm.throttle.put(epoch, found, asked)
	return found, nil
}

func (d *Driver) askThrottle(ctx context.Context, dm *domain, disk string) (throttle, error) {
	params, err := callOn(ctx, d, dm.live, func(l *lv.Libvirt) ([]lv.TypedParam, error) {
		const most = 32 // parameters, libvirt's own bound
		params, _, err := l.DomainGetBlockIOTune(dm.Domain, lv.OptString{disk}, most,
			uint32(lv.TypedParamStringOkay)|uint32(lv.DomainAffectLive))
		return params, err
	})
	if err != nil {
		return throttle{}, fmt.Errorf("read throttle of disk %s: %w", disk, err)
	}
	return decodeThrottle(params), nil
}

func (d *Driver) setThrottle(ctx context.Context, dm *domain, disk string, t throttle) error {
	err := doOn(ctx, d, dm.live, func(l *lv.Libvirt) error {
		return l.DomainSetBlockIOTune(dm.Domain, disk, t.params(), uint32(lv.DomainAffectLive))
	})
	if err != nil {
		return fmt.Errorf("throttle disk %s: %w", disk, err)
	}
	return nil
}
