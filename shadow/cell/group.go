//go:build linux

package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits are what a cell may take.
type Limits struct {
	CPU    int64 // millicores, 10 or more
	Memory int64 // bytes; a process that needs more is ended by the kernel
}

const (
	// groupRoot is where the kernel's control groups are mounted, and groupName
	// the one in it that holds all cells.
	groupRoot = "/sys/fs/cgroup"
	groupName = "gnomon"

	// period is the quota's, in microseconds. A long one is a burst: what a cell
	// does once a second it does without a pause.
	period = 1_000_000

	// shares and weight are a cell's share when the host is busy, for the two
	// versions of control groups: half a VM's. The quota is what keeps it small.
	// With a tiny share a busy host holds it off for tens of seconds, just when
	// its forecasts are needed.
	shares = 512
	weight = 50

	// maxTasks bounds the threads of a cell.
	maxTasks = 64
)

// unified reports whether the host's controllers are those of version 2.
func unified() bool {
	b, err := os.ReadFile(filepath.Join(groupRoot, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(b)), "cpu")
}

// controllers are those that cells are in, each with a tree of its own in
// version 1. The first is the one that processes are found by.
var controllers = []string{"cpu", "memory", "pids"}

// group returns the cell's directory for a controller.
func (c Cell) group(controller string) string {
	if unified() {
		return filepath.Join(groupRoot, groupName, string(c))
	}
	return filepath.Join(groupRoot, controller, groupName, string(c))
}

func (c Cell) makeGroups(limits Limits) error {
	if unified() {
		if err := delegate(); err != nil {
			return err
		}
	}
	for _, controller := range controllers {
		if err := os.MkdirAll(c.group(controller), 0o755); err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
	}
	share := setting{"cpu", "cpu.shares", shares}
	if unified() {
		share = setting{"cpu", "cpu.weight", weight}
	}
	if err := c.set(share, setting{"pids", "pids.max", maxTasks}); err != nil {
		return err
	}
	return c.Limit(limits)
}

// delegate has the controllers of version 2 work in groups of the cells.
func delegate() error {
	parent := filepath.Join(groupRoot, groupName)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("make control group: %w", err)
	}
	for _, dir := range []string{groupRoot, parent} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+cpu +memory +pids"), 0); err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
	}
	return nil
}

// Limit changes what the cell may take. What it does not use of a period it may use
// in the next, where the kernel has bursts (Linux 5.14).
func (c Cell) Limit(l Limits) error {
	quota := l.CPU * period / 1000
	limits := []setting{{"cpu", "cpu.cfs_period_us", period}, {"cpu", "cpu.cfs_quota_us", quota}}
	burst, memory := "cpu.cfs_burst_us", "memory.limit_in_bytes"
	if unified() {
		limits = []setting{{"cpu", "cpu.max", fmt.Sprintf("%d %d", quota, period)}}
		burst, memory = "cpu.max.burst", "memory.max"
	}
	if _, err := os.Stat(filepath.Join(c.group("cpu"), burst)); err == nil {
		// It may at no time be more than the quota.
		limits = slices.Concat([]setting{{"cpu", burst, 0}}, limits, []setting{{"cpu", burst, quota}})
	}
	return c.set(append(limits, setting{"memory", memory, l.Memory})...)
}

// Limited returns what the cell may take.
func (c Cell) Limited() (Limits, error) {
	quotaFile, memoryFile := "cpu.cfs_quota_us", "memory.limit_in_bytes"
	if unified() {
		quotaFile, memoryFile = "cpu.max", "memory.max"
	}
	quota, err := c.get("cpu", quotaFile)
	if err != nil {
		return Limits{}, err
	}
	memory, err := c.get("memory", memoryFile)
	return Limits{CPU: quota * 1000 / period, Memory: memory}, err
}

// Memory returns what the cell uses, in bytes.
func (c Cell) Memory() (int64, error) {
	if unified() {
		return c.get("memory", "memory.current")
	}
	return c.get("memory", "memory.usage_in_bytes")
}

type setting struct {
	controller, file string
	value            any
}

func (c Cell) set(settings ...setting) error {
	for _, s := range settings {
		err := os.WriteFile(filepath.Join(c.group(s.controller), s.file), fmt.Append(nil, s.value), 0)
		if err != nil {
			return fmt.Errorf("limit cell: %w", err)
		}
	}
	return nil
}

// get returns the first number in a file.
func (c Cell) get(controller, file string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(c.group(controller), file))
	if err != nil {
		return 0, fmt.Errorf("read limit of cell: %w", err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read limit of cell: %w", err)
	}
	return n, nil
}

// enter puts a process, with all its threads, into the cell.
func (c Cell) enter(pid int) error {
	for _, controller := range controllers {
		if err := c.set(setting{controller, "cgroup.procs", pid}); err != nil {
			return err
		}
		if unified() {
			break
		}
	}
	return nil
}

// processes returns those in the cell.
func (c Cell) processes() ([]int, error) {
	b, err := os.ReadFile(filepath.Join(c.group(controllers[0]), "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// removeGroups reports whether all are gone. While a process is on its way out
// they cannot be removed.
func (c Cell) removeGroups() bool {
	gone := true
	for _, controller := range controllers {
		err := os.Remove(c.group(controller))
		gone = gone && (err == nil || errors.Is(err, fs.ErrNotExist))
	}
	return gone
}
