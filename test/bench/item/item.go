// Package item is what a benchmark tells its guest to do, one piece of work at a
// time, and what the guest reports of it: lines of JSON over a virtio-serial
// port. It is pure, so that the guest's init stays small.
package item

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// PortName is the virtio-serial port.
const PortName = "org.gnomon.bench.0"

// MaxLine bounds the length of a line, in bytes.
const MaxLine = 4096

// Addresses of both ends of the guest's interface, and the port on the host
// that takes what the guest sends.
const (
	HostAddress  = "10.232.%d.1"
	GuestAddress = "10.232.%d.2"
	SinkPort     = 9000
)

// The keys of the guest's kernel command line.
const (
	KeyNet = "bench.net" // the third byte of the addresses, absent for no interface
)

// Order is one piece of work.
type Order struct {
	Seq      int             `json:"seq"`
	Resource gnomon.Resource `json:"resource"`

	// Amount is how much: iterations for the CPU, else bytes to hold, to write
	// or to send.
	Amount int64 `json:"amount"`
}

// Kind classifies a Report.
type Kind string

// The kinds of report.
const (
	Ready Kind = "ready" // waits for orders
	Begun Kind = "begun" // the work of Seq has begun
	Done  Kind = "done"  // the work of Seq is done
	Fault Kind = "fault" // it failed, as Text says
)

// Report is one line from the guest. Times are by its own clock.
type Report struct {
	Kind Kind `json:"kind"`
	Seq  int  `json:"seq,omitempty"`

	// Took is how long the work took, and Waited how much of that it stood still
	// because there was no memory to go on with.
	Took   time.Duration `json:"took_ns,omitempty"`
	Waited time.Duration `json:"waited_ns,omitempty"`

	Text string `json:"text,omitempty"`
}

// Line encodes a value as one line.
func Line(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // neither type has a value that cannot be encoded
	}
	return append(b, '\n')
}

// Parse decodes a line.
func Parse[T Order | Report](line []byte) (v T, err error) {
	if err := json.Unmarshal(line, &v); err != nil {
		return v, fmt.Errorf("parse line: %w", err)
	}
	return v, nil
}
