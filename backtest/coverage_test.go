package backtest_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gnomon-vm/gnomon/core/forecast"
	"github.com/gnomon-vm/gnomon/trace"
)

// TestCoverageOnTraces follows every series of a second's interval in the folder
// that GNOMON_TRACES names, and looks at each thousand samples: the 90 % interval
// is to hold 88 to 92 % of them.
func TestCoverageOnTraces(t *testing.T) {
	dir := os.Getenv("GNOMON_TRACES")
	if dir == "" {
		t.Skip("GNOMON_TRACES names no folder of traces")
	}
	files, err := trace.FindFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	inside, all := map[int]int{}, map[int]int{}
	var off []float64
	for _, file := range files {
		tr, err := trace.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if tr.Interval() > 1.5 {
			continue
		}
		for _, c := range tr.Columns {
			if lumpy(c.Values) {
				continue
			}
			for step, shares := range coverage(t, c.Values) {
				for i, share := range shares {
					all[step]++
					if share >= 0.88 && share <= 0.92 {
						inside[step]++
					} else {
						t.Logf("%s %s: step %d, thousand %d: %.3f", filepath.Base(file), c.Name, step, i, share)
					}
					off = append(off, share)
				}
			}
		}
	}
	var within, n int
	for step := range all {
		t.Logf("step %d: %d of %d", step, inside[step], all[step])
		within, n = within+inside[step], n+all[step]
	}
	slices.Sort(off)
	if n == 0 {
		t.Skipf("no trace of a second's interval below %s", dir)
	}
	t.Logf("lowest %.3f, median %.3f, highest %.3f", off[0], off[n/2], off[n-1])
	if within*10 < n*9 || off[0] < 0.84 || off[n-1] > 0.96 {
		t.Errorf("%d of %d thousands hold 88 to 92 %%, want nine tenths, and none outside 84 to 96 %%", within, n)
	}
}

// lumpy reports whether so many values repeat their predecessor that no interval
// can leave out a tenth.
func lumpy(ys []float64) bool {
	same, n := 0, 0
	for i := 1; i < len(ys); i++ {
		if !math.IsNaN(ys[i]) {
			n++
			if ys[i] == ys[i-1] {
				same++
			}
		}
	}
	return same*20 > n
}

// coverage returns per step the share inside the interval, thousand by thousand.
func coverage(t *testing.T, ys []float64) map[int][]float64 {
	f, err := forecast.New(forecast.Options{Horizon: 10, Quantiles: []float64{0.05, 0.5, 0.95}})
	if err != nil {
		t.Fatal(err)
	}
	const warm = 100
	hits, n := map[int][]float64{}, map[int][]float64{}
	for i, y := range ys {
		f.Update(y)
		if i < warm {
			continue
		}
		fc := f.Forecast()
		for _, step := range []int{1, 5, 10} {
			if i+step >= len(ys) || math.IsNaN(ys[i+step]) {
				continue
			}
			at := (i - warm) / 1000
			if len(hits[step]) == at {
				hits[step], n[step] = append(hits[step], 0), append(n[step], 0)
			}
			n[step][at]++
			if q := fc.Quantiles[step-1]; ys[i+step] >= q[0] && ys[i+step] <= q[2] {
				hits[step][at]++
			}
		}
	}
	for step := range hits {
		for i := range hits[step] {
			hits[step][i] /= n[step][i]
			if n[step][i] < 900 {
				hits[step] = hits[step][:i]
				break
			}
		}
	}
	return hits
}
