package host

import (
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/wire/recording"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func readFile(t *testing.T, path string) iter.Seq2[gnomon.Event, error] {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return recording.Read(f)
}

func TestSelection(t *testing.T) {
	for _, test := range []struct {
		text, name string
		want       bool
	}{
		{"all", "x", true}, {"none", "x", false}, {"web-*", "web-1", true}, {"web-*,db", "db", true},
		{"web-*,db", "db-1", false}, {" db , x ", "x", true},
	} {
		sel, err := ParseSelection(test.text)
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
		} else if got := sel.Matches(test.name); got != test.want {
			t.Errorf("%q on %q: %v", test.text, test.name, got)
		}
	}
	for _, bad := range []string{"", "a,,b", "[", "web-*,"} {
		if _, err := ParseSelection(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestBounds(t *testing.T) {
	m := hypervisor.Machine{
		Max:    gnomon.Resources{gnomon.CPU: 4000, gnomon.Memory: 8 << 30},
		Limits: gnomon.SetOf(gnomon.CPU, gnomon.Memory, gnomon.Disk),
		Why:    [gnomon.NumResources]string{gnomon.Network: "a user-mode interface cannot be limited"},
	}
	p := config.Defaults()
	b := boundsOf(m, p)
	if b.ceiling[gnomon.CPU] != 4000 || b.floor[gnomon.CPU] != 400 || b.floor[gnomon.Memory] != 4<<30 {
		t.Errorf("defaults: %+v", b)
	}
	if b.limits.Has(gnomon.Disk) || !strings.Contains(b.why[gnomon.Disk], "limits.ceiling") {
		t.Errorf("a disk without a ceiling must be left alone and say why: %+v", b)
	}
	p.Ceiling[gnomon.CPU], p.Floor[gnomon.CPU] = 2000, 3000
	p.Ceiling[gnomon.Disk] = 50_000_000
	b = boundsOf(m, p)
	if b.ceiling[gnomon.CPU] != 2000 || b.floor[gnomon.CPU] != 2000 {
		t.Errorf("a floor above the VM's own ceiling must give way: %+v", b)
	}
	if !b.limits.Has(gnomon.Disk) || b.floor[gnomon.Disk] != 5_000_000 {
		t.Errorf("a disk with a ceiling: %+v", b)
	}
}

func TestAllocationWhenFound(t *testing.T) {
	m := hypervisor.Machine{
		Max:      gnomon.Resources{gnomon.CPU: 4000, gnomon.Memory: 8 << 30},
		Memory:   8 << 30, // its balloon does not work yet
		Original: hypervisor.Original{Limits: hypervisor.Limits{hypervisor.Unlimited, 2 << 30, 5, hypervisor.Unlimited}},
	}
	want := gnomon.Resources{4000, 8 << 30, 5, hypervisor.Unlimited}
	if got := allocationOf(m); got != want {
		t.Errorf("allocation %v, want %v", got, want)
	}
}

func TestCapacity(t *testing.T) {
	h := hypervisor.Host{Total: gnomon.Resources{gnomon.CPU: 2000, gnomon.Memory: 8 << 30}}
	p := config.Defaults()
	p.OvercommitPercent[gnomon.CPU] = 400
	c := capacityOf(h, p, 256<<20)
	if c[gnomon.CPU] != 8000 {
		t.Errorf("cpu: %d, want 8000", c[gnomon.CPU])
	}
	if want := int64(7<<30/100*100 - 256<<20); c[gnomon.Memory] != want {
		t.Errorf("memory: %d, want %d", c[gnomon.Memory], want)
	}
	if c[gnomon.Disk] != gnomon.UnboundedCapacity {
		t.Errorf("disk: %d, want no bound", c[gnomon.Disk])
	}
}

func TestNextDueStaysOnTheGrid(t *testing.T) {
	base := time.Unix(1000, 0)
	for _, test := range []struct{ now, want time.Duration }{
		{0, time.Second}, {300 * time.Millisecond, time.Second}, {970 * time.Millisecond, 2 * time.Second},
	} {
		if got := nextDue(base, base.Add(test.now), time.Second); got != base.Add(test.want) {
			t.Errorf("at %v: due at %v, want %v", test.now, got.Sub(base), test.want)
		}
	}
}

func TestStateSurvivesAndRefusesDamage(t *testing.T) {
	path := t.TempDir() + "/host.json"
	s, err := openState(path)
	if err != nil {
		t.Fatal(err)
	}
	m := hypervisor.Machine{ID: "a", Name: "vm", Original: hypervisor.Original{Limits: hypervisor.Limits{-1, 5, 6, -1}, Detail: "x"}}
	if _, err := s.original(m); err != nil {
		t.Fatal(err)
	}
	m.Original = hypervisor.Original{Limits: hypervisor.Limits{100, 1, 1, 1}} // what gnomon itself has set meanwhile
	again, err := openState(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.original(m); err != nil || got != (hypervisor.Original{Limits: hypervisor.Limits{-1, 5, 6, -1}, Detail: "x"}) {
		t.Errorf("original: %v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged state was accepted or not named: %v", err)
	}
}

// A server that is newer may say what this host does not know: the rest counts.
func TestStateOfANewerServer(t *testing.T) {
	b, err := proto.Marshal(&serverpb.DesiredState{
		Revision: 7, Accounts: []string{"acme"},
		Global: map[string]string{"hold": "7s", "parameterOfTheFuture": "1"},
		Host:   map[string]string{"headroom": "a value of the future", "predictionHorizon": "20s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	b = protowire.AppendTag(b, 999, protowire.BytesType)
	b = protowire.AppendString(b, "a field of the future")
	state := &serverpb.DesiredState{}
	if err := proto.Unmarshal(b, state); err != nil {
		t.Fatal(err)
	}
	d := desiredFrom(state)
	p, before := d.parameters("", "", ""), desired{}.parameters("", "", "")
	if p.Hold != 7*time.Second || p.PredictionHorizon != 20*time.Second || p.HeadroomPercent != before.HeadroomPercent {
		t.Errorf("hold %v, horizon %v, headroom %v", p.Hold, p.PredictionHorizon, p.HeadroomPercent)
	}
	if d.Revision != 7 || len(d.Accounts) != 1 {
		t.Errorf("got %+v", d)
	}
}

func TestRing(t *testing.T) {
	r := ring[int]{max: 3}
	for i := range 5 {
		r.add(i)
	}
	if got := r.latest(0); len(got) != 3 || got[0] != 2 || got[2] != 4 {
		t.Errorf("latest: %v", got)
	}
	if got := r.latest(2); len(got) != 2 || got[0] != 3 {
		t.Errorf("latest two: %v", got)
	}
}

// A wall clock that is set back, or ahead, stops no sampling.
func TestSamplingOutlivesAStepOfTheClock(t *testing.T) {
	const interval = time.Second
	now := time.Unix(1_000_000, 0).Add(300 * time.Millisecond)
	due := now
	for _, step := range []time.Duration{0, 0, -time.Hour, 0, time.Hour, 0} {
		now = now.Add(step)
		for range 2 { // after a step at once, otherwise after an interval
			if isDue(due, now, interval) {
				break
			}
			now = now.Add(interval)
		}
		if !isDue(due, now, interval) {
			t.Fatalf("not due at %v after a step of %v", now, step)
		}
		due = nextDue(due, now, interval)
		if isDue(due, now, interval) {
			t.Fatalf("due again at once after a step of %v", step)
		}
	}
}

func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1_000_000, 0)
	passed := func(n int) (count int) {
		for range n {
			if p.allow(now) {
				count++
			}
		}
		return count
	}
	if got := passed(100); got != saysBurst {
		t.Errorf("%d passed at once, want %d", got, saysBurst)
	}
	now = now.Add(3 * time.Second)
	if got := passed(100); got != 3 {
		t.Errorf("%d passed after 3 s, want 3", got)
	}
}
