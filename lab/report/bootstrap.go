package report

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
)

// drawsOf returns the resamples of n VMs, each n indices drawn with replacement
// (the bootstrap: Efron, "Bootstrap methods: another look at the jackknife",
// Annals of Statistics 7, 1979). All policies of a cell share them, so that
// their differences are paired. The same seed and cell give the same draws.
func drawsOf(seed uint64, dataset, resource string, n, resamples int) [][]int {
	if n < 2 {
		return nil
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(dataset + "\x00" + resource))
	random := rand.New(rand.NewPCG(seed, h.Sum64()))
	draws := make([][]int, resamples)
	for b := range draws {
		draws[b] = make([]int, n)
		for i := range draws[b] {
			draws[b][i] = random.IntN(n)
		}
	}
	return draws
}

// everyone returns the indices of all n.
func everyone(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// spanOf returns the value with the percentile interval of its resamples, which
// it sorts: 2.5 % of them lie below Low and above High each.
func spanOf(value float64, resampled []float64) Span {
	if len(resampled) == 0 {
		return Span{value, math.NaN(), math.NaN()}
	}
	slices.Sort(resampled)
	at := func(p float64) float64 { return resampled[int(math.Round(p*float64(len(resampled)-1)))] }
	return Span{value, at(0.025), at(0.975)}
}
