package libvirt

import (
	"context"
	"fmt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// Apply sets one limit and returns the limit in force afterwards, as read back.
//
// CPU has a granularity: the kernel takes at least 1 ms per vCPU and period, so
// that less than 10 millicores a vCPU become 10; network rates below
// shaper.MinRate are raised to it. Memory counts as reached within one page of
// 64 KiB; if the guest does not follow in time, it is left at the size reached,
// so that nothing moves any more after Apply has returned. While libvirt is still
// busy with an earlier call for the VM, only its network is changed.
func (d *Driver) Apply(ctx context.Context, id gnomon.VMID, r gnomon.Resource, amount int64, terms hypervisor.Terms) (int64, error) {
	if !r.Valid() {
		return 0, fmt.Errorf("limit %s: %w", r, hypervisor.ErrUnsupported)
	}
	dm, err := d.lookup(ctx, id)
	if err != nil {
		return 0, err
	}
	var got int64
	err = dm.change(ctx, d, r, amount, func() (err error) {
		got, err = d.set(ctx, dm, r, amount, terms)
		return err
	})
	return got, err
}

// change runs f, which changes a limit to that amount, while nothing else
// changes it.
func (dm *domain) change(ctx context.Context, d *Driver, r gnomon.Resource, amount int64, f func() error) error {
	if !dm.limits.Has(r) {
		return fmt.Errorf("limit %s of %s: %w: %s", r, dm.Name, hypervisor.ErrUnsupported, dm.why[r])
	}
	if amount <= 0 && (amount != hypervisor.Unlimited || r == gnomon.Memory) {
		return fmt.Errorf("limit %s of %s: %d %s is no amount", r, dm.Name, amount, r.Unit())
	}
	unlock, err := dm.lock(ctx, r)
	if err != nil {
		return err
	}
	defer unlock()
	if err := f(); err != nil {
		return fmt.Errorf("limit %s of %s: %w", r, dm.Name, d.goneOr(ctx, dm.Domain, err))
	}
	return nil
}

func (d *Driver) set(ctx context.Context, dm *domain, r gnomon.Resource, amount int64, terms hypervisor.Terms) (int64, error) {
	if r != gnomon.Network && dm.held() { // before anything is taken for changed
		return 0, errHeld
	}
	switch r {
	case gnomon.CPU:
		return d.setCPU(ctx, dm, amount, terms)
	case gnomon.Memory:
		return d.setMemory(ctx, dm, amount, true)
	case gnomon.Disk:
		return d.setDisk(ctx, dm, amount, terms.Operations)
	case gnomon.Network:
		return d.setNetwork(dm, amount)
	}
	return 0, hypervisor.ErrUnsupported
}

// limit returns the limit in force.
func (d *Driver) limit(ctx context.Context, dm *domain, r gnomon.Resource) (int64, error) {
	switch r {
	case gnomon.CPU:
		return d.cpuLimit(ctx, dm)
	case gnomon.Memory:
		return d.memorySize(ctx, dm)
	case gnomon.Disk:
		return d.diskLimit(ctx, dm)
	case gnomon.Network:
		return d.networkLimit(dm)
	}
	return 0, hypervisor.ErrUnsupported
}

// split returns part i of n even parts of an amount. The parts add up to it.
func split(amount int64, i, n int) int64 {
	part := amount / int64(n)
	if int64(i) < amount%int64(n) {
		part++
	}
	return part
}
