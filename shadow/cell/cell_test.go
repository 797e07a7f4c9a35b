package cell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot skips where no cell can be made, unless GNOMON_TEST_VM insists.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("GNOMON_TEST_VM") == "" {
		t.Skip("cells need root")
	}
}

func start(t *testing.T, script string) (Cell, *os.File) {
	t.Helper()
	needRoot(t)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	c := Cell(fmt.Sprintf("test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-")))
	if err := c.Start(Command{Path: "/bin/sh", Args: []string{"-c", script}, Output: out}, Limits{CPU: 500, Memory: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Kill(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c, out
}

func ended(t *testing.T, c Cell) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Ended(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestCellHasNothing(t *testing.T) {
	c, out := start(t, `grep -E '^(Uid|NoNewPrivs|CapEff)' /proc/self/status; tail -n +3 /proc/net/dev | cut -d: -f1; ulimit -f; cat /etc/shadow`)
	ended(t, c)
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), " ", "")
	for _, want := range []string{
		fmt.Sprintf("Uid:\t%d\t", c.uid()), "NoNewPrivs:\t1\n", "CapEff:\t0000000000000000\n",
		"\nlo\n" + fmt.Sprint(maxFile/512) + "\n", "/etc/shadow:Permissiondenied",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it did not say %q:\n%s", want, text)
		}
	}
}

func TestCellIsFoundLimitedHaltedAndEnded(t *testing.T) {
	c, _ := start(t, "exec sleep 1000")
	pid, err := c.PID()
	if err != nil {
		t.Fatal(err)
	}
	want := Limits{CPU: 50, Memory: 96 << 20}
	if err := c.Limit(want); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Limited(); err != nil || got != want {
		t.Errorf("limits %+v, %v, want %+v", got, err, want)
	}
	if used, err := c.Memory(); err != nil || used > want.Memory {
		t.Errorf("it uses %d bytes, %v", used, err)
	}
	if err := errors.Join(c.Stop(), c.Continue(), c.Stop()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Ended(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it ended: %v", err)
	}
	if err := c.Kill(t.Context()); err != nil { // although it is halted
		t.Fatal(err)
	}
	ended(t, c)
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d: %v", pid, err)
	}
	if _, err := c.PID(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("PID of a cell that ended: %v", err)
	}
	if _, err := os.Stat(c.group("cpu")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its control group is left: %v", err)
	}
}

// What a cell may take is all that it gets.
func TestCellIsHeldToItsLimits(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		if b, err := os.ReadFile("/proc/swaps"); err == nil && strings.Count(string(b), "\n") > 1 {
			t.Skip("this machine swaps what is too much")
		}
		c, out := start(t, "cat /dev/zero | tail -c 128M") // keeps that much, for ever
		ended(t, c)
		if b, err := os.ReadFile(out.Name()); err != nil || string(b) != "Killed\n" {
			t.Errorf("it was to be killed, and said %.100q, %v", b, err)
		}
	})
	t.Run("tasks", func(t *testing.T) {
		c, out := start(t, fmt.Sprintf("i=0; while [ $i -lt %d ]; do sleep 1000 & i=$((i+1)); done; echo all run", maxTasks))
		ended(t, c)
		if b, err := os.ReadFile(out.Name()); err != nil || !strings.Contains(string(b), "fork") || strings.Contains(string(b), "all run") {
			t.Errorf("it was to be refused a task, and said %.100q, %v", b, err)
		}
	})
	t.Run("CPU", func(t *testing.T) {
		c, _ := start(t, "while :; do :; done")
		throttled := regexp.MustCompile(`(?m)^nr_throttled [1-9]`)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for late := time.After(time.Minute); ; {
			stat, err := os.ReadFile(filepath.Join(c.group("cpu"), "cpu.stat"))
			if err != nil {
				t.Fatal(err)
			}
			if throttled.Match(stat) {
				return
			}
			select {
			case <-tick.C:
			case <-late:
				t.Fatalf("it was never throttled: %s", stat)
			}
		}
	})
}

// A program that is killed while it starts a cell, before that is in the groups it
// is found by, leaves nothing that runs.
func TestCellThatIsNotAdmittedEnds(t *testing.T) {
	needRoot(t)
	const starter = "GNOMON_TEST_CELL_STARTER"
	cmd := Command{Path: "/bin/sh", Args: []string{"-c", "echo runs"}, Output: os.Stdout}
	if id := os.Getenv(starter); id != "" { // this is the program
		if _, _, err := Cell(id).fork(cmd); err != nil {
			t.Fatal(err)
		}
		fmt.Println("forked")
		select {}
	}
	program := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	program.Env = append(os.Environ(), fmt.Sprintf("%s=test-%d-forked", starter, os.Getpid()))
	program.Stderr = t.Output()
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	const forked = "forked\n"
	said := make([]byte, len(forked))
	if _, err := io.ReadFull(out, said); err != nil || string(said) != forked {
		t.Errorf("it said %q, %v", said, err)
	}
	if err := program.Process.Kill(); err != nil {
		t.Error(err)
	}
	// The end of its output is that of the process in the cell too.
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("then came %q, %v", rest, err)
	}
	_ = program.Wait()
}

func TestCellThatFailsToStartLeavesNothing(t *testing.T) {
	needRoot(t)
	c := Cell(fmt.Sprintf("test-%d-fail", os.Getpid()))
	if err := c.Start(Command{Path: "/bin/true", Files: []*os.File{nil}}, Limits{CPU: 0, Memory: 1}); err == nil {
		t.Error("no error for limits that cannot be")
	}
	if err := c.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.group("memory")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its control group is left: %v", err)
	}
}
