package host

import (
	"context"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/shadow"
)

// shadowVM is one shadow as the daemon knows it. The loop owns it.
type shadowVM struct {
	name    string
	id      gnomon.VMID // empty while it starts
	vm      gnomon.VMID // whose shadow it is; empty while it waits in the warm pool
	account string
	socket  string
	state   string

	size   config.Size // as last set
	sizing bool        // a change of size is under way

	link      *shadow.Link
	giveUp    context.CancelFunc // of the connection that is being made
	session   uint64
	heardSeq  uint64       // of the session's newest proposal
	asking    bool         // a request for history is being answered
	memory    agentMemory  // the exchange of states with it
	says      pace         // of its log
	waited    bool         // it was warm when its VM came
	attached  bool         // the session is known to the broker
	pushed    ring[pushed] // usage events sent, for matching proposals to them
	heap      int64
	started   time.Time
	suspended bool // by an operator, or because its VM ended
}

// The states of a shadow.
const (
	shadowStarting  = "starting"
	shadowRunning   = "running"
	shadowSuspended = "suspended"
)

const (
	// startTimeout bounds the start of a shadow. One that is to wait for a
	// template, on a host that is busy, takes tens of seconds.
	startTimeout = 2 * time.Minute

	// shadowRetry is the pause after a shadow that failed, doubled with each
	// failure in a row up to maxShadowRetry.
	shadowRetry    = time.Second
	maxShadowRetry = time.Minute

	// shadowSettled is how long a shadow must live to count as a success.
	shadowSettled = 30 * time.Second
)

func (s *shadowVM) machine() shadow.Machine {
	return shadow.Machine{Name: s.name, ID: s.id, Socket: s.socket}
}

// close ends the connection to the agent, and the attempt to make one: the next
// shadow of that name has the same socket.
func (s *shadowVM) close() {
	if s.giveUp != nil {
		s.giveUp()
	}
	if s.link != nil {
		s.link.Close()
	}
}

// adoptShadows takes over the shadows that run already, from before a restart.
func (d *Daemon) adoptShadows(machines []hypervisor.Machine) {
	for _, m := range machines {
		if m.ShadowOf == "" || d.ending[m.ID] != "" {
			continue
		}
		s := d.shadows[m.Name]
		if s == nil {
			s = &shadowVM{
				name: m.Name, account: m.Account, started: d.now,
				socket: d.opt.Shadows.Socket(m.Name),
				size:   sizeOf(m), pushed: ring[pushed]{max: keptPushed},
			}
			if m.ShadowOf != hypervisor.Warm {
				s.vm = m.ShadowOf
			}
			d.shadows[m.Name] = s
			d.log.Info("shadow found", "shadow", m.Name, "paused", m.Paused)
		}
		if s.id == "" {
			s.id, s.socket, s.state = m.ID, d.opt.Shadows.Socket(m.Name), shadowRunning
			if m.Paused {
				s.state, s.suspended = shadowSuspended, true
			} else {
				d.connect(s)
			}
		}
	}
}

// placeShadows gives every VM the shadow it should have, every designated
// account a warm one until its first VM takes it, and ends those nobody needs.
func (d *Daemon) placeShadows() {
	if d.stopping || d.hypervisor != nil {
		return
	}
	for _, s := range d.sortedShadows() {
		if s.id == "" || s.vm == "" || s.suspended {
			continue
		}
		v := d.vms[s.vm]
		switch {
		case v == nil:
			d.retire(s)
		case v.shadow == nil && v.params.ShadowEnabled:
			d.associate(v, s)
		case v.shadow != s || !v.params.ShadowEnabled:
			d.endShadow(s)
		}
	}
	for _, v := range d.sortedVMs() {
		if v.shadow == nil && v.params.ShadowEnabled && !d.now.Before(v.retryAt) {
			d.provide(v)
		}
	}
	d.fillWarmPool()
}

// provide finds or starts a shadow for a VM that has none.
func (d *Daemon) provide(v *vm) {
	for _, s := range d.sortedShadows() {
		if s.vm == v.machine.ID && s.id != "" {
			if s.suspended && s.state == shadowSuspended {
				d.resume(s)
			}
			d.associate(v, s)
			return
		}
	}
	for _, s := range d.sortedShadows() {
		if s.vm == "" && s.id != "" && !s.suspended && s.link != nil && s.account == v.machine.Account {
			s.waited = true
			d.associate(v, s)
			d.log.Info("warm shadow taken", "shadow", s.name, "vm", v.machine.Name)
			return
		}
	}
	s := d.start(v.machine.ID, v.machine.Name, v.machine.Account, v.params)
	v.shadow = s
}

// associate makes s the shadow of v for the rest of v's life.
func (d *Daemon) associate(v *vm, s *shadowVM) {
	v.shadow = s
	fresh := s.vm != v.machine.ID
	s.vm, s.account = v.machine.ID, v.machine.Account
	if fresh {
		m, vm, account := s.machine(), s.vm, s.account
		d.beside("associate shadow", s, func(ctx context.Context) error {
			return d.opt.Shadows.Associate(ctx, m, vm, account)
		})
	}
	if s.link != nil {
		d.attach(s)
	}
	d.report()
}

// fillWarmPool starts a shadow for each account designated to this host that
// has neither a VM here nor a shadow waiting.
func (d *Daemon) fillWarmPool() {
	for _, account := range d.desired.Accounts {
		if !d.needsWarm(account) {
			continue
		}
		p := d.desired.parameters(account, "", "")
		if p.ShadowEnabled && !d.now.Before(d.warmRetryAt) {
			d.start("", account, account, p)
		}
	}
	for _, s := range d.sortedShadows() {
		if s.vm == "" && s.id != "" && !d.designated(s.account) {
			d.endShadow(s)
		}
	}
}

func (d *Daemon) needsWarm(account string) bool {
	for _, s := range d.shadows {
		if s.account == account {
			return false
		}
	}
	for _, v := range d.vms {
		if v.machine.Account == account {
			return false
		}
	}
	return true
}

func (d *Daemon) designated(account string) bool {
	for _, a := range d.desired.Accounts {
		if a == account {
			return true
		}
	}
	return false
}

// start begins to start a shadow, for a VM or for the warm pool.
func (d *Daemon) start(vm gnomon.VMID, label, account string, p config.Parameters) *shadowVM {
	spec := shadow.Spec{Name: d.shadowName(label), For: vm, Account: account, Size: p.ShadowMax, Runtime: p.ShadowRuntime}
	if vm == "" {
		spec.For = hypervisor.Warm
	}
	s := &shadowVM{
		name: spec.Name, vm: vm, account: account, state: shadowStarting,
		size: p.ShadowMax, started: d.now, pushed: ring[pushed]{max: keptPushed},
	}
	d.shadows[s.name] = s
	d.busy++
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, startTimeout)
		defer cancel()
		m, err := d.opt.Shadows.Start(ctx, spec)
		d.post(func() {
			d.busy--
			d.startedShadow(s, m, err)
		})
	}()
	return s
}

func (d *Daemon) runs(name string) bool {
	for _, m := range d.seen {
		if m.Name == name {
			return true
		}
	}
	for _, ending := range d.ending {
		if ending == name {
			return true
		}
	}
	return false
}

// sizeOf returns the size of a shadow that was found running.
func sizeOf(m hypervisor.Machine) config.Size {
	size := config.Size{CPU: m.Original.Limits[gnomon.CPU], Memory: m.Original.Limits[gnomon.Memory]}
	if size.CPU == hypervisor.Unlimited {
		size.CPU = m.Max[gnomon.CPU]
	}
	return size
}

// warmState is how the server is told of a shadow in the warm pool.
func (s *shadowVM) warmState() string {
	if s.link == nil {
		return shadowStarting
	}
	return "warm"
}

// shadowName returns a free name for a shadow.
func (d *Daemon) shadowName(label string) string {
	return shadow.Name(label, func(name string) bool { return d.shadows[name] != nil || d.runs(name) })
}

func (d *Daemon) startedShadow(s *shadowVM, m shadow.Machine, err error) {
	if err != nil {
		d.metrics.shadowStarts.WithLabelValues("error").Inc()
		d.log.Error("shadow not started", "shadow", s.name, "err", err)
		delete(d.shadows, s.name)
		d.shadowFailed(s)
		return
	}
	d.metrics.shadowStarts.WithLabelValues("ok").Inc()
	listed := s.id != "" // a reconcile saw it first, and connected
	s.id, s.socket, s.state, s.size = m.ID, m.Socket, shadowRunning, m.Size
	if d.shadows[s.name] != s || d.stopping && !d.keepsLimits() { // its VM ended meanwhile
		d.shadows[s.name] = s
		d.endShadow(s)
		return
	}
	if d.stopping {
		return
	}
	if !listed {
		d.connect(s)
	}
	d.report()
	d.tellAssociated(false)
}

// shadowFailed schedules another shadow in place of s, later with each failure in a
// row.
func (d *Daemon) shadowFailed(s *shadowVM) {
	v := d.vms[s.vm]
	if v == nil {
		d.warmRetryAt = d.now.Add(maxShadowRetry / 6)
		return
	}
	if v.shadow == s {
		v.shadow = nil
	}
	if d.now.Sub(s.started) > shadowSettled {
		v.fails = 0
	}
	v.retryAt = d.now.Add(min(shadowRetry<<min(v.fails, 10), maxShadowRetry))
	v.fails++
	wait := v.retryAt.Sub(d.now)
	time.AfterFunc(wait, func() { d.post(d.placeShadows) })
}

// shadowGone handles the end of a shadow: it is replaced if its VM
// still runs, and the VM is not disturbed.
func (d *Daemon) shadowGone(id gnomon.VMID) {
	for _, s := range d.sortedShadows() {
		if s.id != id {
			continue
		}
		s.close()
		d.detach(s)
		delete(d.shadows, s.name)
		if v := d.vms[s.vm]; v != nil {
			d.log.Warn("shadow ended; it will be replaced", "shadow", s.name, "vm", v.machine.Name)
			v.restarts++
		}
		d.shadowFailed(s)
	}
}

// endShadowOf retires the shadow of a VM that ended or was released.
func (d *Daemon) endShadowOf(v *vm) {
	if s := v.shadow; s != nil {
		v.shadow = nil
		d.retireAs(s, v.params.OnTermination)
	}
}

// retire ends a shadow whose VM is not there, as the configuration says.
func (d *Daemon) retire(s *shadowVM) {
	d.retireAs(s, d.desired.parameters(s.account, s.vm, "").OnTermination)
}

func (d *Daemon) retireAs(s *shadowVM, how config.OnTermination) {
	if how == config.Suspend && s.id != "" {
		d.suspend(s)
		return
	}
	d.endShadow(s)
}

// endShadow terminates a shadow. One that is still starting ends when it has
// started.
func (d *Daemon) endShadow(s *shadowVM) {
	s.close()
	d.detach(s)
	if v := d.vms[s.vm]; v != nil && v.shadow == s {
		v.shadow = nil
	}
	delete(d.shadows, s.name)
	if s.id == "" {
		return
	}
	m := s.machine()
	d.ending[m.ID] = m.Name
	d.beside("stop shadow", s, func(ctx context.Context) error {
		err := d.opt.Shadows.Stop(ctx, m)
		if err != nil { // it is found again, and tried again
			d.post(func() { delete(d.ending, m.ID) })
		}
		return err
	})
}

func (d *Daemon) suspend(s *shadowVM) {
	s.suspended, s.state = true, shadowSuspended
	s.close()
	s.link = nil
	d.detach(s)
	m := s.machine()
	d.beside("suspend shadow", s, func(ctx context.Context) error {
		return d.opt.Shadows.Suspend(ctx, m)
	})
}

func (d *Daemon) resume(s *shadowVM) {
	s.suspended, s.state = false, shadowRunning
	m := s.machine()
	d.beside("resume shadow", s, func(ctx context.Context) error {
		return d.opt.Shadows.Resume(ctx, m)
	})
	d.connect(s)
}

// beside runs f outside the loop and logs its failure. The next reconcile sees
// what became of it.
func (d *Daemon) beside(what string, s *shadowVM, f func(context.Context) error) {
	d.busy++
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, startTimeout)
		defer cancel()
		err := f(ctx)
		d.post(func() {
			d.busy--
			if err != nil {
				d.log.Warn(what+" failed", "shadow", s.name, "err", err)
			}
		})
	}()
}
