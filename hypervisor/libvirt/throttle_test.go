package libvirt

import (
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

func TestAmountOfThrottles(t *testing.T) {
	total := func(group string, rate uint64) throttle {
		return throttle{Group: group, Values: map[string]uint64{lv.DomainBlockIotuneTotalBytesSec: rate}}
	}
	apart := throttle{Values: map[string]uint64{lv.DomainBlockIotuneReadBytesSec: 3, lv.DomainBlockIotuneWriteBytesSec: 4}}
	reads := throttle{Values: map[string]uint64{lv.DomainBlockIotuneReadBytesSec: 3}}
	for name, c := range map[string]struct {
		all  throttles
		want int64
	}{
		"no disk":           {throttles{}, hypervisor.Unlimited},
		"one without":       {throttles{"vda": total("", 5), "vdb": {}}, hypervisor.Unlimited},
		"each its own":      {throttles{"vda": total("", 5), "vdb": total("", 6), "vdc": total("x", 7)}, 18},
		"two share one":     {throttles{"vda": total("x", 5), "vdb": total("x", 5), "vdc": total("", 7)}, 12},
		"reads and writes":  {throttles{"vda": apart}, 7},
		"reads alone":       {throttles{"vda": reads}, hypervisor.Unlimited},
		"all that is given": {throttles{"vda": shared(9, 2), "vdb": shared(9, 2)}, 9},
	} {
		if got := c.all.amount(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
		text, err := detail{Disks: c.all}.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseDetail(text)
		for disk, want := range c.all {
			if err != nil || !back.Disks[disk].equal(want) {
				t.Errorf("%s: %s of %s comes back as %+v, %v", name, disk, text, back.Disks[disk], err)
			}
		}
	}
	if _, err := parseDetail(`{"disks":[1]}`); err == nil {
		t.Error("nonsense is taken for throttles")
	}
}

// A limit of operations that is not ours stays, beside ours of bytes, unless one
// is said.
func TestLimitKeepsOperations(t *testing.T) {
	ops := throttle{Group: "own", Values: map[string]uint64{lv.DomainBlockIotuneTotalIopsSec: 100}}
	found := throttles{"vda": ops, "vdb": {}, "vdc": {}}
	got, err := found.limited(9, 0)
	if err != nil {
		t.Fatal(err)
	}
	if v := got["vda"].Values; v[lv.DomainBlockIotuneTotalIopsSec] != 100 || v[lv.DomainBlockIotuneTotalBytesSec] != 3 || got["vda"].Group != "own" {
		t.Errorf("vda gets %+v", got["vda"])
	}
	if sum := got.amount(); sum != 9 {
		t.Errorf("together they have %d, want 9", sum)
	}
	if _, err := found.limited(2, 0); err == nil || !strings.Contains(err.Error(), "3 disks") {
		t.Errorf("2 bytes/s over 3 disks: %v", err)
	}
	if got, err := found.limited(9, 7); err != nil || !reflect.DeepEqual(got["vda"], shared(9, 7)) {
		t.Errorf("with operations said vda gets %+v, %v", got["vda"], err)
	}
	ours := throttles{"vda": shared(8, 7), "vdb": shared(8, 7)}
	if got, err := ours.limited(9, 0); err != nil || !reflect.DeepEqual(got["vdb"], shared(9, 0)) {
		t.Errorf("ours of operations stay: %+v, %v", got["vdb"], err)
	}
	if got, err := found.limited(hypervisor.Unlimited, 0); err != nil || got.amount() != hypervisor.Unlimited || !got["vda"].equal(ops) {
		t.Errorf("unlimited, vda has %+v, %v", got["vda"], err)
	}
}

// One busy disk of two gets all that the VM may have, in bytes and in
// operations, and what an operator had set by hand comes back as it was.
func TestDisksShareTheirLimit(t *testing.T) {
	b := newBench(t, Options{})
	id := b.start(t, guest{equipped: true, busy: true})
	b.ready(t, id)
	dm := mustLookup(t, b.d, id)
	tune := func(disk string, args ...string) string {
		t.Helper()
		out, err := exec.Command("virsh", append([]string{"-q", "blkdeviotune", dm.Name, disk}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("blkdeviotune %s: %v: %s", disk, err, out)
		}
		return string(out)
	}
	tune("vda", "--live", "--read-bytes-sec", "70000000", "--write-bytes-sec", "60000000", "--write-bytes-sec-max", "90000000",
		"--write-bytes-sec-max-length", "3", "--total-iops-sec", "5000")
	tune("vdb", "--live", "--total-bytes-sec", "50000000")
	before := tune("vda") + tune("vdb")
	m, err := b.d.machine(t.Context(), dm.Domain)
	if err != nil || m.Original.Limits[gnomon.Disk] != 180_000_000 || !m.Limits.Has(gnomon.Disk) {
		t.Fatalf("machine = %+v, %v", m, err)
	}
	for _, c := range []struct {
		name  string
		terms hypervisor.Terms
		limit int64                           // bytes/s
		rate  func(hypervisor.Counters) int64 // what is to reach least, a second
		least int64
		most  int64
	}{
		{"bytes", hypervisor.Terms{Operations: 1_000_000}, 400_000, func(c hypervisor.Counters) int64 { return c.DiskBytes }, 300_000, 400_000},
		{"operations", hypervisor.Terms{Operations: 5}, 100_000_000, func(c hypervisor.Counters) int64 { return c.DiskRequests }, 4, 5},
	} {
		if got, err := b.d.Apply(t.Context(), id, gnomon.Disk, c.limit, c.terms); err != nil || got != c.limit {
			t.Fatalf("%s: Apply = %d, %v", c.name, got, err)
		}
		first, _ := b.d.Glance(t.Context(), id, gnomon.Disk)
		poll(t, c.name+" at all that may be had", func() bool {
			now, err := b.d.Glance(t.Context(), id, gnomon.Disk)
			if err != nil {
				t.Fatal(err)
			}
			lasted := now.At.Sub(first.At)
			done := float64(c.rate(now) - c.rate(first))
			// A second's worth may come at once, and a request more than was left.
			if most := float64(c.most)*(lasted.Seconds()+1) + max(1, float64(c.most)/5); done > 1.1*most {
				t.Fatalf("%s: %.0f in %v, want at most %.0f", c.name, done, lasted, most)
			}
			return lasted > 2*time.Second && done >= float64(c.least)*lasted.Seconds()
		})
	}
	if err := b.d.Restore(t.Context(), id, m.Original); err != nil {
		t.Fatal(err)
	}
	if after := tune("vda") + tune("vdb"); after != before {
		t.Errorf("before:\n%s\nafter Restore:\n%s", before, after)
	}
}
