package plan

import (
	"math"

	"github.com/gnomon-vm/gnomon/core/pack"
)

const (
	// pastRatio is from one bucket of a past to the next; the first is of nothing
	// at all, the last of maxAmount and more.
	pastRatio   = 1.07
	pastBuckets = 1 + 40*16
	// pastMiddle is what a bucket's samples are taken to be, as a part of its
	// upper end.
	pastMiddle = 0.967
	// pastFade is how much less each sample counts than its successor: a past
	// reaches back some 6000 samples.
	pastFade = 1 - 1.0/6000
	// unit is renewed before it overflows.
	maxUnit = 1e9

	// unsure is the spread of the logarithm that demand is taken to have before
	// anything is known, and counts as many samples as sureness.
	unsure, sureness = 1.0, 3.0
)

var logRatio = math.Log(pastRatio)

// past is what demand was like over thousands of samples: a histogram of its
// logarithm, in which older samples count less and less. A forecast is made from
// the last thousand; what comes once a day may be in none of them.
type past struct {
	weights []float64 // by bucket, in units
	least   []float64 // by bucket, of its samples: memory may move by less than one is wide
	most    []float64 // likewise
	unit    float64   // what the newest sample counts
	samples float64   // ever
	part    float64   // probability that the next one is as any of these, not as forecast
}

func newPast() *past {
	buckets := func() []float64 { return make([]float64, pastBuckets) }
	return &past{weights: buckets(), least: buckets(), most: buckets(), unit: 1, part: firstPart}
}

func bucketOf(demand float64) int {
	if demand < 1 {
		return 0
	}
	return min(pastBuckets-1, 1+int(math.Log(demand)/logRatio))
}

// uppers are the buckets' upper ends.
var uppers = func() (ends [pastBuckets]float64) {
	for i := 1; i < pastBuckets; i++ {
		ends[i] = math.Pow(pastRatio, float64(i))
	}
	return ends
}()

// see takes in the next sample; NaN is a missing one.
func (p *past) see(demand float64) {
	if math.IsNaN(demand) {
		return
	}
	p.samples++
	p.unit /= pastFade
	i := bucketOf(demand)
	if p.weights[i] == 0 || demand < p.least[i] {
		p.least[i] = demand
	}
	p.most[i] = max(p.most[i], demand)
	p.weights[i] += p.unit
	if p.unit > maxUnit {
		for i := range p.weights {
			p.weights[i] /= p.unit
		}
		p.unit = 1
	}
}

// summary is a past at one moment, ready to be asked.
type summary struct {
	below, mass [pastBuckets]float64 // by bucket: share of samples up to it, and their sum
	least, most []float64            // those of the past
	highest     float64              // that still counts
	spread      float64              // standard deviation of the logarithm
}

// sum fills s in.
func (p *past) sum(s *summary) {
	*s = summary{least: p.least, most: p.most}
	var total, mass, logs, squares float64
	first, last := 0, len(p.weights)-1
	for first < last && p.weights[first] == 0 {
		first++
	}
	for last > first && p.weights[last] == 0 {
		last--
	}
	for i := first; i <= last; i++ {
		w, u := p.weights[i], uppers[i]
		total += w
		mass += w * u * pastMiddle
		s.below[i], s.mass[i] = total, mass
		if w > p.unit/5 {
			s.highest = u
		}
		x := float64(max(i, 1))
		logs += w * x
		squares += w * x * x
	}
	if total == 0 {
		s.spread = unsure
		return
	}
	for i := first; i <= last; i++ {
		s.below[i] /= total
		s.mass[i] /= total
	}
	for i := last + 1; i < len(s.below); i++ {
		s.below[i], s.mass[i] = s.below[last], s.mass[last]
	}
	mean := logs / total
	known := total / p.unit
	variance := max(0, squares/total-mean*mean) * logRatio * logRatio
	s.spread = math.Sqrt((variance*known + unsure*unsure*sureness) / (known + sureness))
}

// at returns what is expected to be left over of an amount, and how probable it
// is that it does not suffice, were the next sample as those of the past. In the
// bucket of the amount they are taken to be evenly between its least and its most.
func (s *summary) at(amount float64) (surplus, short float64) {
	i := bucketOf(amount)
	below, mass := s.below[i], s.mass[i]
	if i > 0 && s.most[i] > amount {
		part := 0.0
		if s.least[i] < amount {
			part = (amount - s.least[i]) / (s.most[i] - s.least[i])
		}
		below = s.below[i-1] + part*(below-s.below[i-1])
		mass = s.mass[i-1] + part*(mass-s.mass[i-1])
	}
	return max(0, amount*below-mass), 1 - below
}

// upTo returns how probable it is that the next sample is at most an amount, were
// it as those of the past.
func (s *summary) upTo(amount float64) float64 {
	i := bucketOf(amount)
	if i == 0 {
		return s.below[0]
	}
	part := math.Log(amount)/logRatio - float64(i-1)
	return s.below[i-1] + min(1, part)*(s.below[i]-s.below[i-1])
}

func (p *past) exchange(c *pack.Codec) {
	for i := range p.weights {
		c.Float(&p.weights[i], 0, maxUnit/(1-pastFade))
		c.Float(&p.least[i], 0, math.MaxFloat64)
		c.Float(&p.most[i], 0, math.MaxFloat64)
	}
	c.Float(&p.unit, 1, maxUnit)
	c.Float(&p.samples, 0, 1e15)
	c.Float(&p.part, leastPart, mostPart)
}
