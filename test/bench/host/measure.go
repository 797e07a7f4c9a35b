package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// during returns what this process and libvirtd take in a while.
func during(ctx context.Context, window time.Duration) (cost, error) {
	pid, _ := os.ReadFile("/run/libvirtd.pid")
	daemon := strings.TrimSpace(string(pid))
	own, err := ran("self")
	if err != nil {
		return cost{}, err
	}
	virt, _ := ran(daemon) // 0 where there is none
	begun := time.Now()
	select {
	case <-time.After(window):
	case <-ctx.Done():
		return cost{}, ctx.Err()
	}
	took := time.Since(begun)
	ownAfter, err := ran("self")
	if err != nil {
		return cost{}, err
	}
	virtAfter, _ := ran(daemon)
	memory, err := proportional()
	share := func(d time.Duration) float64 { return 100 * float64(d) / float64(took) }
	return cost{CPU: share(ownAfter - own), Libvirt: share(virtAfter - virt), Memory: memory}, err
}

// ran returns for how long all threads of a process have run.
func ran(pid string) (total time.Duration, err error) {
	if pid == "" {
		return 0, nil
	}
	tasks, err := os.ReadDir("/proc/" + pid + "/task")
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		text, err := os.ReadFile("/proc/" + pid + "/task/" + task.Name() + "/schedstat")
		if err != nil {
			continue // the thread has ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse schedstat: %w", err)
		}
		total += time.Duration(n)
	}
	return total, nil
}

// proportional returns this process's proportional memory in bytes.
func proportional() (int64, error) {
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(text, []byte("Pss:"))
	var kib int64
	_, err = fmt.Sscan(string(rest), &kib)
	return kib << 10, err
}
