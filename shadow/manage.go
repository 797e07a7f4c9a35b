package shadow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/shadow/cell"
	"github.com/gnomon-vm/gnomon/shadow/qmp"
)

// monitorTimeout bounds a word with a shadow's QEMU.
const monitorTimeout = 10 * time.Second

// Machines returns the shadows that run, those from before a restart too.
func (l *Launcher) Machines(context.Context) ([]hypervisor.Machine, error) {
	records, err := l.records()
	if err != nil {
		return nil, fmt.Errorf("list shadows: %w", err)
	}
	var out []hypervisor.Machine
	for _, r := range records {
		limits, err := r.cell().Limited()
		if err != nil {
			continue // it ended
		}
		m := hypervisor.Machine{ID: r.ID, Name: r.Name, ShadowOf: r.For, Account: r.Account, VCPUs: 1, Paused: r.Paused}
		m.Original.Limits[gnomon.CPU], m.Original.Limits[gnomon.Memory] = limits.CPU, limits.Memory
		m.Max = gnomon.Resources(m.Original.Limits)
		out = append(out, m)
	}
	return out, nil
}

// EndAll ends the shadows of a run directory that no daemon works with, and a
// template that was being made in it. It returns how many shadows ran.
func EndAll(ctx context.Context, runDir string) (int, error) {
	l := &Launcher{opts: Options{RunDir: runDir}}
	records, err := l.records()
	errs := []error{err, l.at(templateName).vacate(ctx)}
	for _, r := range records {
		errs = append(errs, l.clear(ctx, r.Name, r.ID))
	}
	if err := errors.Join(errs...); err != nil {
		return len(records), fmt.Errorf("end shadows: %w", err)
	}
	return len(records), nil
}

// records returns the records of the shadows that run.
func (l *Launcher) records() ([]record, error) {
	names, err := filepath.Glob(l.at("*").record())
	if err != nil {
		return nil, err
	}
	var out []record
	for _, path := range names {
		r, err := l.at(filepath.Base(filepath.Dir(path))).read()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if _, err := r.cell().PID(); err == nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// Watch has ended called for each shadow that ends without Stop, until ctx ends.
// It is to be called once.
func (l *Launcher) Watch(ctx context.Context, ended func(gnomon.VMID)) error {
	l.mu.Lock()
	l.ended = func(id gnomon.VMID) {
		if ctx.Err() == nil {
			ended(id)
		}
	}
	l.mu.Unlock()
	names, err := filepath.Glob(l.at("*").record())
	if err != nil {
		return fmt.Errorf("watch shadows: %w", err)
	}
	for _, path := range names {
		if r, err := l.at(filepath.Base(filepath.Dir(path))).read(); err == nil {
			go l.await(r) // removes what is left of one that does not run
		}
	}
	return nil
}

// await waits for the end of a shadow and removes what is left of it.
func (l *Launcher) await(r record) {
	ctx := context.Background() // for as long as there is this process
	if err := r.cell().Ended(ctx); err != nil {
		l.opts.Log.Warn("shadow not watched", "shadow", r.Name, "err", err)
		return
	}
	l.mu.Lock()
	expected, ended := l.stopping[r.ID], l.ended
	l.mu.Unlock()
	if expected {
		return
	}
	l.opts.Log.Warn("shadow's process ended", "shadow", r.Name, "console", l.at(r.Name).lastWords())
	if err := l.clear(ctx, r.Name, r.ID); err != nil {
		l.opts.Log.Warn("shadow not cleared away", "shadow", r.Name, "err", err)
	}
	ended(r.ID)
}

// clear ends what runs of a shadow and removes its files, unless its name is
// another one's by now.
func (l *Launcher) clear(ctx context.Context, name string, id gnomon.VMID) error {
	if err := cell.Cell(id).Kill(ctx); err != nil {
		return err
	}
	p := l.at(name)
	if r, err := p.read(); err == nil && r.ID == id {
		p.remove()
	}
	return nil
}

// Stop ends a shadow and removes its files. One that is gone is no error.
func (l *Launcher) Stop(ctx context.Context, m Machine) error {
	l.mu.Lock()
	l.stopping[m.ID] = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.stopping, m.ID)
	}()
	if err := l.clear(ctx, m.Name, m.ID); err != nil {
		return fmt.Errorf("stop shadow %s: %w", m.Name, err)
	}
	return nil
}

// Suspend pauses a shadow; its agent keeps what it learned.
func (l *Launcher) Suspend(ctx context.Context, m Machine) error {
	if err := l.pause(ctx, m, true); err != nil {
		return fmt.Errorf("suspend shadow %s: %w", m.Name, err)
	}
	return nil
}

// Resume lets a suspended shadow go on.
func (l *Launcher) Resume(ctx context.Context, m Machine) error {
	if err := l.pause(ctx, m, false); err != nil {
		return fmt.Errorf("resume shadow %s: %w", m.Name, err)
	}
	return nil
}

func (l *Launcher) pause(ctx context.Context, m Machine, paused bool) error {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	r, err := l.running(m)
	if err != nil {
		return err
	}
	if r.Runtime == config.RuntimeProcess {
		err = halt(r.cell(), paused)
	} else {
		err = haltVM(ctx, l.at(m.Name).monitor(), paused)
	}
	if err != nil {
		return err
	}
	r.Paused = paused
	return l.at(m.Name).write(r)
}

func halt(c cell.Cell, paused bool) error {
	if paused {
		return c.Stop()
	}
	return c.Continue()
}

// haltVM has QEMU stop the guest's clock with its vCPU.
func haltVM(ctx context.Context, monitor string, paused bool) error {
	q, err := qmp.Dial(ctx, monitor)
	if err != nil {
		return err
	}
	defer q.Close()
	if paused {
		return q.Run("stop", nil)
	}
	return q.Run("cont", nil)
}

// Associate records whose a shadow is now, so that a daemon that restarts finds
// it. The agent itself is told by a Welcome.
func (l *Launcher) Associate(_ context.Context, m Machine, vm gnomon.VMID, account string) error {
	r, err := l.running(m)
	if err == nil {
		r.For, r.Account = vm, account
		err = l.at(m.Name).write(r)
	}
	if err != nil {
		return fmt.Errorf("associate shadow %s: %w", m.Name, err)
	}
	return nil
}

// running returns a shadow's record.
func (l *Launcher) running(m Machine) (record, error) {
	r, err := l.at(m.Name).read()
	if errors.Is(err, os.ErrNotExist) || err == nil && r.ID != m.ID {
		return record{}, hypervisor.ErrGone
	}
	return r, err
}

// Resize changes what a shadow may take and returns what it may take then: no
// less memory than it uses.
func (l *Launcher) Resize(_ context.Context, m Machine, size config.Size) (config.Size, error) {
	c := cell.Cell(m.ID)
	size.Memory = max(size.Memory, MinMemory)
	used, err := c.Memory()
	if err == nil {
		size.Memory = max(size.Memory, used+slack)
		err = c.Limit(limitsOf(size))
	}
	if err != nil {
		return config.Size{}, fmt.Errorf("resize shadow %s: %w", m.Name, err)
	}
	return size, nil
}

// Cost returns what a shadow keeps in memory, in bytes, pages shared with others
// counted in part, and the CPU time it used.
func (l *Launcher) Cost(m Machine) (memory int64, cpu time.Duration, err error) {
	pid, err := cell.Cell(m.ID).PID()
	if err != nil {
		return 0, 0, err
	}
	if memory, err = PSS(pid); err != nil {
		return 0, 0, err
	}
	cpu, err = CPUTime(pid)
	return memory, cpu, err
}
