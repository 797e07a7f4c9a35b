//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon/appliance/guestinit"
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
		for guestinit.Available() < piece+spare {
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
