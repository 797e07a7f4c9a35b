package pressure

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/gnomon-vm/gnomon"
)

const watched = gnomon.VMID("vm")

func openEBPF(t *testing.T) Source {
	t.Helper()
	if os.Getenv("GNOMON_TEST_VM") == "" {
		t.Skip("needs root; GNOMON_TEST_VM=1 runs it")
	}
	s, _, err := Open(EBPF)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// awaitOf waits for an onset of one resource by one cause; a busy machine makes
// others, of CPU.
func awaitOf(t *testing.T, s Source, r gnomon.Resource, cause Cause) {
	t.Helper()
	for deadline := time.After(time.Minute); ; {
		select {
		case o := <-s.Onsets():
			if o.VM == watched && o.Resource == r && o.Cause == cause {
				return
			}
			if o.Resource != gnomon.CPU {
				t.Errorf("onset = %+v, want of %s by %s", o, r, cause)
			}
		case <-deadline:
			t.Fatalf("no onset of %s by %s within a minute", r, cause)
		}
	}
}

// noneOf checks that no onset of a resource comes for a while.
func noneOf(t *testing.T, s Source, r gnomon.Resource, why string) {
	t.Helper()
	for deadline := time.After(300 * time.Millisecond); ; {
		select {
		case o := <-s.Onsets():
			if o.Resource == r {
				t.Errorf("onset of %s: %+v", why, o)
			}
		case <-deadline:
			return
		}
	}
}

// A vCPU that wakes when others of its group have used the quota up has hardly a
// recent past to tell of.
func TestThrottledByOthers(t *testing.T) {
	s, v, other := openEBPF(t), startVCPU(t), startVCPU(t)
	v.write(t, "cgroup.procs", strconv.Itoa(other.pid))
	v.limit(t)
	if err := s.Follow(Subject{VM: watched, Process: v.pid, VCPUs: []int{v.tid}}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		other.compute(t, time.Second)
		v.compute(t, 300*time.Millisecond)
		o := await(t, s, monotonic())
		if o.Interval < leastPast || o.Run+o.Wait > o.Interval {
			t.Errorf("ran %v and waited %v of %v, want at most all of at least %v", o.Run, o.Wait, o.Interval, leastPast)
		}
		v.compute(t, 0)
		drain(s) // and lets it sleep for longer than anything is remembered
	}
}

func TestMemoryTakenBeyondTheLine(t *testing.T) {
	s, v := openEBPF(t), startVCPU(t)
	if err := s.Follow(Subject{VM: watched, Process: v.pid, VCPUs: []int{v.tid}}); err != nil {
		t.Fatal(err)
	}
	v.take(t, 1) // it is seen from its first turn on
	s.Draw(watched, Lines{Memory: 16 << 20})
	v.take(t, 8)
	noneOf(t, s, gnomon.Memory, "what the line allows")
	v.take(t, 16)
	awaitOf(t, s, gnomon.Memory, Faults)
	v.take(t, 16)
	noneOf(t, s, gnomon.Memory, "a line that was not drawn anew")
	s.Draw(watched, Lines{Memory: 1 << 20})
	v.take(t, 8)
	awaitOf(t, s, gnomon.Memory, Faults)
}

func TestDiskAtItsLimit(t *testing.T) {
	s := openEBPF(t)
	dir, err := os.MkdirTemp("/var/tmp", "gnomon-pressure-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "disk")
	if err := exec.Command("dd", "if=/dev/zero", "of="+file, "bs=64k", "count=1", "oflag=direct").Run(); err != nil {
		t.Skipf("%s cannot be written to past the page cache: %v", dir, err)
	}
	// dd has to be the process that is followed: it reads, then takes its place.
	cmd := exec.Command("sh", "-c", `read go; exec dd if=/dev/zero of="$0" bs=64k count=64 oflag=direct 2>/dev/null`, file)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if err := s.Follow(Subject{VM: watched, Process: cmd.Process.Pid}); err != nil {
		t.Fatal(err)
	}
	s.Draw(watched, Lines{Disk: 1 << 20})
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	awaitOf(t, s, gnomon.Disk, Rate)
}

func TestNetworkAtItsLimit(t *testing.T) {
	s := openEBPF(t)
	name := fmt.Sprintf("gnp%d", os.Getpid()%100000)
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Skipf("no veth: %v", err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) })
	peer, err := netlink.LinkByName(name + "p")
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := netlink.ParseAddr("198.18.77.1/30")
	far := net.ParseIP("198.18.77.2")
	for _, err := range []error{
		netlink.LinkSetUp(link), netlink.LinkSetUp(peer), netlink.AddrAdd(link, addr),
		netlink.NeighAdd(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: far, State: netlink.NUD_PERMANENT, HardwareAddr: peer.Attrs().HardwareAddr}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Follow(Subject{VM: watched, Interfaces: [][]int{{link.Attrs().Index}}}); err != nil {
		t.Fatal(err)
	}
	s.Draw(watched, Lines{Network: 1 << 20})
	conn, err := net.Dial("udp", net.JoinHostPort(far.String(), "9"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send := func(packets int) {
		for range packets {
			_, _ = conn.Write(make([]byte, 1200))
		}
	}
	send(20)
	noneOf(t, s, gnomon.Network, "a burst that the shaper lets through")
	send(200)
	awaitOf(t, s, gnomon.Network, Rate)
	s.Draw(watched, Lines{})
	drain(s)
	send(200)
	noneOf(t, s, gnomon.Network, "an interface without a limit")
}

// What the programs count is what the scheduler counts.
func TestTimesAgreeWithTheScheduler(t *testing.T) {
	s, v := openEBPF(t), startVCPU(t)
	v.limit(t)
	if err := s.Follow(Subject{VM: watched, VCPUs: []int{v.tid}}); err != nil {
		t.Fatal(err)
	}
	var last CPUTimes
	for range 5 {
		v.compute(t, 200*time.Millisecond)
		got, ok := s.CPU(watched)
		if !ok || got.VCPUs != 1 || got.Run < last.Run || got.Wait < last.Wait {
			t.Fatalf("CPU = %+v, %v, after %+v", got, ok, last)
		}
		last = got
	}
	v.compute(t, 0) // and then it sleeps
	deadline := time.Now().Add(time.Minute)
	for {
		got, _ := s.(*kernel).thread(v.tid)
		want, err := schedstat(v.tid)
		if err != nil {
			t.Fatal(err)
		}
		if time.Duration(got.Run) == want.run && time.Duration(got.Wait) == want.wait {
			t.Logf("ran %v and waited %v, exactly", want.run, want.wait)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ran %d and waited %d ns, the scheduler says %+v", got.Run, got.Wait, want)
		}
	}
}

// Without privileges it is looked at what anybody may look at, and told why.
func TestOpenFallsBack(t *testing.T) {
	if os.Getenv("GNOMON_TEST_VM") == "" {
		t.Skip("needs root to become somebody else; GNOMON_TEST_VM=1 runs it")
	}
	dir, err := os.MkdirTemp("", "gnomon-pressure-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "test")
	text, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), playsOpener+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	said := string(out)
	t.Log(said)
	if !strings.HasPrefix(said, Sampling+" ") || !strings.Contains(said, EBPF+": ") || !strings.Contains(said, Perf+": ") {
		t.Errorf("it opened %q, want sampling and why not the others", said)
	}
}

func TestOpenRefusesUnknownNames(t *testing.T) {
	if _, _, err := Open("kprobes"); err == nil || !strings.Contains(err.Error(), `"kprobes"`) || !strings.Contains(err.Error(), Perf) {
		t.Errorf("Open: %v, want the name and those allowed", err)
	}
}
