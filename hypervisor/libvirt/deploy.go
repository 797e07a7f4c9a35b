package libvirt

import (
	"context"
	"fmt"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon/domainxml"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

var _ hypervisor.Deployer = (*Driver)(nil)

// undoTimeout bounds taking back a definition whose VM did not start.
const undoTimeout = 10 * time.Second

// Deploy implements hypervisor.Deployer. The VM's definition is kept by libvirt,
// so that the VM can be started again by whatever starts others.
func (d *Driver) Deploy(ctx context.Context, dep hypervisor.Deployment) error {
	dom, found, err := d.deployed(ctx, dep)
	if err != nil {
		return err
	}
	if dep.ValidateOnly {
		return do(ctx, d, func(l *lv.Libvirt) error {
			if _, err := l.ConnectDomainXMLToNative("qemu-argv", dep.Definition, 0); err != nil {
				return fmt.Errorf("%w: %w", hypervisor.ErrDefinition, err)
			}
			return nil
		})
	}
	if !found {
		if dom, err = d.define(ctx, dep); err != nil {
			return err
		}
	}
	err = do(ctx, d, func(l *lv.Libvirt) error {
		if running, err := l.DomainIsActive(dom); err == nil && running == 1 {
			return nil
		}
		_, err := l.DomainCreateWithFlags(dom, 0)
		return err
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	if undo := d.undefine(dom); undo != nil {
		return fmt.Errorf("start VM: %w; its definition is left: %w", err, undo)
	}
	return fmt.Errorf("start VM: %w", err)
}

// deployed finds what an earlier attempt at the same order has defined. It
// returns ErrTaken where another VM has the name or the id.
func (d *Driver) deployed(ctx context.Context, dep hypervisor.Deployment) (lv.Domain, bool, error) {
	id, err := parseUUID(dep.ID)
	if err != nil {
		return lv.Domain{}, false, err
	}
	byName, named, err := d.find(ctx, func(l *lv.Libvirt) (lv.Domain, error) { return l.DomainLookupByName(dep.Name) })
	if err != nil {
		return lv.Domain{}, false, err
	}
	byID, known, err := d.find(ctx, func(l *lv.Libvirt) (lv.Domain, error) { return l.DomainLookupByUUID(id) })
	switch {
	case err != nil:
		return lv.Domain{}, false, err
	case named && byName.UUID != id:
		return lv.Domain{}, false, fmt.Errorf("%w: a VM named %q is defined, with the id %s", hypervisor.ErrTaken, dep.Name, formatUUID(byName.UUID))
	case !known:
		return lv.Domain{}, false, nil
	}
	text, err := call(ctx, d, func(l *lv.Libvirt) (string, error) { return l.DomainGetXMLDesc(byID, lv.DomainXMLInactive) })
	if err != nil {
		return lv.Domain{}, false, fmt.Errorf("read definition: %w", err)
	}
	if was, err := domainxml.Parse(text); err != nil || was.Order != dep.Order {
		return lv.Domain{}, false, fmt.Errorf("%w: a VM with the id %s is defined, named %q", hypervisor.ErrTaken, dep.ID, byID.Name)
	}
	return byID, true, nil
}

// find looks a VM up, running or not.
func (d *Driver) find(ctx context.Context, lookup func(*lv.Libvirt) (lv.Domain, error)) (lv.Domain, bool, error) {
	dom, err := call(ctx, d, lookup)
	if lv.IsNotFound(err) {
		return lv.Domain{}, false, nil
	}
	return dom, err == nil, err
}

// define has libvirt check the definition and keep it.
func (d *Driver) define(ctx context.Context, dep hypervisor.Deployment) (lv.Domain, error) {
	dom, err := call(ctx, d, func(l *lv.Libvirt) (lv.Domain, error) {
		return l.DomainDefineXMLFlags(dep.Definition, lv.DomainDefineValidate)
	})
	if ctx.Err() != nil {
		return lv.Domain{}, err
	}
	if err != nil {
		return lv.Domain{}, fmt.Errorf("%w: %w", hypervisor.ErrDefinition, err)
	}
	if dom.Name == dep.Name && formatUUID(dom.UUID) == string(dep.ID) {
		return dom, nil
	}
	// libvirt has read another name or id than gnomon has: the definition is made
	// to mislead. What it defined may have been there before, so it is left.
	return lv.Domain{}, fmt.Errorf("%w: it names %q as well as %q, and is left defined", hypervisor.ErrDefinition, dom.Name, dep.Name)
}

func (d *Driver) undefine(dom lv.Domain) error {
	ctx, cancel := context.WithTimeout(d.ctx, undoTimeout)
	defer cancel()
	return do(ctx, d, func(l *lv.Libvirt) error { return l.DomainUndefineFlags(dom, lv.DomainUndefineNvram) })
}
