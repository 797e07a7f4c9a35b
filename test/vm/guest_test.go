package vm

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"github.com/gnomon-vm/gnomon/demo/workload"
)

// The size of a guest: what its definition has at most, and what it is given.
const (
	guestMaxMiB = 256
	guestMiB    = 160
	diskBytes   = 64 << 20

	bootLimit = 90 * time.Second // on a busy machine without KVM
)

// guest is an active VM with the load generator in it.
type guest struct {
	name, id string
	channel  net.Conn

	mu    sync.Mutex
	ready bool
	items int       // work items done
	last  time.Time // when the latest was heard of
	gap   time.Duration
}

// bootGuest starts a guest with a disk and, if named, a tap. The account goes
// into its metadata. It does not wait for the guest.
func bootGuest(t *testing.T, dir, name, account, tap string) *guest {
	t.Helper()
	g, definition := newGuest(t, dir, name, account, tap, diskOf(dir, name))
	virsh(t, "create", definition)
	g.open(t)
	return g
}

// diskOf is the file of a guest's disk.
func diskOf(dir, name string) string { return filepath.Join(dir, name+".img") }

func makeDisk(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, diskBytes); err != nil {
		t.Fatal(err)
	}
}

// newGuest makes a guest's definition, and its disk, a file, if it is to have one,
// and starts nothing. A disk that is a device is there already.
func newGuest(t *testing.T, dir, name, account, tap, disk string) (g *guest, definition string) {
	t.Helper()
	g = &guest{name: name, id: uuid.NewString()}
	if disk != "" && !isDevice(disk) {
		makeDisk(t, disk)
	}
	definition = filepath.Join(dir, name+".xml")
	if err := os.WriteFile(definition, []byte(g.definition(t, dir, account, tap, disk)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("virsh", "-q", "destroy", name).Run()
		_ = exec.Command("virsh", "-q", "undefine", name).Run() // if it was deployed
	})
	return g, definition
}

func isDevice(disk string) bool { return strings.HasPrefix(disk, "/dev/") }

func (g *guest) definition(t *testing.T, dir, account, tap, disk string) string {
	t.Helper()
	period := uint(1)
	devices := &libvirtxml.DomainDeviceList{
		Channels: []libvirtxml.DomainChannel{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind"}},
			Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: workload.PortName}},
		}},
		MemBalloon: &libvirtxml.DomainMemBalloon{
			Model: "virtio", AutoDeflate: "on", Stats: &libvirtxml.DomainMemBalloonStats{Period: period},
		},
	}
	if disk != "" {
		devices.Disks = []libvirtxml.DomainDisk{{
			Device: "disk",
			Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw", Cache: "none", IO: "threads"},
			Source: diskSource(disk),
			Target: &libvirtxml.DomainDiskTarget{Dev: "vda", Bus: "virtio"},
		}}
	}
	if tap != "" {
		devices.Interfaces = []libvirtxml.DomainInterface{{
			Source: &libvirtxml.DomainInterfaceSource{Ethernet: &libvirtxml.DomainInterfaceSourceEthernet{}},
			Target: &libvirtxml.DomainInterfaceTarget{Dev: tap},
			Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
		}}
	}
	dom := libvirtxml.Domain{
		Type: "qemu", Name: g.name, UUID: g.id,
		Memory:        &libvirtxml.DomainMemory{Value: guestMaxMiB, Unit: "MiB"},
		CurrentMemory: &libvirtxml.DomainCurrentMemory{Value: guestMiB, Unit: "MiB"},
		VCPU:          &libvirtxml.DomainVCPU{Value: 1},
		OS: &libvirtxml.DomainOS{
			Type:   &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"},
			Kernel: filepath.Join(dir, "guest", "vmlinuz"),
			Initrd: filepath.Join(dir, "guest", "initramfs.cpio.gz"),
			// Work items of about ten milliseconds, one a second and ten in a burst.
			Cmdline: fmt.Sprintf("console=ttyS0 quiet panic=-1 %s=1 %s=1000000", workload.KeySeed, workload.KeyIterations),
		},
		Features:   &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}},
		OnPoweroff: "destroy", OnReboot: "destroy", OnCrash: "destroy",
		Devices: devices,
	}
	if account != "" {
		dom.Metadata = &libvirtxml.DomainMetadata{XML: fmt.Sprintf(
			`<gnomon:account xmlns:gnomon="https://gnomon.dev/xmlns/domain/1.0">%s</gnomon:account>`, account)}
	}
	text, err := dom.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func diskSource(disk string) *libvirtxml.DomainDiskSource {
	if isDevice(disk) {
		return &libvirtxml.DomainDiskSource{Block: &libvirtxml.DomainDiskSourceBlock{Dev: disk}}
	}
	return &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: disk}}
}

// open connects to the guest's channel and follows its reports.
func (g *guest) open(t *testing.T) {
	t.Helper()
	g.openOn(t, "", virsh(t, "dumpxml", g.name))
}

// openOn connects to the channel of a guest as its host defines it. The host's
// files are below a root.
func (g *guest) openOn(t *testing.T, root, definition string) {
	t.Helper()
	var dom libvirtxml.Domain
	if err := xml.Unmarshal([]byte(definition), &dom); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", filepath.Join(root, dom.Devices.Channels[0].Source.UNIX.Path))
	if err != nil {
		t.Fatal(err)
	}
	g.channel = c
	t.Cleanup(func() { c.Close() })
	go g.follow(c)
}

func (g *guest) follow(channel net.Conn) {
	lines := bufio.NewScanner(channel)
	for lines.Scan() {
		r, err := workload.Decode(lines.Bytes())
		if err != nil {
			continue
		}
		g.mu.Lock()
		switch r.Kind {
		case workload.Ready:
			g.ready = true
		case workload.Item:
			now := time.Now()
			if !g.last.IsZero() {
				g.gap = max(g.gap, now.Sub(g.last))
			}
			g.items++
			g.last = now
		}
		g.mu.Unlock()
	}
}

// awaitReady waits until the guest has booted.
func (g *guest) awaitReady(t *testing.T) {
	t.Helper()
	within(t, bootLimit, g.name+" boots", func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.ready {
			return fmt.Errorf("it has not reported")
		}
		return nil
	})
}

// work has the guest begin its load.
func (g *guest) work(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(g.channel, workload.CommandGo+"\n"); err != nil {
		t.Fatal(err)
	}
	g.undisturbed(t)
}

// undisturbed checks that the guest goes on working now, and has had no pause
// since this was last asked that its users would have noticed.
func (g *guest) undisturbed(t *testing.T) {
	t.Helper()
	const pause = 10 * time.Second // on a machine that boots other guests
	g.mu.Lock()
	before := g.items
	g.mu.Unlock()
	within(t, pause, g.name+" goes on working", func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.items <= before+1 {
			return fmt.Errorf("%d work items done, as before", g.items)
		}
		return nil
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gap > pause {
		t.Errorf("%s paused for %v", g.name, g.gap)
	}
	g.gap = 0
}

// limits are a guest's limits as libvirt and the kernel have them.
type limits struct {
	cpu    int64 // of the vCPU, millicores; -1 for none
	memory int64 // of the balloon, MiB
	disk   int64 // bytes/s; 0 for none

	operations int64 // of the disk, a second; 0 for none
}

// set sets the limits as an operator without gnomon would.
func (l limits) set(t *testing.T, name string) {
	t.Helper()
	virsh(t, "schedinfo", name, "--live", "--set", "vcpu_period=100000", "--set", fmt.Sprintf("vcpu_quota=%d", l.cpu*100))
	virsh(t, "setmem", name, fmt.Sprintf("%dM", l.memory), "--live")
	virsh(t, "blkdeviotune", name, "vda", "--live", "--total-bytes-sec", strconv.FormatInt(l.disk, 10))
}

// limitsOf reads what is in force: the CPU's from the kernel, the rest from QEMU
// by way of libvirt.
func limitsOf(t *testing.T, name string) (l limits) {
	t.Helper()
	l.cpu, l.memory = cpuLimit(t, name), memoryOf(t, name)
	for line := range strings.Lines(virsh(t, "blkdeviotune", name, "vda")) {
		key, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		switch strings.TrimSpace(key) {
		case "total_bytes_sec":
			l.disk = n
		case "total_iops_sec":
			l.operations = n
		}
	}
	return l
}

// memoryOf reads the size of a guest's balloon in MiB.
func memoryOf(t *testing.T, name string) (mib int64) {
	t.Helper()
	for line := range strings.Lines(virsh(t, "dommemstat", name)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "actual %d", &kib); err == nil {
			mib = kib >> 10
		}
	}
	return mib
}

// cpuLimit reads the first vCPU's limit in millicores, -1 for none, from the
// control group beside that of the domain's process.
func cpuLimit(t *testing.T, name string) int64 {
	t.Helper()
	group := filepath.Join(filepath.Dir(controlGroup(t, pidOf(t, name))), "vcpu0")
	text, err := os.ReadFile(filepath.Join(group, "cpu.max"))
	if err != nil {
		quota, err1 := os.ReadFile(filepath.Join(group, "cpu.cfs_quota_us"))
		period, err2 := os.ReadFile(filepath.Join(group, "cpu.cfs_period_us"))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		text = append(quota, period...)
	}
	fields := strings.Fields(string(text))
	if fields[0] == "max" || fields[0] == "-1" {
		return -1
	}
	quota, err1 := strconv.ParseInt(fields[0], 10, 64)
	period, err2 := strconv.ParseInt(fields[1], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return quota * 1000 / period
}

// controlGroup returns the folder of a process's CPU control group.
func controlGroup(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	unified := ""
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case parts[0] == "0":
			unified = filepath.Join("/sys/fs/cgroup", parts[2])
		case strings.Contains(","+parts[1]+",", ",cpu,"):
			return filepath.Join("/sys/fs/cgroup/cpu", parts[2])
		}
	}
	return unified
}

// pidOf returns the QEMU process of a domain or a shadow.
func pidOf(t *testing.T, name string) int {
	t.Helper()
	pid, err := qemuOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// qemuOf is pidOf for one that need not run.
func qemuOf(name string) (int, error) {
	if strings.HasPrefix(name, "gnomon-shadow-") {
		return shadowProcess(name)
	}
	text, err := os.ReadFile(filepath.Join("/run/libvirt/qemu", name+".pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// virsh runs a command on the system's libvirt and returns what it prints.
func virsh(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("virsh %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
