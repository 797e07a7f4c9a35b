package lab

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/trace"
)

// Input is a trace to play: what one machine used.
type Input struct {
	Dataset string
	Trace   *trace.Trace
	Cores   float64 // the machine's; 0 if not known
	Memory  float64 // bytes; 0 if not known
}

const (
	// nominalMemory and nominalRate are what percentages and normalised values
	// are of where the trace does not tell: their shape counts only.
	nominalMemory = 8 << 30
	nominalRate   = 100e6

	// unknownCeiling is the ceiling over the trace's maximum where the
	// capacity is not known; floorPart the floor below the ceiling.
	unknownCeiling = 1.25
	floorPart      = 0.001

	// fineInterval is the longest between the rows of a trace of which the
	// pressure within an interval is told.
	fineInterval = 2 * time.Second

	minSteps = 20
)

// script is a trace made ready to be played.
type script struct {
	input    Input
	interval time.Duration
	steps    int
	demand   [gnomon.NumResources][]float64 // nil where not known; NaN where missing
	ceiling  [gnomon.NumResources]float64
	floor    [gnomon.NumResources]float64
	known    gnomon.ResourceSet
}

// ErrNothing is of an input that tells nothing that can be played.
var ErrNothing = errors.New("nothing to play")

// Check returns what keeps an input from being played, of the resources named,
// nil for all: ErrNothing, which Evaluate leaves out, or what it fails of.
func (in Input) Check(resources []string) error {
	only, err := parseResources(resources)
	if err != nil {
		return err
	}
	_, err = scriptOf(in, only)
	return err
}

// parseResources returns the set of the names; an empty one is of all.
func parseResources(names []string) (set gnomon.ResourceSet, err error) {
	for _, name := range names {
		r, err := gnomon.ParseResource(name)
		if err != nil {
			return 0, err
		}
		set = set.With(r)
	}
	return set, nil
}

// scriptOf reads a trace, of the resources in only if that names any. Columns
// that tell nothing of a resource are ignored.
func scriptOf(in Input, only gnomon.ResourceSet) (*script, error) {
	if in.Trace == nil {
		return nil, errors.New("the trace is missing")
	}
	if rows := len(in.Trace.Times); rows < minSteps {
		return nil, fmt.Errorf("%d rows: want at least %d", rows, minSteps)
	}
	interval := in.Trace.Interval()
	if !(interval >= 0.05 && interval <= 86400) {
		return nil, fmt.Errorf("rows are %v s apart: want 0.05 to 86400", interval)
	}
	s := &script{input: in, interval: time.Duration(math.Round(interval*1e3)) * time.Millisecond}
	why := "no column tells of a resource that is played, in a unit that is known"
	for r := range gnomon.AllResources() {
		values, capacity := columnOf(in, r)
		if values == nil || only != 0 && !only.Has(r) {
			continue
		}
		if s.add(r, in.Trace.Regular(values), capacity) {
			s.known = s.known.With(r)
		}
		why = "every value of what is played is 0 or missing"
	}
	if s.known == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNothing, why)
	}
	return s, nil
}

// add takes a resource in and reports whether there is anything to play.
func (s *script) add(r gnomon.Resource, values []float64, capacity float64) bool {
	most := 0.0
	for i, v := range values {
		if math.IsInf(v, 0) {
			values[i] = math.NaN()
		} else if v >= 0 {
			most = max(most, v)
		} else if v < 0 {
			values[i] = 0
		}
	}
	if !(most > 0) {
		return false
	}
	if !(capacity > 0) {
		capacity = unknownCeiling * most
	}
	for i, v := range values {
		values[i] = min(v, capacity) // percentages pass 100 at times
	}
	s.demand[r], s.ceiling[r] = values, math.Ceil(capacity)
	s.floor[r] = math.Ceil(capacity * floorPart)
	s.steps = max(s.steps, len(values))
	return true
}

// columnOf returns a resource's values in its unit, and its capacity if known.
func columnOf(in Input, r gnomon.Resource) (values []float64, capacity float64) {
	column := in.Trace.Column
	switch r {
	case gnomon.CPU:
		cores := in.Cores
		if v := column("cpu_cores"); v != nil {
			return scaled(v, 1000), cores * 1000
		}
		if cores <= 0 {
			cores = 1
		}
		if v := column("cpu_pct"); v != nil {
			return scaled(v, 10*cores), cores * 1000
		}
		return scaled(column("cpu_norm"), 1000), 0
	case gnomon.Memory:
		if v := column("mem_used_bytes"); v != nil {
			return scaled(v, 1), in.Memory
		}
		if v := column("mem_avail_bytes"); v != nil && in.Memory > 0 {
			return plus(scaled(v, -1), in.Memory), in.Memory
		}
		memory := in.Memory
		if memory <= 0 {
			memory = nominalMemory
		}
		if v := column("mem_pct"); v != nil {
			return scaled(v, memory/100), memory
		}
		return scaled(column("mem_norm"), memory), 0
	case gnomon.Disk:
		if v := both(in.Trace, "disk_bytes_s", "disk_read_bytes_s", "disk_write_bytes_s"); v != nil {
			return v, 0
		}
		return scaled(sum(in.Trace, "disk_read_norm", "disk_write_norm"), nominalRate), 0
	}
	if v := both(in.Trace, "net_bytes_s", "net_rx_bytes_s", "net_tx_bytes_s"); v != nil {
		return v, 0
	}
	return scaled(sum(in.Trace, "net_rx_norm", "net_tx_norm"), nominalRate), 0
}

// scaled returns the values times a factor; nil for nil.
func scaled(values []float64, factor float64) []float64 {
	if values == nil {
		return nil
	}
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = v * factor
	}
	return out
}

// plus adds an amount to every value, in place.
func plus(values []float64, amount float64) []float64 {
	for i := range values {
		values[i] += amount
	}
	return values
}

// both returns the column of both directions together, else their sum.
func both(t *trace.Trace, together, in, out string) []float64 {
	if v := t.Column(together); v != nil {
		return scaled(v, 1)
	}
	return sum(t, in, out)
}

// sum adds columns up, those that are there; nil if none is.
func sum(t *trace.Trace, names ...string) (out []float64) {
	for _, name := range names {
		v := t.Column(name)
		switch {
		case v == nil:
		case out == nil:
			out = scaled(v, 1)
		default:
			for i := range out {
				out[i] += v[i]
			}
		}
	}
	return out
}

// label names the script in messages.
func (s *script) label() string { return s.input.label() }

func (in Input) label() string {
	if in.Trace == nil {
		return in.Dataset
	}
	return strings.Trim(in.Dataset+"/"+in.Trace.Name, "/")
}

// fine reports whether pressure within an interval is told of.
func (s *script) fine() bool { return s.interval <= fineInterval }
