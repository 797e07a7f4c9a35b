package libvirt

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

// offline returns a driver whose connection nobody answers at.
func offline(t *testing.T) *Driver {
	server, client := net.Pipe()
	t.Cleanup(func() { server.Close(); client.Close() })
	d := &Driver{opts: Options{Timeout: time.Second}, ctx: t.Context()}
	d.session = &session{conn: &watchedConn{Conn: client, done: make(chan struct{})}}
	return d
}

func TestHeldDomainGetsNoMoreCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := offline(t)
		held, other := newLive(1), newLive(1)
		release := make(chan struct{})
		calls := 0
		wait := func(*lv.Libvirt) error { calls++; <-release; return nil }
		answer := func(*lv.Libvirt) error { return nil }

		if err := doOn(t.Context(), d, held, wait); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a call that waits = %v", err)
		}
		if held.held() {
			t.Error("a call that is a little late counts as stuck")
		}
		time.Sleep(2 * grace) // of the bubble's time
		for range 3 {
			if err := doOn(t.Context(), d, held, wait); !errors.Is(err, errHeld) {
				t.Errorf("a call while another hangs = %v, want %v", err, errHeld)
			}
		}
		if calls != 1 {
			t.Errorf("%d calls wait in libvirt, want 1", calls)
		}
		if err := doOn(t.Context(), d, other, answer); err != nil {
			t.Errorf("a call for another VM = %v", err)
		}
		if err := do(t.Context(), d, answer); err != nil {
			t.Errorf("a call that needs no lock = %v", err)
		}
		close(release)
		synctest.Wait()
		if err := doOn(t.Context(), d, held, answer); err != nil {
			t.Errorf("a call after the stuck one returned = %v", err)
		}
	})
}

func TestHeldEndsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, lost := newLive(1), make(chan struct{})
		go l.await(nil, lost)
		time.Sleep(2 * grace)
		if !l.held() {
			t.Error("not held while the call hangs")
		}
		close(lost)
		synctest.Wait()
		if l.held() {
			t.Error("still held after the connection was lost")
		}
	})
}

func TestHeldDomainKeepsItsLastDiskLimit(t *testing.T) {
	d := &Driver{}
	dm := &domain{def: &definition{disks: []string{"vda"}}, limits: gnomon.SetOf(gnomon.Disk), live: newLive(1)}
	dm.throttle.put(0, throttles{"vda": shared(7, 0)}, time.Now().Add(-2*stale))
	dm.setLate(1)
	if got, err := d.set(t.Context(), dm, gnomon.Disk, 9, hypervisor.Terms{}); !errors.Is(err, errHeld) {
		t.Errorf("set = %d, %v; want %v", got, err, errHeld)
	}
	if got, err := d.diskLimit(t.Context(), dm); err != nil || got != 7 {
		t.Errorf("limit = %d, %v; want the one known last, 7", got, err)
	}
	dm.throttle.forget()
	if got, err := d.diskLimit(t.Context(), dm); !errors.Is(err, errHeld) {
		t.Errorf("limit after a change = %d, %v; want %v", got, err, errHeld)
	}
	c := hypervisor.Counters{Known: gnomon.SetOf(gnomon.Disk, gnomon.Network)}
	dm.why[gnomon.CPU] = "none"
	if err := d.observe(t.Context(), dm, &c, nil); err != nil || c.Known != gnomon.SetOf(gnomon.Network) {
		t.Errorf("observe = %v, known %v; want all but the disk", err, c.Known)
	}
}

func TestListKeepsWhatCannotBeLookedAt(t *testing.T) {
	d := &Driver{}
	a, b := lv.Domain{Name: "a", UUID: lv.UUID{1}, ID: 1}, lv.Domain{Name: "b", UUID: lv.UUID{2}, ID: 2}
	broken := map[string]error{}
	look := func(_ context.Context, dom lv.Domain) (hypervisor.Machine, error) {
		return hypervisor.Machine{Name: dom.Name}, broken[dom.Name]
	}
	list := func(want string, doms ...lv.Domain) {
		t.Helper()
		ms, err := d.list(t.Context(), doms, look)
		got := ""
		for _, m := range ms {
			got += m.Name
		}
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("list = %q, %v; want %q", got, err, want)
		}
	}
	busy := errors.New("busy")
	broken["b"] = busy
	list("a", a, b) // b never known
	broken["b"] = nil
	list("ab", a, b)
	broken["b"] = busy
	list("ab", a, b)
	list("ab", a, b) // and again
	anew := b
	anew.ID = 3
	list("a", a, anew)
	broken["a"] = busy
	list("a", a, anew)
	list("error", anew)
	broken["a"], broken["b"] = nil, ErrUnavailable
	list("error", a, b)
	broken["b"] = hypervisor.ErrGone
	list("a", a, b)
}

func TestNeededMemory(t *testing.T) {
	stat := func(tag lv.DomainMemoryStatTags, v uint64) lv.DomainMemoryStat {
		return lv.DomainMemoryStat{Tag: int32(tag), Val: v}
	}
	actual, usable := stat(lv.DomainMemoryStatActualBalloon, 1000), stat(lv.DomainMemoryStatUsable, 400)
	update := stat(lv.DomainMemoryStatLastUpdate, 77)
	dm := &domain{live: newLive(1)}
	for _, c := range []struct {
		name  string
		stats []lv.DomainMemoryStat
		told  told
		want  int64
	}{
		{"told", []lv.DomainMemoryStat{actual, usable, update}, told{}, 660 << 10},
		{"silent", []lv.DomainMemoryStat{actual, usable}, told{}, 0},
		{"old driver", []lv.DomainMemoryStat{actual, update}, told{}, 0},
		{"grown since", []lv.DomainMemoryStat{actual, usable, update}, told{at: time.Unix(77, 0), actual: 500 << 10}, 110 << 10},
		{"told anew", []lv.DomainMemoryStat{actual, usable, update}, told{at: time.Unix(76, 0), actual: 500 << 10}, 660 << 10},
	} {
		b, err := decodeStats(c.stats)
		if err != nil {
			t.Fatal(err)
		}
		dm.told = c.told
		if got := dm.needed(b); got != c.want {
			t.Errorf("%s: needed = %d, want %d", c.name, got, c.want)
		}
	}
	if _, err := decodeStats([]lv.DomainMemoryStat{usable}); err == nil {
		t.Error("a balloon without a size is read")
	}
}
