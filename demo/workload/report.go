package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// PortName is the virtio-serial port over which a guest reports and is told
// what to do. Both sides write lines.
const PortName = "org.gnomon.load.0"

// The lines a host sends.
const (
	CommandGo   = "go"   // start the schedule now
	CommandStop = "stop" // end it
)

// The keys of a guest's kernel command line.
const (
	KeySeed       = "gnomon.seed"
	KeyIterations = "gnomon.iterations" // per work item; absent: calibrate instead
)

// ReportKind classifies a Report.
type ReportKind string

// The kinds of report.
const (
	Ready      ReportKind = "ready"      // waits for CommandGo
	Calibrated ReportKind = "calibrated" // Iterations take ItemWork on a whole core
	Item       ReportKind = "item"       // a CPU work item is done
	GivenUp    ReportKind = "given-up"   // a CPU work item waited longer than Patience
	Onset      ReportKind = "onset"      // a burst began
	Over       ReportKind = "over"       // the work of a burst is done
	Trouble    ReportKind = "trouble"    // something of the guest itself failed; it goes on
)

// Report is one line from a guest.
type Report struct {
	Kind ReportKind `json:"kind"`

	// At is when it arrived or was due, and Took from then to its end; both are
	// on the guest's clock, At counted from CommandGo.
	At   time.Duration `json:"at_ns,omitempty"`
	Took time.Duration `json:"took_ns,omitempty"`

	// Resource is set on Onset and Over.
	Resource gnomon.Resource `json:"resource"`

	// Bytes is what an Over burst moved or held.
	Bytes int64 `json:"bytes,omitempty"`

	Iterations int64  `json:"iterations,omitempty"`
	Text       string `json:"text,omitempty"`
}

// MaxLine bounds the length of a report's line, in bytes.
const MaxLine = 4096

// Encode returns the report as a line, newline included.
func (r Report) Encode() []byte {
	if len(r.Text) > MaxLine/8 {
		r.Text = r.Text[:MaxLine/8]
	}
	b, err := json.Marshal(r)
	if err != nil {
		// Only an invalid float or a cycle can fail here; the type has neither.
		panic(err)
	}
	return append(b, '\n')
}

// Decode parses a line, without its newline. It refuses unknown kinds and
// negative figures: a guest is not trusted.
func Decode(line []byte) (Report, error) {
	if len(line) > MaxLine {
		return Report{}, fmt.Errorf("decode report: %d bytes, at most %d", len(line), MaxLine)
	}
	var r Report
	if err := json.Unmarshal(line, &r); err != nil {
		return Report{}, fmt.Errorf("decode report: %w", err)
	}
	switch r.Kind {
	case Ready, Calibrated, Item, GivenUp, Onset, Over, Trouble:
	default:
		return Report{}, fmt.Errorf("decode report: unknown kind %q", r.Kind)
	}
	if r.At < 0 || r.Took < 0 || r.Bytes < 0 || r.Iterations < 0 {
		return Report{}, errors.New("decode report: a figure is negative")
	}
	return r, nil
}
