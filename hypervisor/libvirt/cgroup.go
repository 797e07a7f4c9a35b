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

// readQuota returns the quota, which is -1 for none.
func (c cpuController) readQuota() (q quota, err error) {
	text, err := os.ReadFile(c.quota)
	if err != nil {
		return q, err
	}
	fields := strings.Fields(string(text))
	if c.period != "" {
		if text, err = os.ReadFile(c.period); err != nil {
			return q, err
		}
		fields = append(fields, strings.Fields(string(text))...)
	}
	if len(fields) != 2 {
		return q, fmt.Errorf("parse %s: %q", c.quota, fields)
	}
	if q.Period, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
		return q, fmt.Errorf("parse period: %w", err)
	}
	if fields[0] == "max" {
		q.Quota = -1
		return q, nil
	}
	if q.Quota, err = strconv.ParseInt(fields[0], 10, 64); err != nil {
		return q, fmt.Errorf("parse quota: %w", err)
	}
	return q, nil
}

// readTimes returns how many vCPUs there are, for how long they ran, and for
// how long they were ready to run and did not, in sum since each was started.
func (c cpuController) readTimes() (vcpus int, ran, waited time.Duration, err error) {
	threads, err := c.threads()
	if err != nil {
		return 0, 0, 0, err
	}
	for _, t := range threads {
		run, wait, err := readSchedule(t.id)
		if err != nil {
			return 0, 0, 0, err
		}
		ran += run
		waited += wait
	}
	return len(threads), ran, waited, nil
}

// readSchedule returns for how long a thread ran, and was ready to run and did
// not.
func readSchedule(tid int) (ran, waited time.Duration, err error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(tid), "schedstat"))
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(string(text), (*int64)(&ran), (*int64)(&waited)); err != nil {
		return 0, 0, fmt.Errorf("parse schedstat: %w", err)
	}
	return ran, waited, nil
}

// has reports whether there are n vCPUs.
func (c cpuController) has(n int) bool {
	_, last := os.Stat(filepath.Join(c.dir, "vcpu"+strconv.Itoa(n-1)))
	_, next := os.Stat(filepath.Join(c.dir, "vcpu"+strconv.Itoa(n)))
	return last == nil && errors.Is(next, fs.ErrNotExist)
}

// thread is one that runs a vCPU.
type thread struct {
	vcpu int // from 0
	id   int
}

// threads returns the vCPUs' threads, in the order of the vCPUs. Of one that was
// taken away the folder may be left.
func (c cpuController) threads() (all []thread, err error) {
	folders, err := filepath.Glob(filepath.Join(c.dir, "vcpu*"))
	if err != nil {
		return nil, err
	}
	for _, folder := range folders {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(folder), "vcpu"))
		if err != nil {
			continue
		}
		tasks, err := os.ReadFile(filepath.Join(folder, c.tasks))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for field := range strings.FieldsSeq(string(tasks)) {
			tid, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("parse tasks: %w", err)
			}
			all = append(all, thread{n, tid})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no vCPU in %s: %w", c.dir, fs.ErrNotExist)
	}
	slices.SortFunc(all, func(a, b thread) int { return a.vcpu - b.vcpu })
	return all, nil
}
