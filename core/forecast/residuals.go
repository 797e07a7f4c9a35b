package forecast

import "math"

// residualCap is how many of the newest errors are kept: enough for the 0.025
// quantile, few enough to forget a change of regime in a minute or two of
// seconds.
const residualCap = 96

const (
	// tailCount is how many of the largest errors say how fast the tail thins.
	tailCount = 8
	// leastTail is the least mean excess of a tail, of the range of all errors.
	leastTail = 0.02
)

// residuals is the empirical distribution of the newest errors of one model at
// one step, sorted as they come.
type residuals struct {
	value [residualCap]float32 // ring
	order [residualCap]uint8   // indices into value, ascending by value
	n     uint8
	next  uint8 // where the next one goes
}

// add takes in an error, forgetting the oldest if full.
func (r *residuals) add(v float64) {
	x, slot := float32(v), r.next
	if r.n == residualCap {
		for i, o := range r.order {
			if o == slot {
				copy(r.order[i:], r.order[i+1:])
				break
			}
		}
		r.n--
	}
	lo, hi := 0, int(r.n)
	for lo < hi {
		if mid := (lo + hi) / 2; r.value[r.order[mid]] < x {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	copy(r.order[lo+1:], r.order[lo:r.n])
	r.order[lo], r.value[slot] = slot, x
	r.n++
	r.next = (slot + 1) % residualCap
}

// at returns the i-th smallest error.
func (r *residuals) at(i int) float64 { return float64(r.value[r.order[i]]) }

// quantile returns the quantile of a level in (0,1), 0 if there are no errors.
// The error to come counts as one more, beyond the extremes (Vovk et al. 2005):
// the i-th of n smallest is the quantile of i/(n+1). Beyond the extremes the
// tails are taken to be exponential.
func (r *residuals) quantile(level float64) float64 {
	n := int(r.n)
	if n == 0 {
		return 0
	}
	at := level*float64(n+1) - 1
	switch {
	case at < 0:
		return r.at(0) - r.excess(false)*math.Log(1/(level*float64(n+1)))
	case at > float64(n-1):
		return r.at(n-1) + r.excess(true)*math.Log(1/((1-level)*float64(n+1)))
	}
	i := int(at)
	if i == n-1 {
		return r.at(i)
	}
	return r.at(i) + (at-float64(i))*(r.at(i+1)-r.at(i))
}

// excess is the mean by which the largest errors exceed the largest but those,
// or the smallest fall below.
func (r *residuals) excess(upper bool) float64 {
	n := int(r.n)
	k := min(tailCount, n/4)
	least := leastTail * (r.at(n-1) - r.at(0))
	if k == 0 {
		return (r.at(n-1) - r.at(0)) / 4
	}
	var sum float64
	for i := range k {
		if upper {
			sum += r.at(n-1-i) - r.at(n-1-k)
		} else {
			sum += r.at(k) - r.at(i)
		}
	}
	return max(least, sum/float64(k))
}
