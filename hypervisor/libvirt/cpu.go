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

// minQuota is the least that the kernel and libvirt take, in microseconds.
const minQuota = 1000

// periods are those to choose from, in microseconds. A short one keeps a small
// VM from standing still for long: at a tenth of a core it runs 2 ms in every
// 20 rather than 10 in every 100.
var periods = []int64{20_000, 40_000, 100_000}

// bandwidth returns the quota of each vCPU and the period, in microseconds,
// that together give all vCPUs the amount of millicores: the shortest period
// that holds it exactly, else the longest.
func bandwidth(amount int64, vcpus int) (quota, period int64) {
	n := int64(vcpus)
	for _, period = range periods {
		quota = (amount*period + 500*n) / (1000 * n)
		if quota >= minQuota && millicores(quota, period, vcpus) == amount {
			return quota, period
		}
	}
	return max(quota, minQuota), period
}

// millicores is the inverse of bandwidth.
func millicores(quota, period int64, vcpus int) int64 {
	if quota <= 0 || period <= 0 {
		return hypervisor.Unlimited
	}
	return (quota*1000*int64(vcpus) + period/2) / period
}

func (d *Driver) setCPU(ctx context.Context, dm *domain, amount int64) (int64, error) {
	params := []lv.TypedParam{{Field: lv.DomainSchedulerVCPUQuota, Value: *lv.NewTypedParamValueLlong(-1)}}
	if amount != hypervisor.Unlimited {
		quota, period := bandwidth(amount, dm.vcpuCount())
		params = []lv.TypedParam{
			{Field: lv.DomainSchedulerVCPUPeriod, Value: *lv.NewTypedParamValueUllong(uint64(period))},
			{Field: lv.DomainSchedulerVCPUQuota, Value: *lv.NewTypedParamValueLlong(quota)},
		}
	}
	dm.quota.forget()
	err := doOn(ctx, d, dm.live, func(l *lv.Libvirt) error {
		return l.DomainSetSchedulerParametersFlags(dm.Domain, params, uint32(lv.DomainAffectLive))
	})
	dm.quota.forget()
	if err != nil {
		return 0, err
	}
	return d.cpuLimit(ctx, dm)
}

// cpuLimit reads the quota from the control group, which costs microseconds,
// or else asks libvirt now and then.
func (d *Driver) cpuLimit(ctx context.Context, dm *domain) (int64, error) {
	if dm.cpu != (cpuController{}) {
		quota, period, err := dm.cpu.readQuota()
		if err != nil {
			return 0, fmt.Errorf("read CPU quota: %w", err)
		}
		return millicores(quota, period, dm.vcpuCount()), nil
	}
	if dm.why[gnomon.CPU] != "" {
		return hypervisor.Unlimited, nil
	}
	amount, epoch, ok := dm.quota.get()
	if ok {
		return amount, nil
	}
	asked := time.Now()
	amount, err := d.schedulerQuota(ctx, dm)
	if err != nil {
		return 0, err
	}
	dm.quota.put(epoch, amount, asked)
	return amount, nil
}

// schedulerQuota asks libvirt for the quota, in millicores of all vCPUs.
func (d *Driver) schedulerQuota(ctx context.Context, dm *domain) (int64, error) {
	params, err := call(ctx, d, func(l *lv.Libvirt) ([]lv.TypedParam, error) {
		_, n, err := l.DomainGetSchedulerType(dm.Domain)
		if err != nil {
			return nil, err
		}
		return l.DomainGetSchedulerParametersFlags(dm.Domain, n, uint32(lv.DomainAffectLive))
	})
	if err != nil {
		return 0, fmt.Errorf("read CPU quota: %w", err)
	}
	var quota, period int64
	found := false
	for _, p := range params {
		switch p.Field {
		case lv.DomainSchedulerVCPUQuota:
			quota, found = number(p.Value), true
		case lv.DomainSchedulerVCPUPeriod:
			period = number(p.Value)
		}
	}
	if !found {
		return 0, errors.New("the host has no cpu control group with a quota")
	}
	return millicores(quota, period, dm.vcpuCount()), nil
}
