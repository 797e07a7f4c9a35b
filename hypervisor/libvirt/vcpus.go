package libvirt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

const (
	// wokenTime is how long a plugged vCPU has run at least once its guest uses it:
	// until then it waits to be started.
	wokenTime = 20 * time.Millisecond

	// vcpuPoll is how often one is looked at while it is waited for.
	vcpuPoll = 20 * time.Millisecond
)

// elastic reports whether vCPUs can be plugged into the domain, or taken from it.
func (dm *domain) elastic() bool {
	return dm.def.fixed < dm.def.maxVCPUs && dm.cpu != (cpuController{})
}

// online returns how many vCPUs the guest uses. Nobody tells that; but one that
// it does not use hardly ever runs.
func (dm *domain) online() (n int, err error) {
	if !dm.elastic() {
		return dm.vcpuCount(), nil
	}
	threads, err := dm.cpu.threads()
	if err != nil {
		return 0, err
	}
	for _, t := range threads {
		ran, _, err := readSchedule(t.id)
		if err != nil {
			return 0, err
		}
		if t.vcpu < dm.def.fixed || ran >= wokenTime {
			n++
		}
	}
	return n, nil
}

// setVCPUs plugs what is missing and waits until the guest uses it, or takes back
// what is spare, the last first. What counts is which threads there are: libvirt can
// miss that one has ended.
func (d *Driver) setVCPUs(ctx context.Context, dm *domain, terms hypervisor.Terms) error {
	if !dm.elastic() {
		return nil
	}
	threads, err := dm.cpu.threads()
	if err != nil {
		return fmt.Errorf("count vCPUs: %w", err)
	}
	has := map[int]bool{}
	for _, t := range threads {
		has[t.vcpu] = true
	}
	want := min(terms.VCPUs, dm.def.maxVCPUs)
	for n := range dm.def.maxVCPUs {
		if len(has) < want && !has[n] {
			if err := d.switchVCPU(ctx, dm, n, true); err != nil {
				return fmt.Errorf("plug vCPU %d: %w", n, err)
			}
			has[n] = true
		}
	}
	for n := dm.def.maxVCPUs - 1; n >= dm.def.fixed && terms.Spare; n-- {
		if len(has) > want && has[n] {
			if err := d.takeVCPU(ctx, dm, n); err != nil {
				return fmt.Errorf("take vCPU %d back: %w", n, err)
			}
			delete(has, n)
		}
	}
	dm.setVCPUs(len(has))
	return d.awaitOnline(ctx, dm, want)
}

func (d *Driver) switchVCPU(ctx context.Context, dm *domain, n int, on bool) error {
	state := int32(0)
	if on {
		state = 1
	}
	return doOn(ctx, d, dm.live, func(l *lv.Libvirt) error {
		return l.DomainSetVcpu(dm.Domain, strconv.Itoa(n), state, lv.DomainAffectLive)
	})
}

// takeVCPU asks the guest for a vCPU, and waits until it has let go of it, also
// after libvirt has given up, which it does after 5 s.
func (d *Driver) takeVCPU(ctx context.Context, dm *domain, n int) error {
	refusal := d.switchVCPU(ctx, dm, n, false)
	if refusal != nil && errors.Is(d.goneOr(ctx, dm.Domain, refusal), hypervisor.ErrGone) {
		return hypervisor.ErrGone
	}
	var told lv.Error
	refused := errors.As(refusal, &told) && told.Code != uint32(lv.ErrOperationTimeout)
	tick := time.NewTicker(vcpuPoll)
	defer tick.Stop()
	for {
		threads, err := dm.cpu.threads()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(threads, func(t thread) bool { return t.vcpu == n }) {
			return nil
		}
		if refused || ctx.Err() != nil {
			return errors.Join(hypervisor.ErrRefused, refusal)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// awaitOnline waits until the guest uses that many vCPUs.
func (d *Driver) awaitOnline(ctx context.Context, dm *domain, want int) error {
	tick := time.NewTicker(vcpuPoll)
	defer tick.Stop()
	for {
		online, err := dm.online()
		if err != nil {
			return fmt.Errorf("count vCPUs: %w", err)
		}
		if online >= want {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d vCPUs are online of %d: %w", online, want, errors.Join(hypervisor.ErrRefused, ctx.Err()))
		}
	}
}

// restoreCPU takes the vCPUs back that the domain did not have, and gives it the
// quotas back that it had.
func (d *Driver) restoreCPU(ctx context.Context, dm *domain, vcpus int, own quotas) error {
	now, err := d.askQuotas(ctx, dm)
	if err == nil && now != own {
		err = d.setQuotas(ctx, dm, own)
	}
	if err != nil || vcpus == 0 {
		return err
	}
	err = d.setVCPUs(ctx, dm, hypervisor.Terms{VCPUs: vcpus, Spare: true})
	if errors.Is(err, hypervisor.ErrRefused) {
		return fmt.Errorf("%w: %w", hypervisor.ErrInUse, err)
	}
	return err
}
