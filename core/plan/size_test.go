package plan

import (
	"math"
	"testing"

	"github.com/gnomon-vm/gnomon/config"
	"pgregory.net/rapid"
)

// exponential is an outlook of demand with that mean above an offset.
func exponential(offset, mean, ceiling float64) *outlook {
	o := &outlook{levels: levels, past: summed(newPast()), ceiling: ceiling}
	for _, level := range levels {
		o.values = append(o.values, offset-mean*math.Log(1-level))
	}
	o.shape()
	return o
}

func summed(p *past) *summary {
	s := new(summary)
	p.sum(s)
	return s
}

// For an exponential demand the part above the amount is where
// F(a)/scale = price × f(a): mean/(price × scale) of it, as far as it is small.
func TestSizeFollowsThePrice(t *testing.T) {
	const mean, scale = 10.0, 100.0
	o := exponential(100, mean, 1e6)
	o.past.below[0] = 0
	for _, price := range []float64{2, 5, 10, 50} {
		_, short := size(o, o, 0, scale, price)
		want := mean / (price * scale) / (1 + mean/(price*scale))
		if short < want/2.5 || short > want*2.5 {
			t.Errorf("price %v: short with %.4f, want about %.4f", price, short, want)
		}
	}
}

// A past that shows what a forecast does not is covered once a shortage is dear.
func TestSizeHeedsThePast(t *testing.T) {
	p := newPast()
	for i := range 2000 {
		if i%200 == 0 {
			p.see(900)
		} else {
			p.see(100)
		}
	}
	o := exponential(100, 1, 1000)
	o.past, o.part, o.unseen = summed(p), firstPart, 1/(p.samples+1)
	if cheap, _ := size(o, o, 0, 150, 1); cheap > 150 {
		t.Errorf("at a low price %v, want what is forecast", cheap)
	}
	if dear, _ := size(o, o, 0, 150, 1e5); dear < 900 {
		t.Errorf("at a high price %v, want what was seen", dear)
	}
}

func TestSizeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(rapid.Float64Range(0, 3000), rapid.Float64Range(0, 1e18))
		p := newPast()
		for range rapid.IntRange(0, 30).Draw(t, "samples") {
			p.see(value.Draw(t, "seen"))
		}
		o := &outlook{levels: levels, past: summed(p), part: rapid.Float64Range(leastPart, mostPart).Draw(t, "part"),
			unseen: 1 / (p.samples + 1), ceiling: 1 + value.Draw(t, "ceiling")}
		v := value.Draw(t, "value")
		for range levels {
			o.values = append(o.values, v)
			v += value.Draw(t, "rise")
		}
		o.shape()
		scale := 1 + value.Draw(t, "scale")
		price := rapid.Float64Range(config.MinShortagePrice, config.MaxShortagePrice).Draw(t, "price")
		a, short := size(o, o, 0.1, scale, price)
		if !(a >= 0 && a <= o.ceiling) || !(short >= 0 && short <= 1) {
			t.Fatalf("%v, short with %v: want 0 to %v, and a probability", a, short, o.ceiling)
		}
		b, more := size(o, o, 0.1, scale, price/10)
		if more < short-1e-9 {
			t.Fatalf("at a tenth of the price %v, short with %v; at the price %v, with %v", b, more, a, short)
		}
		x, y := value.Draw(t, "x"), value.Draw(t, "y")
		x, y = min(x, y), max(x, y)
		if rapid.Bool().Draw(t, "known") {
			o.exceeds(value.Draw(t, "least"))
		}
		left, p1 := o.at(x)
		leftMore, p2 := o.at(y)
		if p2 > p1+1e-9 || leftMore < left*(1-1e-9)-1e-6 || p1 < 0 || p1 > 1 || left < 0 || left > x*(1+1e-9)+1e-6 {
			t.Fatalf("of %v %v is left, short with %v; of %v %v, with %v", x, left, p1, y, leftMore, p2)
		}
	})
}

// How often demand is as in the past rather than as forecast is learned.
func TestPartOfThePastIsLearned(t *testing.T) {
	p := newPast()
	for i := range 2000 {
		p.see(float64(100 + i%900))
	}
	o := exponential(100, 1, 1e6) // by a forecaster that is sure of 100
	o.past = summed(p)
	for _, want := range []float64{0.01, 0.2, 0.6} {
		o.part = firstPart
		every := int(1 / want)
		mean, n := 0.0, 0.0
		for i := range 6000 {
			demand := 100.5
			if want > 0.5 && i%5 < 3 || want < 0.5 && i%every == 0 {
				demand = float64(200 + i*7%700)
			}
			o.part = o.learned(demand)
			if i >= 3000 {
				mean, n = mean+o.part, n+1
			}
		}
		if got := mean / n; math.Abs(got-want) > 0.1*want+0.01 {
			t.Errorf("learned that %.3f of demand is as in the past, want %.3f", got, want)
		}
	}
	if o.learned(1e9) != o.part {
		t.Error("what neither foresaw teaches which of them to trust")
	}
}

// Of what exceeds an amount as much is left over, and as often too little, as of
// all demand less what does not exceed it.
func TestDemandKnownToExceedAnAmount(t *testing.T) {
	anyway, above := exponential(0, 100, 1e6), exponential(0, 100, 1e6)
	const least = 300.0
	above.exceeds(least)
	_, rest := anyway.at(least)
	for _, amount := range []float64{100, 300, 310, 400, 800} {
		left, short := above.at(amount)
		wantLeft, wantShort := 0.0, 1.0
		if amount > least {
			_, p := anyway.at(amount)
			wantShort = p / rest
			const steps = 100_000
			for i := range steps {
				y := least + (amount-least)*(float64(i)+0.5)/steps
				_, p := anyway.at(y)
				wantLeft += (amount - least) / steps * (1 - p/rest)
			}
		}
		if math.Abs(left-wantLeft) > 0.01*(1+wantLeft) || math.Abs(short-wantShort) > 1e-9 {
			t.Errorf("of %v %v is left, short with %v: want %v, %v", amount, left, short, wantLeft, wantShort)
		}
	}
	if a, _ := size(above, above, 0, 1000, 1e4); a < 2*least {
		t.Errorf("%v is enough of what exceeds %v, want what such demand is like", a, least)
	}
}

// What is learned fades, however long it goes on.
func TestPastFades(t *testing.T) {
	p := newPast()
	for range 1000 {
		p.see(1e6)
	}
	for range 200_000 {
		p.see(100)
	}
	s := summed(p)
	if left, short := s.at(200); short > 1e-6 || left < 80 || left > 120 {
		t.Errorf("of 200 %v is left, short with %v", left, short)
	}
	if s.highest > 110 || math.IsNaN(s.spread) || s.spread <= 0 {
		t.Errorf("highest %v, spread %v", s.highest, s.spread)
	}
	if p.unit > maxUnit || math.IsInf(p.weights[bucketOf(100)], 0) {
		t.Errorf("a unit of %v", p.unit)
	}
}

// Of a past that moves by less than a bucket is wide, what exceeds all of it is
// known to suffice, and what is less than all not to.
func TestPastIsFinerThanItsBuckets(t *testing.T) {
	p := newPast()
	for i := range 1000 {
		p.see(1000 + float64(i%11))
	}
	s := summed(p)
	for amount, want := range map[float64]float64{999: 1, 1000: 1, 1005: 0.5, 1010: 0, 1030: 0} {
		if _, short := s.at(amount); math.Abs(short-want) > 0.01 {
			t.Errorf("%v is short with probability %.3f, want %.3f", amount, short, want)
		}
	}
}
