package libvirt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cpuController is where the kernel keeps a domain's vCPUs: each has a control
// group of its own, vcpu0 and up, beside that of the other threads, emulator.
// To read its files costs microseconds, to ask libvirt milliseconds. The zero
// value is that of a domain whose files cannot be found, because libvirt keeps
// them elsewhere.
type cpuController struct {
	dir    string // the domain's, with one folder for each vCPU
	tasks  string // the file in such a folder that lists its threads
	quota  string // the first vCPU's file; of cgroup v2 it holds the period too
	period string // the file, of cgroup v1
}

// findController finds the files by the control group of the domain's process:
// its main thread is in "emulator", beside "vcpu0".
func findController(name string) cpuController {
	pid, err := processOf(name)
	if err != nil {
		return cpuController{}
	}
	groups, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return cpuController{}
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var c cpuController
		switch {
		case parts[0] == "0":
			c.dir, c.tasks = filepath.Join("/sys/fs/cgroup", filepath.Dir(parts[2])), "cgroup.threads"
			c.quota = filepath.Join(c.dir, "vcpu0", "cpu.max")
		case slices.Contains(strings.Split(parts[1], ","), "cpu"):
			c.dir, c.tasks = filepath.Join("/sys/fs/cgroup", parts[1], filepath.Dir(parts[2])), "tasks"
			c.quota = filepath.Join(c.dir, "vcpu0", "cpu.cfs_quota_us")
			c.period = filepath.Join(c.dir, "vcpu0", "cpu.cfs_period_us")
		default:
			continue
		}
		if _, err := os.Stat(c.quota); err != nil {
			continue
		}
		if _, ran, _, err := c.readTimes(); err != nil || ran == 0 {
			continue // a kernel without the scheduler's figures
		}
		return c
	}
	return cpuController{}
}

// readQuota returns the quota and period in microseconds; the quota is -1 for none.
func (c cpuController) readQuota() (quota, period int64, err error) {
	text, err := os.ReadFile(c.quota)
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(text))
	if c.period != "" {
		if text, err = os.ReadFile(c.period); err != nil {
			return 0, 0, err
		}
		fields = append(fields, strings.Fields(string(text))...)
	}
	if len(fields) != 2 {
		return 0, 0, fmt.Errorf("parse %s: %q", c.quota, fields)
	}
	if period, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
		return 0, 0, fmt.Errorf("parse period: %w", err)
	}
	if fields[0] == "max" {
		return -1, period, nil
	}
	if quota, err = strconv.ParseInt(fields[0], 10, 64); err != nil {
		return 0, 0, fmt.Errorf("parse quota: %w", err)
	}
	return quota, period, nil
}

// readTimes returns how many vCPUs there are, for how long they ran, and for
// how long they were ready to run and did not, in sum since each was started.
func (c cpuController) readTimes() (vcpus int, ran, waited time.Duration, err error) {
	threads, err := c.threads()
	if err != nil {
		return 0, 0, 0, err
	}
	for _, tid := range threads {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(tid), "schedstat"))
		if err != nil {
			return 0, 0, 0, err
		}
		var run, wait int64
		if _, err := fmt.Sscan(string(text), &run, &wait); err != nil {
			return 0, 0, 0, fmt.Errorf("parse schedstat: %w", err)
		}
		ran += time.Duration(run)
		waited += time.Duration(wait)
	}
	return len(threads), ran, waited, nil
}

// has reports whether there are n vCPUs.
func (c cpuController) has(n int) bool {
	_, last := os.Stat(filepath.Join(c.dir, "vcpu"+strconv.Itoa(n-1)))
	_, next := os.Stat(filepath.Join(c.dir, "vcpu"+strconv.Itoa(n)))
	return last == nil && errors.Is(next, fs.ErrNotExist)
}

// threads returns the vCPUs' threads, in order.
func (c cpuController) threads() (tids []int, err error) {
	for n := 0; ; n++ {
		tasks, err := os.ReadFile(filepath.Join(c.dir, "vcpu"+strconv.Itoa(n), c.tasks))
		if errors.Is(err, fs.ErrNotExist) && n > 0 {
			return tids, nil
		}
		if err != nil {
			return nil, err
		}
		for field := range strings.FieldsSeq(string(tasks)) {
			tid, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("parse tasks: %w", err)
			}
			tids = append(tids, tid)
		}
	}
}
