package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// maxTime bounds t, in seconds: nanoseconds since 1970 have to fit 63 bits.
const maxTime = 9e9

// A request tells what one VM used during the step that ends at t.
type request struct {
	vm         string
	at         time.Time
	cpu        float64 // mean use, cores
	mem        float64 // use at the end, bytes
	oom        bool    // killed for want of memory within the step
	cpuRequest float64 // what it is given now, cores
	memRequest float64 // what it is given now, bytes
}

// An answer is what the recommender would give the VM. Before the first
// recommendation all numbers are 0 and apply is false.
type answer struct {
	VM      string  `json:"vm,omitempty"`
	CPU     float64 `json:"cpu"`      // target, cores
	Mem     float64 `json:"mem"`      // target, bytes
	CPULow  float64 `json:"cpu_low"`  // cores; requests below it are changed at once
	CPUHigh float64 `json:"cpu_high"` // cores; requests above it are changed at once
	MemLow  float64 `json:"mem_low"`  // bytes
	MemHigh float64 `json:"mem_high"` // bytes
	Apply   bool    `json:"apply"`    // the updater would set the target now
}

// protocolError is a line that is not a request, or one that cannot follow
// those before it.
type protocolError struct {
	line int // from 1
	err  error
}

func (e *protocolError) Error() string { return fmt.Sprintf("read line %d: %v", e.line, e.err) }
func (e *protocolError) Unwrap() error { return e.err }

// decode reads one request. Fields nobody knows are refused, since a misspelt
// one would else count as absent.
func decode(line []byte) (request, error) {
	var raw struct {
		VM         string   `json:"vm"`
		T          *float64 `json:"t"`
		CPU        *float64 `json:"cpu"`
		Mem        *float64 `json:"mem"`
		OOM        bool     `json:"oom"`
		CPURequest *float64 `json:"cpu_request"`
		MemRequest *float64 `json:"mem_request"`
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
		return request{}, errors.New("it is empty; want one JSON object")
	} else if err != nil {
		return request{}, fmt.Errorf("it is not a request: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return request{}, errors.New("it goes on after the JSON object; want one object a line")
	}
	for _, f := range []struct {
		name     string
		value    *float64
		min, max float64
		allowed  string
	}{
		{"t", raw.T, 0, maxTime, "0 to 9e9 seconds"},
		{"cpu", raw.CPU, 0, math.MaxFloat64, "cores from 0"},
		{"mem", raw.Mem, 0, math.MaxFloat64, "bytes from 0"},
		{"cpu_request", raw.CPURequest, 1e-3, 1e9, "0.001 to 1e9 cores"},
		{"mem_request", raw.MemRequest, 1, 1e14, "1 to 1e14 bytes"},
	} {
		if f.value == nil {
			return request{}, fmt.Errorf("%s is missing; want %s", f.name, f.allowed)
		}
		if *f.value < f.min || *f.value > f.max {
			return request{}, fmt.Errorf("%s is %g; want %s", f.name, *f.value, f.allowed)
		}
	}
	return request{
		vm: raw.VM, at: time.Unix(0, int64(math.Round(*raw.T*1e9))).UTC(),
		cpu: *raw.CPU, mem: *raw.Mem, oom: raw.OOM,
		cpuRequest: *raw.CPURequest, memRequest: *raw.MemRequest,
	}, nil
}

// encode writes one answer and a line's end.
func encode(w io.Writer, a answer) error {
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
