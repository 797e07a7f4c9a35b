package libvirt

import (
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"strings"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/domainxml"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// Namespace is that of gnomon's element in a domain's metadata.
const Namespace = domainxml.Namespace

// definition is what a running domain's XML tells. It is never changed.
type definition struct {
	accel     string // kvm or qemu
	vcpus     int
	maxVCPUs  int
	fixed     int      // of the vCPUs it has, which come first, those that cannot be unplugged
	maxMemory int64    // bytes
	booted    int64    // of it what the guest boots with, which the balloon moves in
	current   int64    // of it what the guest has; in a stored definition, what it is to have at its start
	plugs     []plug   // of it what it can plug besides
	disks     []string // targets that can be written, whose throttle can be set
	taps      []string // host devices of the interfaces, if all have one
	hasDisk   bool     // any, one that cannot be written included
	hasNIC    bool
	balloon   bool
	polled    bool // the balloon already tells statistics
	deflates  bool // the guest may take memory back from the balloon
	shadowOf  gnomon.VMID
	account   string
	own       *hypervisor.Original // the limits noted

	// why tells for each resource why it cannot be limited; empty if it can as
	// far as the definition goes.
	why [gnomon.NumResources]string
}

func parseDefinition(text string) (*definition, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("parse definition: %w", err)
	}
	def := &definition{accel: dom.Type}
	if dom.VCPU != nil {
		def.vcpus, def.maxVCPUs = int(dom.VCPU.Value), int(dom.VCPU.Value)
		if dom.VCPU.Current > 0 {
			def.vcpus = int(dom.VCPU.Current)
		}
	}
	def.fixed = def.vcpus
	if dom.VCPUs != nil {
		def.fixed = 0
		for _, v := range dom.VCPUs.VCPU {
			if v.Hotpluggable == "no" {
				def.fixed++
			}
		}
	}
	if dom.Memory != nil {
		unit, err := memoryUnit(dom.Memory.Unit)
		if err != nil {
			return nil, err
		}
		def.maxMemory = int64(dom.Memory.Value) * unit
		def.booted, def.current = def.maxMemory, def.maxMemory
	}
	if dom.CurrentMemory != nil {
		unit, err := memoryUnit(dom.CurrentMemory.Unit)
		if err != nil {
			return nil, err
		}
		def.current = int64(dom.CurrentMemory.Value) * unit
	}
	if err := def.readMetadata(dom.Metadata); err != nil {
		return nil, err
	}
	if dom.Devices == nil {
		dom.Devices = &libvirtxml.DomainDeviceList{}
	}
	def.hasDisk, def.hasNIC = len(dom.Devices.Disks) > 0, len(dom.Devices.Interfaces) > 0
	if err := def.readPlugs(dom.Devices.Memorydevs); err != nil {
		return nil, err
	}
	def.readMemory(&dom)
	def.readDisks(dom.Devices.Disks)
	def.readInterfaces(dom.Devices.Interfaces)
	return def, nil
}

// memoryUnit returns the bytes of a unit; libvirt itself always writes KiB.
func memoryUnit(unit string) (int64, error) {
	switch unit {
	case "", "KiB", "k":
		return 1 << 10, nil
	case "b", "bytes":
		return 1, nil
	case "MiB", "M":
		return 1 << 20, nil
	case "GiB", "G":
		return 1 << 30, nil
	}
	return 0, fmt.Errorf("parse definition: unknown unit of memory %q", unit)
}

func (def *definition) readMetadata(m *libvirtxml.DomainMetadata) error {
	if m == nil {
		return nil
	}
	dec := xml.NewDecoder(strings.NewReader("<metadata>" + m.XML + "</metadata>"))
	for depth := 0; ; {
		token, err := dec.Token()
		if err != nil { // io.EOF included: the end of the wrapper ends the loop
			return fmt.Errorf("parse metadata: %w", err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			depth++
			if depth != 2 || e.Name.Space != Namespace && e.Name.Space != domainxml.OwnNamespace {
				continue
			}
			depth--
			if err := def.readElement(dec, e); err != nil {
				return fmt.Errorf("parse metadata: %w", err)
			}
		case xml.EndElement:
			if depth--; depth == 0 {
				return nil
			}
		}
	}
}

func (def *definition) readElement(dec *xml.Decoder, e xml.StartElement) error {
	if e.Name.Space == domainxml.OwnNamespace {
		var n note
		err := dec.DecodeElement(&n, &e)
		def.own = n.own()
		return err
	}
	var v struct {
		For     string `xml:"for,attr"`
		Account string `xml:"account,attr"`
		Text    string `xml:",chardata"`
	}
	if err := dec.DecodeElement(&v, &e); err != nil {
		return err
	}
	switch e.Name.Local {
	case "shadow":
		def.shadowOf, def.account = gnomon.VMID(strings.ToLower(v.For)), v.Account
		if def.shadowOf == "" {
			def.shadowOf = hypervisor.Warm
		}
	case "account":
		def.account = strings.TrimSpace(v.Text)
	}
	return nil
}

func (def *definition) readMemory(dom *libvirtxml.Domain) {
	b := dom.Devices.MemBalloon
	def.balloon = b != nil && strings.HasPrefix(b.Model, "virtio")
	def.deflates = def.balloon && b.AutoDeflate == "on"
	def.polled = def.balloon && b.Stats != nil && b.Stats.Period > 0
	switch {
	case !def.balloon && len(def.plugs) == 0:
		def.why[gnomon.Memory] = "neither a virtio balloon nor a virtio-mem device"
	case def.maxMemory == 0:
		def.why[gnomon.Memory] = "no maximum is defined"
	}
	if why := pinned(dom); why != "" {
		def.why[gnomon.Memory] = why
	}
}

// pinned tells why the host has none of a guest's memory back, whatever the guest
// gives; empty if it has.
func pinned(dom *libvirtxml.Domain) string {
	if m := dom.MemoryBacking; m != nil && m.MemoryLocked != nil {
		return "the memory is locked"
	} else if m != nil && m.MemoryHugePages != nil {
		return "the memory is in huge pages, of which a balloon gives none back"
	}
	if dom.LaunchSecurity != nil {
		return "the memory is encrypted, which pins it"
	}
	passed := false
	for _, h := range dom.Devices.Hostdevs {
		passed = passed || h.SubsysPCI != nil || h.SubsysMDev != nil
	}
	for _, nic := range dom.Devices.Interfaces {
		passed = passed || nic.Source != nil && (nic.Source.Hostdev != nil || nic.Source.VDPA != nil)
	}
	for _, disk := range dom.Devices.Disks {
		passed = passed || disk.Source != nil && disk.Source.NVME != nil
	}
	if passed {
		return "a passed-through device pins the memory"
	}
	return ""
}

func (def *definition) readDisks(disks []libvirtxml.DomainDisk) {
	why := "no disk that can be written"
	for _, disk := range disks {
		if disk.ReadOnly != nil || disk.Target == nil || disk.Device == "cdrom" || disk.Device == "floppy" {
			continue
		}
		if disk.Device == "lun" {
			why = fmt.Sprintf("disk %s is passed through and cannot be throttled", disk.Target.Dev)
			def.disks = nil
			break
		}
		def.disks = append(def.disks, disk.Target.Dev)
	}
	if len(def.disks) == 0 {
		def.why[gnomon.Disk] = why
	}
}

func (def *definition) readInterfaces(nics []libvirtxml.DomainInterface) {
	if len(nics) == 0 {
		def.why[gnomon.Network] = "no interface"
		return
	}
	for _, nic := range nics {
		src := nic.Source
		switch {
		case nic.Target != nil && nic.Target.Dev != "" && (src == nil || src.Direct == nil):
			def.taps = append(def.taps, nic.Target.Dev)
			continue
		case src == nil || src.User != nil || src.Null != nil:
			def.why[gnomon.Network] = "user-mode interface cannot be limited"
		default:
			def.why[gnomon.Network] = "an interface is not a tap of the host"
		}
		def.taps = nil
		return
	}
}

// formatUUID returns the canonical text form.
func formatUUID(u lv.UUID) string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func parseUUID(id gnomon.VMID) (lv.UUID, error) {
	var u lv.UUID
	b, err := hex.DecodeString(strings.ReplaceAll(string(id), "-", ""))
	if err != nil || len(b) != len(u) {
		return u, fmt.Errorf("parse VM's ID %q: not a UUID", id)
	}
	copy(u[:], b)
	return u, nil
}
