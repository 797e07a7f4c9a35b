package ledger_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/ledger"
	"pgregory.net/rapid"
)

const cpu = gnomon.CPU

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return epoch.Add(d) }

// open returns a book of 1000 with one entry that has 200 of at most 800.
func open(t *testing.T) (*ledger.Ledger, *ledger.Entry) {
	t.Helper()
	l := ledger.New(1)
	l.SetCapacity(gnomon.Resources{1000})
	return l, mustOpen(t, l, "a", 200)
}

func mustOpen(t *testing.T, l *ledger.Ledger, vm gnomon.VMID, observed int64) *ledger.Entry {
	t.Helper()
	e, err := l.Open(vm, "acme", cpu, ledger.Bounds{Floor: 100, Ceiling: 800}, observed)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func reserve(t *testing.T, e *ledger.Entry, amount int64, at time.Time) int64 {
	t.Helper()
	waste, err := e.Reserve(ledger.Reservation{Session: 1, Level: e.Allocated() + amount, Expires: at.Add(time.Minute)}, amount, at)
	must(t, err)
	return waste
}

func expect(t *testing.T, l *ledger.Ledger, want ledger.Total) {
	t.Helper()
	if got := l.Total(cpu); got != want {
		t.Errorf("balance %+v, want %+v", got, want)
	}
	if err := l.Check(); err != nil {
		t.Error(err)
	}
}

func TestGrowthIsBookedBeforeItIsSeen(t *testing.T) {
	l, e := open(t)
	must(t, e.Raise(500, 0, false, epoch))
	expect(t, l, ledger.Total{Capacity: 1000, Allocated: 500, Free: 500})
	if target, flying := e.Target(); e.Observed() != 200 || !flying || target != 500 {
		t.Errorf("observed %d, target %d", e.Observed(), target)
	}
	e.Observe(350, epoch) // it went part of the way
	expect(t, l, ledger.Total{Capacity: 1000, Allocated: 350, Free: 650})
}

func TestShrinkFreesOnlyWhatWasSeen(t *testing.T) {
	l, e := open(t)
	must(t, e.Lower(100))
	expect(t, l, ledger.Total{Capacity: 1000, Allocated: 200, Free: 800})
	e.Observe(100, epoch)
	expect(t, l, ledger.Total{Capacity: 1000, Allocated: 100, Free: 900})
}

func TestHandoverAndUse(t *testing.T) {
	l, e := open(t)
	reserve(t, e, 300, epoch)
	expect(t, l, ledger.Total{Capacity: 1000, Allocated: 200, Reserved: 300, Free: 500})
	must(t, e.Raise(500, 300, true, after(time.Second)))
	e.Observe(500, after(time.Second))
	expect(t, l, ledger.Total{Capacity: 1000, Allocated: 500, Free: 500})
	if e.Prepared() != 300 {
		t.Fatalf("prepared %d, want 300", e.Prepared())
	}
	if used := e.Use(100, after(3*time.Second)); used != 100 || e.Prepared() != 200 {
		t.Errorf("used %d, %d left", used, e.Prepared())
	}
	must(t, e.Lower(300))
	// 200 waited unused for 1 s reserved and 3 s prepared
	if waste := e.Observe(300, after(4*time.Second)); waste != 200*4000 || e.Waste() != 800 {
		t.Errorf("waste %d unit-ms, %v unit-s in all; want 800000 and 800", waste, e.Waste())
	}
	if used := e.Use(50, after(4*time.Second)); used != 0 {
		t.Errorf("used %d of nothing prepared", used)
	}
}

func TestDemandsHandoverIsNotPrepared(t *testing.T) {
	_, e := open(t)
	reserve(t, e, 300, epoch)
	must(t, e.Raise(600, 300, false, after(time.Second)))
	if e.Prepared() != 0 || e.Reserved() != 0 || e.Allocated() != 600 {
		t.Errorf("prepared %d, reserved %d, allocated %d", e.Prepared(), e.Reserved(), e.Allocated())
	}
	if waste := e.Close(after(time.Minute)); waste != 0 {
		t.Errorf("used capacity wasted %d", waste)
	}
}

func TestReservationIsReplacedNotAdded(t *testing.T) {
	l, e := open(t)
	reserve(t, e, 300, epoch)
	id := e.Reservation().ID
	if waste := reserve(t, e, 100, after(2*time.Second)); waste != 200*2000 {
		t.Errorf("waste %d, want 400000", waste)
	}
	if e.Reservation().ID != id || e.Reserved() != 100 {
		t.Errorf("reservation %+v of %d", e.Reservation(), e.Reserved())
	}
	expect(t, l, ledger.Total{Capacity: 1000, Allocated: 200, Reserved: 100, Free: 700})
	if waste := e.Drop(after(3 * time.Second)); waste != 100*3000 || e.Reservation() != nil {
		t.Errorf("waste %d, want 300000", waste)
	}
	reserve(t, e, 1, epoch)
	if e.Reservation().ID == id {
		t.Error("an id was used twice")
	}
}

func TestKeep(t *testing.T) {
	_, e := open(t)
	e.Keep(500, epoch)
	if e.Prepared() != 200 {
		t.Errorf("prepared %d of 200 allocated", e.Prepared())
	}
	if waste := e.Close(after(time.Second)); waste != 200*1000 {
		t.Errorf("waste %d, want 200000", waste)
	}
}

func TestRefusals(t *testing.T) {
	soon := ledger.Reservation{Level: 300, Expires: after(time.Second)}
	reserveErr := func(amount int64) func(*ledger.Entry) error {
		return func(e *ledger.Entry) error { _, err := e.Reserve(soon, amount, epoch); return err }
	}
	for _, c := range []struct {
		name string
		do   func(e *ledger.Entry) error
		want string
	}{
		{"raise above what is free", func(e *ledger.Entry) error { return e.Raise(701, 0, false, epoch) }, "500 free"},
		{"raise above the ceiling", func(e *ledger.Entry) error { return e.Raise(801, 0, false, epoch) }, "the ceiling is 800"},
		{"raise to less", func(e *ledger.Entry) error { return e.Raise(200, 0, false, epoch) }, "it is 200"},
		{"hand over what is not reserved", func(e *ledger.Entry) error { return e.Raise(300, 1, false, epoch) }, "cannot take 1 out of 0"},
		{"raise twice", func(e *ledger.Entry) error {
			_ = e.Raise(300, 0, false, epoch)
			return e.Raise(400, 0, false, epoch)
		}, "in flight"},
		{"lower below the floor", func(e *ledger.Entry) error { return e.Lower(99) }, "the floor is 100"},
		{"lower to more", func(e *ledger.Entry) error { return e.Lower(200) }, "it is 200"},
		{"lower twice", func(e *ledger.Entry) error { _ = e.Lower(150); return e.Lower(120) }, "in flight"},
		{"reserve what is not free", reserveErr(501), "500 free"},
		{"reserve above the ceiling", func(e *ledger.Entry) error {
			e.SetBounds(ledger.Bounds{Ceiling: 250})
			return reserveErr(51)(e)
		}, "the ceiling is 250"},
		{"reserve less than nothing", reserveErr(-1), "0 or more"},
		{"reserve what has expired", func(e *ledger.Entry) error {
			_, err := e.Reserve(soon, 1, after(time.Second))
			return err
		}, "expired"},
	} {
		l, e := open(t)
		mustOpen(t, l, "b", 300)
		if err := c.do(e); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
		if err := l.Check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	l, _ := open(t)
	if _, err := l.Open("a", "", cpu, ledger.Bounds{}, 1); err == nil {
		t.Error("one VM was booked twice")
	}
}

// What is found running is booked even beyond the capacity, but nothing is
// granted before the debt is paid.
func TestDiscoveryMayOvercommit(t *testing.T) {
	l, e := open(t)
	b := mustOpen(t, l, "b", 900)
	expect(t, l, ledger.Total{Capacity: 1000, Allocated: 1100, Free: -100})
	if err := e.Raise(201, 0, false, epoch); err == nil {
		t.Error("a grant out of less than nothing")
	}
	b.Observe(800, epoch)
	expect(t, l, ledger.Total{Capacity: 1000, Allocated: 1000})
	l.SetCapacity(gnomon.Resources{})
	expect(t, l, ledger.Total{Allocated: 1000, Free: -1000})
	b.Close(epoch)
	expect(t, l, ledger.Total{Allocated: 200, Free: -200})
}

// No amount and no span of time makes the book overflow.
func TestHostileAmounts(t *testing.T) {
	l := ledger.New(math.MaxUint64)
	l.SetCapacity(gnomon.Resources{math.MaxInt64})
	e, err := l.Open("a", "", cpu, ledger.Bounds{Ceiling: math.MaxInt64}, 0)
	must(t, err)
	reserve(t, e, ledger.MaxAmount, epoch)
	if waste := e.Drop(after(math.MaxInt64)); waste != math.MaxInt64 {
		t.Errorf("waste %d, want the largest", waste)
	}
	e.Observe(math.MaxInt64, epoch)
	e.Observe(math.MinInt64, epoch)
	expect(t, l, ledger.Total{Capacity: ledger.MaxAmount, Free: ledger.MaxAmount})
}

// TestAnyOperations does anything in any order: the book balances throughout,
// and what is refused changes nothing.
func TestAnyOperations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, now := ledger.New(1), epoch
		entries := map[gnomon.VMID]*ledger.Entry{}
		accounts, quotas := map[*ledger.Entry]string{}, map[string]int64{}
		ahead := func() map[string]int64 {
			sums := map[string]int64{}
			for _, e := range entries {
				sums[accounts[e]] += e.Reserved() + e.Prepared()
			}
			return sums
		}
		before := map[string]int64{} // what accounts had ahead
		amount := func(label string) int64 {
			return rapid.OneOf(rapid.Int64Range(-10, 1200), rapid.Int64()).Draw(t, label)
		}
		pick := func() *ledger.Entry {
			e := entries[rapid.SampledFrom([]gnomon.VMID{"a", "b", "c"}).Draw(t, "vm")]
			if e == nil {
				t.Skip("no entry")
			}
			return e
		}
		refused := func(err error, before ledger.Total) {
			if err != nil && l.Total(cpu) != before {
				t.Fatalf("refused (%v), yet %+v became %+v", err, before, l.Total(cpu))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if err := l.Check(); err != nil {
					t.Fatal(err)
				}
				if b := l.Total(cpu); b.Capacity != b.Allocated+b.Reserved+b.Free || b.Allocated < 0 || b.Reserved < 0 {
					t.Fatalf("%+v", b)
				}
				sums := ahead()
				for account, quota := range quotas {
					if quota > 0 && sums[account] > max(quota, before[account]) {
						t.Fatalf("account %q has %d ahead of a quota of %d, and had %d before", account, sums[account], quota, before[account])
					}
				}
				before = sums
			},
			"capacity": func(t *rapid.T) { l.SetCapacity(gnomon.Resources{amount("capacity")}) },
			"quota": func(t *rapid.T) {
				account := drawAccount(t)
				quotas[account] = rapid.Int64Range(0, 500).Draw(t, "quota")
				l.SetQuota(account, gnomon.Resources{quotas[account]})
				before[account] = ahead()[account]
			},
			"account": func(t *rapid.T) {
				e, account := pick(), drawAccount(t)
				e.SetAccount(account)
				accounts[e] = account
				before = ahead()
			},
			"open": func(t *rapid.T) {
				vm := rapid.SampledFrom([]gnomon.VMID{"a", "b", "c"}).Draw(t, "vm")
				floor := rapid.Int64Range(0, 300).Draw(t, "floor")
				account := drawAccount(t)
				e, err := l.Open(vm, account, cpu, ledger.Bounds{Floor: floor, Ceiling: floor + 700}, amount("observed"))
				if (err == nil) != (entries[vm] == nil) {
					t.Fatalf("open %s: %v", vm, err)
				}
				if err == nil {
					entries[vm], accounts[e] = e, account
				}
			},
			"raise": func(t *rapid.T) {
				e, before := pick(), l.Total(cpu)
				err := e.Raise(amount("to"), amount("reserved"), rapid.Bool().Draw(t, "early"), now)
				refused(err, before)
				if after := l.Total(cpu).Free; err == nil && after < 0 && after < before.Free {
					t.Fatalf("a grant brought free from %d to %d", before.Free, after)
				}
			},
			"lower": func(t *rapid.T) {
				e, before := pick(), l.Total(cpu)
				_ = e.Lower(amount("to"))
				if l.Total(cpu) != before {
					t.Fatal("a shrink freed before it was seen")
				}
			},
			"observe": func(t *rapid.T) { pick().Observe(amount("observed"), now) },
			"reserve": func(t *rapid.T) {
				e, before := pick(), l.Total(cpu)
				_, err := e.Reserve(ledger.Reservation{Session: 1, Expires: now.Add(time.Second)}, amount("amount"), now)
				refused(err, before)
			},
			"release": func(t *rapid.T) { pick().Release(amount("amount"), now) },
			"drop":    func(t *rapid.T) { pick().Drop(now) },
			"use":     func(t *rapid.T) { pick().Use(amount("amount"), now) },
			"keep":    func(t *rapid.T) { pick().Keep(amount("amount"), now) },
			"close": func(t *rapid.T) {
				e := pick()
				for vm, o := range entries {
					if o == e {
						delete(entries, vm)
					}
				}
				e.Close(now)
			},
			"wait": func(t *rapid.T) { now = now.Add(time.Duration(rapid.Int64Range(0, 1e10).Draw(t, "wait"))) },
		})
	})
}

func drawAccount(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "acme"}).Draw(t, "account")
}

// An account's entries share its quota. One that is lowered takes nothing away,
// but lets nothing grow before there is less.
func TestQuotaIsSharedByAnAccount(t *testing.T) {
	l, a := open(t)
	b := mustOpen(t, l, "b", 200)
	room := func(want int64) {
		t.Helper()
		if a.Room() != want || b.Room() != want {
			t.Errorf("room of %d and %d, want %d", a.Room(), b.Room(), want)
		}
		if err := l.Check(); err != nil {
			t.Error(err)
		}
	}
	room(ledger.MaxAmount)
	l.SetQuota("acme", gnomon.Resources{100})
	room(100)
	reserve(t, a, 60, epoch)
	room(40)
	soon := ledger.Reservation{Expires: after(time.Second)}
	if _, err := b.Reserve(soon, 41, epoch); err == nil || !strings.Contains(err.Error(), `the quota of account "acme" leaves 40`) {
		t.Errorf("reserved beyond the quota: %v", err)
	}
	must(t, a.Raise(260, 60, true, epoch)) // handed over ahead of demand: it still counts
	room(40)
	b.Keep(50, epoch)
	room(0)
	l.SetQuota("acme", gnomon.Resources{70})
	room(-30)
	a.Use(20, epoch) // demand has it
	room(-10)
	b.Keep(10, epoch)
	room(-10)
	b.SetAccount("other")
	if b.Room() != ledger.MaxAmount || a.Room() != 30 {
		t.Errorf("room of %d and %d once one has left", a.Room(), b.Room())
	}
	b.SetAccount("acme")
	room(-10)
	b.Close(epoch)
	if a.Room() != 30 {
		t.Errorf("room of %d, want 30", a.Room())
	}
	l.SetQuota("acme", gnomon.Resources{})
	if a.Room() != ledger.MaxAmount {
		t.Errorf("room of %d without a quota", a.Room())
	}
}

// Every unit-second of a lot ends up as used or as waste, however it is split.
func TestWasteIsConserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := ledger.New(1)
		l.SetCapacity(gnomon.Resources{1 << 40})
		e, err := l.Open("a", "", cpu, ledger.Bounds{Ceiling: 1 << 40}, 0)
		if err != nil {
			t.Fatal(err)
		}
		amount := rapid.Int64Range(1, 1<<30).Draw(t, "amount")
		if _, err := e.Reserve(ledger.Reservation{Expires: after(time.Hour)}, amount, epoch); err != nil {
			t.Fatal(err)
		}
		now, total, waste := epoch, int64(0), int64(0)
		for e.Reserved() > 0 {
			ms := rapid.Int64Range(0, 5000).Draw(t, "ms")
			now = now.Add(time.Duration(ms) * time.Millisecond)
			total += e.Reserved() * ms
			waste += e.Release(rapid.Int64Range(1, amount).Draw(t, "release"), now)
		}
		if waste != total {
			t.Fatalf("waste %d of %d", waste, total)
		}
	})
}
