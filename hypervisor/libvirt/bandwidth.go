package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// setDisk gives each writable disk an even part of the rate.
func (d *Driver) setDisk(ctx context.Context, dm *domain, amount int64) (int64, error) {
	n := len(dm.def.disks)
	if amount != hypervisor.Unlimited && amount < int64(n) {
		return 0, fmt.Errorf("%d bytes/s cannot be split over %d disks", amount, n)
	}
	dm.throttle.forget()
	for i, disk := range dm.def.disks {
		part := int64(0) // libvirt's word for no limit
		if amount != hypervisor.Unlimited {
			part = split(amount, i, n)
		}
		// A rate is refused while a burst is set: send the group whole.
		params := []lv.TypedParam{
			{Field: lv.DomainBlockIotuneTotalBytesSec, Value: *lv.NewTypedParamValueUllong(uint64(part))},
			{Field: lv.DomainBlockIotuneTotalBytesSecMax, Value: *lv.NewTypedParamValueUllong(0)},
		}
		err := doOn(ctx, d, dm.live, func(l *lv.Libvirt) error {
			return l.DomainSetBlockIOTune(dm.Domain, disk, params, uint32(lv.DomainAffectLive))
		})
		if err != nil {
			return 0, fmt.Errorf("throttle disk %s: %w", disk, err)
		}
	}
	dm.throttle.forget()
	return d.diskLimit(ctx, dm)
}

// diskLimit returns the sum of the disks' rates, asked for now and then;
// Unlimited if any of them has none. While the domain is held it is what was
// known last.
func (d *Driver) diskLimit(ctx context.Context, dm *domain) (int64, error) {
	if len(dm.def.disks) == 0 {
		return hypervisor.Unlimited, nil
	}
	sum, epoch, ok := dm.throttle.get()
	if ok {
		return sum, nil
	}
	asked := time.Now()
	sum = 0
	for _, disk := range dm.def.disks {
		rate, err := d.diskRate(ctx, dm, disk)
		if last, ok := dm.throttle.last(); ok && errors.Is(err, errHeld) {
			return last, nil
		}
		if err != nil {
			return 0, err
		}
		if rate == 0 {
			sum = hypervisor.Unlimited
			break
		}
		sum += rate
	}
	dm.throttle.put(epoch, sum, asked)
	return sum, nil
}

func (d *Driver) diskRate(ctx context.Context, dm *domain, disk string) (int64, error) {
	params, err := callOn(ctx, d, dm.live, func(l *lv.Libvirt) ([]lv.TypedParam, error) {
		const most = 32 // parameters, libvirt's own bound
		params, _, err := l.DomainGetBlockIOTune(dm.Domain, lv.OptString{disk}, most,
			uint32(lv.TypedParamStringOkay)|uint32(lv.DomainAffectLive))
		return params, err
	})
	if err != nil {
		return 0, fmt.Errorf("read throttle of disk %s: %w", disk, err)
	}
	for _, p := range params {
		if p.Field == lv.DomainBlockIotuneTotalBytesSec {
			return number(p.Value), nil
		}
	}
	return 0, nil
}
