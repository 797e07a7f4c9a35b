package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// quota is CPU time in each period, both in microseconds; 0 for no limit.
type quota struct {
	Quota  int64 `json:"quota"`
	Period int64 `json:"period"`
}

// amount returns what so many that have the quota each may take together, in
// millicores.
func (q quota) amount(vcpus int) int64 {
	if q.Quota <= 0 || q.Period <= 0 {
		return hypervisor.Unlimited
	}
	return (q.Quota*1000*int64(vcpus) + q.Period/2) / q.Period
}

// quotas are those of a domain.
type quotas struct {
	VCPU quota `json:"vcpu,omitzero"` // of each vCPU
	All  quota `json:"all,omitzero"`  // of all it does, its vCPUs and what serves them
}

// amount returns what the vCPUs may take together, in millicores, of which so
// many are online.
func (q quotas) amount(vcpus, online int) int64 {
	each, all := q.VCPU.amount(vcpus), q.All.amount(1)
	if all == hypervisor.Unlimited {
		return each
	}
	all = min(all, int64(online)*1000)
	if each == hypervisor.Unlimited {
		return all
	}
	return min(each, all)
}

// shares reports whether vCPUs of the domain share its limit. An even part for each
// would hold a guest with one busy thread to that part, and never show more demand
// than a core. Only one that is alone for good has a quota of its own, which leaves
// out the threads that serve it.
func (dm *domain) shares() bool { return dm.vcpuCount() > 1 || dm.elastic() }

// limited returns the quotas by which the domain has the amount.
func (dm *domain) limited(amount int64) quotas {
	if amount == hypervisor.Unlimited {
		return quotas{}
	}
	if dm.shares() {
		return quotas{All: quotaOf(amount)}
	}
	return quotas{VCPU: quotaOf(amount)}
}

// original returns the quotas that the domain had, or if they do not make up the
// amount on so many vCPUs such as do.
func (dm *domain) original(had quotas, amount int64, vcpus int) quotas {
	if had.amount(vcpus, vcpus) == amount {
		return had
	}
	return dm.limited(amount)
}

// quotas asks libvirt for the quotas, now and then.
func (d *Driver) quotas(ctx context.Context, dm *domain) (quotas, error) {
	q, epoch, ok := dm.quota.get()
	if ok {
		return q, nil
	}
	asked := time.Now()
	q, err := d.askQuotas(ctx, dm)
	if err != nil {
		return q, err
	}
	dm.quota.put(epoch, q, asked)
	return q, nil
}

func (d *Driver) askQuotas(ctx context.Context, dm *domain) (q quotas, err error) {
	params, err := call(ctx, d, func(l *lv.Libvirt) ([]lv.TypedParam, error) {
		_, n, err := l.DomainGetSchedulerType(dm.Domain)
		if err != nil {
			return nil, err
		}
		return l.DomainGetSchedulerParametersFlags(dm.Domain, n, uint32(lv.DomainAffectLive))
	})
	if err != nil {
		return q, fmt.Errorf("read CPU quota: %w", err)
	}
	found := false
	for _, p := range params {
		switch p.Field {
		case lv.DomainSchedulerVCPUQuota:
			q.VCPU.Quota, found = max(number(p.Value), 0), true
		case lv.DomainSchedulerVCPUPeriod:
			q.VCPU.Period = number(p.Value)
		case lv.DomainSchedulerGlobalQuota:
			q.All.Quota = max(number(p.Value), 0)
		case lv.DomainSchedulerGlobalPeriod:
			q.All.Period = number(p.Value)
		}
	}
	for _, one := range []*quota{&q.VCPU, &q.All} {
		if one.Quota == 0 {
			*one = quota{} // the period of no limit is no matter
		}
	}
	if !found {
		return q, errors.New("the host has no cpu control group with a quota")
	}
	return q, nil
}

// setQuotas sets both quotas. The kernel refuses one of a vCPU above that of all,
// so what is to go goes first. Of a vCPU that is alone only its own matters.
func (d *Driver) setQuotas(ctx context.Context, dm *domain, want quotas) error {
	defer dm.quota.forget()
	if dm.shares() {
		now, err := d.quotas(ctx, dm)
		if err != nil {
			return err
		}
		dm.quota.forget() // also what is read while it changes
		both := want.VCPU.Quota > 0 && want.All.Quota > 0
		if now.VCPU.Quota > 0 && (want.VCPU.Quota == 0 || both) {
			err = d.schedule(ctx, dm, lv.DomainSchedulerVCPUPeriod, lv.DomainSchedulerVCPUQuota, quota{})
		}
		if now.All.Quota > 0 && (want.All.Quota == 0 || both) {
			err = errors.Join(err, d.schedule(ctx, dm, lv.DomainSchedulerGlobalPeriod, lv.DomainSchedulerGlobalQuota, quota{}))
		}
		if err != nil || want == (quotas{}) {
			return err
		}
	}
	if want.All.Quota == 0 || want.VCPU.Quota > 0 {
		if err := d.schedule(ctx, dm, lv.DomainSchedulerVCPUPeriod, lv.DomainSchedulerVCPUQuota, want.VCPU); err != nil {
			return err
		}
	}
	if want.All.Quota == 0 {
		return nil
	}
	return d.schedule(ctx, dm, lv.DomainSchedulerGlobalPeriod, lv.DomainSchedulerGlobalQuota, want.All)
}

func (d *Driver) schedule(ctx context.Context, dm *domain, period, amount string, q quota) error {
	params := []lv.TypedParam{{Field: amount, Value: *lv.NewTypedParamValueLlong(-1)}}
	if q.Quota > 0 {
		params = []lv.TypedParam{
			{Field: period, Value: *lv.NewTypedParamValueUllong(uint64(q.Period))},
			{Field: amount, Value: *lv.NewTypedParamValueLlong(q.Quota)},
		}
	}
	return doOn(ctx, d, dm.live, func(l *lv.Libvirt) error {
		return l.DomainSetSchedulerParametersFlags(dm.Domain, params, uint32(lv.DomainAffectLive))
	})
}
