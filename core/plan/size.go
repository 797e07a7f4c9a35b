package plan

import (
	"math"

	"github.com/gnomon-vm/gnomon/core/forecast"
)

const (
	// firstPart is the probability, before anything is known, that the next
	// demand is as any of the past rather than as forecast; leastPart and mostPart
	// bound what is learned of it, partRate is what a sample counts.
	firstPart, leastPart, mostPart = 0.03, 0.003, 0.9
	partRate                       = 0.003
	// alike is by how much two demands differ, as a part, that are taken for the
	// same when it is learned.
	alike = 0.02
	// unseenPart is what is left of what Laplace's rule tells, since forecasts have
	// tails of their own.
	unseenPart = 0.1
	// settling is how long after a decision its limits are in force: for that
	// time the last decision's hold in the next step.
	settling = 0.1 // seconds
	// beyond is how far above a quantile an amount is tried, so that demand as
	// forecast exactly is no shortage.
	beyond = 0.002
	// tails is how many amounts are tried above the highest quantile.
	tails = 12
	// firstSizes is how many samples are seen before a size is dared.
	firstSizes = 10
)

// outlook is what one resource's demand may be in a step: as forecast, as it was
// before, or as never seen. The latter has a part of the probability that
// Laplace's rule of succession leaves for it, and exceeds what was seen by factors
// like those that lie between what was seen.
type outlook struct {
	levels  []float64
	values  []float64 // the forecast's quantiles
	tail    float64   // by how much the quantile rises when the part above it falls by e
	top     float64   // logarithm of the highest of them
	seen    float64   // likewise of what was seen or is forecast at most
	past    *summary
	part    float64 // probability that it is as in the past
	unseen  float64 // probability
	ceiling float64

	// What demand is known to exceed, 0 if nothing is known, with what was left
	// over of it and how probable that was, had it not been known.
	least, leastSurplus, leastShort float64
}

// exceeds has demand be as it is where it exceeds an amount.
func (o *outlook) exceeds(least float64) {
	o.leastSurplus, o.leastShort = o.anyway(least)
	o.least = least
}

// at returns what is expected to be left over of an amount, and how probable it
// is that demand exceeds it.
func (o *outlook) at(amount float64) (surplus, short float64) {
	surplus, short = o.anyway(amount)
	switch {
	case o.least <= 0 || o.leastShort <= 0:
		return surplus, short
	case amount <= o.least:
		return 0, 1
	}
	// Of the surplus, the integral of the distribution up to the amount, what is
	// above both least and its level counts.
	surplus -= o.leastSurplus + (amount-o.least)*(1-o.leastShort)
	return max(0, surplus/o.leastShort), min(1, short/o.leastShort)
}

// anyway is at, were it not known that demand exceeds anything.
func (o *outlook) anyway(amount float64) (surplus, short float64) {
	surplus, short = o.forecast(amount)
	before, exceeded := o.past.at(amount)
	surplus = surplus*(1-o.part) + before*o.part
	if amount >= o.ceiling {
		return surplus, 0
	}
	short = short*(1-o.part) + exceeded*o.part
	return surplus, short*(1-o.unseen) + o.unseen*o.surprise(amount)
}

// forecast is at, were demand as forecast: uniform between two quantiles, with
// an exponential tail beyond the highest that goes on as the last ones do.
func (o *outlook) forecast(amount float64) (surplus, short float64) {
	n := len(o.values) - 1
	low, level := max(0, o.values[0]-(o.values[1]-o.values[0])*o.levels[0]/(o.levels[1]-o.levels[0])), 0.0
	for i, v := range o.values {
		if v >= amount {
			if v > low && amount > low {
				part := (amount - low) / (v - low) * (o.levels[i] - level)
				return surplus + part*(amount-low)/2, 1 - level - part
			}
			return surplus, 1 - level
		}
		surplus += (o.levels[i] - level) * (amount - (low+v)/2)
		low, level = v, o.levels[i]
	}
	if o.tail <= 0 {
		return surplus + (1-level)*(amount-o.values[n]), 0
	}
	short = (1 - level) * math.Exp(-(amount-o.values[n])/o.tail)
	return surplus + (1-level)*(amount-o.values[n]-o.tail) + short*o.tail, short
}

// learned returns part after what demand turned out to be: moved towards the
// probability that this one was as in the past, given both (online expectation
// maximisation of a mixture's weight; Cappé and Moulines, "On-line
// expectation-maximization algorithm for latent data models", 2009).
func (o *outlook) learned(demand float64) float64 {
	low, high := demand*(1-alike)-1, demand*(1+alike)+1
	_, above := o.forecast(low)
	_, beyond := o.forecast(high)
	before := o.part * (o.past.upTo(high) - o.past.upTo(low))
	forecast := (1 - o.part) * (above - beyond)
	if !(before+forecast > 0) {
		return o.part
	}
	part := o.part + partRate*(before/(before+forecast)-o.part)
	return max(leastPart, min(part, mostPart))
}

// shape draws what lies beyond the highest quantile.
func (o *outlook) shape() {
	n := len(o.values) - 1
	o.top = math.Log(max(o.values[n], 1))
	o.seen = max(o.top, math.Log(max(o.past.highest, 1)))
	o.tail = max(0, (o.values[n]-o.values[n-1])/math.Log((1-o.levels[n-1])/(1-o.levels[n])))
}

// atLeast has demand be no less than an amount.
func (o *outlook) atLeast(amount float64) {
	for q := range o.values {
		o.values[q] = max(o.values[q], amount)
	}
	o.shape()
}

// surprise is the part of what was never seen that exceeds an amount.
func (o *outlook) surprise(amount float64) float64 {
	log := math.Log(max(amount, 1))
	switch {
	case log <= o.top:
		return 1
	case log <= o.seen:
		return 1 - 0.5*(log-o.top)/(o.seen-o.top)
	}
	return 0.5 * math.Exp((o.seen-log)/o.past.spread)
}

// size returns the amount at which more would cost more than the shortage it
// spares, for a step and, for a share of the time, the one after it; and how
// probable a shortage is then. Waste costs its part of the scale, which is
// positive, a shortage the price: for a demand with density f and distribution F
// the amount a is where F(a) = price × scale × f(a).
func size(next, then *outlook, share, scale, price float64) (amount, short float64) {
	least, tooMuch := math.Inf(1), math.Inf(1)
	try := func(a float64) {
		if a = min(a, next.ceiling); a >= tooMuch {
			return
		}
		left, p := next.at(a)
		if left/scale >= least { // and what is left over only grows with the amount
			tooMuch = a
			return
		}
		if share > 0 {
			_, q := then.at(a)
			p += share * (q - p)
		}
		if cost := left/scale + price*p; cost < least {
			least, amount, short = cost, a, p
		}
	}
	for _, o := range []*outlook{next, then} {
		for _, v := range o.values {
			try(v * (1 + beyond))
			try(v * (1 + 5*beyond))
		}
		top := o.values[len(o.values)-1]
		for k := 1; k < tails && o.tail > 0; k++ {
			try(top*(1+beyond) + o.tail*0.7*float64(k))
		}
	}
	for i := bucketOf(next.values[0]); i < pastBuckets; i++ {
		seen := i > 0 && next.past.below[i] > next.past.below[i-1]
		if seen || i%3 == 0 {
			try(uppers[i] * (1 + beyond/2))
		}
		if uppers[i] >= next.ceiling {
			break
		}
	}
	try(next.ceiling)
	return amount, short
}

// outlooks are those of the next step and the one after it.
func (l *lane) outlooks(f forecast.Forecast, ceiling float64) (next, then *outlook) {
	if l.summary == nil {
		l.summary = new(summary)
	}
	l.past.sum(l.summary)
	next = &outlook{levels: f.Levels, values: f.Quantiles[0], past: l.summary, part: l.past.part,
		unseen: unseenPart / (l.past.samples + 1), ceiling: ceiling}
	after := *next
	after.values = f.Quantiles[min(1, len(f.Quantiles)-1)]
	next.shape()
	after.shape()
	return next, &after
}
