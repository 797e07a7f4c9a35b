// Package shadow keeps the shadow VMs of a host: it clones them from a template
// that was booted once, links the host daemon to the agents inside them over
// their virtio-serial channels, and tells what they cost.
//
// A shadow is a process in a cell of its own (package cell): a QEMU or, as the
// control, the agent itself. A QEMU has one vCPU, an
// entropy source and one channel on a Unix socket; no network, no disk, no
// graphics. What comes through the channel is untrusted: whatever breaks the
// rules ends that link and nothing else.
package shadow

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/shadow/cell"
)

// Modules are the kernel modules that a shadow's guest loads, for
// appliance.Options.
var Modules = []string{"virtio_pci", "virtio_console", "virtio_rng"}

const (
	// MinMemory is the least memory, in bytes, that a shadow lives in, all that
	// runs it included.
	MinMemory = 80 << 20

	// overhead is what QEMU takes at most beside the guest's memory when it boots.
	overhead = 96 << 20

	// slack is what a shadow is left above what it uses, in bytes, when its limit
	// comes down.
	slack = 16 << 20

	// bootCPU is what a shadow starts with at least, in millicores.
	bootCPU = 1000
)

// Options are what a Launcher works with. All are required.
type Options struct {
	// Appliance is the directory of the built appliance.
	Appliance string

	// RunDir holds a directory for each shadow.
	RunDir string

	// Accel is "kvm" or "tcg", as ProbeAccel found.
	Accel string

	Log *slog.Logger
}

// Launcher starts and ends shadows. Its methods may be called concurrently.
type Launcher struct {
	opts  Options
	kvm   []uint32      // groups that may open /dev/kvm, if Accel is "kvm"
	slots chan struct{} // starts under way

	making chan struct{} // held by who makes a template

	life context.Context // ends with Close
	end  context.CancelFunc

	mu       sync.Mutex
	template *template
	broken   time.Time // when a template last did not work
	ended    func(gnomon.VMID)
	stopping map[gnomon.VMID]bool // ended by Stop
}

// Spec says which shadow to start.
type Spec struct {
	// Name is unique on the host; see Name.
	Name string

	// For is the VM it belongs to, or hypervisor.Warm.
	For     gnomon.VMID
	Account string

	// Runtime is what its agent runs in; empty is a VM.
	Runtime config.Runtime

	// Size is the most it may ever have. It starts with that, and with a whole
	// core if Size has less: the daemon scales it once the agent says hello.
	Size config.Size
}

// Machine is a started shadow.
type Machine struct {
	Name   string
	ID     gnomon.VMID
	Socket string // of the agent's channel

	// Size is what it was started with; zero for one found running.
	Size config.Size
}

const (
	// undoTimeout bounds the clean-up of a start that failed.
	undoTimeout = 60 * time.Second

	// maxSocketPath is the longest path of a Unix socket on Linux.
	maxSocketPath = 107
)

// NewLauncher prepares RunDir, and removes from it what is left of shadows that
// do not run.
func NewLauncher(opts Options) (*Launcher, error) {
	if opts.Accel != "kvm" && opts.Accel != "tcg" {
		return nil, fmt.Errorf("prepare shadows: acceleration %q: want kvm or tcg", opts.Accel)
	}
	var err error
	if opts.RunDir, err = filepath.Abs(opts.RunDir); err != nil {
		return nil, fmt.Errorf("prepare shadows: %w", err)
	}
	l := &Launcher{
		opts: opts, stopping: map[gnomon.VMID]bool{}, ended: func(gnomon.VMID) {},
		// A clone is QEMU's start and little else: more at a time than there are
		// processors would only make each of them later.
		slots:  make(chan struct{}, runtime.NumCPU()),
		making: make(chan struct{}, 1),
	}
	l.life, l.end = context.WithCancel(context.Background())
	if n := len(l.Socket(strings.Repeat("x", maxName))); n > maxSocketPath {
		return nil, fmt.Errorf("prepare shadows: %s is %d bytes too long for the sockets in it", opts.RunDir, n-maxSocketPath)
	}
	if opts.Accel == "kvm" {
		if l.kvm, err = kvmGroups(); err != nil {
			return nil, fmt.Errorf("prepare shadows: %w", err)
		}
	}
	if err := os.MkdirAll(opts.RunDir, 0o700); err != nil {
		return nil, fmt.Errorf("prepare shadows: %w", err)
	}
	if _, err := appliance.Open(opts.Appliance); err != nil {
		return nil, fmt.Errorf("prepare shadows: %w", err)
	}
	return l, nil
}

// Close ends the making of a template and waits until nothing is left of it.
// Shadows live on; none is cloned any more.
func (l *Launcher) Close() {
	l.end()
	l.making <- struct{}{}
	<-l.making
}

// Warm makes the template, so that the first shadow need not wait for it. That
// it fails is logged.
func (l *Launcher) Warm(ctx context.Context) {
	if _, err := l.current(ctx); err != nil && l.life.Err() == nil {
		l.opts.Log.Warn("no template of shadows", "err", err)
	}
}

// Socket returns the path of the channel of the shadow of that name.
func (l *Launcher) Socket(name string) string { return l.at(name).socket() }

// Console returns the path of the console's log of the shadow of that name.
func (l *Launcher) Console(name string) string { return l.at(name).console() }

// Start starts a shadow: a clone of the template or, where there is none that
// works, a guest that boots. It does not wait for the agent; see Dial.
func (l *Launcher) Start(ctx context.Context, spec Spec) (Machine, error) {
	if err := spec.validate(); err != nil {
		return Machine{}, fmt.Errorf("start shadow %s: %w", spec.Name, err)
	}
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		return Machine{}, fmt.Errorf("start shadow %s: %w", spec.Name, ctx.Err())
	}
	p, err := l.place(spec.Name)
	if err != nil {
		return Machine{}, fmt.Errorf("start shadow %s: %w", spec.Name, err)
	}
	r := record{Name: spec.Name, ID: newID(), For: spec.For, Account: spec.Account, Runtime: spec.Runtime}
	size := config.Size{CPU: max(spec.Size.CPU, bootCPU), Memory: spec.Size.Memory}
	// The record first: what is started is then found, whatever happens.
	err = p.write(r)
	if err == nil {
		start := l.runVM
		if r.Runtime == config.RuntimeProcess {
			start = l.runProcess
		}
		err = start(ctx, r, p, &size)
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		err = fmt.Errorf("start shadow %s: %w%s", spec.Name, err, p.lastWords())
		return Machine{}, errors.Join(err, r.cell().Kill(undo), os.RemoveAll(p.dir))
	}
	go l.await(r)
	return Machine{Name: r.Name, ID: r.ID, Socket: p.socket(), Size: size}, nil
}

// runProcess starts the agent of a shadow as a process: the program that would
// be a guest's init.
func (l *Launcher) runProcess(ctx context.Context, r record, p place, size *config.Size) error {
	img, err := appliance.Open(l.opts.Appliance)
	if err != nil {
		return err
	}
	agent, err := os.Open(img.InitPath())
	if err != nil {
		return err
	}
	defer agent.Close()
	args := []string{"--listen-fd", fmt.Sprint(fdAgent)}
	return errors.Join(ctx.Err(), p.start(r.cell(), fdPath(fdProgram), args, limitsOf(*size), agent))
}

// runVM starts the guest of a shadow.
func (l *Launcher) runVM(ctx context.Context, r record, p place, size *config.Size) error {
	t, err := l.current(ctx)
	if err == nil {
		err = t.clone(ctx, r.cell(), p, l.opts.Accel, limitsOf(*size))
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	l.opts.Log.Warn("shadow boots: it could not be cloned", "shadow", r.Name, "err", err, "console", p.lastWords())
	if t != nil {
		l.reject(t)
	}
	if err := r.cell().Kill(ctx); err != nil {
		return err
	}
	img, err := appliance.Open(l.opts.Appliance)
	if err != nil {
		return err
	}
	size.Memory = max(size.Memory, guestMemory+overhead)
	memory, err := l.boot(ctx, r.cell(), p, img, limitsOf(*size))
	if err != nil {
		return err
	}
	return memory.Close()
}

// boot starts a guest from its kernel, and returns the file that is its memory.
func (l *Launcher) boot(ctx context.Context, c cell.Cell, p place, img appliance.Image, limits cell.Limits) (*os.File, error) {
	kernel, initrd, err := kernelFiles(img)
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	defer initrd.Close()
	memory, err := newMemory("gnomon-memory", guestMemory)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(ctx.Err(), p.start(c, qemu, bootArgs(p.name, l.opts.Accel), limits, memory, kernel, initrd)); err != nil {
		memory.Close()
		return nil, err
	}
	return memory, nil
}

func limitsOf(s config.Size) cell.Limits { return cell.Limits{CPU: s.CPU, Memory: s.Memory} }

func (s Spec) validate() error {
	switch {
	case s.Name == "" || len(s.Name) > maxName:
		return fmt.Errorf("name of %d bytes: want 1 to %d", len(s.Name), maxName)
	case s.For == "":
		return fmt.Errorf("no VM is named")
	case s.Size.Memory < MinMemory:
		return fmt.Errorf("memory of %d MiB: a shadow needs at least %d", s.Size.Memory>>20, MinMemory>>20)
	case s.Size.CPU <= 0:
		return fmt.Errorf("CPU of %d millicores: want more than 0", s.Size.CPU)
	}
	return nil
}

// newID returns a random VM ID, a UUID of version 4.
func newID() gnomon.VMID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return gnomon.VMID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

const (
	namePrefix = "gnomon-shadow-"
	maxName    = 60
)

// Name returns a name for a shadow from a label: a VM's or an account's name. It
// is at most 60 bytes and one that taken says no to.
func Name(label string, taken func(name string) bool) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, label)
	if clean == "" {
		clean = "warm"
	}
	for n := 1; ; n++ {
		suffix := ""
		if n > 1 {
			suffix = fmt.Sprintf("-%d", n)
		}
		base := namePrefix + clean
		base = base[:min(len(base), maxName-len(suffix))]
		if name := base + suffix; !taken(name) {
			return name
		}
	}
}
