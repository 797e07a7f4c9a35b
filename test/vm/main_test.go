package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Everything a run creates carries its process ID in its name, so that runs do
// not meet, and a later one finds what a killed one left.
const prefix = "gnv-"

var mine = fmt.Sprintf("%s%d", prefix, os.Getpid())

func TestMain(m *testing.M) {
	if os.Getenv("GNOMON_TEST_VM") == "" {
		fmt.Println("test/vm: left out; GNOMON_TEST_VM=1 runs it, as root, with libvirt")
		os.Exit(0)
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "test/vm: GNOMON_TEST_VM is set, and this has to run as root")
		os.Exit(1)
	}
	if err := findProgram(); err != nil {
		fmt.Fprintln(os.Stderr, "test/vm:", err)
		os.Exit(1)
	}
	sweep(func(pid int) bool { return syscall.Kill(pid, 0) != nil })
	code := m.Run()
	_ = os.RemoveAll(programDir)
	sweep(func(pid int) bool { return pid == os.Getpid() })
	os.Exit(code)
}

// The program under test, and the images of both kinds of guest.
var program, agentImage, loadImage string

// programDir holds the copies that are run. Unlike all else it is there for the
// whole run, not for one test.
var programDir string

func findProgram() error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	program = filepath.Join(root, "bin", "gnomon")
	if other := os.Getenv("GNOMON_TEST_PROGRAM"); other != "" { // one that is installed
		program = other
	}
	agentImage = filepath.Join(root, "build", "appliance")
	loadImage = filepath.Join(root, "build", "guest")
	for _, path := range []string{program, agentImage, loadImage} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%s is missing: run \"make build appliance\" first", path)
		}
	}
	return moveOut()
}

// moveOut has the tests run a copy of the program and of the shadow's image:
// the checkout may lie where others than root cannot go.
func moveOut() error {
	var err error
	if programDir, err = os.MkdirTemp("", "gnomon-test-program-*"); err != nil {
		return err
	}
	if err := os.Chmod(programDir, 0o755); err != nil {
		return err
	}
	bin, image := filepath.Join(programDir, "bin"), filepath.Join(programDir, "appliance")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	program = filepath.Join(bin, "gnomon")
	if err := os.WriteFile(program, text, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(image, os.DirFS(agentImage)); err != nil {
		return err
	}
	agentImage = image
	return nil
}

// sweep removes the processes, the domains and the files of runs whose process
// is chosen. A run that ended in order left none.
func sweep(chosen func(pid int) bool) {
	of := func(name string) bool {
		rest, found := strings.CutPrefix(name, prefix)
		digits, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(digits)
		return found && err == nil && chosen(pid)
	}
	sweepNodes(of)
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range dirs {
		if !of(filepath.Base(dir)) {
			continue
		}
		for _, p := range processesIn(dir) {
			_ = syscall.Kill(p, syscall.SIGKILL)
		}
		_ = endShadows(dir)
		for _, name := range domainsIn(dir) {
			_ = exec.Command("virsh", "-q", "destroy", name).Run()
			_ = exec.Command("virsh", "-q", "undefine", name).Run()
		}
		_ = syscall.Unmount(filepath.Join(dir, "small"), syscall.MNT_DETACH)
		_ = os.RemoveAll(dir)
	}
}

// processesIn returns the gnomon processes whose command line names a path
// below dir. The guests' own are libvirt's matter.
func processesIn(dir string) (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		text, err := os.ReadFile(path)
		argv0, args, _ := strings.Cut(string(text), "\x00")
		if err != nil || filepath.Base(argv0) != "gnomon" || !strings.Contains(args, dir+"/") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// domainsIn returns the domains, running or not, whose definition names a path below
// dir.
func domainsIn(dir string) (names []string) {
	out, _ := exec.Command("virsh", "-q", "list", "--all", "--name").Output()
	for name := range strings.FieldsSeq(string(out)) {
		text, err := exec.Command("virsh", "-q", "dumpxml", name).Output()
		if err == nil && strings.Contains(string(text), dir+"/") {
			names = append(names, name)
		}
	}
	return names
}

// within waits until check returns nil, and fails the test after limit with
// what it returned last. It returns how long that took.
func within(t *testing.T, limit time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	begun := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		took := time.Since(begun)
		if err == nil {
			return took
		}
		if took > limit {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		<-tick.C
	}
}
