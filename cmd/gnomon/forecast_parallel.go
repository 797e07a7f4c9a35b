package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
)

// inParallel calls work for 0 to n-1, on all cores, and returns what failed. It
// starts no more work once something did or ctx is done.
func inParallel(ctx context.Context, n int, p *progress, work func(i int) error) error {
	p.start(n)
	defer p.finish()
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		all.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := work(i); err != nil {
				return err
			}
			p.step()
			return nil
		})
	}
	return all.Wait()
}

// progress draws a bar on a terminal, and nothing elsewhere.
type progress struct {
	w     io.Writer
	what  string
	n     int
	begun time.Time

	mu    sync.Mutex
	done  int
	drawn time.Time
}

func newProgress(w io.Writer, what string) *progress {
	if f, ok := w.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		w = nil
	}
	return &progress{w: w, what: what}
}

func (p *progress) start(n int) { p.n, p.begun, p.drawn = n, time.Now(), time.Now() }

// redraw is how long a bar stands before the next.
const redraw = 100 * time.Millisecond

func (p *progress) step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.w == nil || time.Since(p.drawn) < redraw {
		return
	}
	p.drawn = time.Now()
	const width = 30
	full := width * p.done / p.n
	left := time.Duration(float64(time.Since(p.begun)) / float64(p.done) * float64(p.n-p.done))
	fmt.Fprintf(p.w, "\r%s [%s%s] %d/%d, %v left \x1b[K", p.what, strings.Repeat("#", full), strings.Repeat(".", width-full), p.done, p.n, left.Round(time.Second))
}

// finish removes the bar.
func (p *progress) finish() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
