// Command gnomon-agent is the init of a shadow VM: it sets the guest up, opens
// the shadow's virtio-serial channel and runs the agent's loop on it. As a plain
// process it runs with --channel on a Unix socket or a device or, in a sandbox,
// with --listen-fd on a socket that it was handed.
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon/agent"
	"github.com/gnomon-vm/gnomon/appliance/guestinit"
	"github.com/gnomon-vm/gnomon/wire"
)

// version is set by the linker.
var version = "unknown"

const (
	port     = "org.gnomon.agent.0"
	portWait = 10 * time.Second

	// memoryLimit is the heap that the garbage collector holds to: the models of
	// one VM take a few MiB.
	memoryLimit = 24 << 20

	// redial is the pause before a Unix socket that went away is tried again.
	redial = 200 * time.Millisecond
)

func main() {
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(50)
	// A cell's process is the first of its namespace too. What the kernel does not
	// know of its command line it gives an init as arguments.
	handed := len(os.Args) > 1 && os.Args[1] == "--listen-fd"
	if guestinit.IsInit() && !handed {
		// Without init the kernel panics; power off in good order instead.
		fmt.Fprintln(os.Stderr, "gnomon-agent:", runInit())
		fmt.Fprintln(os.Stderr, "gnomon-agent:", guestinit.PowerOff())
		return
	}
	channel := flag.String("channel", "", "Unix socket or character device to speak on")
	listenFD := flag.Int("listen-fd", -1, "number of a listening Unix socket that is open already: serve it in a sandbox")
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	switch {
	case *showVersion:
		fmt.Println("gnomon-agent", version)
	case *listenFD >= 0 && *channel == "" && flag.NArg() == 0:
		fmt.Fprintln(os.Stderr, "gnomon-agent:", runOnListener(*listenFD))
		os.Exit(1)
	case *channel == "" || flag.NArg() > 0:
		fmt.Fprintln(os.Stderr, "gnomon-agent: name the channel: --channel PATH or --listen-fd N")
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "gnomon-agent:", runOn(*channel))
		os.Exit(1)
	}
}

// runInit sets the guest up and runs the agent for the guest's life.
func runInit() error {
	if err := guestinit.Setup(); err != nil {
		// What it needs may have loaded all the same.
		fmt.Fprintln(os.Stderr, "gnomon-agent:", err)
	}
	dev, err := guestinit.FindPort(port, portWait)
	if err != nil {
		return err
	}
	return runOn(dev)
}

// runOn runs the agent on a channel, again whenever the host comes back.
func runOn(path string) error {
	a := newAgent()
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("open channel: %w", err)
	}
	if st.Mode()&os.ModeSocket != 0 {
		return serveSocket(a, path)
	}
	return serveDevice(a, path)
}

func newAgent() *agent.Agent {
	return agent.New(agent.Options{
		Version: version, Kernel: kernelRelease(),
		Log:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: dropTime})),
		Nonce: nonce, Cost: cost,
	})
}

// nonce asks the kernel each time: what a clone knows its template's others know.
func nonce() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// runOnListener runs the agent for each host that connects, in turn, with no
// right to anything else.
func runOnListener(fd int) error {
	f := os.NewFile(uintptr(fd), "listener")
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("open channel: %w", err)
	}
	f.Close()
	a := newAgent()
	if err := enterSandbox(); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return fmt.Errorf("open channel: %w", err)
		}
		err = a.Run(wire.NewConn(c))
		c.Close()
		fmt.Fprintln(os.Stderr, "gnomon-agent:", err)
	}
}

// serveDevice runs the agent on a port that stays open while hosts come and go.
func serveDevice(a *agent.Agent, path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open channel %s: %w", path, err)
	}
	d, err := newDevice(os.NewFile(uintptr(fd), path))
	if err != nil {
		return fmt.Errorf("open channel %s: %w", path, err)
	}
	conn := wire.NewConn(d)
	defer conn.Close()
	for {
		if err := a.Run(conn); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
	}
}

// serveSocket runs the agent on each connection in turn, until the socket is
// gone for good.
func serveSocket(a *agent.Agent, path string) error {
	for {
		c, err := new(net.Dialer).DialContext(context.Background(), "unix", path)
		if err != nil {
			return fmt.Errorf("open channel: %w", err)
		}
		err = a.Run(wire.NewConn(c))
		c.Close()
		fmt.Fprintln(os.Stderr, "gnomon-agent:", err)
		time.Sleep(redial)
	}
}

// dropTime leaves the time out of the console's lines: nobody sets the clock of a
// shadow.
func dropTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func kernelRelease() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// bootCPU is the CPU time that the process had used before main: that of an
// init begins with the kernel's boot.
var bootCPU = cpuTime()

// cost returns the agent's heap and the CPU time that it has used.
func cost() (heap int64, cpu time.Duration) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse), cpuTime() - bootCPU
}

func cpuTime() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
