package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/gnomon-vm/gnomon/shadow"
)

// workDir holds a run's images, sockets and data. QEMU's unprivileged user has
// to reach it, so it cannot lie below a home directory.
const workDir = "/var/lib/gnomon-demo"

// endTimeout bounds the end of an earlier run's shadows.
const endTimeout = 20 * time.Second

// lockDir takes the one lock that keeps two demonstrations apart. It dies with
// the process.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create work directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock work directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another demo runs on this machine (it holds %s); end that first", f.Name())
		}
		return nil, fmt.Errorf("lock work directory: %w", err)
	}
	return f, nil
}

// cleanUp removes what an earlier run left: its daemon, its guests and their
// shadows, and its files. It returns how many domains and processes there were.
func cleanUp(m *machines, dir string) (int, error) {
	found, err := endProcesses(dir)
	if err != nil {
		return found, err
	}
	domains, err := m.leftovers(dir)
	if err != nil {
		return found, err
	}
	var errs []error
	for _, d := range domains {
		errs = append(errs, m.destroy(d))
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	shadows, err := shadow.EndAll(ctx, filepath.Join(dir, "run", "shadows"))
	errs = append(errs, err, emptyDir(dir))
	return found + len(domains) + shadows, errors.Join(errs...)
}

// emptyDir removes everything in a work directory but its lock.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("empty work directory: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != "lock" {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// endProcesses ends the gnomon processes whose command line names the work
// directory: a daemon whose demonstration was killed, and its guard.
func endProcesses(dir string) (int, error) {
	const patience = 10 * time.Second
	first := true
	ended := 0
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		pids, err := processesOf(dir)
		if err != nil || len(pids) == 0 {
			return ended, err
		}
		sig := syscall.Signal(0)
		switch {
		case first:
			sig, ended = syscall.SIGTERM, len(pids)
		case time.Now().After(deadline.Add(patience)):
			return ended, fmt.Errorf("end processes of an earlier run: %v do not end", pids)
		case time.Now().After(deadline):
			sig = syscall.SIGKILL
		}
		first = false
		for _, pid := range pids {
			_ = syscall.Kill(pid, sig)
		}
	}
}

// processesOf returns the other gnomon processes that work below dir.
func processesOf(dir string) ([]int, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []int
	for _, path := range lines {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		// A process that just ended has no command line.
		b, err := os.ReadFile(path)
		if err == nil && worksIn(b, dir) {
			out = append(out, pid)
		}
	}
	return out, nil
}

// worksIn reports whether a command line, as /proc has it, is gnomon's with an
// argument below dir.
func worksIn(cmdline []byte, dir string) bool {
	args := bytes.Split(cmdline, []byte{0})
	if filepath.Base(string(args[0])) != "gnomon" {
		return false
	}
	for _, a := range args[1:] {
		if bytes.HasPrefix(a, []byte(dir+"/")) {
			return true
		}
	}
	return false
}
