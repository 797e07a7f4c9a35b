package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// The guard is a small process that outlives the daemon. If the daemon dies
// without a clean stop and no other takes its place within the grace time, the
// guard gives every VM the limits back that it had before gnomon: nobody is
// left who would raise them.

// guardClean is what a daemon that stops cleanly writes to its guard.
const guardClean = "clean\n"

var errLocked = errors.New("another gnomon host daemon uses")

// Lock takes the host lock in a state directory: one daemon (or guard at work)
// a host. The lock ends with the process.
func Lock(stateDir string) (io.Closer, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	path := filepath.Join(stateDir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w %s (lock %s is held): stop it first, or choose another --state-dir", errLocked, stateDir, path)
	}
	return f, nil
}

// CheckState finds out whether the state in a directory can be read and
// written, before anything depends on it.
func CheckState(stateDir string) error {
	state, err := openState(filepath.Join(stateDir, "host.json"))
	if err != nil {
		return err
	}
	if err := state.save(); err != nil {
		return fmt.Errorf("%w: make room or give permission there, or choose another --state-dir", err)
	}
	return nil
}

// StartGuard starts the guard process with the given command line, in a
// session of its own so that no signal meant for the daemon reaches it. The
// returned function tells it that the daemon stopped cleanly.
func StartGuard(argv []string) (clean func(), err error) {
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it outlives the daemon, that is its purpose
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	return func() {
		_, _ = io.WriteString(in, guardClean)
		_ = in.Close()
		_ = cmd.Wait()
	}, nil
}

// The pauses between the guard's attempts, doubled up to the longest, and how
// long it goes on after it was told to hurry.
const (
	guardPause    = time.Second
	maxGuardPause = 30 * time.Second
	hurryTimeout  = 30 * time.Second
)

// Guard waits for the daemon at the other end of in to end and, if that was
// not clean and nobody takes the host lock within grace, restores the limits
// noted in stateDir, again and again until all are. A signal on hurry ends the
// wait: the guard then goes to work at once, and gives up if it cannot finish
// soon. One that comes while the daemon lives is meant for the daemon.
func Guard(ctx context.Context, in io.Reader, hurry <-chan os.Signal, driver func() (hypervisor.Driver, error), stateDir string, grace time.Duration, log *slog.Logger) error {
	b, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("wait for the daemon: %w", err)
	}
	if string(b) == guardClean {
		return nil
	}
	for len(hurry) > 0 {
		<-hurry
	}
	if state, err := openState(filepath.Join(stateDir, "host.json")); err == nil && len(state.data.Originals) == 0 {
		return nil
	}
	log.Warn("host daemon died; its VMs get their own limits back unless it returns", "grace", grace)
	var deadline <-chan time.Time
	for wait, pause := grace, guardPause; ; wait, pause = pause, min(2*pause, maxGuardPause) {
		select {
		case <-time.After(wait):
		case <-hurry:
			if deadline == nil {
				deadline = time.After(hurryTimeout)
			}
		}
		err := guardOnce(ctx, driver, stateDir, log)
		switch {
		case errors.Is(err, errLocked):
			log.Info("another host daemon took over")
			return nil
		case err == nil:
			return nil
		}
		select {
		case <-deadline:
			return err
		default:
			log.Error("limits not restored; trying again", "err", err)
		}
	}
}

// guardOnce restores what it can, as the holder of the host lock.
func guardOnce(ctx context.Context, driver func() (hypervisor.Driver, error), stateDir string, log *slog.Logger) error {
	lock, err := Lock(stateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	drv, err := driver()
	if err != nil {
		return fmt.Errorf("connect to the hypervisor: %w", err)
	}
	defer drv.Close()
	return RestoreLimits(ctx, drv, stateDir, log)
}

// RestoreLimits gives every VM noted in stateDir the limits back that it had
// before gnomon. A VM that is gone is skipped.
func RestoreLimits(ctx context.Context, drv hypervisor.Driver, stateDir string, log *slog.Logger) error {
	state, err := openState(filepath.Join(stateDir, "host.json"))
	if err != nil {
		return err
	}
	originals := state.data.Originals
	outcomes := restoreEach(ctx, drv, originals)
	var failed []error
	for _, id := range slices.Sorted(maps.Keys(originals)) {
		o := originals[id]
		if err := outcomes[id]; err != nil {
			failed = append(failed, fmt.Errorf("restore %s: %w", o.Name, err))
			continue
		}
		log.Info("limits restored", "vm", o.Name)
		delete(originals, id)
	}
	if err := state.save(); err != nil {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}
