package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/host"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/libvirt"
	"github.com/gnomon-vm/gnomon/pressure"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/shadow"
	"github.com/gnomon-vm/gnomon/wire/hostpb/hostpbconnect"
	"github.com/gnomon-vm/gnomon/wire/recording"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
)

// defaultStateDir keeps what a host must not lose.
const defaultStateDir = defaultDataDir + "/host"

// daemonFlags are what `gnomon host` and `gnomon up` share.
type daemonFlags struct {
	name      string
	libvirt   string
	vms       string
	accel     string
	appliance string
	stateDir  string
	runDir    string
	socket    string
	record    string
	pressure  string
	migration string
	buffer    string
	grace     time.Duration
	logLevel  string
	logFormat string
}

func addDaemonFlags(cmd *cobra.Command) *daemonFlags {
	f := &daemonFlags{}
	hostname, _ := os.Hostname()
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", hostname, "name of this host")
	fl.StringVar(&f.libvirt, "libvirt-socket", "", "Unix socket of libvirtd or virtqemud (default: the system's)")
	fl.StringVar(&f.vms, "vms", "all", "which VMs to take in: all, none (only those enrolled), or name patterns like web-*,db-1")
	fl.StringVar(&f.accel, "accel", "auto", "acceleration of shadow VMs: auto (tried by booting one), kvm or tcg")
	fl.StringVar(&f.appliance, "appliance", defaultAppliance(), "folder of the shadow VM's kernel and initramfs (see \"gnomon appliance build\")")
	fl.StringVar(&f.stateDir, "state-dir", defaultStateDir, "what must survive a restart")
	fl.StringVar(&f.runDir, "run-dir", "/run/gnomon", "sockets")
	fl.StringVar(&f.socket, "socket", "", "Unix socket of the host API (default RUN-DIR/host.sock)")
	fl.StringVar(&f.record, "record", "", "folder to record all events in, for \"gnomon replay\"")
	fl.StringVar(&f.pressure, "pressure", pressure.Auto, "how a VM's shortage is noticed ahead of its next sample: off, auto (the best this host allows), ebpf, perf or sampling")
	fl.StringVar(&f.migration, "migration-uri", "", "where other hosts' libvirt reaches this one's, such as qemu+tls://node1/system, for VMs to be moved here (default: none are)")
	fl.StringVar(&f.buffer, "history-buffer", "1GiB", "how much of the history is kept on disk, in STATE-DIR/history, while the database is away")
	durationFlag(fl, &f.grace, "guard-grace", 10*time.Second, "how long after the daemon's death its VMs get their own limits back, unless it returns; 0 for no guard")
	addLogFlags(cmd, &f.logLevel, &f.logFormat)
	completeValues(cmd, "pressure", noPressure, pressure.Auto, pressure.EBPF, pressure.Perf, pressure.Sampling)
	completeValues(cmd, "accel", "auto", "kvm", "tcg")
	return f
}

// bufferLimit is the size of the history's buffer in bytes.
func (f *daemonFlags) bufferLimit() (int64, error) {
	limit, err := gnomon.ParseAmount(gnomon.Memory, f.buffer)
	if err != nil || limit <= 0 {
		return 0, usagef("--history-buffer %q: want a size such as 500MiB or 10GiB", f.buffer)
	}
	return limit, nil
}

// defaultAppliance is where packages put the appliance, or where a build in
// the source tree left it.
func defaultAppliance() string {
	if exe, err := os.Executable(); err == nil {
		built := filepath.Join(filepath.Dir(exe), "..", "build", "appliance")
		if _, err := os.Stat(built); err == nil {
			return filepath.Clean(built)
		}
	}
	return "/usr/share/gnomon/appliance"
}

func addLogFlags(cmd *cobra.Command, level, format *string) {
	cmd.Flags().StringVar(level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().StringVar(format, "log-format", "text", "text or json")
	completeValues(cmd, "log-level", "debug", "info", "warn", "error")
	completeValues(cmd, "log-format", "text", "json")
}

func newLogger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %q: want debug, info, warn or error", level)
	}
	opt := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opt)), nil
	}
	return nil, usagef("--log-format %q: want text or json", format)
}

// daemonDeps are the parts of the system that a daemon is wired to.
type daemonDeps struct {
	servers    hostlink.Servers
	writer     *history.Writer
	history    *history.Client
	historyURL string
	registry   *prometheus.Registry
	log        *slog.Logger
}

// hostParts are what a daemon needs of its host.
type hostParts struct {
	sel      host.Selection
	driver   *libvirt.Driver
	pressure pressure.Source
	whyNot   error // a better one
	lock     io.Closer
	recorder *recording.Writer // nil without --record
	clean    func()            // tells the guard that the daemon stopped cleanly
	accel    string
	launcher *shadow.Launcher
}

func (p *hostParts) close() {
	if p.launcher != nil {
		p.launcher.Close()
	}
	if p.driver != nil {
		p.driver.Close()
	}
	if p.pressure != nil {
		p.pressure.Close()
	}
	if p.recorder != nil {
		p.recorder.Close()
	}
	if p.lock != nil {
		p.lock.Close()
	}
}

// connectHost finds what can be wrong with the flags and connects to the
// hypervisor. It creates nothing.
func connectHost(ctx context.Context, f *daemonFlags) (*hostParts, error) {
	sel, err := host.ParseSelection(f.vms)
	if err != nil {
		return nil, usageError{fmt.Errorf("--vms: %w", err)}
	}
	if _, err := f.bufferLimit(); err != nil {
		return nil, err
	}
	if f.name == "" {
		return nil, usagef("--name is empty: give this host a name")
	}
	switch f.accel {
	case "auto", "kvm", "tcg":
	default:
		return nil, usagef("--accel %q: want auto, kvm or tcg", f.accel)
	}
	if f.socket == "" {
		f.socket = filepath.Join(f.runDir, "host.sock")
	}
	if _, err := appliance.Open(f.appliance); err != nil {
		return nil, err
	}
	parts := &hostParts{sel: sel}
	if err := parts.openPressure(f.pressure); err != nil {
		return nil, fmt.Errorf("--pressure: %w", err)
	}
	parts.driver, err = libvirt.Open(ctx, libvirt.Options{Socket: f.libvirt, CPUTimes: pressure.TimesOf(parts.pressure)})
	if err != nil {
		parts.close()
		return nil, err
	}
	return parts, nil
}

// noPressure is the --pressure that has shortages noticed with the next sample.
const noPressure = "off"

func (p *hostParts) openPressure(name string) (err error) {
	if name == noPressure {
		return nil
	}
	p.pressure, p.whyNot, err = pressure.Open(name)
	return err
}

// prepare takes the host for this daemon, which no other may have, makes its
// folders and starts its guard. It touches no VM and takes no time.
func (p *hostParts) prepare(f *daemonFlags, log *slog.Logger) (err error) {
	if err := served(f.socket); err != nil {
		return err
	}
	if p.lock, err = host.Lock(f.stateDir); err != nil {
		return err
	}
	if err := host.CheckState(f.stateDir); err != nil {
		return err
	}
	if err := os.MkdirAll(f.runDir, 0o755); err != nil {
		return fmt.Errorf("create run directory: %w", err)
	}
	if f.record != "" {
		if p.recorder, err = recording.Create(f.record, recording.Options{}); err != nil {
			return err
		}
	}
	// Before anything that takes time: the guard of a daemon that died leaves
	// when it sees the lock taken.
	if p.clean = func() {}; f.grace > 0 {
		if p.clean, err = host.StartGuard(guardArgs(f)); err != nil {
			return err
		}
	}
	why := ""
	if p.whyNot != nil {
		why = p.whyNot.Error()
	}
	if p.pressure != nil {
		log.Info("source of onsets chosen", "pressure", p.pressure.Name(), "why", why)
	}
	return nil
}

// launch chooses the acceleration, which may take accelProbeTimeout, and begins
// to make the template of shadows.
func (p *hostParts) launch(ctx context.Context, f *daemonFlags, log *slog.Logger) (err error) {
	p.accel = chooseAccel(ctx, f, log)
	p.launcher, err = shadow.NewLauncher(shadow.Options{
		Appliance: f.appliance, RunDir: filepath.Join(f.runDir, "shadows"), Accel: p.accel, Log: log,
	})
	if err != nil {
		return err
	}
	go p.launcher.Warm(ctx)
	return nil
}

// runDaemon runs the host daemon until ctx ends.
func runDaemon(ctx context.Context, f *daemonFlags, p *hostParts, deps daemonDeps) error {
	if err := p.launch(ctx, f, deps.log); err != nil {
		return err
	}
	d, err := host.New(host.Options{
		Name: f.name, Version: version, Accel: p.accel,
		Driver: p.driver, Deployer: p.driver, Mover: p.driver, Noter: p.driver, MigrationURI: f.migration,
		Pressure: p.pressure, PressureWhy: p.whyNot,
		Shadows: p.launcher, Select: p.sel, StateDir: f.stateDir,
		Servers: deps.servers, Writer: deps.writer, History: deps.history, HistoryURL: deps.historyURL,
		Recorder: p.recorder, Registry: deps.registry, Log: deps.log,
	})
	if err != nil {
		return err
	}
	return serveDaemon(ctx, f, p, d, deps)
}

// serveDaemon runs the daemon with its API.
func serveDaemon(ctx context.Context, f *daemonFlags, p *hostParts, d *host.Daemon, deps daemonDeps) error {
	l, err := listenSocket(f.socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(hostpbconnect.NewHostServiceHandler(d.API()))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.Handle("/metrics", promhttp.HandlerFor(deps.registry, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	deps.log.Info("host daemon runs", "host", f.name, "socket", f.socket, "vms", f.vms)
	// A guard that is not told otherwise gives back what the daemon could not.
	if err = d.Run(ctx); err == nil {
		p.clean()
	}
	return err
}

// served returns an error if somebody serves the socket.
func served(path string) error {
	c, err := net.Dial("unix", path) //nolint:noctx // a local socket answers at once or not at all
	if err != nil {
		return nil
	}
	c.Close()
	return fmt.Errorf("listen on %s: another daemon serves it: stop that, or choose another --socket", path)
}

// listenSocket listens on a Unix socket, in place of one that nobody serves
// any more.
func listenSocket(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create run directory: %w", err)
	}
	if err := served(path); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect %s: %w", path, err)
	}
	return l, nil
}

// accelProbeTimeout bounds the trial boot that decides between KVM and TCG.
const accelProbeTimeout = 20 * time.Second

func chooseAccel(ctx context.Context, f *daemonFlags, log *slog.Logger) string {
	if f.accel != "auto" {
		return f.accel
	}
	log.Info("trying whether a guest boots under KVM", "at_most", accelProbeTimeout)
	accel, why := shadow.ProbeAccel(ctx, f.appliance, accelProbeTimeout)
	if ctx.Err() == nil { // else the trial told nothing, and the daemon stops
		log.Info("acceleration chosen", "accel", accel, "why", why)
	}
	return accel
}

func guardArgs(f *daemonFlags) []string {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	return []string{exe, "guard", "--state-dir", f.stateDir, "--libvirt-socket", f.libvirt,
		"--grace", f.grace.String(), "--log-level", f.logLevel, "--log-format", f.logFormat}
}

// guardConnectTimeout bounds one attempt of the guard to reach libvirt.
const guardConnectTimeout = 10 * time.Second

// guardCommand is run by the daemon itself.
func guardCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "guard",
		Short:  "Give VMs their limits back if the host daemon dies",
		Hidden: true,
		Args:   exactArgs(),
	}
	var stateDir, socket, level, format string
	var grace time.Duration
	cmd.Flags().StringVar(&stateDir, "state-dir", "", "the daemon's state directory")
	cmd.Flags().StringVar(&socket, "libvirt-socket", "", "Unix socket of libvirtd")
	durationFlag(cmd.Flags(), &grace, "grace", 10*time.Second, "how long to wait for the daemon's return")
	addLogFlags(cmd, &level, &format)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := newLogger(level, format)
		if err != nil {
			return err
		}
		// A stop of the whole service reaches the guard too, and must not end it
		// before its work is done; nor must a reader of its log that is gone.
		ctx := context.WithoutCancel(cmd.Context())
		hurry := make(chan os.Signal, 1)
		signal.Notify(hurry, stopSignals()...)
		signal.Ignore(syscall.SIGPIPE)
		connect := func() (hypervisor.Driver, error) {
			ctx, cancel := context.WithTimeout(ctx, guardConnectTimeout)
			defer cancel()
			return libvirt.Open(ctx, libvirt.Options{Socket: socket})
		}
		return host.Guard(ctx, cmd.InOrStdin(), hurry, connect, stateDir, grace, log.With("process", "guard"))
	}
	return cmd
}
