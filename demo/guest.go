package demo

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/demo/workload"
)

// namePrefix is what every domain of a demonstration is called by, and what a
// killed run's leftovers are found by.
const namePrefix = "gnomon-demo-"

// The size of an active VM, the same for all.
const (
	guestMaxMiB  = 512
	guestBaseMiB = 192
	diskBytes    = 256 << 20
)

// guestSpec is what is particular to one guest.
type guestSpec struct {
	name    string
	id      string // UUID; libvirt makes one up where it is empty
	accel   string // kvm or tcg
	tap     string // name of its interface on the host; empty for none
	disk    string // path of its image; empty for none
	cmdline string
	image   appliance.Image
}

// definition returns the guest's domain XML.
func (g guestSpec) definition() (string, error) {
	kind := "qemu"
	if g.accel == "kvm" {
		kind = "kvm"
	}
	dom := libvirtxml.Domain{
		Type:          kind,
		Name:          g.name,
		UUID:          g.id,
		Title:         "gnomon demonstration",
		Memory:        &libvirtxml.DomainMemory{Value: guestMaxMiB, Unit: "MiB"},
		CurrentMemory: &libvirtxml.DomainCurrentMemory{Value: guestBaseMiB, Unit: "MiB"},
		VCPU:          &libvirtxml.DomainVCPU{Value: 1},
		OS: &libvirtxml.DomainOS{
			Type:    &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"},
			Kernel:  g.image.KernelPath(),
			Initrd:  g.image.InitrdPath(),
			Cmdline: "console=ttyS0 quiet panic=-1 " + g.cmdline,
		},
		Features:   &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}},
		OnPoweroff: "destroy", OnReboot: "destroy", OnCrash: "destroy",
		Devices: g.devices(),
	}
	text, err := dom.Marshal()
	if err != nil {
		return "", fmt.Errorf("define %s: %w", g.name, err)
	}
	return text, nil
}

func (g guestSpec) devices() *libvirtxml.DomainDeviceList {
	period := uint(1)
	list := &libvirtxml.DomainDeviceList{
		Channels: []libvirtxml.DomainChannel{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind"}},
			Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: workload.PortName}},
		}},
		MemBalloon: &libvirtxml.DomainMemBalloon{
			Model: "virtio", AutoDeflate: "on",
			Stats: &libvirtxml.DomainMemBalloonStats{Period: period},
		},
	}
	if g.disk != "" {
		list.Disks = []libvirtxml.DomainDisk{{
			Device: "disk",
			Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw", Cache: "none", IO: "threads"},
			Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: g.disk}},
			Target: &libvirtxml.DomainDiskTarget{Dev: "vda", Bus: "virtio"},
		}}
	}
	if g.tap != "" {
		list.Interfaces = []libvirtxml.DomainInterface{{
			Source: &libvirtxml.DomainInterfaceSource{Ethernet: &libvirtxml.DomainInterfaceSourceEthernet{}},
			Target: &libvirtxml.DomainInterfaceTarget{Dev: g.tap},
			Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
		}}
	}
	return list
}

// machines creates and destroys the demonstration's guests on libvirt.
type machines struct{ virt *lv.Libvirt }

// errNoLibvirt says what to do where libvirt does not answer.
var errNoLibvirt = errors.New(`libvirt does not answer; run "make setup", or start virtlogd and libvirtd`)

// connectLibvirt connects to the system's libvirt.
func connectLibvirt(socket string) (*machines, error) {
	virt := lv.NewWithDialer(socketDialer(socket))
	if err := virt.ConnectToURI(lv.QEMUSystem); err != nil {
		return nil, fmt.Errorf("connect to %s: %w (%w)", socket, err, errNoLibvirt)
	}
	return &machines{virt: virt}, nil
}

type socketDialer string

// Dial implements the library's dialer.
func (s socketDialer) Dial() (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	return d.DialContext(context.Background(), "unix", string(s))
}

func (m *machines) close() { _ = m.virt.Disconnect() }

// boot starts a guest and returns it, its channel open. The guest ends with
// this process's connection to libvirt.
func (m *machines) boot(ctx context.Context, spec guestSpec) (*guest, error) {
	text, err := spec.definition()
	if err != nil {
		return nil, err
	}
	dom, err := m.virt.DomainCreateXML(text, lv.DomainStartAutodestroy)
	if err != nil {
		return nil, fmt.Errorf("boot %s: %w", spec.name, err)
	}
	g := &guest{name: spec.name, domain: dom, machines: m, reports: make(chan workload.Report, 1024)}
	if err := g.open(ctx); err != nil {
		return nil, errors.Join(err, g.destroy())
	}
	return g, nil
}

// guest is a running guest of the demonstration.
type guest struct {
	name     string
	domain   lv.Domain
	machines *machines
	channel  net.Conn

	// reports carries what the guest tells; it closes when the guest ends.
	reports chan workload.Report
}

// open connects to the guest's channel and starts reading from it.
func (g *guest) open(ctx context.Context) error {
	text, err := g.machines.virt.DomainGetXMLDesc(g.domain, 0)
	if err != nil {
		return fmt.Errorf("open channel of %s: %w", g.name, err)
	}
	path, err := channelPath(text)
	if err != nil {
		return fmt.Errorf("open channel of %s: %w", g.name, err)
	}
	var d net.Dialer
	if g.channel, err = d.DialContext(ctx, "unix", path); err != nil {
		return fmt.Errorf("open channel of %s: %w", g.name, err)
	}
	go g.read()
	return nil
}

// channelPath returns the socket of the report port in a live definition.
func channelPath(definition string) (string, error) {
	var dom libvirtxml.Domain
	if err := xml.Unmarshal([]byte(definition), &dom); err != nil {
		return "", fmt.Errorf("read definition: %w", err)
	}
	for _, c := range dom.Devices.Channels {
		if c.Target != nil && c.Target.VirtIO != nil && c.Target.VirtIO.Name == workload.PortName &&
			c.Source != nil && c.Source.UNIX != nil {
			return c.Source.UNIX.Path, nil
		}
	}
	return "", errors.New("the definition has no report port")
}

// read passes on reports until the channel ends. A line that is no report is
// dropped.
func (g *guest) read() {
	defer close(g.reports)
	lines := bufio.NewScanner(g.channel)
	lines.Buffer(make([]byte, workload.MaxLine), workload.MaxLine)
	for lines.Scan() {
		if r, err := workload.Decode(lines.Bytes()); err == nil {
			g.reports <- r
		}
	}
}

// await returns the first report of that kind.
func (g *guest) await(ctx context.Context, kind workload.ReportKind) (workload.Report, error) {
	for {
		select {
		case r, open := <-g.reports:
			if !open {
				return r, fmt.Errorf("wait for %s to be %s: the guest ended", g.name, kind)
			}
			if r.Kind == kind {
				return r, nil
			}
		case <-ctx.Done():
			return workload.Report{}, fmt.Errorf("wait for %s to be %s: %w", g.name, kind, context.Cause(ctx))
		}
	}
}

// tell sends the guest a command.
func (g *guest) tell(command string) error {
	if _, err := io.WriteString(g.channel, command+"\n"); err != nil {
		return fmt.Errorf("tell %s to %s: %w", g.name, command, err)
	}
	return nil
}

// destroy ends the guest at once. One that is gone already is fine.
func (g *guest) destroy() error {
	if g.channel != nil {
		g.channel.Close()
	}
	return g.machines.destroy(g.domain)
}

func (m *machines) destroy(dom lv.Domain) error {
	if err := m.virt.DomainDestroy(dom); err != nil && !isGone(err) {
		return fmt.Errorf("destroy %s: %w", dom.Name, err)
	}
	return nil
}

// isGone reports whether libvirt refused because the domain does not exist or
// does not run.
func isGone(err error) bool {
	var e lv.Error
	return errors.As(err, &e) && (e.Code == uint32(lv.ErrNoDomain) || e.Code == uint32(lv.ErrOperationInvalid))
}

// leftovers returns the domains of an earlier demonstration: its guests, and
// what else has a file in its work directory.
func (m *machines) leftovers(dir string) ([]lv.Domain, error) {
	all, _, err := m.virt.ConnectListAllDomains(1, 0)
	if err != nil {
		return nil, fmt.Errorf("list domains: %w", err)
	}
	var out []lv.Domain
	for _, d := range all {
		// One that ended in the meantime has no definition.
		text, err := m.virt.DomainGetXMLDesc(d, 0)
		if strings.HasPrefix(d.Name, namePrefix) || err == nil && strings.Contains(text, dir+"/") {
			out = append(out, d)
		}
	}
	return out, nil
}

// makeDisk creates an empty sparse image.
func makeDisk(dir, name string) (string, error) {
	path := filepath.Join(dir, name+".img")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("create disk: %w", err)
	}
	err = errors.Join(f.Truncate(diskBytes), f.Close())
	if err != nil {
		return "", fmt.Errorf("create disk: %w", err)
	}
	return path, nil
}
