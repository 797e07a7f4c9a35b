package forecast

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The sorted ring agrees with sorting anew.
func TestResiduals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r residuals
		all := rapid.SliceOfN(rapid.Float64Range(-100, 100), 1, 300).Draw(t, "errors")
		for _, v := range all {
			r.add(v)
		}
		kept := slices.Clone(all[max(0, len(all)-residualCap):])
		slices.Sort(kept)
		n := float64(len(kept))
		for _, level := range []float64{0.1, 0.5, 0.9, 0.95} {
			at := level*(n+1) - 1
			got := r.quantile(level)
			switch {
			case at < 0 && got > kept[0]+1e-4, at > n-1 && got < kept[len(kept)-1]-1e-4:
				t.Fatalf("level %v of %d errors: %v lies within %v and %v", level, len(kept), got, kept[0], kept[len(kept)-1])
			case at < 0 || at > n-1:
				continue
			}
			i := int(at)
			want := kept[i]
			if i+1 < len(kept) {
				want += (at - float64(i)) * (kept[i+1] - kept[i])
			}
			if math.Abs(got-want) > 1e-4 {
				t.Fatalf("level %v: got %v, want %v", level, got, want)
			}
		}
	})
}

// Quantiles ascend, also beyond the extremes.
func TestTailsAscend(t *testing.T) {
	var r residuals
	for i := range 40 {
		r.add(math.Exp(float64(i%20) / 5))
	}
	last := math.Inf(-1)
	for _, level := range []float64{1e-6, 1e-4, 0.01, 0.02, 0.03, 0.1, 0.5, 0.9, 0.97, 0.98, 0.999, 1 - 1e-6} {
		v := r.quantile(level)
		if v <= last {
			t.Errorf("level %v: %v, not above %v", level, v, last)
		}
		last = v
	}
	if top := r.at(39); last < 2*top || last > 100*top {
		t.Errorf("quantile of 1-1e-6: %v, the largest error is %v", last, top)
	}
	var none residuals
	if v := none.quantile(0.9); v != 0 {
		t.Errorf("%v without errors", v)
	}
}
