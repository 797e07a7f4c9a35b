package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/vishvananda/netlink"
	"libvirt.org/go/libvirtxml"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/test/bench/item"
)

const bootLimit = 2 * time.Minute // on a busy machine without KVM

// Spec says what a guest has.
type Spec struct {
	MaxMiB, MiB uint // memory: at most, and given at the start
	Equipped    bool // with a disk and an interface
}

// Guest is a running guest.
type Guest struct {
	ID   gnomon.VMID
	Name string

	rig     *Rig
	tap     netlink.Link
	channel net.Conn
	reports chan item.Report // closes when the guest ends
	seq     int
}

// Start starts a guest.
func (r *Rig) Start(ctx context.Context, spec Spec) (*Guest, error) {
	g, n := r.add()
	cmdline := "console=ttyS0 quiet panic=-1 net.ifnames=0"
	devices := r.devices(g)
	if spec.Equipped {
		if err := r.equip(ctx, g, n, devices); err != nil {
			return nil, err
		}
		cmdline += fmt.Sprintf(" %s=%d", item.KeyNet, n)
	}
	dom := libvirtxml.Domain{
		Type: "qemu", Name: g.Name, UUID: uuid.NewString(),
		Memory:        &libvirtxml.DomainMemory{Value: spec.MaxMiB, Unit: "MiB"},
		CurrentMemory: &libvirtxml.DomainCurrentMemory{Value: spec.MiB, Unit: "MiB"},
		VCPU:          &libvirtxml.DomainVCPU{Value: 1},
		OS: &libvirtxml.DomainOS{
			Type:   &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"},
			Kernel: r.image.KernelPath(), Initrd: r.image.InitrdPath(), Cmdline: cmdline,
		},
		Features:   &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}},
		OnPoweroff: "destroy", OnReboot: "destroy", OnCrash: "destroy",
		Devices: devices,
	}
	text, err := dom.Marshal()
	if err != nil {
		return nil, fmt.Errorf("define guest: %w", err)
	}
	if g.ID, err = r.Driver.StartTransient(ctx, text); err != nil {
		return nil, err
	}
	var d net.Dialer
	if g.channel, err = d.DialContext(ctx, "unix", r.socket(g)); err != nil {
		return nil, fmt.Errorf("open channel of %s: %w", g.Name, err)
	}
	go g.read()
	return g, nil
}

// Prefix is what the names of this process's guests begin with.
func Prefix() string { return fmt.Sprintf("gnb-%d-", os.Getpid()) }

func (r *Rig) add() (g *Guest, n int) {
	n = len(r.guests)
	g = &Guest{Name: Prefix() + strconv.Itoa(n), rig: r, reports: make(chan item.Report, 64)}
	r.guests = append(r.guests, g)
	return g, n
}

// StartBare starts a VM that boots nothing: QEMU, its devices and a firmware
// that finds no kernel and waits.
func (r *Rig) StartBare(ctx context.Context) (*Guest, error) {
	g, _ := r.add()
	disk := filepath.Join(r.dir, g.Name+".img")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	period := uint(1)
	dom := libvirtxml.Domain{
		Type: "qemu", Name: g.Name, UUID: uuid.NewString(),
		Memory:   &libvirtxml.DomainMemory{Value: 32, Unit: "MiB"},
		VCPU:     &libvirtxml.DomainVCPU{Value: 1},
		OS:       &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"}},
		Features: &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}},
		Devices: &libvirtxml.DomainDeviceList{
			Disks: []libvirtxml.DomainDisk{diskAt(disk)},
			MemBalloon: &libvirtxml.DomainMemBalloon{
				Model: "virtio", Stats: &libvirtxml.DomainMemBalloonStats{Period: period},
			},
		},
	}
	text, err := dom.Marshal()
	if err != nil {
		return nil, fmt.Errorf("define VM: %w", err)
	}
	g.ID, err = r.Driver.StartTransient(ctx, text)
	return g, err
}

func diskAt(path string) libvirtxml.DomainDisk {
	return libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw", Cache: "none", IO: "threads"},
		Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}},
		Target: &libvirtxml.DomainDiskTarget{Dev: "vda", Bus: "virtio"},
	}
}

func (r *Rig) socket(g *Guest) string { return filepath.Join(r.dir, g.Name+".sock") }

func (r *Rig) devices(g *Guest) *libvirtxml.DomainDeviceList {
	period := uint(1)
	return &libvirtxml.DomainDeviceList{
		Channels: []libvirtxml.DomainChannel{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind", Path: r.socket(g)}},
			Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: item.PortName}},
		}},
		Serials: []libvirtxml.DomainSerial{{
			Source: &libvirtxml.DomainChardevSource{File: &libvirtxml.DomainChardevSourceFile{Path: filepath.Join(r.dir, g.Name+".log")}},
		}},
		MemBalloon: &libvirtxml.DomainMemBalloon{
			Model: "virtio", AutoDeflate: "on", Stats: &libvirtxml.DomainMemBalloonStats{Period: period},
		},
	}
}

// equip gives the guest a disk, an interface and somebody to send to.
func (r *Rig) equip(ctx context.Context, g *Guest, n int, devices *libvirtxml.DomainDeviceList) error {
	const diskBytes = 64 << 20
	disk := filepath.Join(r.dir, g.Name+".img")
	// Written once: what is measured is not how a file grows.
	if err := os.WriteFile(disk, make([]byte, diskBytes), 0o600); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	devices.Disks = []libvirtxml.DomainDisk{diskAt(disk)}
	dev := fmt.Sprintf("gnb%d-%d", os.Getpid()%100000, n)
	g.tap = &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: dev}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_VNET_HDR}
	if err := netlink.LinkAdd(g.tap); err != nil {
		return fmt.Errorf("make tap: %w", err)
	}
	addr, err := netlink.ParseAddr(fmt.Sprintf(item.HostAddress+"/24", n))
	if err != nil {
		return fmt.Errorf("make tap: %w", err)
	}
	if err := errors.Join(netlink.AddrAdd(g.tap, addr), netlink.LinkSetUp(g.tap)); err != nil {
		return fmt.Errorf("bring up tap: %w", err)
	}
	devices.Interfaces = []libvirtxml.DomainInterface{{
		Source: &libvirtxml.DomainInterfaceSource{Ethernet: &libvirtxml.DomainInterfaceSourceEthernet{}},
		Target: &libvirtxml.DomainInterfaceTarget{Dev: dev, Managed: "no"},
		Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
	}}
	return r.serve(ctx, n)
}

func (g *Guest) read() {
	defer close(g.reports)
	lines := bufio.NewScanner(g.channel)
	lines.Buffer(nil, item.MaxLine)
	for lines.Scan() {
		if r, err := item.Parse[item.Report](lines.Bytes()); err == nil {
			g.reports <- r
		}
	}
}

// AwaitReady waits until the guest takes orders.
func (g *Guest) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	_, err := g.await(ctx, item.Ready, 0)
	return err
}

// Do has the guest do some work and returns what it reports; begun, unless nil,
// is called when the guest tells that it has begun.
func (g *Guest) Do(ctx context.Context, r gnomon.Resource, amount int64, begun func()) (item.Report, error) {
	g.seq++
	if _, err := g.channel.Write(item.Line(item.Order{Seq: g.seq, Resource: r, Amount: amount})); err != nil {
		return item.Report{}, fmt.Errorf("order work of %s: %w", g.Name, err)
	}
	if _, err := g.await(ctx, item.Begun, g.seq); err != nil {
		return item.Report{}, err
	}
	if begun != nil {
		begun()
	}
	return g.await(ctx, item.Done, g.seq)
}

func (g *Guest) await(ctx context.Context, kind item.Kind, seq int) (item.Report, error) {
	for {
		select {
		case r, open := <-g.reports:
			switch {
			case !open:
				return r, fmt.Errorf("wait for %s to be %s: the guest ended", g.Name, kind)
			case r.Kind == item.Fault:
				return r, fmt.Errorf("wait for %s to be %s: %s", g.Name, kind, r.Text)
			case r.Kind == kind && r.Seq == seq:
				return r, nil
			}
		case <-ctx.Done():
			return item.Report{}, fmt.Errorf("wait for %s to be %s: %w", g.Name, kind, ctx.Err())
		}
	}
}

// destroy ends the guest. One that is gone already is fine.
func (g *Guest) destroy() error {
	if g.channel != nil {
		g.channel.Close()
	}
	var err error
	if g.ID != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err = g.rig.Driver.Destroy(ctx, g.ID); errors.Is(err, hypervisor.ErrGone) {
			err = nil
		}
	}
	if g.tap != nil {
		err = errors.Join(err, netlink.LinkDel(g.tap))
	}
	return err
}
