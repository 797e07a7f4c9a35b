package libvirt

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	lv "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"github.com/vishvananda/netlink"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/domainxml"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/hypervisortest"
)

// bench is a libvirt to test with, and what its guests are made of.
type bench struct {
	d     *Driver
	dir   string
	image appliance.Image
	made  int
}

func newBench(t testing.TB, opts Options) *bench {
	t.Helper()
	b := &bench{d: open(t, opts), dir: publicDir(t)}
	tree, err := appliance.FetchKernel(t.Context(), filepath.Join("..", "..", "build", "kernel"), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	init := filepath.Join(b.dir, "init")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", init, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build guest: %v\n%s", err, out)
	}
	b.image, err = appliance.Build(t.Context(), appliance.Options{
		KernelTree: tree, Init: init, Out: filepath.Join(b.dir, "image"),
		Modules: []string{"virtio_pci", "virtio_balloon", "virtio_blk", "virtio_net", "virtio_mem"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// publicDir returns a folder that QEMU's user can reach, which t.TempDir is not.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gnh-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// open connects to the system's libvirt. Without one the test is skipped,
// unless GNOMON_TEST_VM asks for it.
func open(t testing.TB, opts Options) *Driver {
	t.Helper()
	d, err := Open(t.Context(), opts)
	if err != nil && os.Getenv("GNOMON_TEST_VM") == "" {
		t.Skipf("no libvirt to test with (GNOMON_TEST_VM=1 makes this fail): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// guest says what a test VM has.
type guest struct {
	equipped bool // with two disks and a tap
	busy     bool // with work for them and the CPU
	solid    bool // and that without a pause
	empty    bool // with nothing to boot: no driver of any device runs
	mute     bool // without a balloon
	plug     int  // MiB that it can plug
	vcpus    int  // that it can have, of which it begins with one; 0 is 1
	whole    bool // it begins with all of them
	refuses  bool // it brings no vCPU online
	max      int  // MiB that it boots with and gives back but for 256; 256 if 0
	stored   bool // its definition outlasts it
	metadata string
}

// start starts a VM that is destroyed at the end of the test.
func (b *bench) start(t testing.TB, g guest) gnomon.VMID {
	t.Helper()
	b.made++
	name := fmt.Sprintf("gnh-%d-%d", os.Getpid(), b.made)
	devices, idle, sizes, balloon := "", " guest.idle=1", `<memory unit="MiB">256</memory>`, "virtio"
	if g.busy {
		idle = ""
	}
	if g.solid {
		idle += " guest.solid=1"
	}
	if g.refuses {
		idle += " guest.refuses=1"
	}
	if g.equipped {
		devices = b.disk(t, name, "vda") + b.disk(t, name, "vdb") + b.tap(t, name)
	}
	if g.plug > 0 {
		devices += fmt.Sprintf(`<memory model="virtio-mem"><target><size unit="MiB">%d</size><node>0</node>
    <block unit="MiB">2</block><requested unit="MiB">0</requested></target></memory>`, g.plug)
		sizes = fmt.Sprintf(`<maxMemory slots="1" unit="MiB">1024</maxMemory><memory unit="MiB">%d</memory>
  <currentMemory unit="MiB">256</currentMemory>
  <cpu><numa><cell id="0" cpus="0" memory="256" unit="MiB"/></numa></cpu>`, 256+g.plug)
	}
	if g.max > 0 {
		sizes = fmt.Sprintf(`<memory unit="MiB">%d</memory><currentMemory unit="MiB">256</currentMemory>`, g.max)
	}
	if g.mute {
		balloon = "none"
	}
	boot := fmt.Sprintf(`<kernel>%s</kernel><initrd>%s</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 net.ifnames=0 memhp_default_state=online_movable%s</cmdline>`,
		b.image.KernelPath(), b.image.InitrdPath(), idle)
	if g.empty {
		boot = ""
	}
	current := 1
	if g.whole {
		current = g.vcpus
	}
	definition := fmt.Sprintf(`<domain type="qemu"><name>%s</name>
  %s<vcpu current="%d">%d</vcpu>
  <metadata>%s</metadata>
  <os><type arch="x86_64" machine="q35">hvm</type>%s</os>
  <features><acpi/></features>
  <devices>%s
    <serial type="file"><source path="%s"/></serial>
    <memballoon model="%s"/>
  </devices></domain>`, name, sizes, current, max(g.vcpus, 1), g.metadata, boot, devices, b.console(name), balloon)
	t.Cleanup(func() {
		exec.Command("virsh", "destroy", name).Run()
		if g.stored {
			exec.Command("virsh", "undefine", name).Run()
		}
	})
	if !g.stored {
		id, err := b.d.StartTransient(t.Context(), definition)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	read, err := domainxml.Parse(definition)
	if err != nil {
		t.Fatal(err)
	}
	id := gnomon.VMID(uuid.NewString())
	definition = read.Stamped(domainxml.Stamp{Name: name, ID: id, Account: "acme", Order: "test"})
	if err := b.d.Deploy(t.Context(), hypervisor.Deployment{Definition: definition, ID: id, Name: name, Order: "test"}); err != nil {
		t.Fatal(err)
	}
	return id
}

func (b *bench) console(name string) string { return filepath.Join(b.dir, name+".log") }

func (b *bench) disk(t testing.TB, name, target string) string {
	path := filepath.Join(b.dir, name+"-"+target+".img")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 16<<20); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`<disk type="file"><driver name="qemu" type="raw" cache="none" io="threads"/>
    <source file="%s"/><target dev="%s" bus="virtio"/></disk>`, path, target)
}

func (b *bench) tap(t testing.TB, name string) string {
	dev := strings.ReplaceAll(name, "gnh-", "gnh")
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: dev}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_VNET_HDR}
	if err := netlink.LinkAdd(tap); err != nil {
		t.Fatalf("make tap: %v", err)
	}
	t.Cleanup(func() {
		netlink.LinkDel(tap)
		b.d.shape.Sweep()
	})
	if err := netlink.LinkSetUp(tap); err != nil {
		t.Fatalf("bring up tap: %v", err)
	}
	return fmt.Sprintf(`<interface type="ethernet"><target dev="%s" managed="no"/><model type="virtio"/></interface>`, dev)
}

// ready waits until the guest's init runs.
func (b *bench) ready(t testing.TB, id gnomon.VMID) {
	t.Helper()
	dm, err := b.d.lookup(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	poll(t, "the guest to be ready", func() bool {
		log, _ := os.ReadFile(b.console(dm.Name))
		return strings.Contains(string(log), "guest: ready")
	})
}

// poll waits for what no event tells.
func poll(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !done(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func TestConformance(t *testing.T) {
	hypervisortest.Run(t, func(t *testing.T) hypervisortest.Subject {
		b := newBench(t, Options{})
		s := hypervisortest.Subject{
			Driver: b.d,
			VM:     b.start(t, guest{equipped: true, busy: true}),
			Bare:   b.start(t, guest{}),
			Absent: gnomon.VMID(formatUUID(randomUUID())),
			Start:  func(t *testing.T) gnomon.VMID { return b.start(t, guest{}) },
			Stop:   act(b.d.Destroy), Suspend: act(b.d.Suspend), Resume: act(b.d.Resume),
			Advance: func(d time.Duration) { <-time.After(d) },
			Tight:   gnomon.Resources{gnomon.CPU: 300, gnomon.Disk: 300_000, gnomon.Network: 500_000},
		}
		s.Amounts = [gnomon.NumResources][]int64{
			gnomon.CPU:     {300, 730, 55, 10},
			gnomon.Memory:  {200 << 20, 240 << 20, 160 << 20},
			gnomon.Disk:    {3_000_000, 20_000_001},
			gnomon.Network: {2_000_000, 9_999_999},
		}
		s.Shadow = b.start(t, guest{metadata: shadowElement(s.VM, "acme")})
		b.ready(t, s.VM)
		return s
	})
}

func act(f func(context.Context, gnomon.VMID) error) func(*testing.T, gnomon.VMID) {
	return func(t *testing.T, id gnomon.VMID) {
		t.Helper()
		if err := f(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

func randomUUID() (u lv.UUID) {
	_, _ = rand.Read(u[:]) // never fails
	return u
}

// BenchmarkRead measures one Read of some idle VMs, each with two disks and a tap.
func BenchmarkRead(b *testing.B) {
	bench := newBench(b, Options{})
	var ids []gnomon.VMID
	for _, n := range []int{1, 5} {
		for len(ids) < n {
			ids = append(ids, bench.start(b, guest{equipped: true}))
		}
		for _, id := range ids {
			bench.ready(b, id)
		}
		b.Run(fmt.Sprintf("VMs=%d", n), func(b *testing.B) {
			for b.Loop() {
				if cs, err := bench.d.Read(b.Context(), ids); err != nil || len(cs) != n {
					b.Fatalf("Read = %d counters, %v", len(cs), err)
				}
			}
		})
	}
}
