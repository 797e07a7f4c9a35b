package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/wire/hostpb"
	"github.com/gnomon-vm/gnomon/wire/hostpb/hostpbconnect"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// hostName is what the demonstration's host is called in labels.
const hostName = "demo"

const (
	stackStart = 60 * time.Second // for the daemon to be ready
	stackStop  = 30 * time.Second // for it to end cleanly
)

// stack is a running `gnomon up` and clients of its APIs.
type stack struct {
	process *exec.Cmd
	ended   chan struct{} // closed when the process has ended
	log     string        // path of its log
	host    hostpbconnect.HostServiceClient
	server  serverpbconnect.ManagementServiceClient
	history string // URL of the Prometheus API
}

// startStack runs `gnomon up` on the demonstration's VMs only, with all it
// keeps below dir, and waits until it is ready.
func startStack(ctx context.Context, o Options, dir, accel, appliance string) (*stack, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &stack{
		ended:   make(chan struct{}),
		log:     filepath.Join(o.Out, "gnomon.log"),
		history: "http://" + address + "/history",
		server:  serverpbconnect.NewManagementServiceClient(http.DefaultClient, "http://"+address),
		host:    hostClient(filepath.Join(dir, "run", "host.sock")),
	}
	out, err := os.Create(s.log)
	if err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	defer out.Close()
	s.process = exec.Command(o.Executable, "up", //nolint:noctx // it outlives the context, to stop in order
		"--name", hostName, "--vms", namePrefix+"*", "--accel", accel, "--appliance", appliance,
		"--libvirt-socket", o.LibvirtSocket, "--listen", address,
		"--data-dir", filepath.Join(dir, "data"), "--state-dir", filepath.Join(dir, "host"),
		"--run-dir", filepath.Join(dir, "run"))
	s.process.Stdout, s.process.Stderr = out, out
	// Its own process group keeps Ctrl-C for this process, which then ends it
	// in order; should this one be killed, it is asked to end all the same.
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.run(); err != nil {
		return nil, err
	}
	if err := s.awaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start gnomon: %w\n%s", err, s.lastLines()), s.stop())
	}
	return s, nil
}

// run starts the process from a thread that lives as long as it: the signal at
// a parent's death is about the thread that started the child.
func (s *stack) run() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.process.Start()
		started <- err
		if err == nil {
			_ = s.process.Wait() // what it ended with is in its log
		}
		close(s.ended)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start gnomon: %w", err)
	}
	return nil
}

func (s *stack) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stackStart, fmt.Errorf("not ready within %v", stackStart))
	defer cancel()
	why := "it does not answer"
	for {
		res, err := s.host.Status(ctx, connect.NewRequest(&hostpb.StatusRequest{}))
		if err == nil {
			st := res.Msg
			if st.GetHypervisor() == "connected" && st.GetServer() == "connected" {
				return nil
			}
			why = "hypervisor " + st.GetHypervisor() + ", server " + st.GetServer()
		}
		select {
		case <-s.ended:
			return errors.New("it ended by itself")
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", context.Cause(ctx), why)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// lastLines returns the end of the log.
func (s *stack) lastLines() string {
	const lines = 5
	b, err := os.ReadFile(s.log)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(len(all)-lines, 0):], "\n")
}

// stop ends the process and all that it runs.
func (s *stack) stop() error {
	_ = s.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
		return nil
	case <-time.After(stackStop):
	}
	_ = s.process.Process.Kill()
	<-s.ended
	return fmt.Errorf("stop gnomon: it did not end within %v and was killed; its log: %s", stackStop, s.log)
}

// configure sets parameters of one VM, which need not exist yet.
func (s *stack) configure(ctx context.Context, vm string, values map[string]string) error {
	return s.set(ctx, &serverpb.Scope{Vm: vm}, values)
}

// configureHost sets parameters of the host.
func (s *stack) configureHost(ctx context.Context, values map[string]string) error {
	return s.set(ctx, &serverpb.Scope{Host: hostName}, values)
}

func (s *stack) set(ctx context.Context, scope *serverpb.Scope, values map[string]string) error {
	_, err := s.server.SetConfig(ctx, connect.NewRequest(&serverpb.SetConfigRequest{Scope: scope, Values: values}))
	if err != nil {
		return fmt.Errorf("configure %s%s: %w", scope.GetHost(), scope.GetVm(), err)
	}
	return nil
}

// vms returns the VMs that are taken in, by name.
func (s *stack) vms(ctx context.Context) (map[string]*hostpb.VM, error) {
	res, err := s.host.ListVMs(ctx, connect.NewRequest(&hostpb.ListVMsRequest{}))
	if err != nil {
		return nil, fmt.Errorf("list VMs: %w", err)
	}
	out := map[string]*hostpb.VM{}
	for _, vm := range res.Msg.GetVms() {
		out[vm.GetName()] = vm
	}
	return out, nil
}

// cost returns what the daemon and the shadows took so far.
func (s *stack) cost(ctx context.Context) (Cost, error) {
	st, err := s.host.Status(ctx, connect.NewRequest(&hostpb.StatusRequest{}))
	if err != nil {
		return Cost{}, fmt.Errorf("read the daemon's cost: %w", err)
	}
	shadows, err := s.host.ListShadows(ctx, connect.NewRequest(&hostpb.ListShadowsRequest{}))
	if err != nil {
		return Cost{}, fmt.Errorf("read the shadows' cost: %w", err)
	}
	c := Cost{Daemon: ProcessCost{
		CPUSeconds: time.Duration(st.Msg.GetCpuNs()).Seconds(), MemoryBytes: st.Msg.GetMemoryBytes(),
	}}
	for _, sh := range shadows.Msg.GetShadows() {
		c.Shadow.CPUSeconds += time.Duration(sh.GetCpuNs()).Seconds()
		c.Shadow.MemoryBytes += sh.GetMemoryResidentBytes()
	}
	return c, nil
}

// since returns the cost of the time after an earlier reading.
func (c Cost) since(before Cost) Cost {
	c.Daemon.CPUSeconds -= before.Daemon.CPUSeconds
	c.Shadow.CPUSeconds -= before.Shadow.CPUSeconds
	return c
}

// hostClient returns a client of the host API behind a Unix socket.
func hostClient(socket string) hostpbconnect.HostServiceClient {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	return hostpbconnect.NewHostServiceClient(&http.Client{Transport: transport}, "http://host")
}

// freeAddress returns an address of this machine that nothing listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}
