package libvirt

import (
	"fmt"
	"html"
	"reflect"
	"strings"
	"testing"
	"time"

	lv "github.com/digitalocean/go-libvirt"
	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/shaper"
)

func TestQuotaOf(t *testing.T) {
	for amount, want := range map[int64]quota{
		1000: {20_000, 20_000},
		100:  {2_000, 20_000},
		50:   {1_000, 20_000},
		49:   {1_960, 40_000}, // 980 µs of 20 ms are too few
		10:   {1_000, 100_000},
		3:    {1_000, 100_000}, // the least
		2500: {50_000, 20_000},
	} {
		if got := quotaOf(amount); got != want {
			t.Errorf("quotaOf(%d) = %+v µs, want %+v", amount, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.Int64Range(10, 96_000).Draw(t, "amount")
		if q := quotaOf(amount); q.amount(1) != amount || q.Quota < minQuota || q.Period > 100_000 {
			t.Fatalf("%d millicores become %d: %+v µs", amount, q.amount(1), q)
		}
	})
}

func TestSplitAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "n")
		amount := rapid.Int64Range(int64(n), 1<<40).Draw(t, "amount")
		sum, least, most := int64(0), amount, int64(0)
		for i := range n {
			part := split(amount, i, n)
			sum, least, most = sum+part, min(least, part), max(most, part)
		}
		if sum != amount || most-least > 1 {
			t.Fatalf("%d in %d parts: sum %d, from %d to %d", amount, n, sum, least, most)
		}
	})
}

// shadowElement marks a domain as the shadow of a VM, as a definition holds it in
// its metadata.
func shadowElement(vm gnomon.VMID, account string) string {
	return fmt.Sprintf(`<gnomon:shadow xmlns:gnomon="%s" for="%s" account="%s"/>`,
		Namespace, html.EscapeString(string(vm)), html.EscapeString(account))
}

func TestParseDefinition(t *testing.T) {
	const tap = `<interface type="bridge"><target dev="vnet1"/></interface>`
	const user = `<interface type="user"><model type="virtio"/></interface>`
	const disk = `<disk type="file" device="disk"><target dev="vda"/></disk>`
	const balloon = `<memballoon model="virtio"/>`
	for _, c := range []struct {
		name, devices string
		disks, taps   []string
		why           map[gnomon.Resource]string
	}{
		{"all", disk + tap + balloon, []string{"vda"}, []string{"vnet1"}, nil},
		{"two of each", disk + strings.ReplaceAll(disk, "vda", "vdb") + tap + strings.ReplaceAll(tap, "vnet1", "vnet2") + balloon,
			[]string{"vda", "vdb"}, []string{"vnet1", "vnet2"}, nil},
		{"none", "", nil, nil, map[gnomon.Resource]string{
			gnomon.Memory: "neither a virtio balloon nor a virtio-mem device", gnomon.Disk: "no disk that can be written", gnomon.Network: "no interface"}},
		{"user mode", disk + tap + user + balloon, []string{"vda"}, nil,
			map[gnomon.Resource]string{gnomon.Network: "user-mode interface cannot be limited"}},
		{"direct", disk + `<interface type="direct"><source dev="eth0" mode="bridge"/><target dev="macvtap0"/></interface>` + balloon,
			[]string{"vda"}, nil, map[gnomon.Resource]string{gnomon.Network: "an interface is not a tap of the host"}},
		{"read-only disks", `<disk type="file" device="cdrom"><target dev="sda"/><readonly/></disk>
			<disk type="file" device="disk"><target dev="vdb"/><readonly/></disk>` + tap + balloon, nil, []string{"vnet1"},
			map[gnomon.Resource]string{gnomon.Disk: "no disk that can be written"}},
		{"passed through", disk + tap + balloon + `<hostdev mode="subsystem" type="pci"><source><address domain="0" bus="1" slot="0" function="0"/></source></hostdev>`,
			[]string{"vda"}, []string{"vnet1"}, map[gnomon.Resource]string{gnomon.Memory: "a passed-through device pins the memory"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			def, err := parseDefinition(`<domain type="kvm"><memory unit="MiB">512</memory><vcpu current="2">4</vcpu><devices>` + c.devices + `</devices></domain>`)
			if err != nil {
				t.Fatal(err)
			}
			if def.accel != "kvm" || def.vcpus != 2 || def.maxMemory != 512<<20 {
				t.Errorf("definition = %+v", def)
			}
			if !reflect.DeepEqual(def.disks, c.disks) || !reflect.DeepEqual(def.taps, c.taps) {
				t.Errorf("disks %v, taps %v; want %v, %v", def.disks, def.taps, c.disks, c.taps)
			}
			for r := range gnomon.AllResources() {
				if def.why[r] != c.why[r] {
					t.Errorf("why no %s: %q, want %q", r, def.why[r], c.why[r])
				}
			}
		})
	}
}

// Memory that the host cannot have back must not count as given back.
func TestMemoryThatStaysWithTheVM(t *testing.T) {
	const passedThrough = "a passed-through device pins the memory"
	for _, c := range []struct{ name, domain, devices, why string }{
		{"nothing special", `<memoryBacking><nosharepages/></memoryBacking>`, "", ""},
		{"PCI device", "", `<hostdev mode="subsystem" type="pci"/>`, passedThrough},
		{"mediated device", "", `<hostdev mode="subsystem" type="mdev" model="vfio-pci"/>`, passedThrough},
		{"USB device", "", `<hostdev mode="subsystem" type="usb"/>`, ""},
		{"network card", "", `<interface type="hostdev"><source><address type="pci" bus="1"/></source></interface>`, passedThrough},
		{"vDPA", "", `<interface type="vdpa"><source dev="/dev/vhost-vdpa-0"/></interface>`, passedThrough},
		{"NVMe", "", `<disk type="nvme" device="disk"><source type="pci" namespace="1"/><target dev="vda"/></disk>`, passedThrough},
		{"locked", `<memoryBacking><locked/></memoryBacking>`, "", "the memory is locked"},
		{"huge pages", `<memoryBacking><hugepages/></memoryBacking>`, "", "the memory is in huge pages, of which a balloon gives none back"},
		{"encrypted", `<launchSecurity type="sev"/>`, "", "the memory is encrypted, which pins it"},
	} {
		def, err := parseDefinition(`<domain type="kvm"><memory unit="MiB">512</memory>` + c.domain + `<devices>` + c.devices + `<memballoon model="virtio"/></devices></domain>`)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := def.why[gnomon.Memory]; got != c.why {
			t.Errorf("%s: why no memory: %q, want %q", c.name, got, c.why)
		}
	}
}

func TestParseMetadata(t *testing.T) {
	const other = `<app:x xmlns:app="urn:other"><shadow for="no"/><app:account>no</app:account></app:x>`
	for _, c := range []struct {
		metadata, account string
		shadowOf          gnomon.VMID
	}{
		{"", "", ""},
		{other, "", ""},
		{shadowElement("0A-B", "acme & sons"), "acme & sons", "0a-b"},
		{other + shadowElement(hypervisor.Warm, "x") + other, "x", hypervisor.Warm},
		{`<shadow xmlns="` + Namespace + `"/>`, "", hypervisor.Warm},
		{other + `<g:account xmlns:g="` + Namespace + `"> acme </g:account>`, "acme", ""},
		{`<g:future xmlns:g="` + Namespace + `"><g:account>no</g:account></g:future>`, "", ""},
	} {
		def, err := parseDefinition(`<domain type="qemu"><metadata>` + c.metadata + `</metadata></domain>`)
		if err != nil {
			t.Errorf("%s: %v", c.metadata, err)
			continue
		}
		if def.account != c.account || def.shadowOf != c.shadowOf {
			t.Errorf("%s: account %q, shadow of %q; want %q, %q", c.metadata, def.account, def.shadowOf, c.account, c.shadowOf)
		}
	}
}

func FuzzParseDefinition(f *testing.F) {
	f.Add(`<domain type="kvm"><memory>1</memory><metadata>` + shadowElement("a", "b") + `</metadata></domain>`)
	f.Add(`<domain><metadata><a></metadata></domain>`)
	f.Fuzz(func(t *testing.T, text string) {
		if def, err := parseDefinition(text); (def == nil) == (err == nil) {
			t.Errorf("definition %v, error %v", def, err)
		}
	})
}

func TestUUID(t *testing.T) {
	const text = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
	u, err := parseUUID(text)
	if err != nil || formatUUID(u) != text {
		t.Errorf("%s becomes %s, %v", text, formatUUID(u), err)
	}
	for _, bad := range []gnomon.VMID{"", "warm", text + "0", "zz1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"} {
		if _, err := parseUUID(bad); err == nil {
			t.Errorf("%q is taken for a UUID", bad)
		}
	}
}

func param(name string, v uint64) lv.TypedParam {
	return lv.TypedParam{Field: name, Value: *lv.NewTypedParamValueUllong(v)}
}

func TestDecode(t *testing.T) {
	got := decode([]lv.TypedParam{
		{Field: "vcpu.current", Value: *lv.NewTypedParamValueUint(2)},
		param("vcpu.0.time", 5), param("vcpu.0.delay", 3), param("vcpu.0.wait", 100),
		param("vcpu.1.time", 7), param("vcpu.1.delay", 4),
		param("balloon.current", 1024), param("balloon.available", 900), param("balloon.usable", 500), param("balloon.unused", 1),
		param("balloon.swap_in", 1), param("balloon.swap_out", 2), param("balloon.major_fault", 9), param("balloon.last-update", 1000),
		param("block.count", 2),
		{Field: "block.0.name", Value: *lv.NewTypedParamValueString("vda")},
		param("block.0.rd.bytes", 10), param("block.0.wr.bytes", 20), param("block.0.rd.reqs", 1), param("block.0.wr.reqs", 2),
		param("block.0.rd.times", 30), param("block.0.wr.times", 40), param("block.0.fl.times", 1000),
		param("block.1.rd.bytes", 100),
		param("net.count", 1), param("net.0.rx.bytes", 50), param("net.0.tx.bytes", 60), param("net.0.rx.pkts", 1),
	})
	want := hypervisor.Counters{
		Known: gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk, gnomon.Network),
		VCPUs: 2, CPUTime: 12, CPUWait: 7,
		MemoryActual: 1 << 20, MemoryAvailable: 900 << 10, MemoryUsable: 500 << 10,
		SwapIn: 1 << 10, SwapOut: 2 << 10, MajorFaults: 9, MemoryAt: time.Unix(1000, 0),
		DiskBytes: 130, DiskRequests: 3, DiskTime: 70, NetworkBytes: 110,
	}
	if got != want {
		t.Errorf("decode = %+v\nwant %+v", got, want)
	}
	if got := decode([]lv.TypedParam{param("balloon.current", 1), param("balloon.available", 1), param("net.count", 0)}); got.Known != 0 {
		t.Errorf("of a guest that told nothing %v is known", got.Known)
	}
}

func TestMemoForgetsWhatWasAskedBeforeAChange(t *testing.T) {
	var m memo[int64]
	_, epoch, ok := m.get()
	if ok {
		t.Error("an empty memo remembers")
	}
	m.put(epoch, 5, time.Now())
	if got, _, ok := m.get(); !ok || got != 5 {
		t.Errorf("get = %d, %v", got, ok)
	}
	m.forget()
	m.put(epoch, 5, time.Now())
	_, epoch, ok = m.get()
	if ok {
		t.Error("an answer from before the change is kept")
	}
	m.put(epoch, 6, time.Now().Add(-stale))
	if _, _, ok := m.get(); ok {
		t.Error("a stale answer counts as fresh")
	}
}

func TestTrafficLeavesOutWhatWasDropped(t *testing.T) {
	var tr traffic
	off := shaper.Unlimited
	for i, c := range []struct {
		st   shaper.Stats
		want int64
	}{
		{shaper.Stats{Rate: off, Received: 5, Sent: 100}, 105},
		{shaper.Stats{Rate: off, Received: 5, Sent: 200}, 205},
		{shaper.Stats{Rate: 10, Received: 5, Sent: 210, Passed: 0}, 215},   // shaped from here on
		{shaper.Stats{Rate: 10, Received: 6, Sent: 910, Passed: 30}, 246},  // 700 sent, 30 passed
		{shaper.Stats{Rate: 10, Received: 6, Sent: 905, Passed: 20}, 246},  // an older reading
		{shaper.Stats{Rate: 10, Received: 7, Sent: 1000, Passed: 50}, 267}, // 90 sent, 20 passed
		{shaper.Stats{Rate: off, Received: 7, Sent: 1001}, 268},
		{shaper.Stats{Rate: 20, Received: 7, Sent: 1002, Passed: 1}, 269},
		{shaper.Stats{Rate: 20, Received: 7, Sent: 2002, Passed: 5}, 273},
	} {
		if got := tr.count([]string{"t"}, map[string]shaper.Stats{"t": c.st}); got != c.want {
			t.Errorf("reading %d: %d bytes, want %d", i, got, c.want)
		}
	}
	if got := tr.count([]string{"t"}, nil); got != 273 {
		t.Errorf("with the tap gone: %d bytes, want those counted", got)
	}
}

func TestSlowWatcherIsToldToListAgain(t *testing.T) {
	var h hub
	w := h.add()
	for range backlog {
		h.publish(hypervisor.Change{Kind: hypervisor.Started, VM: "a"})
	}
	if got := w.take(); len(got) != backlog {
		t.Fatalf("%d changes wait, want %d", len(got), backlog)
	}
	for range backlog + 1 {
		h.publish(hypervisor.Change{Kind: hypervisor.Started, VM: "a"})
	}
	h.publish(hypervisor.Change{Kind: hypervisor.Stopped, VM: "b"})
	want := []hypervisor.Change{{Kind: hypervisor.Resync}, {Kind: hypervisor.Stopped, VM: "b"}}
	if got := w.take(); !reflect.DeepEqual(got, want) {
		t.Errorf("after too many changes = %v, want %v", got, want)
	}
	h.remove(w)
	h.resync()
	if got := w.take(); got != nil {
		t.Errorf("a removed watcher gets %v", got)
	}
}

func TestIsUp(t *testing.T) {
	for _, c := range []struct {
		state  lv.DomainState
		reason lv.DomainPausedReason
		want   bool
	}{
		{lv.DomainRunning, 0, true},
		{lv.DomainPaused, lv.DomainPausedUser, true},
		{lv.DomainPaused, lv.DomainPausedStartingUp, false},
		{lv.DomainShutdown, 0, false},
		{lv.DomainShutoff, 0, false},
		{lv.DomainCrashed, 0, false},
	} {
		if got := isUp(c.state, int32(c.reason)); got != c.want {
			t.Errorf("isUp(%d, %d) = %v", c.state, c.reason, got)
		}
	}
}
