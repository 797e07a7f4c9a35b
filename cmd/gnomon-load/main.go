//go:build linux

// Command gnomon-load is the init of the demonstration's guests: it does what
// package workload says, measures how long its work takes, and reports over a
// virtio-serial port. It uses the guest as an application would, knowing
// nothing of limits, balloons or shadows.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/appliance/guestinit"
	"github.com/gnomon-vm/gnomon/demo/workload"
)

// portWait is for how long the report port may take to appear.
const portWait = 10 * time.Second

// heapLimit keeps the generator itself small: what it measures is what it maps.
const heapLimit = 16 << 20

func main() {
	if !guestinit.IsInit() {
		fmt.Fprintln(os.Stderr, "gnomon-load is the init of a guest; it does not run anywhere else")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gnomon-load:", err)
	}
	if err := guestinit.PowerOff(); err != nil {
		fmt.Fprintln(os.Stderr, "gnomon-load:", err)
	}
	select {} // the kernel panics when its init ends
}

func run() error {
	debug.SetMemoryLimit(heapLimit)
	setupErr := guestinit.Setup()
	go func() { _ = guestinit.BringOnline() }() // without it the guest has the vCPUs it began with
	device, err := guestinit.FindPort(workload.PortName, portWait)
	if err != nil {
		return errors.Join(setupErr, err)
	}
	port, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open report port: %w", err)
	}
	defer port.Close()
	out := newReporter(port)
	if setupErr != nil {
		out.trouble(setupErr)
	}
	iterations, err := parameter(workload.KeyIterations)
	if err != nil {
		return err
	}
	if iterations == 0 {
		out.send(workload.Report{Kind: workload.Calibrated, Iterations: calibrate()})
		awaitCommand(port, workload.CommandStop)
		return nil
	}
	seed, err := parameter(workload.KeySeed)
	if err != nil {
		return err
	}
	out.send(workload.Report{Kind: workload.Ready})
	awaitCommand(port, workload.CommandGo)
	start(uint64(seed), iterations, out)
	awaitCommand(port, workload.CommandStop)
	return nil
}

// start begins the schedule on all four resources.
func start(seed uint64, iterations int64, out *reporter) {
	g := &generator{zero: time.Now(), seed: seed, out: out}
	go g.cpu(iterations)
	go g.memory()
	go g.bursts(gnomon.Disk, openDisk)
	go g.bursts(gnomon.Network, openNetwork)
}

// parameter returns a number of the kernel's command line, 0 where it is absent.
func parameter(key string) (int64, error) {
	text, ok := guestinit.Parameter(key)
	if !ok {
		return 0, nil
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 {
		return 0, fmt.Errorf("parse %s: %q is not a number", key, text)
	}
	return v, nil
}

// awaitCommand returns when the host has sent the command. With no host
// attached a read returns at once, so it must not be repeated in haste.
func awaitCommand(port io.Reader, command string) {
	const pause = 100 * time.Millisecond
	for {
		lines := bufio.NewScanner(port)
		for lines.Scan() {
			if strings.TrimSpace(lines.Text()) == command {
				return
			}
		}
		time.Sleep(pause)
	}
}

// reporter writes reports without ever holding up the work they tell of.
type reporter struct{ lines chan []byte }

// backlog is how many reports may wait; later ones are dropped.
const backlog = 4096

func newReporter(w io.Writer) *reporter {
	r := &reporter{lines: make(chan []byte, backlog)}
	go func() {
		for line := range r.lines {
			if _, err := w.Write(line); err != nil {
				fmt.Fprintln(os.Stderr, "gnomon-load: write report:", err)
			}
		}
	}()
	return r
}

func (r *reporter) send(report workload.Report) {
	select {
	case r.lines <- report.Encode():
	default:
	}
}

func (r *reporter) trouble(err error) {
	r.send(workload.Report{Kind: workload.Trouble, Text: err.Error()})
}
