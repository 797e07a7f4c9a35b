package pressure

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The parts that the test's own program plays, by its environment.
const (
	playsVCPU   = "GNOMON_PRESSURE_VCPU"
	playsOpener = "GNOMON_PRESSURE_OPEN"
)

// TestMain also plays the process whose one thread stands for a vCPU: what a
// source sees is threads and their control groups, whatever runs in them.
func TestMain(m *testing.M) {
	if os.Getenv(playsVCPU) != "" {
		playVCPU()
		return
	}
	if os.Getenv(playsOpener) != "" {
		s, why, err := Open(Auto)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.Name(), why)
		return
	}
	os.Exit(m.Run())
}

// playVCPU tells its thread, then for each line it reads tells when it began,
// and computes for so many milliseconds, or takes so many MiB of memory.
func playVCPU() {
	runtime.LockOSThread()
	fmt.Println(unix.Gettid())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		what, amount, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.Atoi(amount)
		fmt.Println(monotonic())
		if what == "take" {
			if b, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err == nil {
				_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
				for i := 0; i < len(b); i += unix.Getpagesize() {
					b[i] = 1
				}
			}
			continue
		}
		for end := time.Now().Add(time.Duration(n) * time.Millisecond); time.Now().Before(end); {
		}
	}
}

// vcpu is such a process, in a control group of its own.
type vcpu struct {
	pid, tid int
	in       io.Writer
	out      *bufio.Scanner
	group    string
	unified  bool // cgroup v2
}

// startVCPU needs root, as the sources do.
func startVCPU(t *testing.T) *vcpu {
	t.Helper()
	if os.Getenv("GNOMON_TEST_VM") == "" {
		t.Skip("needs root and control groups; GNOMON_TEST_VM=1 runs it")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), playsVCPU+"=1", "GOMAXPROCS=1")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	v := &vcpu{pid: cmd.Process.Pid, in: in, out: bufio.NewScanner(out)}
	v.tid, _ = strconv.Atoi(v.line(t))
	v.enclose(t)
	return v
}

func (v *vcpu) line(t *testing.T) string {
	t.Helper()
	if !v.out.Scan() {
		t.Fatalf("the process ended: %v", v.out.Err())
	}
	return v.out.Text()
}

// enclose puts the process into a control group.
func (v *vcpu) enclose(t *testing.T) {
	t.Helper()
	root := "/sys/fs/cgroup/cpu"
	if _, err := os.Stat(root); err != nil {
		root, v.unified = "/sys/fs/cgroup", true
	}
	v.group = filepath.Join(root, fmt.Sprintf("gnomon-pressure-%d", v.pid))
	if err := os.Mkdir(v.group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(v.pid, syscall.SIGKILL)
		for range 100 {
			if os.Remove(v.group) == nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // the kernel needs to let go of it
		}
	})
	v.write(t, "cgroup.procs", strconv.Itoa(v.pid))
}

func (v *vcpu) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(v.group, file), []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// limit holds the process at a tenth of a core, 2 of every 20 ms.
func (v *vcpu) limit(t *testing.T) {
	t.Helper()
	if v.unified {
		v.write(t, "cpu.max", "2000 20000")
		return
	}
	v.write(t, "cpu.cfs_period_us", "20000")
	v.write(t, "cpu.cfs_quota_us", "2000")
}

// compute has the process compute for so long by the clock, and returns when it
// began.
func (v *vcpu) compute(t *testing.T, d time.Duration) (began uint64) {
	t.Helper()
	return v.do(t, fmt.Sprintf("compute %d", d.Milliseconds()))
}

// take has it take so many MiB of memory.
func (v *vcpu) take(t *testing.T, mib int) (began uint64) {
	t.Helper()
	return v.do(t, fmt.Sprintf("take %d", mib))
}

func (v *vcpu) do(t *testing.T, what string) (began uint64) {
	t.Helper()
	if _, err := fmt.Fprintln(v.in, what); err != nil {
		t.Fatal(err)
	}
	began, err := strconv.ParseUint(strings.TrimSpace(v.line(t)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return began
}
