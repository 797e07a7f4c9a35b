package broker

import (
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/ledger"
)

const (
	maxHeadroom = 1000
	maxHold     = 24 * time.Hour
	firstRetry  = time.Second
	lastRetry   = time.Minute     // of taking away
	lastRegrow  = 5 * time.Second // of growing: what is short waits for it

	// memoryStep is the least a memory allocation shrinks by at once, if it
	// has that far to go; stepPart is the share of it that it shrinks by if
	// larger.
	memoryStep = 32 << 20
	stepPart   = 10

	// recentPart is the share of Hold that is recent: what a VM needed in that
	// time it keeps even if another demands it.
	recentPart = 4

	// silence is how many intervals without a sample make what was told of a
	// guest's memory too old to act on; leastInterval is what counts at least
	// as one.
	silence       = 5
	leastInterval = time.Second
)

// line is one VM's share of one resource.
type line struct {
	m      *machine
	r      gnomon.Resource
	book   *ledger.Entry
	bounds ledger.Bounds

	// base is the level the standard path alone would hold. lent is the part
	// of it that is not needed now and stands ready for other VMs' forecasts.
	// eased is the part of the base that a forecast says is not needed.
	base, lent int64
	eased      int64
	ease       ease
	excess     int64     // of what is prepared, beyond the account's quota
	cause      string    // of the base, for people
	steady     time.Time // since when base has not grown
	onset      onset
	peaks      peaks
	short      time.Time // since when less than standard is allocated, or zero

	seen  bool // a sample told of it
	fresh bool // one has since it last shrank
	last  Reading

	flight    *flight
	settledAt time.Time   // when the last action ended
	asked     int64       // what it asked for, if about that was reached
	got       int64       // what was reached
	failed    [2]failures // of lowering and of raising
	late      []int64     // what the latest actions asked for, which failed: they may still come

	owed   int64 // waste in unit-milliseconds, not told of in a decision yet
	counts Counts
}

// flight is an action whose outcome is not known yet.
type flight struct {
	action gnomon.Action
	since  time.Time
}

// failures are those in a row of actions in one direction, and until when
// another one waits.
type failures struct {
	count int
	retry time.Time
}

// standard is the level the standard path holds now.
func (l *line) standard() int64 { return l.base - l.lent - l.eased }

func (l *line) allocated() int64 { return l.book.Allocated() }

// bound brings an amount within the floor and the ceiling.
func (l *line) bound(amount int64) int64 {
	return max(l.bounds.Floor, min(amount, l.bounds.Ceiling))
}

// padded adds the headroom to an amount; halfPadded half of it.
func (l *line) padded(amount int64) int64     { return mulDiv(amount, 100+l.headroom(), 100) }
func (l *line) halfPadded(amount int64) int64 { return mulDiv(amount, 200+l.headroom(), 200) }

func (l *line) headroom() int64 { return max(0, min(l.m.policy.HeadroomPercent, maxHeadroom)) }

func (l *line) hold() time.Duration { return max(0, min(l.m.policy.Hold, maxHold)) }

// held is the level a live reservation keeps the allocation from shrinking
// below, as far as it is allocated and the account's quota covers it.
func (l *line) held() int64 {
	level := l.ease.level
	if res := l.book.Reservation(); level == 0 && res != nil {
		level = min(res.Level, l.bounds.Ceiling)
	}
	covered := l.book.Prepared() - l.excess + max(0, l.book.Room())
	return min(level, l.allocated(), l.standard()+covered)
}

// tight is the level that what the VM needed of late leaves it, when another
// VM's demand or forecast asks for the rest; standard if not enough is known.
func (l *line) tight(now time.Time) int64 {
	recent := l.hold() / recentPart
	if !l.seen || now.Sub(l.m.found) < recent {
		return l.standard()
	}
	peak := max(l.last.Demand, l.last.Usage, l.peaks.max(now.Add(-recent)))
	return min(l.standard(), l.bound(l.padded(peak)))
}

// safe is the level below which a limit must not go whoever asks. Memory that
// is in use cannot be taken away, and a guest that is paused or does not tell
// its use gives none but what it was given ahead of demand, which is a loan.
func (l *line) safe(now time.Time) int64 {
	if l.r != gnomon.Memory {
		return l.bounds.Floor
	}
	if !l.current(now) {
		return l.allocated() - l.book.Prepared()
	}
	if l.ease.level > 0 {
		return max(l.bounds.Floor, l.last.Demand)
	}
	return max(l.bounds.Floor, l.halfPadded(l.last.Usage))
}

// current reports whether the last sample is recent enough to tell what the VM
// uses now.
func (l *line) current(now time.Time) bool {
	return l.seen && now.Before(l.silentAt())
}

// silentAt is when the last sample becomes too old to tell that.
func (l *line) silentAt() time.Time {
	return l.last.SampledAt.Add(silence * max(l.m.interval[0], l.m.interval[1], leastInterval))
}

// idle reports whether an action towards that level may start now.
func (l *line) idle(to int64, now time.Time) bool {
	if to == l.asked && l.allocated() == l.got {
		return false // as close as the hypervisor comes to it
	}
	return l.mayMove(to > l.allocated(), now)
}

// mayMove reports whether no action is in flight, and none in that direction
// has failed just before.
func (l *line) mayMove(up bool, now time.Time) bool {
	return l.flight == nil && !l.failures(up).retry.After(now)
}

func (l *line) failures(up bool) *failures {
	if up {
		return &l.failed[1]
	}
	return &l.failed[0]
}

// due is when a reservation is handed over ahead of demand: soon enough for
// the limit to be in force, and for memory the balloon deflated, when needed.
func (l *line) due(res *ledger.Reservation) time.Time {
	lead := max(l.m.interval[0], l.m.interval[1])
	if l.r == gnomon.Memory {
		lead *= 2
	}
	return res.NeedAt.Add(-lead)
}

// keep books as prepared what a live request holds above the standard.
func (l *line) keep(now time.Time) {
	if l.flight == nil && l.held() == l.allocated() {
		l.book.Keep(l.allocated()-l.standard()-l.book.Prepared(), now)
	}
}

func (l *line) check(now time.Time) error {
	res := l.book.Reservation()
	target, flying := l.book.Target()
	switch {
	case l.standard() < l.bounds.Floor || l.base > l.bounds.Ceiling || l.lent < 0 || l.eased < 0:
		return fmt.Errorf("a base of %d, %d of it lent and %d eased, is not within %d and %d", l.base, l.lent, l.eased, l.bounds.Floor, l.bounds.Ceiling)
	case res != nil && !res.Expires.After(now):
		return fmt.Errorf("reservation %d outlived its expiry", res.ID)
	case res != nil && l.book.Reserved() > max(0, l.bounds.Ceiling-l.allocated()):
		return fmt.Errorf("reservation %d goes beyond the ceiling", res.ID)
	case flying != (l.flight != nil) || flying && target != l.flight.action.To:
		return errors.New("the book and the action in flight do not agree")
	}
	return nil
}

// near reports whether a is within 1 % of b.
func near(a, b int64) bool { return max(a-b, b-a) <= b/100 }

// mulDiv returns a × b / c without overflow, at most ledger.MaxAmount.
func mulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(max(0, a)), uint64(b))
	if hi >= uint64(c) {
		return ledger.MaxAmount
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(min(q, uint64(ledger.MaxAmount)))
}

// peaks are the highest values of a sliding window, in a few dozen buckets.
type peaks struct {
	buckets []bucket
}

type bucket struct {
	start, end time.Time
	max        int64
}

// bucketsPerHold is into how many buckets the window is divided.
const bucketsPerHold = 32

func (p *peaks) add(at time.Time, v int64, hold time.Duration) {
	for len(p.buckets) > 0 && p.buckets[0].end.Before(at.Add(-hold)) {
		p.buckets = p.buckets[1:]
	}
	if n := len(p.buckets); n > 0 && at.Sub(p.buckets[n-1].start) < hold/bucketsPerHold {
		b := &p.buckets[n-1]
		b.end, b.max = at, max(b.max, v)
		return
	}
	p.buckets = append(p.buckets, bucket{at, at, v})
}

// max returns the highest value seen at or after since.
func (p *peaks) max(since time.Time) (v int64) {
	for _, b := range p.buckets {
		if !b.end.Before(since) {
			v = max(v, b.max)
		}
	}
	return v
}
