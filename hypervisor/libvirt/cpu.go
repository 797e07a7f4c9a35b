package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// minQuota is the least that the kernel and libvirt take, in microseconds.
const minQuota = 1000

// periods are those to choose from, in microseconds. A short one keeps a small
// VM from standing still for long: at a tenth of a core it runs 2 ms in every
// 20 rather than 10 in every 100.
var periods = []int64{20_000, 40_000, 100_000}

// quotaOf returns the quota that gives the amount of millicores: of the shortest
// period that holds it exactly, else of the longest.
func quotaOf(amount int64) (q quota) {
	for _, q.Period = range periods {
		q.Quota = (amount*q.Period + 500) / 1000
		if q.Quota >= minQuota && q.amount(1) == amount {
			return q
		}
	}
	q.Quota = max(q.Quota, minQuota)
	return q
}

// setCPU gives the vCPUs the amount to share, and at least the number of them that
// is said.
func (d *Driver) setCPU(ctx context.Context, dm *domain, amount int64, terms hypervisor.Terms) (int64, error) {
	if err := d.setQuotas(ctx, dm, dm.limited(amount)); err != nil {
		return 0, err
	}
	if terms.VCPUs == 0 {
		return d.cpuLimit(ctx, dm)
	}
	refused := d.setVCPUs(ctx, dm, terms)
	late, cancel := context.WithTimeout(d.ctx, 2*time.Second) // the caller's time may be up
	defer cancel()
	limit, err := d.cpuLimit(late, dm)
	return limit, errors.Join(refused, err)
}

// cpuLimit reads the quota from the control group, which costs microseconds,
// or else asks libvirt now and then.
func (d *Driver) cpuLimit(ctx context.Context, dm *domain) (int64, error) {
	if dm.cpu != (cpuController{}) && !dm.shares() {
		q, err := dm.cpu.readQuota()
		if err != nil {
			return 0, fmt.Errorf("read CPU quota: %w", err)
		}
		return q.amount(1), nil
	}
	if dm.why[gnomon.CPU] != "" {
		return hypervisor.Unlimited, nil
	}
	q, err := d.quotas(ctx, dm)
	if err != nil {
		return 0, err
	}
	online, err := dm.online()
	if err != nil {
		return 0, fmt.Errorf("count vCPUs: %w", err)
	}
	return q.amount(dm.vcpuCount(), online), nil
}
