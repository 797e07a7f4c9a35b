package events

import (
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// A VM that computes at its limit is served before the next sample is due; the
// daemon says what tells of it.
func TestThrottledVMIsServedAtOnce(t *testing.T) {
	for flag, source := range map[string]string{"auto": "ebpf", "perf": "perf", "sampling": "sampling"} {
		t.Run(flag, func(t *testing.T) {
			r := newRig(t, false, "--pressure", flag)
			status := r.gnomon(t, "host", "status")
			if !strings.Contains(status, "Pressure:    "+source) {
				t.Errorf("host status does not tell %s:\n%s", source, status)
			}
			r.gnomon(t, "config", "set", "monitoringInterval=30s", "predictionHorizon=1m")
			r.awaitIdle(t)
			told := r.compute(t, time.Second)
			r.down(t)
			served := false
			for _, e := range r.recorded(t) {
				s := e.Sampled
				if s == nil || !s.Urgent || e.At.Before(told) {
					continue
				}
				if !served {
					t.Logf("%s: the broker knew after %v: ran %d of %d millicores demanded over %v", source,
						e.At.Sub(told).Round(10*time.Microsecond), s.Usage[gnomon.CPU], s.Demand[gnomon.CPU], s.Interval)
				}
				served = true
				if s.Known != gnomon.SetOf(gnomon.CPU) {
					t.Errorf("an urgent sample of %v, want of CPU alone", s.Known)
				}
			}
			if !served {
				t.Error("no urgent sample came")
			}
		})
	}
}
