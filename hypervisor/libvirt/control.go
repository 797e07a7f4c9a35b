package libvirt

import (
	"context"
	"fmt"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
)

// StartTransient starts a VM from its definition. Nothing of it is stored: once
// stopped it is gone. It returns the VM's ID.
func (d *Driver) StartTransient(ctx context.Context, definition string) (gnomon.VMID, error) {
	dom, err := call(ctx, d, func(l *lv.Libvirt) (lv.Domain, error) { return l.DomainCreateXML(definition, 0) })
	if err != nil {
		return "", fmt.Errorf("start VM: %w", err)
	}
	return idOf(dom), nil
}

// Destroy stops the VM at once, without asking its guest.
func (d *Driver) Destroy(ctx context.Context, id gnomon.VMID) error {
	return d.control(ctx, id, "destroy", (*lv.Libvirt).DomainDestroy)
}

// Suspend pauses the VM; it keeps its memory.
func (d *Driver) Suspend(ctx context.Context, id gnomon.VMID) error {
	return d.control(ctx, id, "suspend", (*lv.Libvirt).DomainSuspend)
}

// Resume lets a suspended VM go on.
func (d *Driver) Resume(ctx context.Context, id gnomon.VMID) error {
	return d.control(ctx, id, "resume", (*lv.Libvirt).DomainResume)
}

func (d *Driver) control(ctx context.Context, id gnomon.VMID, verb string, f func(*lv.Libvirt, lv.Domain) error) error {
	dm, err := d.lookup(ctx, id)
	if err != nil {
		return err
	}
	if err := do(ctx, d, func(l *lv.Libvirt) error { return f(l, dm.Domain) }); err != nil {
		return fmt.Errorf("%s VM %s: %w", verb, dm.Name, d.goneOr(ctx, dm.Domain, err))
	}
	return nil
}
