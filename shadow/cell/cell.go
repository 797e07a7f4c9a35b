//go:build linux

// Package cell runs one untrusted process: as a user that nobody else is, with
// no network, in control groups that bound what it takes, and with no file but
// those it is handed open. A cell outlives the program that started it, unless it
// is bound to it, and is found again by its ID: the control group knows its
// processes.
package cell

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"runtime"
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

	// Bound has the kernel end the process when the program that started it is no
	// more, however that ended.
	Bound bool
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
	p, gate, err := c.fork(cmd)
	if err != nil {
		c.removeGroups()
		return err
	}
	defer gate.Close()
	if err := c.admit(p.Pid, gate); err != nil {
		_ = p.Kill()
		c.removeGroups()
		return err
	}
	return nil
}

// entrance is what a cell's process runs first. It waits for a line, and ends
// where none comes: a starter that is killed before it has put the process into
// its groups, by which alone others find it, leaves no process. Then it lowers its
// own limits, for which it needs no right, and becomes the program.
var entrance = fmt.Sprintf(`read line && ulimit -f %d && ulimit -c 0 && exec setpriv --no-new-privs -- "$@" </dev/null`, maxFile/512)

// fork makes the process, and returns it with the other end of what it waits for.
func (c Cell) fork(cmd Command) (*os.Process, *os.File, error) {
	wait, gate, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer wait.Close()
	args := append([]string{"-c", entrance, "cell", cmd.Path}, cmd.Args...)
	p := exec.Command("sh", args...) //nolint:noctx // it is to outlive the caller; Kill ends it
	p.Env = []string{"PATH=/usr/bin:/bin"}
	p.Dir = "/"
	p.ExtraFiles = cmd.Files
	p.Stdin, p.Stdout, p.Stderr = wait, cmd.Output, cmd.Output
	p.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Credential: &syscall.Credential{Uid: c.uid(), Gid: c.uid(), Groups: cmd.Groups},
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID,
	}
	if cmd.Bound {
		p.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started := make(chan error)
	go func() {
		// For the kernel the parent is the thread: it has to be there as long as
		// the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.Start()
		started <- err
		if err == nil {
			_ = p.Wait() // reaps it
		}
	}()
	if err := <-started; err != nil {
		gate.Close()
		return nil, nil, err
	}
	return p.Process, gate, nil
}

// admit puts a process into the cell and lets it go on.
func (c Cell) admit(pid int, gate *os.File) error {
	err := errors.Join(c.enter(pid), os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), fmt.Append(nil, oomScore), 0))
	if err == nil {
		_, err = gate.WriteString("\n")
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
