package lab

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gnomon-vm/gnomon/trace"
)

// wild is a trace of all four resources with steps, noise, bursts and holes.
func wild(seed uint64, name string, rows int, interval float64) *trace.Trace {
	rng := rand.New(rand.NewPCG(seed, 7))
	t := &trace.Trace{Name: name}
	columns := []string{"cpu_cores", "mem_used_bytes", "disk_write_bytes_s", "net_rx_bytes_s"}
	scale := []float64{1, 1 << 30, 1e7, 1e6}
	for c, column := range columns {
		level := 1.0
		values := make([]float64, rows)
		for k := range values {
			if rng.IntN(20) == 0 {
				level = 0.2 + 3*rng.Float64()
			}
			values[k] = scale[c] * max(0, level+0.1*rng.NormFloat64())
			if rng.IntN(50) == 0 {
				values[k] = math.NaN()
			}
		}
		t.Columns = append(t.Columns, trace.Column{Name: column, Values: values})
	}
	for k := range rows {
		t.Times = append(t.Times, float64(k)*interval)
	}
	return t
}

func evaluate(t *testing.T, e Evaluation) []Outcome {
	t.Helper()
	out, err := Evaluate(context.Background(), e, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestOracleNeverViolates: what knows the future and the actuators never lacks
// anything, and has next to nothing to spare.
func TestOracleNeverViolates(t *testing.T) {
	for seed, interval := range []float64{1, 10, 300} {
		for _, o := range evaluate(t, Evaluation{Policies: []string{"oracle"},
			Traces: []Input{{Dataset: "d", Trace: wild(uint64(seed), "w", 400, interval), Cores: 8}}}) {
			if o.Violation > 0 || o.Unmet > 0 || o.Kills > 0 {
				t.Errorf("%s at %v s: violation for %v s, %v unmet", o.Resource, interval, o.Violation, o.Unmet)
			}
			// A balloon takes its time to inflate.
			if most := map[string]float64{"memory": 0.35}[o.Resource]; o.Slack > most+1e-3 {
				t.Errorf("%s at %v s: slack %v", o.Resource, interval, o.Slack)
			}
		}
	}
}
