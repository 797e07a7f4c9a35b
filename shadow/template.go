package shadow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/shadow/cell"
	"github.com/gnomon-vm/gnomon/shadow/qmp"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

const (
	// templateTimeout bounds the making of a template: a cold boot on a busy host
	// without KVM.
	templateTimeout = 2 * time.Minute

	// readyTimeout bounds how long an agent that said hello takes to its next
	// answer. It is at work by then: one that takes longer is not waited for.
	readyTimeout = 10 * time.Second

	// templateRetry is the pause after a template that could not be made, or that
	// a clone of did not work. Meanwhile shadows boot.
	templateRetry = time.Minute

	// templateName is that of its place. Shadows have longer names.
	templateName = "template"
)

// template is a guest that was frozen as soon as its agent was ready. Nobody can
// write to its files any more: clones are of different accounts.
type template struct {
	key    string   // of what it was made from
	memory *os.File // the guest's
	state  *os.File // of the machine, as QEMU migrates it
}

func (t *template) close() {
	t.memory.Close()
	t.state.Close()
}

// templateKey names all that a template depends on.
func templateKey(img appliance.Image, accel string) (string, error) {
	st, err := os.Stat(qemu)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %v %v", img.Hash, st.Size(), st.ModTime().UnixNano(), cloneArgs("", accel)), nil
}

// current returns the template to clone. The first to ask makes it, others wait.
// It is made anew when the appliance or QEMU is another one than before.
func (l *Launcher) current(ctx context.Context) (*template, error) {
	select {
	case l.making <- struct{}{}:
		defer func() { <-l.making }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	img, err := appliance.Open(l.opts.Appliance)
	if err != nil {
		return nil, err
	}
	key, err := templateKey(img, l.opts.Accel)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	t, broken := l.template, time.Since(l.broken) < templateRetry
	l.mu.Unlock()
	switch {
	case t != nil && t.key == key:
		return t, nil
	case broken:
		return nil, errors.New("the last one did not work")
	case l.life.Err() != nil:
		return nil, errors.New("the launcher is closed")
	}
	began := time.Now()
	// Others wait for it too: it does not end with who asked first.
	ctx, cancel := context.WithTimeout(l.life, templateTimeout)
	defer cancel()
	if t, err = l.freeze(ctx, img, key); err != nil {
		l.reject(nil)
		return nil, err
	}
	l.mu.Lock()
	l.template = t
	l.mu.Unlock()
	l.opts.Log.Info("template of shadows made", "took", time.Since(began).Round(time.Millisecond), "kernel", img.Kernel)
	return t, nil
}

// reject has no clones made of a template, nor another template, for a while.
func (l *Launcher) reject(t *template) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = time.Now()
	if l.template == t {
		l.template = nil // clones under way may read it; the collector closes it
	}
}

// freeze boots a guest, waits for its agent, and keeps what it is then.
func (l *Launcher) freeze(ctx context.Context, img appliance.Image, key string) (t *template, err error) {
	if err := l.at(templateName).vacate(ctx); err != nil {
		return nil, fmt.Errorf("end what is left of an earlier template: %w", err)
	}
	p, err := l.place(templateName)
	if err != nil {
		return nil, fmt.Errorf("make template: %w", err)
	}
	defer p.remove()
	p.bound = true // nobody else would know of it, unless a daemon comes to this very place
	defer func() {
		if err != nil {
			err = fmt.Errorf("make template: %w%s", err, p.lastWords())
		}
	}()
	c := cell.Cell(newID())
	if err := p.occupy(c); err != nil {
		return nil, err
	}
	memory, err := l.boot(ctx, c, p, img, cell.Limits{CPU: bootCPU, Memory: guestMemory + overhead})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Kill(context.WithoutCancel(ctx))) }()
	link, err := ready(ctx, c, p.socket())
	if err != nil {
		return nil, err
	}
	defer link.Close()
	state, err := newMemory("gnomon-state", 0)
	if err != nil {
		return nil, err
	}
	t = &template{key: key, memory: memory, state: state}
	if err := t.save(ctx, p.monitor()); err != nil {
		return nil, err
	}
	if err := c.Kill(ctx); err != nil { // the seals need that nobody can write
		return nil, err
	}
	return t, errors.Join(seal(memory), seal(state))
}

// ready waits until the agent has answered all there was, and returns the link
// to it: as long as that is open the agent sits in a read, and a clone begins
// there.
func ready(ctx context.Context, c cell.Cell, socket string) (*Link, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		if c.Ended(ctx) == nil {
			cancel(errors.New("QEMU ended"))
		}
	}()
	l, err := Dial(ctx, socket, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if err := rehearse(ctx, l); err != nil {
		l.Close()
		return nil, fmt.Errorf("rehearse: %w", err)
	}
	return l, nil
}

// answered waits until the agent has answered all there was, and answers what it
// asks meanwhile.
func answered(ctx context.Context, l *Link, answer func(*agentpb.ToHost)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("%w: no answer within %v of the hello", ErrSilent, readyTimeout))
	defer cancel()
	const id = 1
	l.Send(&agentpb.ToAgent{Message: &agentpb.ToAgent_Ping{Ping: &agentpb.Ping{Id: id}}})
	for {
		select {
		case m, ok := <-l.Messages():
			if !ok {
				return fmt.Errorf("link to shadow: %w", l.Err())
			}
			if m.GetPong().GetId() == id {
				return nil
			}
			answer(m)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// capabilities have a migration carry the machine's state alone, since the memory
// is in its file already, and tell of its end.
var capabilities = qmp.Args{"capabilities": []qmp.Args{
	{"capability": "x-ignore-shared", "state": true}, {"capability": "events", "state": true},
}}

// save stops the guest for good and writes the machine's state.
func (t *template) save(ctx context.Context, monitor string) error {
	q, err := qmp.Dial(ctx, monitor)
	if err != nil {
		return err
	}
	defer q.Close()
	return errors.Join(
		q.Run("stop", nil),
		q.Run("migrate-set-capabilities", capabilities),
		q.Give("state", t.state),
		q.Run("migrate", qmp.Args{"uri": "fd:state"}),
		q.Migrated())
}

// clone starts a guest from the template in a cell.
func (t *template) clone(ctx context.Context, c cell.Cell, p place, accel string, limits cell.Limits) error {
	state, err := reopen(t.state)
	if err != nil {
		return err
	}
	defer state.Close()
	if err := p.start(c, qemu, cloneArgs(p.name, accel), limits, t.memory, state); err != nil {
		return err
	}
	q, err := qmp.Dial(ctx, p.monitor())
	if err != nil {
		return err
	}
	defer q.Close()
	if err := q.Run("migrate-set-capabilities", capabilities); err != nil {
		return err
	}
	if err := q.Run("migrate-incoming", qmp.Args{"uri": fmt.Sprintf("fd:%d", fdState)}); err != nil {
		return err
	}
	if err := q.Migrated(); err != nil {
		return err
	}
	return q.Run("cont", nil)
}
