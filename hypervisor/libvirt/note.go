package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/domainxml"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

var _ hypervisor.Noter = (*Driver)(nil)

// Note implements hypervisor.Noter. The note is in the live definition alone, as
// are the limits that it is there for: a VM that is moved, or saved and restored,
// takes both along, and one that is started anew has neither.
func (d *Driver) Note(ctx context.Context, id gnomon.VMID, own hypervisor.Original) error {
	dm, err := d.lookup(ctx, id)
	if err != nil {
		return err
	}
	element, err := encodeNote(own)
	if err == nil {
		err = d.setNote(ctx, dm, lv.OptString{element})
	}
	if err != nil {
		return fmt.Errorf("note own limits of %s: %w", dm.Name, d.goneOr(ctx, dm.Domain, err))
	}
	return nil
}

// setNote replaces the note; nil takes it away.
func (d *Driver) setNote(ctx context.Context, dm *domain, element lv.OptString) error {
	defer d.relearn(dm.UUID)
	return doOn(ctx, d, dm.live, func(l *lv.Libvirt) error {
		return l.DomainSetMetadata(dm.Domain, int32(lv.DomainMetadataElement), element,
			lv.OptString{"own"}, lv.OptString{domainxml.OwnNamespace}, lv.DomainAffectLive)
	})
}

// note is the element that domainxml.OwnNamespace tells of.
type note struct {
	XMLName xml.Name   `xml:"limits"`
	Amounts []xml.Attr `xml:",any,attr"`
	Detail  string     `xml:",chardata"`
}

const (
	unlimited   = "unlimited"
	vcpusAmount = "vcpus"
)

func encodeNote(own hypervisor.Original) (string, error) {
	n := note{Detail: own.Detail}
	add := func(name, value string) {
		n.Amounts = append(n.Amounts, xml.Attr{Name: xml.Name{Local: name}, Value: value})
	}
	for r := range gnomon.AllResources() {
		value := unlimited
		if own.Limits[r] != hypervisor.Unlimited {
			value = strconv.FormatInt(own.Limits[r], 10)
		}
		add(r.String(), value)
	}
	if own.VCPUs > 0 {
		add(vcpusAmount, strconv.Itoa(own.VCPUs))
	}
	text, err := xml.Marshal(n)
	return string(text), err
}

// amount returns one of the note's amounts; hypervisor.Unlimited where there is
// none, or one that is no amount.
func (n *note) amount(name string) int64 {
	i := slices.IndexFunc(n.Amounts, func(a xml.Attr) bool { return a.Name.Local == name })
	if i < 0 {
		return hypervisor.Unlimited
	}
	amount, err := strconv.ParseInt(n.Amounts[i].Value, 10, 64)
	if err != nil || amount <= 0 {
		return hypervisor.Unlimited
	}
	return amount
}

// own returns what encodeNote wrote; nil for a note without an amount of memory,
// which every VM has.
func (n *note) own() *hypervisor.Original {
	own := &hypervisor.Original{Detail: n.Detail}
	for r := range gnomon.AllResources() {
		own.Limits[r] = n.amount(r.String())
	}
	if own.Limits[gnomon.Memory] == hypervisor.Unlimited {
		return nil
	}
	if vcpus := n.amount(vcpusAmount); vcpus != hypervisor.Unlimited {
		own.VCPUs = int(vcpus)
	}
	return own
}
