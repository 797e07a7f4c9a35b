package forecast

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/diff/fd"
	"gonum.org/v1/gonum/optimize"
)

// A searched is what a search found: the squared error and how often it asked.
type searched struct {
	sse   float64
	asked int
}

var searchStarts = [][]float64{{0.3, 0.02, 0.2}, {0.02, 0.001, 0.02}}

// passengers returns the squared error of Holt-Winters on the airline
// passengers, from the starting state that is read off them.
func passengers(t testing.TB) func(p []float64) float64 {
	s := readGolden(t).Series["airline"]
	m := &winters{period: s.Period, phi: trendDamping}
	x := make([]float64, 2+s.Period)
	m.begin(s.Values, x)
	return func(p []float64) (sum float64) {
		m.start(x)
		m.alpha, m.beta, m.gamma = p[0], p[1], p[2]
		for _, y := range s.Values {
			e := m.step(y)
			sum += e * e
		}
		return sum
	}
}

// byPattern searches from one start as the models do.
func byPattern(sse func([]float64) float64, start []float64) (found searched) {
	p := append([]float64(nil), start...)
	found.sse = minimise(func(p []float64) float64 {
		found.asked++
		return sse(p)
	}, p, []float64{0, 0, 0}, []float64{0.99, 0.3, 0.9}, 9)
	return found
}

// byGonum searches on logistic parameters, which need no bounds.
func byGonum(sse func([]float64) float64, start []float64, method optimize.Method) (searched, error) {
	x, p := make([]float64, len(start)), make([]float64, len(start))
	for i, v := range start {
		x[i] = math.Log(v / (1 - v))
	}
	asked := 0
	f := func(x []float64) float64 {
		asked++
		for i, v := range x {
			p[i] = 1 / (1 + math.Exp(-v))
		}
		return sse(p)
	}
	r, err := optimize.Minimize(optimize.Problem{Func: f, Grad: func(dst, x []float64) {
		fd.Gradient(dst, f, x, &fd.Settings{Formula: fd.Central})
	}}, x, nil, method)
	if r == nil {
		return searched{}, err
	}
	return searched{r.F, asked}, nil // a line search that ends early has still found r
}

// The search in a box finds as low an error as a simplex or quasi-Newton search
// does, from either start, and asks less often than one that finds as low.
func TestSearchAgainstGonum(t *testing.T) {
	sse := passengers(t)
	for _, start := range searchStarts {
		own := byPattern(sse, start)
		for _, method := range []optimize.Method{&optimize.NelderMead{}, &optimize.BFGS{}} {
			other, err := byGonum(sse, start, method)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("from %v: pattern search %.0f in %d, %T %.0f in %d", start, own.sse, own.asked, method, other.sse, other.asked)
			if own.sse > 1.001*other.sse {
				t.Errorf("from %v: squared error %.0f, %T reaches %.0f", start, own.sse, method, other.sse)
			}
			if other.sse < 1.001*own.sse && own.asked > other.asked {
				t.Errorf("from %v: %d evaluations, %T needs %d", start, own.asked, method, other.asked)
			}
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	sse := passengers(b)
	b.Run("pattern", func(b *testing.B) {
		for b.Loop() {
			for _, start := range searchStarts {
				byPattern(sse, start)
			}
		}
	})
	for _, method := range []optimize.Method{&optimize.NelderMead{}, &optimize.BFGS{}} {
		b.Run(fmt.Sprintf("%T", method), func(b *testing.B) {
			for b.Loop() {
				for _, start := range searchStarts {
					if _, err := byGonum(sse, start, method); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
