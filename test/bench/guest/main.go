//go:build linux

// Command guest is the init of the machines that benchmarks run: it does the
// work it is told to, as an application would that knows nothing of limits, and
// reports how long that took.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/appliance/guestinit"
	"github.com/gnomon-vm/gnomon/test/bench/item"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guest:", err)
	}
	if err := guestinit.PowerOff(); err != nil {
		fmt.Println("guest:", err)
	}
	select {} // the kernel panics when its init ends
}

func run() error {
	debug.SetMemoryLimit(12 << 20)
	if err := guestinit.Setup(); err != nil {
		fmt.Println("guest: set up:", err)
	}
	device, err := guestinit.FindPort(item.PortName, 10*time.Second)
	if err != nil {
		return err
	}
	port, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open port: %w", err)
	}
	report := func(r item.Report) { _, _ = port.Write(item.Line(r)) }
	net := -1
	if text, ok := guestinit.Parameter(item.KeyNet); ok {
		if net, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("parse %s: %w", item.KeyNet, err)
		}
		if err := bringUp("eth0", net); err != nil {
			report(item.Report{Kind: item.Fault, Text: err.Error()})
		}
	}
	work := map[gnomon.Resource]func(int64) (time.Duration, error){
		gnomon.CPU: burn, gnomon.Memory: hold, gnomon.Disk: write,
		gnomon.Network: func(bytes int64) (time.Duration, error) { return send(net, bytes) },
	}
	report(item.Report{Kind: item.Ready})
	for {
		lines := bufio.NewScanner(port)
		for lines.Scan() {
			o, err := item.Parse[item.Order](lines.Bytes())
			if err != nil {
				continue
			}
			report(item.Report{Kind: item.Begun, Seq: o.Seq})
			begun := time.Now()
			waited, err := work[o.Resource](o.Amount)
			r := item.Report{Kind: item.Done, Seq: o.Seq, Took: time.Since(begun), Waited: waited}
			if err != nil {
				r.Kind, r.Text = item.Fault, err.Error()
			}
			report(r)
		}
		time.Sleep(100 * time.Millisecond) // with no host attached a read ends at once
	}
}

// sink is used so that the work cannot be dropped.
var sink uint64

// burn does iterations of an xorshift step, which touches no memory.
func burn(iterations int64) (time.Duration, error) {
	x := sink | 1
	for range iterations {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	sink = x
	return 0, nil
}
