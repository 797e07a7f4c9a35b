package history_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"

	"github.com/gnomon-vm/gnomon/history"
)

// An external engine that is stopped for a while, over a restart of the daemon
// too, has every point once it is back.
func TestExternalEnginesMissNothing(t *testing.T) {
	for name, engineIn := range map[string]func(*testing.T, string) (func(*testing.T) *process, string){
		"prometheus": prometheusIn, "victoria-metrics": victoriaMetricsIn,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start, url := engineIn(t, t.TempDir())
			p := start(t)
			dir, c := t.TempDir(), connect(t, url, nil)
			begun := time.Now().Add(-time.Hour).Truncate(time.Second)
			written := 0
			say := func(w *history.Writer, n int) {
				for range n {
					w.Write(history.Point{Metric: "outage", At: begun.Add(time.Duration(written) * time.Second), Value: 1,
						Labels: []history.Label{{Name: "vm", Value: "a"}}})
					written++
				}
			}
			writer := func() (*history.Writer, *prometheus.Registry) {
				reg := prometheus.NewRegistry()
				return history.NewWriter(c, history.WriterOptions{Buffer: openBuffer(t, dir, 1<<20), Logger: slog.New(slog.DiscardHandler), Registerer: reg}), reg
			}

			w, first := writer()
			say(w, 100)
			count := func() float64 {
				v, err := c.Query(t.Context(), `sum(count_over_time(outage[2h]))`, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if vector := v.(model.Vector); len(vector) == 1 {
					return float64(vector[0].Value)
				}
				return 0
			}
			eventually(t, "the engine has what was written before", func() bool { return count() == 100 })
			p.stop()
			say(w, 300)
			closing, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := w.Close(closing); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("close while the engine is away: %v", err)
			}
			w, second := writer()
			say(w, 100)
			start(t)
			flushing, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := w.Close(flushing); err != nil {
				t.Errorf("close with the engine back: %v", err)
			}
			eventually(t, "the engine has every point", func() bool { return count() == 500 })
			if lost := dropped(t, first) + dropped(t, second); lost != 0 {
				t.Errorf("%v points are counted as lost", lost)
			}
		})
	}
}
