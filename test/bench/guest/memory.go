//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// piece is how much is mapped and touched at a time, in bytes.
	piece = 2 << 20
	// spare is what must be available besides, in bytes: the application waits
	// for memory, it does not die for it.
	spare = 4 << 20

	look     = 2 * time.Millisecond // how often it looks again
	patience = 30 * time.Second
)

// hold maps and touches memory, piece by piece as there is room for it, and
// then lets go of it. It returns for how long there was no room.
func hold(bytes int64) (waited time.Duration, err error) {
	var held [][]byte
	defer func() {
		for _, m := range held {
			_ = unix.Munmap(m)
		}
	}()
	for range bytes / piece {
		begun := time.Now()
		for available() < piece+spare {
			if time.Since(begun) > patience {
				return waited, errors.New("no memory in time")
			}
			time.Sleep(look)
		}
		waited += time.Since(begun)
		m, err := unix.Mmap(-1, 0, piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return waited, fmt.Errorf("map memory: %w", err)
		}
		held = append(held, m)
		for at := 0; at < len(m); at += os.Getpagesize() {
			m[at] = 1
		}
	}
	return waited, nil
}

// available returns the kernel's estimate of what can be used without swapping,
// in bytes; 0 where it cannot be read.
func available() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemAvailable:"); ok {
			var kib int64
			_, _ = fmt.Sscan(rest, &kib)
			return kib << 10
		}
	}
	return 0
}
