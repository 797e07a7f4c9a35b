//go:build linux && amd64

package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// TestSandboxedAgentAnswers runs this test's program again as an agent on a
// socket that it is handed, as a host does.
func TestSandboxedAgentAnswers(t *testing.T) {
	if os.Getenv("GNOMON_AGENT_SANDBOXED") != "" {
		t.Log(runOnListener(3))
		return
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSandboxedAgentAnswers$")
	cmd.Env = append(os.Environ(), "GNOMON_AGENT_SANDBOXED=1")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for range 2 { // hosts in turn
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		conn := wire.NewConn(c)
		if err := conn.WriteToAgent(&agentpb.ToAgent{Message: &agentpb.ToAgent_Ping{Ping: &agentpb.Ping{Id: 7}}}); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := conn.ReadToHost()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetPong().GetId() == 7 {
				break
			}
		}
		c.Close()
	}
}

// TestSandboxHolds tries, in a program of its own, what a compromised agent
// would.
func TestSandboxHolds(t *testing.T) {
	if os.Getenv("GNOMON_AGENT_SANDBOXED") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSandboxHolds$", "-test.v")
		cmd.Env = append(os.Environ(), "GNOMON_AGENT_SANDBOXED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	if err := enterSandbox(); err != nil {
		t.Fatal(err)
	}
	for what, try := range map[string]func() error{
		"open a file":         func() error { _, err := unix.Open("/etc/hostname", unix.O_RDONLY, 0); return err },
		"make a socket":       func() error { _, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"start a program":     func() error { return unix.Exec("/bin/true", []string{"true"}, nil) },
		"fork":                func() error { _, _, errno := unix.RawSyscall(unix.SYS_FORK, 0, 0, 0); return orNil(errno) },
		"signal a process":    func() error { return unix.Kill(1, 0) },
		"read another's mind": func() error { return unix.PtraceAttach(1) },
		"make code": func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_EXEC|unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
			return err
		},
	} {
		if err := try(); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: got %v, want %v", what, err, unix.EPERM)
		}
	}
}

func orNil(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
