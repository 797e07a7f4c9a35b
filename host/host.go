// Package host is the host daemon: it turns what happens on a hypervisor, in
// shadow VMs and on its API into events for the broker, and carries out what
// the broker answers. It decides nothing about resources itself.
//
// One goroutine, the loop, owns all state. Everything else (reading counters,
// applying limits, starting shadows, API calls) runs beside it and posts its
// outcome to the loop as a closure.
package host

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/core/broker"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/pressure"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/shadow"
	"github.com/gnomon-vm/gnomon/wire/recording"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/prometheus/client_golang/prometheus"
)

// Options are what a Daemon works with. Driver, Shadows, StateDir and Log are
// required.
type Options struct {
	Name    string // of this host, in labels and towards the server
	Version string
	Accel   string // "kvm" or "tcg", for information

	Driver  hypervisor.Driver
	Shadows Shadows

	// Pressure tells of onsets; nil for none. PressureWhy tells why it is not a
	// better source, nil if there is none.
	Pressure    pressure.Source
	PressureWhy error

	// Deployer starts the VMs that the server deploys here; nil for a host that
	// deploys none.
	Deployer hypervisor.Deployer

	// Mover moves VMs to other hosts; nil for a host that moves none.
	// MigrationURI is where other hosts' hypervisors reach this one's, such as
	// qemu+tls://node1/system; empty for a host that no VM is moved to.
	Mover        hypervisor.Mover
	MigrationURI string

	// Noter has VMs carry their own limits to other hosts; nil where they do not.
	Noter hypervisor.Noter

	// Select chooses the VMs that are taken in without being enrolled.
	Select Selection

	// StateDir keeps what must survive a restart: the limits found before the
	// first change, enrolments, and the last desired state.
	StateDir string

	// Servers are the management servers; the zero value for none.
	Servers hostlink.Servers

	// Writer and History keep and read the time series; nil for none.
	Writer     *history.Writer
	History    *history.Client
	HistoryURL string // for information

	// Recorder keeps the stream of events; nil for none.
	Recorder *recording.Writer

	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Shadows starts and ends shadows. It is *shadow.Launcher, whose methods say
// more; tests run agents in their own process instead.
type Shadows interface {
	Machines(ctx context.Context) ([]hypervisor.Machine, error)
	Watch(ctx context.Context, ended func(gnomon.VMID)) error
	Start(ctx context.Context, spec shadow.Spec) (shadow.Machine, error)
	Stop(ctx context.Context, m shadow.Machine) error
	Suspend(ctx context.Context, m shadow.Machine) error
	Resume(ctx context.Context, m shadow.Machine) error
	Associate(ctx context.Context, m shadow.Machine, vm gnomon.VMID, account string) error
	Resize(ctx context.Context, m shadow.Machine, size config.Size) (config.Size, error)
	Cost(m shadow.Machine) (memory int64, cpu time.Duration, err error)
	Socket(name string) string
}

// Daemon is one host's daemon. Create it with New.
type Daemon struct {
	opt     Options
	log     *slog.Logger
	metrics *metrics
	state   *stateFile
	states  agentStates

	inbox chan func()
	done  chan struct{} // closed when the loop ends

	// Owned by the loop.
	ctx         context.Context
	broker      *broker.Broker
	now         time.Time
	seq         uint64 // of usage events and proposals by the API
	session     uint64
	vms         map[gnomon.VMID]*vm
	seen        map[gnomon.VMID]hypervisor.Machine
	restoring   map[gnomon.VMID]bool   // released, their limits on the way back
	noting      map[gnomon.VMID]bool   // being given their own limits to carry
	shadows     map[string]*shadowVM   // by name
	ending      map[gnomon.VMID]string // names of shadows told to end and still seen
	desired     desired
	host        hypervisor.Host
	capacity    gnomon.Resources
	quotas      map[string]gnomon.Resources // by account, as the broker knows them
	hypervisor  error                       // why the hypervisor is not usable, nil if it is
	link        *hostlink.Link
	server      string
	subscribers map[*subscriber]struct{}
	wake        *time.Timer
	limiting    int // changes of VMs' limits under way
	asking      int // agents' requests for history under way
	busy        int // changes of shadows under way
	started     time.Time
	stopping    bool // no further limit is set
	listing     bool // a list of machines is on its way
	listAgain   bool
	outdated    int           // counts what makes a list begun before it wrong
	onListed    []func(error) // called once machines were listed
	reporting   bool
	reported    string // digest of what the server knows
	// shortReports is set when the server takes reports without what it knows.
	shortReports bool
	orders       map[orderKey]*order
	queue        []orderKey // those that wait
	carrying     *order     // the one under way
	warmRetryAt  time.Time
	unrecorded   bool      // the latest event is not in the recording
	swept        time.Time // when old states of agents were last removed
}

// New prepares a daemon and its state directory. It touches no VM.
func New(opt Options) (*Daemon, error) {
	state, err := openState(filepath.Join(opt.StateDir, "host.json"))
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		opt: opt, log: opt.Log, state: state,
		states:      agentStates{filepath.Join(opt.StateDir, "agents")},
		inbox:       make(chan func(), 256),
		done:        make(chan struct{}),
		broker:      broker.New(broker.Options{}),
		quotas:      map[string]gnomon.Resources{},
		session:     uint64(time.Now().UnixNano()),
		vms:         map[gnomon.VMID]*vm{},
		seen:        map[gnomon.VMID]hypervisor.Machine{},
		restoring:   map[gnomon.VMID]bool{},
		noting:      map[gnomon.VMID]bool{},
		ending:      map[gnomon.VMID]string{},
		shadows:     map[string]*shadowVM{},
		orders:      map[orderKey]*order{},
		subscribers: map[*subscriber]struct{}{},
		server:      "none",
		started:     time.Now(),
	}
	d.link = hostlink.New(hostlink.Options{
		Servers: opt.Servers,
		OnState: func(s *serverpb.DesiredState) {
			d.post(func() {
				d.shortReports = s.GetShortReports()
				d.instructed(desiredFrom(s))
				d.ordered(s.GetOrders())
			})
		},
		OnStatus: func(status string) { d.post(func() { d.serverStatus(status) }) },
	})
	d.metrics = newMetrics(opt.Registry)
	d.desired = state.desired()
	return d, nil
}

// errStopping is returned to calls that arrive while the daemon stops.
var errStopping = errors.New("the daemon is stopping")

// post hands f to the loop. It is dropped when the loop has ended.
func (d *Daemon) post(f func()) {
	select {
	case d.inbox <- f:
	case <-d.done:
	}
}

// ask runs f in the loop and returns what it returns. If ctx ends first f may
// run yet, or may not, so it must touch nothing of its caller's.
func ask[T any](ctx context.Context, d *Daemon, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	res := make(chan result, 1)
	run := func() {
		if ctx.Err() != nil {
			return // nobody waits
		}
		v, err := f()
		res <- result{v, err}
	}
	var none T
	select {
	case d.inbox <- run:
	case <-ctx.Done():
		return none, ctx.Err()
	case <-d.done:
		return none, errStopping
	}
	select {
	case r := <-res:
		return r.value, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-d.done:
		return none, errStopping
	}
}

// call is ask for what returns nothing.
func (d *Daemon) call(ctx context.Context, f func() error) error {
	_, err := ask(ctx, d, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// parameters returns the effective parameters of a VM.
func (d *Daemon) parameters(m hypervisor.Machine) config.Parameters {
	return d.desired.parameters(m.Account, m.ID, m.Name)
}
