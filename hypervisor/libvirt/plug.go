package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// plug is a virtio-mem device: memory that the guest plugs and unplugs in
// blocks, on top of what it booted with.
type plug struct {
	device      libvirtxml.DomainMemorydev
	size, block int64 // bytes
}

// readPlugs finds the virtio-mem devices.
func (def *definition) readPlugs(devices []libvirtxml.DomainMemorydev) error {
	for _, dev := range devices {
		t := dev.Target
		if dev.Model != "virtio-mem" || t == nil || t.Size == nil || t.Block == nil {
			continue
		}
		size, err := memoryUnit(t.Size.Unit)
		if err != nil {
			return err
		}
		block, err := memoryUnit(t.Block.Unit)
		if err != nil {
			return err
		}
		p := plug{device: dev, size: int64(t.Size.Value) * size, block: int64(t.Block.Value) * block}
		if p.block > 0 {
			def.plugs = append(def.plugs, p)
			def.booted -= p.size
		}
	}
	return nil
}

// parts are the two kinds of memory a guest has, in bytes.
type parts struct {
	booted  int64 // of what it booted with, less what is in the balloon
	plugged []int64
}

func (p parts) sum() int64 {
	sum := p.booted
	for _, n := range p.plugged {
		sum += n
	}
	return sum
}

// divide returns the parts that make up an amount: what the guest booted with
// first, then whole blocks of each device. What is left of a block is not given.
func (def *definition) divide(amount int64) parts {
	p := parts{booted: min(amount, def.booted)}
	above := amount - p.booted
	for _, dev := range def.plugs {
		n := min(above, dev.size) / dev.block * dev.block
		p.plugged = append(p.plugged, n)
		above -= n
	}
	return p
}

// plugged returns what the guest has plugged of each device, as libvirt last
// heard: QEMU tells it at most once a second.
func (d *Driver) plugged(ctx context.Context, dm *domain) ([]int64, error) {
	if len(dm.def.plugs) == 0 {
		return nil, nil
	}
	text, err := call(ctx, d, func(l *lv.Libvirt) (string, error) { return l.DomainGetXMLDesc(dm.Domain, 0) })
	if err != nil {
		return nil, fmt.Errorf("read plugged memory: %w", err)
	}
	return parsePlugged(text)
}

// parsePlugged reads from a live definition what libvirtxml leaves out.
func parsePlugged(text string) (plugged []int64, err error) {
	var dom struct {
		Memory []struct {
			Model   string `xml:"model,attr"`
			Current struct {
				Value int64  `xml:",chardata"`
				Unit  string `xml:"unit,attr"`
			} `xml:"target>current"`
		} `xml:"devices>memory"`
	}
	if err := xml.Unmarshal([]byte(text), &dom); err != nil {
		return nil, fmt.Errorf("read plugged memory: %w", err)
	}
	for _, m := range dom.Memory {
		if m.Model != "virtio-mem" {
			continue
		}
		unit, err := memoryUnit(m.Current.Unit)
		if err != nil {
			return nil, err
		}
		plugged = append(plugged, m.Current.Value*unit)
	}
	return plugged, nil
}

// request tells the guest how much to have plugged of a device.
func (d *Driver) request(ctx context.Context, dm *domain, device int, size int64) error {
	dev := dm.def.plugs[device].device
	target := *dev.Target
	target.Requested = &libvirtxml.DomainMemorydevTargetRequested{Value: uint(size >> 10), Unit: "KiB"}
	dev.Target = &target
	text, err := dev.Marshal()
	if err != nil {
		return fmt.Errorf("request memory: %w", err)
	}
	return doOn(ctx, d, dm.live, func(l *lv.Libvirt) error {
		return l.DomainUpdateDeviceFlags(dm.Domain, text, lv.DomainDeviceModifyLive)
	})
}
