//go:build linux

// Package cell runs one untrusted process: as a user that nobody else is, with
// no network, in control groups that bound what it takes, and with no file but
// those it is handed open. A cell outlives the program that started it, which
// finds it again by its ID: the control group knows its processes.
package cell

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstUID and uids are the range that cells take their users from: systemd's
	// table of user IDs leaves it to nobody.
	firstUID = 1_879_048_192
	uids     = 1 << 27

	// maxFile is the largest file, in bytes, that a cell may write: its output is
	// all it can. One that writes more is ended by the kernel.
	maxFile = 4 << 20

	// oomScore makes the kernel prefer a cell to the VMs when memory runs out.
	oomScore = 500
)

// Command says what runs in a cell.
type Command struct {
	// Path is the program's, and Args what follows its name.
	Path string
	Args []string

	// Files are open in the process as 3 and up.
	Files []*os.File

	// Output takes what the process writes to its standard output and error.
	Output *os.File

	// Groups are groups that the user is also in.
	Groups []uint32
}

// Cell is a process by the ID it was started with, whether it runs or not. The
// ID is unique on the host and fit for the name of a directory.
type Cell string

// Start starts a process in a new cell. The caller need not wait for it: what
// ended is reaped.
func (c Cell) Start(cmd Command, limits Limits) error {
	if err := c.start(cmd, limits); err != nil {
		return fmt.Errorf("start cell %s: %w", c, err)
	}
	return nil
}

func (c Cell) start(cmd Command, limits Limits) error {
	if err := c.makeGroups(limits); err != nil {
		return err
	}
	// These two lower their own limits, for which they need no right, and become
	// the program.
	args := append([]string{fmt.Sprintf("--fsize=%d", maxFile), "--core=0", "--",
		"setpriv", "--no-new-privs", "--", cmd.Path}, cmd.Args...)
	p := exec.Command("prlimit", args...) //nolint:noctx // it is to outlive the caller; Kill ends it
	p.Env = []string{"PATH=/usr/bin:/bin"}
	p.Dir = "/"
	p.ExtraFiles = cmd.Files
	p.Stdout, p.Stderr = cmd.Output, cmd.Output
	p.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Credential: &syscall.Credential{Uid: c.uid(), Gid: c.uid(), Groups: cmd.Groups},
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID,
	}
	if err := p.Start(); err != nil {
		c.removeGroups()
		return err
	}
	err := errors.Join(c.enter(p.Process.Pid),
		os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.Process.Pid), fmt.Append(nil, oomScore), 0))
	go func() { _ = p.Wait() }() // reaps it
	if err != nil {
		_ = p.Process.Kill()
		c.removeGroups()
	}
	return err
}

// uid is the cell's user, and its group.
func (c Cell) uid() uint32 {
	h := fnv.New64a()
	h.Write([]byte(c))
	return firstUID + uint32(binary.BigEndian.Uint64(h.Sum(nil))%uids)
}

// Kill ends the cell's processes and removes what was made for it. A cell that
// does not run is no error.
func (c Cell) Kill(ctx context.Context) error {
	pause := time.NewTicker(2 * time.Millisecond)
	defer pause.Stop()
	for {
		pids, err := c.processes()
		if err != nil {
			return fmt.Errorf("end cell %s: %w", c, err)
		}
		for _, pid := range pids {
			// SIGKILL ends a stopped process too.
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("end cell %s: %w", c, err)
			}
		}
		if len(pids) == 0 && c.removeGroups() {
			return nil
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return fmt.Errorf("end cell %s: %w", c, ctx.Err())
		}
	}
}

// PID returns the cell's process, as an error of os.ErrNotExist if none runs.
func (c Cell) PID() (int, error) {
	pids, err := c.processes()
	if err != nil {
		return 0, fmt.Errorf("find cell %s: %w", c, err)
	}
	if len(pids) == 0 {
		return 0, fmt.Errorf("find cell %s: %w", c, os.ErrNotExist)
	}
	return pids[0], nil
}

// Ended waits until the cell's process has ended, or ctx.
func (c Cell) Ended(ctx context.Context) error {
	pid, err := c.PID()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch cell %s: %w", c, err)
	}
	// Of a descriptor that does not block, the runtime's poller waits for many
	// with no thread for each.
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch cell %s: %w", c, err)
	}
	err = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(p, 0)
		return n > 0
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Stop halts the cell's process until Continue; it keeps its memory.
func (c Cell) Stop() error { return c.signal("stop", unix.SIGSTOP) }

// Continue lets a halted process go on.
func (c Cell) Continue() error { return c.signal("continue", unix.SIGCONT) }

func (c Cell) signal(verb string, sig unix.Signal) error {
	pid, err := c.PID()
	if err == nil {
		err = unix.Kill(pid, sig)
	}
	if err != nil {
		return fmt.Errorf("%s cell %s: %w", verb, c, err)
	}
	return nil
}
