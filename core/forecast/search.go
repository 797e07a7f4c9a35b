package forecast

import "math"

// maxSweeps bounds a search that keeps finding tiny improvements.
const maxSweeps = 64

// minimise improves x, a point of the box [lo,hi], by a pattern search (Hooke
// and Jeeves 1961): it tries a step each way along every coordinate and halves
// the steps when none helps. It never leaves the box and needs no gradient; a
// simplex without bounds runs off to degenerate smoothing parameters here.
func minimise(f func([]float64) float64, x, lo, hi []float64, halvings int) float64 {
	best := f(x)
	step := 0.25
	for h, sweeps := 0, 0; h < halvings && sweeps < maxSweeps; sweeps++ {
		improved := false
		for i := range x {
			old := x[i]
			for _, sign := range [2]float64{1, -1} {
				x[i] = min(hi[i], max(lo[i], old+sign*step*(hi[i]-lo[i])))
				if x[i] == old {
					continue
				}
				if v := f(x); v < best*(1-1e-9) {
					best, improved = v, true
					break
				}
				x[i] = old
			}
		}
		if !improved {
			step /= 2
			h++
		}
	}
	return best
}

// fitting is the memory for one fit: made for each, so that a series at rest
// holds none of it.
type fitting struct {
	errs, moved []float64   // residuals at a point and beside it
	jac         []float64   // change of the residuals, one row per parameter
	rows        [][]float64 // normal equations
	cells       []float64
	rhs, sol    []float64
	from, at    []float64 // points
	values      []float64 // a series made ready for a fit
	state       []float64
	shocks      []float64
}

func sized(v []float64, n int) []float64 {
	if cap(v) < n {
		return make([]float64, n)
	}
	return v[:n]
}

// normal returns zeroed normal equations in k unknowns.
func (w *fitting) normal(k int) (a [][]float64, rhs, sol []float64) {
	w.cells, w.rhs, w.sol = sized(w.cells, k*k), sized(w.rhs, k), sized(w.sol, k)
	clear(w.cells)
	clear(w.rhs)
	if cap(w.rows) < k {
		w.rows = make([][]float64, k)
	}
	w.rows = w.rows[:k]
	for i := range k {
		w.rows[i] = w.cells[i*k : (i+1)*k]
	}
	return w.rows, w.rhs, w.sol
}

func squares(v []float64) (sum float64) {
	for _, x := range v {
		sum += x * x
	}
	return sum
}

// refine improves x by Gauss-Newton steps with forward differences of width
// step: f writes the n residuals at a point. Residuals that are linear in x (as
// those of a filter are in its starting state) reach their least squares in one
// round. prior is the weight of staying at the first x. A round that does not
// lower the sum of squares is undone. It returns that sum.
func (w *fitting) refine(f func(x, e []float64), x []float64, step float64, n int, prior float64, rounds int) float64 {
	k := len(x)
	w.errs, w.moved, w.jac = sized(w.errs, n), sized(w.moved, n), sized(w.jac, k*n)
	w.from, w.at = append(w.from[:0], x...), append(w.at[:0], x...)
	f(x, w.errs)
	best := squares(w.errs)
	if !(step > 0) {
		return best
	}
	for range rounds {
		for i := range k {
			old := x[i]
			x[i] += step
			f(x, w.moved)
			x[i] = old
			for t, e := range w.errs {
				w.jac[i*n+t] = (w.moved[t] - e) / step
			}
		}
		if !w.newton(x, n, prior) {
			break
		}
		sum := best
		for share := 1.0; share > 0.1 && !(sum < best); share /= 2 {
			for i := range k {
				w.at[i] = x[i] + share*w.sol[i]
			}
			f(w.at, w.moved)
			sum = squares(w.moved)
		}
		if !(sum < best) {
			break
		}
		best = sum
		copy(x, w.at)
		copy(w.errs, w.moved)
	}
	return best
}

// newton solves for one step from x.
func (w *fitting) newton(x []float64, n int, prior float64) bool {
	a, rhs, sol := w.normal(len(x))
	for i := range x {
		row := w.jac[i*n : (i+1)*n]
		for j := 0; j <= i; j++ {
			for t, v := range w.jac[j*n : (j+1)*n] {
				a[i][j] += v * row[t]
			}
		}
		for t, v := range row {
			rhs[i] -= v * w.errs[t]
		}
		rhs[i] += prior * (w.from[i] - x[i])
		a[i][i] += prior + 1e-9*a[i][i]
	}
	return solve(a, rhs, sol)
}

// solve finds b with a·b = c for a symmetric positive definite a, of which the
// lower half is read, by Cholesky factorisation in place. a is small, so this
// is written out rather than linking a linear algebra library into the agent.
// It reports false if a is not positive definite.
func solve(a [][]float64, c, b []float64) bool {
	n := len(c)
	for i := range n {
		for j := 0; j <= i; j++ {
			sum := a[i][j]
			for k := range j {
				sum -= a[i][k] * a[j][k]
			}
			if i != j {
				a[i][j] = sum / a[j][j]
				continue
			}
			if !(sum > 1e-12) {
				return false
			}
			a[i][i] = math.Sqrt(sum)
		}
	}
	for i := range n {
		sum := c[i]
		for k := range i {
			sum -= a[i][k] * b[k]
		}
		b[i] = sum / a[i][i]
	}
	for i := n - 1; i >= 0; i-- {
		sum := b[i]
		for k := i + 1; k < n; k++ {
			sum -= a[k][i] * b[k]
		}
		b[i] = sum / a[i][i]
	}
	return true
}
