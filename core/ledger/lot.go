package ledger

import (
	"math"
	"math/bits"
	"time"
)

// lot is an amount that waits to be used, with the amount × time it has waited
// so far, in unit-milliseconds.
type lot struct {
	amount  int64
	accrued int64
	since   time.Time // up to when accrued counts
}

// touch brings accrued up to now, in whole milliseconds.
func (l *lot) touch(now time.Time) {
	if l.amount == 0 {
		l.since = now
		return
	}
	ms := max(0, now.Sub(l.since).Milliseconds())
	l.accrued = add(l.accrued, mulDiv(l.amount, ms, 1))
	l.since = l.since.Add(time.Duration(ms) * time.Millisecond)
}

// add puts amount in, which has waited for accrued elsewhere.
func (l *lot) add(amount, accrued int64, now time.Time) {
	l.touch(now)
	l.amount += amount
	l.accrued = add(l.accrued, accrued)
}

// take removes up to amount and returns its share of what was accrued.
func (l *lot) take(amount int64, now time.Time) int64 {
	l.touch(now)
	amount = min(amount, l.amount)
	if amount <= 0 {
		return 0
	}
	share := mulDiv(l.accrued, amount, l.amount)
	l.amount -= amount
	l.accrued -= share
	return share
}

// add returns a + b of two amounts not below 0, at most the largest int64.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// mulDiv returns a × b / c of amounts not below 0, at most the largest int64.
func mulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(min(q, math.MaxInt64))
}
