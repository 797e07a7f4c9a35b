package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"
	"strings"

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

// SetShadowOf marks a running VM as the shadow of vm, or as one that waits if
// vm is hypervisor.Warm, and names its owner.
func (d *Driver) SetShadowOf(ctx context.Context, id, vm gnomon.VMID, account string) error {
	// libvirt adds the namespace and its prefix.
	element := fmt.Sprintf(`<shadow for="%s" account="%s"/>`, escape(string(vm)), escape(account))
	err := d.control(ctx, id, "mark", func(l *lv.Libvirt, dom lv.Domain) error {
		return l.DomainSetMetadata(dom, int32(lv.DomainMetadataElement), lv.OptString{element},
			lv.OptString{"gnomon"}, lv.OptString{Namespace}, lv.DomainAffectLive)
	})
	if uuid, e := parseUUID(id); e == nil {
		d.relearn(uuid) // the event that says so comes later
	}
	return err
}

// ShadowElement is the metadata element of a shadow of vm, as a definition for
// StartTransient holds it in <metadata>.
func ShadowElement(vm gnomon.VMID, account string) string {
	return fmt.Sprintf(`<gnomon:shadow xmlns:gnomon="%s" for="%s" account="%s"/>`,
		Namespace, escape(string(vm)), escape(account))
}

func escape(s string) string {
	var b strings.Builder
	// Writing to a Builder does not fail.
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
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
