package libvirt

import (
	"context"
	"fmt"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// Glance returns what the counters of a VM tell of one resource. CPU and
// network are the kernel's and take microseconds; memory and disk are QEMU's.
func (d *Driver) Glance(ctx context.Context, id gnomon.VMID, r gnomon.Resource) (hypervisor.Counters, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dm, err := d.domainOf(ctx, id)
	if err != nil {
		return hypervisor.Counters{}, err
	}
	c, err := d.glance(ctx, dm, r)
	if err != nil {
		return hypervisor.Counters{}, d.goneOr(ctx, dm.Domain, fmt.Errorf("glance at %s: %w", r, err))
	}
	return c, nil
}

func (d *Driver) glance(ctx context.Context, dm *domain, r gnomon.Resource) (c hypervisor.Counters, err error) {
	if groups := dm.groupsOf(r); groups != 0 {
		record, err := d.ask(ctx, dm, groups, lv.ConnectGetAllDomainsStatsNowait)
		if err != nil {
			return c, err
		}
		c = decode(record.Params)
	}
	c.VM, c.At = dm.id, time.Now()
	switch r {
	case gnomon.CPU:
		if err := d.readCPU(dm, &c); err != nil {
			return c, err
		}
		c.Allocation[r], err = d.cpuLimit(ctx, dm)
	case gnomon.Memory:
		err = d.readMemory(ctx, dm, &c)
	case gnomon.Disk:
		c.Allocation[r], err = d.diskLimit(ctx, dm)
	case gnomon.Network:
		err = d.readTaps(dm, &c, nil)
	}
	c.Known &= gnomon.SetOf(r)
	return c, err
}

// groupsOf are the statistics to ask libvirt for that tell of one resource.
func (dm *domain) groupsOf(r gnomon.Resource) lv.DomainStatsTypes {
	var of lv.DomainStatsTypes
	switch r {
	case gnomon.CPU:
		of = lv.DomainStatsVCPU
	case gnomon.Memory:
		of = lv.DomainStatsBalloon
	case gnomon.Disk:
		of = lv.DomainStatsBlock
	case gnomon.Network:
		of = lv.DomainStatsInterface
	}
	return dm.groups() & of
}
