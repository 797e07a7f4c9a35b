package history_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gnomon-vm/gnomon/history"
)

func openBuffer(t *testing.T, dir string, limit int64) *history.Buffer {
	t.Helper()
	b, err := history.OpenBuffer(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func buffered(t *testing.T, e *engine, b *history.Buffer) (*history.Writer, *prometheus.Registry) {
	t.Helper()
	c, err := history.New("http://engine", e)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	return history.NewWriter(c, history.WriterOptions{Buffer: b, Queue: 1000, Batch: 100, Logger: slog.New(slog.DiscardHandler), Registerer: reg}), reg
}

// away answers that it is not there while it is so.
func away(is *bool) func(int, []float64) int {
	return func(int, []float64) int {
		if *is {
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	}
}

// second writes what a host has to say in one second.
func second(w *history.Writer, i int) {
	for j := range 10 {
		w.Write(history.Point{Metric: "m", At: time.Now(), Value: float64(i), Labels: []history.Label{{Name: "vm", Value: string(rune('a' + j))}}})
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

func TestAnHourOfOutageLosesNothing(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		gone := false
		e := &engine{answer: away(&gone)}
		w, reg := buffered(t, e, openBuffer(t, dir, 1<<30))
		set := func(v bool) { e.mu.Lock(); gone = v; e.mu.Unlock() }
		i := 0
		for ; i < 10; i++ {
			second(w, i)
		}
		set(true)
		for ; i < 1800; i++ {
			second(w, i)
		}
		// The daemon is started again meanwhile.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := w.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		cancel()
		w, reg2 := buffered(t, e, openBuffer(t, dir, 1<<30))
		for ; i < 3610; i++ {
			second(w, i)
		}
		set(false)
		for ; i < 3700; i++ {
			second(w, i)
		}
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(e.took) != 37_000 || !slices.IsSorted(e.took) {
			t.Errorf("the engine has %d values, in order: %v; want 37000 in order", len(e.took), slices.IsSorted(e.took))
		}
		for _, r := range []*prometheus.Registry{reg, reg2} {
			if n := dropped(t, r); n != 0 {
				t.Errorf("%v are counted as lost", n)
			}
		}
	})
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%d files are left", len(left))
	}
}

// dropped is how many points are counted as lost, for whatever reason.
func dropped(t *testing.T, r *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "gnomon_history_samples_dropped_total" {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestAFullBufferDropsTheOldest(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		gone := true
		e := &engine{answer: away(&gone)}
		w, reg := buffered(t, e, openBuffer(t, dir, 20_000))
		for i := range 500 {
			second(w, i)
		}
		e.mu.Lock()
		gone = false
		e.mu.Unlock()
		time.Sleep(time.Minute)
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(e.took) == 0 || e.took[len(e.took)-1] != 499 || !slices.IsSorted(e.took) {
			t.Fatalf("the engine has %d values; want the newest, in order", len(e.took))
		}
		if n := dropped(t, reg); n == 0 || int(n)+len(e.took) != 5000 {
			t.Errorf("%d stored and %v dropped, want 5000 together", len(e.took), n)
		}
	})
}

func TestAFullDiskDropsTheOldest(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("needs to mount a small file system: ", err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	synctest.Test(t, func(t *testing.T) {
		gone := true
		e := &engine{answer: away(&gone)}
		w, reg := buffered(t, e, openBuffer(t, filepath.Join(dir, "buffer"), math.MaxInt64))
		for i := range 200 {
			second(w, i)
		}
		e.mu.Lock()
		gone = false
		e.mu.Unlock()
		time.Sleep(time.Minute)
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := dropped(t, reg); n == 0 || int(n)+len(e.took) != 2000 || e.took[len(e.took)-1] != 199 {
			t.Errorf("%d stored and %v dropped, want 2000 together and the newest stored", len(e.took), n)
		}
	})
}

func TestDamagedBuffer(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"00000000000000000007-3.points": "not a request", "00000000000000000008-3.points.new": "cut short", "readme": "keep me",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		gone := false
		e := &engine{answer: away(&gone)}
		w, reg := buffered(t, e, openBuffer(t, dir, 1<<20))
		second(w, 1)
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(e.took) != 10 || dropped(t, reg) != 3 {
			t.Errorf("%d stored and %v dropped, want 10 and 3", len(e.took), dropped(t, reg))
		}
	})
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "readme" {
		t.Errorf("left are %v, %v", left, err)
	}
	if _, err := history.OpenBuffer(dir, 0); err == nil {
		t.Error("a limit of 0 is taken")
	}
}
