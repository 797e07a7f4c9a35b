package main

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	s := stage{count: 10, upTo: []bound{{1, 0}, {2, 4}, {4, 9}}} // and one above 4
	for q, want := range map[float64]float64{0: 1, 0.2: 1.5, 0.4: 2, 0.65: 3, 0.9: 4, 0.99: 4} {
		if got := s.quantile(q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
	if got := (stage{}).quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %v", got)
	}
	if d := since([]stage{{count: 3, upTo: []bound{{1, 2}}}}, []stage{{count: 5, upTo: []bound{{1, 3}}}}); d[0].count != 2 || d[0].upTo[0].count != 1 {
		t.Errorf("since = %+v", d)
	}
}
