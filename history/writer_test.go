package history_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/prompb"

	"github.com/gnomon-vm/gnomon/history"
)

// engine answers writes as told and remembers what it took.
type engine struct {
	mu     sync.Mutex
	answer func(n int, values []float64) int // to the n-th request; 0 hangs
	n      int
	took   []float64
}

func (e *engine) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		return nil, err
	}
	var write prompb.WriteRequest
	if err := write.Unmarshal(raw); err != nil {
		return nil, err
	}
	var values []float64
	for _, ts := range write.Timeseries {
		for _, s := range ts.Samples {
			values = append(values, s.Value)
		}
	}
	e.mu.Lock()
	e.n++
	status := e.answer(e.n, values)
	if status == http.StatusNoContent {
		e.took = append(e.took, values...)
	}
	e.mu.Unlock()
	if status == 0 {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(nil)), Request: req}, nil
}

func always(status int) func(int, []float64) int { return func(int, []float64) int { return status } }

func startWriter(t *testing.T, e *engine, opts history.WriterOptions) (*history.Writer, *prometheus.Registry) {
	t.Helper()
	c, err := history.New("http://engine/base", e)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	opts.Registerer, opts.Logger = reg, slog.New(slog.DiscardHandler)
	return history.NewWriter(c, opts), reg
}

func points(from, to int) []history.Point {
	var ps []history.Point
	for i := from; i < to; i++ {
		ps = append(ps, history.Point{Metric: "m", At: time.UnixMilli(int64(i)), Value: float64(i)})
	}
	return ps
}

// wantCounts checks the counters: stored, and dropped by reason.
func wantCounts(t *testing.T, reg *prometheus.Registry, stored, full, rejected, closed int) {
	t.Helper()
	got := map[string]int{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name = l.GetValue()
			}
			got[name] = int(m.GetCounter().GetValue())
		}
	}
	want := map[string]int{"gnomon_history_samples_total": stored, "queue_full": full, "rejected": rejected, "closed": closed}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s = %d, want %d", name, got[name], n)
		}
	}
	if n, err := testutil.GatherAndCount(reg, "gnomon_history_samples_dropped_total"); err != nil || n != 4 {
		t.Errorf("%d series of drops, %v; want 4 from the start", n, err)
	}
}

func TestWriterBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{answer: always(http.StatusNoContent)}
		w, reg := startWriter(t, e, history.WriterOptions{Batch: 100})
		w.Write(points(0, 10)...)
		synctest.Wait()
		if e.n != 0 {
			t.Error("wrote before the interval ended")
		}
		time.Sleep(time.Second) // virtual
		synctest.Wait()
		if e.n != 1 || len(e.took) != 10 {
			t.Errorf("%d requests with %d values after the interval, want 1 with 10", e.n, len(e.took))
		}
		w.Write(points(10, 260)...)
		synctest.Wait()
		if e.n < 3 {
			t.Errorf("%d requests, want full batches to go at once", e.n)
		}
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wantCounts(t, reg, 260, 0, 0, 0)
		w.Write(points(0, 3)...)
		wantCounts(t, reg, 260, 0, 0, 3)
	})
}

func TestWriterOutlivesOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := false
		e := &engine{answer: func(int, []float64) int {
			if up {
				return http.StatusNoContent
			}
			return http.StatusServiceUnavailable
		}}
		w, reg := startWriter(t, e, history.WriterOptions{Queue: 50, Batch: 10})
		w.Write(points(0, 10)...)
		synctest.Wait() // the first ten are on their way
		before := time.Now()
		for i := 10; i < 100; i++ {
			w.Write(points(i, i+1)...)
		}
		if d := time.Since(before); d != 0 {
			t.Errorf("writing blocked for %v", d)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if e.n < 5 || e.n > 20 {
			t.Errorf("%d tries in a minute, want them to back off", e.n)
		}
		e.mu.Lock()
		up = true
		e.mu.Unlock()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		want := append(points(0, 10), points(50, 100)...)
		if len(e.took) != len(want) {
			t.Fatalf("%d values stored, want %d", len(e.took), len(want))
		}
		for i, p := range want {
			if e.took[i] != p.Value {
				t.Fatalf("value %d is %v, want %v: the oldest are dropped, the order kept", i, e.took[i], p.Value)
			}
		}
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wantCounts(t, reg, 60, 40, 0, 0)
	})
}

func TestWriterIsolatesRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{answer: func(_ int, values []float64) int {
			for _, v := range values {
				if v == 13 || v == 77 {
					return http.StatusBadRequest
				}
			}
			return http.StatusNoContent
		}}
		w, reg := startWriter(t, e, history.WriterOptions{})
		w.Write(points(0, 100)...)
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wantCounts(t, reg, 98, 0, 2, 0)
		if e.n > 40 {
			t.Errorf("%d requests to find two points of a hundred", e.n)
		}
	})
}

func TestWriterCloseHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{answer: always(0)} // hangs
		w, reg := startWriter(t, e, history.WriterOptions{Batch: 10})
		w.Write(points(0, 25)...)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := w.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close returned %v, want the deadline", err)
		}
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("Close took %v, want 3s", d)
		}
		wantCounts(t, reg, 0, 0, 0, 25)
	})
}
