package demo

import (
	"bytes"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirtxml"

	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/demo/workload"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

func spec(name string) guestSpec {
	return guestSpec{
		name: name, accel: "tcg", tap: "tap-" + name, disk: "/d/" + name, image: appliance.Image{Dir: "/i"},
		cmdline: guestCommandLine(7, 1000),
	}
}

// The comparison is fair only if nothing but names tells the VMs apart.
func TestBothVMsHaveOneDefinition(t *testing.T) {
	a, err := spec("a-vm").definition()
	if err != nil {
		t.Fatal(err)
	}
	b, err := spec("b-vm").definition()
	if err != nil {
		t.Fatal(err)
	}
	if strings.ReplaceAll(a, "a-vm", "b-vm") != b {
		t.Errorf("the definitions differ in more than names:\n%s\n%s", a, b)
	}
}

func TestDefinition(t *testing.T) {
	s := spec("x")
	s.accel = "kvm"
	text, err := s.definition()
	if err != nil {
		t.Fatal(err)
	}
	var dom libvirtxml.Domain
	if err := xml.Unmarshal([]byte(text), &dom); err != nil {
		t.Fatal(err)
	}
	if dom.Type != "kvm" || dom.Memory.Value != guestMaxMiB || dom.CurrentMemory.Value != guestBaseMiB {
		t.Errorf("type %s, memory %d of %d", dom.Type, dom.CurrentMemory.Value, dom.Memory.Value)
	}
	if dom.Devices.MemBalloon.AutoDeflate != "on" {
		t.Error("the balloon does not give way when the guest runs out of memory")
	}
	for _, want := range []string{workload.KeySeed + "=7", workload.KeyIterations + "=1000"} {
		if !strings.Contains(dom.OS.Cmdline, want) {
			t.Errorf("command line %q has no %s", dom.OS.Cmdline, want)
		}
	}
}

func TestChannelPath(t *testing.T) {
	const live = `<domain type="qemu"><devices>
	  <channel type="unix"><source mode="bind" path="/other"/><target type="virtio" name="org.qemu.guest_agent.0"/></channel>
	  <channel type="unix"><source mode="bind" path="/run/it"/><target type="virtio" name="org.gnomon.load.0"/></channel>
	</devices></domain>`
	if path, err := channelPath(live); err != nil || path != "/run/it" {
		t.Errorf("got %q, %v", path, err)
	}
	for _, bad := range []string{`<domain><devices/></domain>`, `<domain`} {
		if path, err := channelPath(bad); err == nil {
			t.Errorf("%s: got %q, want an error", bad, path)
		}
	}
}

func TestOnlyGnomonsOwnProcessesAreEnded(t *testing.T) {
	for _, c := range []struct {
		args []string
		want bool
	}{
		{[]string{"/usr/local/bin/gnomon", "up", "--data-dir", "/var/lib/gnomon-demo/data"}, true},
		{[]string{"gnomon", "guard", "--state-dir", "/var/lib/gnomon-demo/host"}, true},
		{[]string{"gnomon", "up", "--data-dir", "/var/lib/gnomon"}, false},
		{[]string{"gnomon", "up", "--data-dir", "/var/lib/gnomon-demonstrations/x"}, false},
		{[]string{"tail", "-f", "/var/lib/gnomon-demo/data/log"}, false},
		{[]string{""}, false},
	} {
		cmdline := []byte(strings.Join(c.args, "\x00") + "\x00")
		if got := worksIn(cmdline, "/var/lib/gnomon-demo"); got != c.want {
			t.Errorf("%q: %v, want %v", c.args, got, c.want)
		}
	}
}

func TestOneDemoAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	first, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(dir); err == nil || !strings.Contains(err.Error(), "another demo") {
		t.Errorf("a second lock: %v, want to be told of the first", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := emptyDir(dir); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 || entries[0].Name() != "lock" {
		t.Errorf("left: %v, want the lock alone", entries)
	}
	first.Close()
	again, err := lockDir(dir)
	if err != nil {
		t.Errorf("after the first is gone: %v", err)
	}
	again.Close()
}

func TestOptionsAreCheckedFirst(t *testing.T) {
	dir := t.TempDir()
	good := Options{Accel: "auto", Shadow: dir, Guest: dir}
	for name, change := range map[string]func(*Options){
		"negative time": func(o *Options) { o.Window = -1 },
		"too short":     func(o *Options) { o.Window = time.Millisecond },
		"acceleration":  func(o *Options) { o.Accel = "warp" },
		"no image":      func(o *Options) { o.Guest = filepath.Join(dir, "missing") },
	} {
		o := good
		change(&o)
		if err := o.check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if os.Geteuid() == 0 {
		if err := good.check(); err != nil {
			t.Errorf("good options are refused: %v", err)
		}
	}
}

func TestTableShowsWhatIsNotLimited(t *testing.T) {
	var b bytes.Buffer
	err := writeTable(&b, 12500*time.Millisecond, time.Minute, []liveVM{{
		title: "with shadow",
		states: []*hostpb.ResourceState{
			{Resource: "cpu", Limited: true, Usage: 500, Demand: 700, ForecastMedian: 600, ForecastHigh: 900, Model: "ses",
				Allocation: 650, Reservation: 50, Hits: 3, Misses: 1},
			{Resource: "network", Usage: 1000},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if !strings.HasPrefix(lines[0], "12s of 1m0s") {
		t.Errorf("first line %q", lines[0])
	}
	for i, want := range map[int][]string{
		2: {"with shadow", "cpu", "0.5 cores", "0.7 cores", "0.6 cores to 0.9 cores", "0.65 cores", "0.05 cores", "3", "1"},
		3: {"network", "not limited", "-"},
	} {
		for _, w := range want {
			if !strings.Contains(lines[i], w) {
				t.Errorf("line %q has no %q", lines[i], w)
			}
		}
	}
}

func TestSummaryIsWrittenForPeople(t *testing.T) {
	rate, p50 := 0.75, 61.0
	s := Summary{Accel: "tcg", Seconds: 180, VMs: []VMSummary{
		{Name: "one", Policy: PolicyShadow, HitRate: &rate, WorkLatency: Quantiles{P50: &p50, N: 1}, StarvedSeconds: PerResource{CPU: 1, Memory: 2}},
		{Name: "two", Policy: PolicyReactive},
	}}
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"180 seconds under TCG", "75 %", "61 ms / -", "3.00 s", "cost of the shadow", "cost of the daemon"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
