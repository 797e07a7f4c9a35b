//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/appliance/guestinit"
	"github.com/gnomon-vm/gnomon/demo/workload"
)

const (
	// piece is how much is mapped and touched at a time, in bytes.
	piece = 1 << 20
	// spare is what must be available before another piece is touched, in
	// bytes: the application waits for memory, it does not die for it.
	spare = 3 << 20
	// spareWait is how often it looks again.
	spareWait = 20 * time.Millisecond
)

// memory grows in steps, holds, and gives everything back, burst by burst.
func (g *generator) memory() {
	for b := range workload.Bursts(g.seed, gnomon.Memory) {
		g.waitFor(b.Start)
		g.out.send(workload.Report{Kind: workload.Onset, At: b.Start, Resource: gnomon.Memory})
		held, late := g.grow(b)
		g.waitFor(b.End())
		var bytes int64
		for _, m := range held {
			bytes += int64(len(m))
			if err := unix.Munmap(m); err != nil {
				g.out.trouble(fmt.Errorf("unmap memory: %w", err))
			}
		}
		g.out.send(workload.Report{
			Kind: workload.Over, At: b.Start, Took: workload.MemoryGrow + late,
			Resource: gnomon.Memory, Bytes: bytes,
		})
	}
}

// grow takes the burst's memory in steps and returns it, and by how much the
// last step was late. What cannot be had before the burst ends is let go.
func (g *generator) grow(b workload.Burst) (held [][]byte, late time.Duration) {
	const step = workload.MemoryBytes / workload.MemorySteps
	for i := range workload.MemorySteps {
		due := b.Start + workload.MemoryGrow*time.Duration(i)/workload.MemorySteps
		g.waitFor(due)
		for range step / piece {
			m, err := g.take(b.End())
			if err != nil {
				return held, g.now() - due
			}
			held = append(held, m)
		}
		late = g.now() - due
	}
	return held, late
}

var errLate = errors.New("no memory before the burst ended")

// take maps and touches one piece, waiting until there is room for it.
func (g *generator) take(deadline time.Duration) ([]byte, error) {
	for ; g.now() < deadline; time.Sleep(spareWait) {
		if guestinit.Available() < piece+spare {
			continue
		}
		m, err := unix.Mmap(-1, 0, piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if errors.Is(err, unix.ENOMEM) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("map memory: %w", err)
		}
		// What could not be populated comes now, or the kernel says that it cannot.
		for at := 0; at < len(m); at += os.Getpagesize() {
			m[at] = 1
		}
		return m, nil
	}
	return nil, errLate
}
