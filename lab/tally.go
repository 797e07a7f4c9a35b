package lab

import "math"

const (
	leastDelay   = 1e-3 // seconds, below which a delay is none
	delayGrowth  = 1.15 // from one bin of delays to the next
	delayBuckets = 100
	longest      = 1e4 // seconds, beyond which delays are not told apart
)

// tally measures one lane while it counts.
type tally struct {
	counting bool

	seconds, violation, unmet   float64
	demand, allocation, surplus float64 // over time
	givenUp                     float64
	resizes, kills              int
	delays                      [delayBuckets]float64 // work by its delay
}

func (t *tally) count(dt, demand, limit float64) {
	if !t.counting {
		return
	}
	t.seconds += dt
	t.demand += demand * dt
	t.allocation += limit * dt
	if demand > limit*(1+1e-9) {
		t.violation += dt
		t.unmet += (demand - limit) * dt
	} else {
		t.surplus += (limit - demand) * dt
	}
}

func (t *tally) delay(work, seconds float64) {
	if !t.counting || work <= 0 {
		return
	}
	i := 0
	if seconds = min(seconds, longest); seconds > leastDelay {
		i = min(delayBuckets-1, 1+int(math.Log(seconds/leastDelay)/math.Log(delayGrowth)))
	}
	t.delays[i] += work
}

func (t *tally) giveUp(work float64) {
	if t.counting {
		t.givenUp += work
	}
}

func (t *tally) resize() {
	if t.counting {
		t.resizes++
	}
}

func (t *tally) kill() {
	if t.counting {
		t.kills++
	}
}

// delayP99 is what 99 % of the work waits at most, by the bin's upper end.
func (t *tally) delayP99() float64 {
	total := 0.0
	for _, w := range t.delays {
		total += w
	}
	sum := 0.0
	for i, w := range t.delays {
		if sum += w; sum >= 0.99*total {
			if i == 0 {
				return 0
			}
			return leastDelay * math.Pow(delayGrowth, float64(i))
		}
	}
	return 0
}

// into fills in what was measured; scale is a unit's part of the outcome's.
func (t *tally) into(o *Outcome, scale float64) {
	o.Seconds, o.Violation, o.Unmet = t.seconds, t.violation, t.unmet*scale
	o.Resizes, o.Kills = t.resizes, t.kills
	if t.seconds > 0 {
		o.Demand, o.Allocation = t.demand/t.seconds*scale, t.allocation/t.seconds*scale
	}
	if t.allocation > 0 {
		o.Slack = t.surplus / t.allocation
	}
	o.DelayP99 = t.delayP99()
}
