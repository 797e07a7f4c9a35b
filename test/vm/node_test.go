package vm

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gnomon-vm/gnomon/wire/hostpb/hostpbconnect"
)

// A node is one of several hosts on this machine: a network, a file system, a name
// and control groups of its own, and a libvirtd in them.
type node struct {
	*system // whose dir is the node's; it runs what it starts in the node
	name    string
	address string
	holder  int // process in whose namespaces it is
}

// network is the bridge that nodes and server are connected by.
type network struct {
	dir, bridge, prefix string // the prefix is of an IPv4 address
	nodes               int
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{dir: filepath.Join(os.TempDir(), mine+"-f"), bridge: fmt.Sprintf("gnv%db", os.Getpid()), prefix: fmt.Sprintf("198.18.%d.", os.Getpid()%256)}
	if err := os.Mkdir(n.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, dir := range []string{"", "*"} {
				saveLogs(t, filepath.Join(n.dir, dir))
			}
		}
		sweep(func(pid int) bool { return pid == os.Getpid() })
	})
	if err := os.CopyFS(filepath.Join(n.dir, "guest"), os.DirFS(loadImage)); err != nil {
		t.Fatal(err)
	}
	// Of an address of its own, else it takes that of one of its ports, and another
	// with the next, and nodes send to one that is no more.
	ip(t, "link", "add", n.bridge, "address", "02:00:00:00:00:01", "type", "bridge")
	ip(t, "addr", "add", n.prefix+"1/24", "dev", n.bridge)
	ip(t, "link", "set", n.bridge, "up")
	return n
}

// sharedDisk makes a disk that all nodes have, as of a storage network: a device of
// this machine's. The kernel takes it away when nobody has it open any more.
func (n *network) sharedDisk(t *testing.T) string {
	t.Helper()
	file := filepath.Join(n.dir, "shared.img")
	makeDisk(t, file)
	out, err := exec.Command("losetup", "--show", "--find", file).Output()
	if err != nil {
		t.Fatal("make a device: ", err)
	}
	path := strings.TrimSpace(string(out))
	held, err := os.Open(path)
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { held.Close() })
	if out, err := exec.Command("losetup", "--detach", path).CombinedOutput(); err != nil {
		t.Fatalf("losetup --detach %s: %v: %s", path, err, out)
	}
	return path
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// groupsOf are the folders of a node's control groups, one a hierarchy.
func groupsOf(name string) (dirs, controllers []string) {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return []string{filepath.Join(root, name)}, nil
	}
	entries, _ := os.ReadDir(root)
	for _, e := range entries {
		if e.IsDir() {
			dirs, controllers = append(dirs, filepath.Join(root, e.Name(), name)), append(controllers, e.Name())
		}
	}
	return dirs, controllers
}

// newNode makes a host and waits until its libvirt answers.
func (n *network) newNode(t *testing.T, name string) *node {
	t.Helper()
	n.nodes++
	space := fmt.Sprintf("%s-%s", mine, name)
	h := &node{name: name, address: n.prefix + strconv.Itoa(n.nodes+1)}
	h.system = &system{whose: t, dir: filepath.Join(n.dir, name)}
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	link := fmt.Sprintf("gnv%dv%d", os.Getpid(), n.nodes)
	ip(t, "netns", "add", space)
	ip(t, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
	ip(t, "link", "set", link, "master", n.bridge, "up")
	ip(t, "-n", space, "addr", "add", h.address+"/24", "dev", "eth0")
	ip(t, "-n", space, "link", "set", "eth0", "up")
	ip(t, "-n", space, "link", "set", "lo", "up")
	script, err := filepath.Abs(filepath.Join("testdata", "node.sh"))
	if err != nil {
		t.Fatal(err)
	}
	dirs, controllers := groupsOf(space)
	enter := ""
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // of version 1, which are empty at first
			if text, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file)); err == nil {
				_ = os.WriteFile(filepath.Join(dir, file), text, 0o644)
			}
		}
		enter += fmt.Sprintf("echo $$ > %s/cgroup.procs; ", dir)
	}
	args := strings.Join(append([]string{"ip netns exec", space, "unshare --mount --uts --cgroup --propagation private", script, name, h.dir}, controllers...), " ")
	p := h.spawn(t, "libvirtd", "/bin/sh", "-ec", enter+"exec "+args)
	h.holder = p.cmd.Process.Pid
	within(t, startLimit, name+"'s libvirt answers", func() error {
		out, err := exec.Command("virsh", "-q", "-c", h.uri(), "version").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	socket := h.path("gnomon", "host.sock")
	h.host = hostpbconnect.NewHostServiceClient(&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}, "http://host")
	h.wrap = []string{"nsenter", "--target", strconv.Itoa(h.holder), "--net", "--mount", "--uts", "--cgroup", "--"}
	return h
}

// uri is that of the node's libvirt, from outside.
func (h *node) uri() string {
	return "qemu+unix:///system?socket=" + h.path("run", "libvirt", "libvirt-sock")
}

func (h *node) virsh(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("virsh", append([]string{"-q", "-c", h.uri()}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("virsh of %s: %s: %v: %s", h.name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// cut takes the node off the network, or puts it on again.
func (h *node) cut(t *testing.T, off bool) {
	t.Helper()
	state := "up"
	if off {
		state = "down"
	}
	ip(t, "-n", fmt.Sprintf("%s-%s", mine, h.name), "link", "set", "eth0", state)
}

// sweepNodes removes the nodes and bridges of runs.
func sweepNodes(of func(name string) bool) {
	out, _ := exec.Command("ip", "netns", "list").Output()
	for line := range strings.Lines(string(out)) {
		space, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !of(space) {
			continue
		}
		pids, _ := exec.Command("ip", "netns", "pids", space).Output()
		for _, text := range strings.Fields(string(pids)) {
			if pid, err := strconv.Atoi(text); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		_ = exec.Command("ip", "netns", "delete", space).Run()
		dirs, _ := groupsOf(space)
		for _, dir := range dirs {
			removeGroups(dir)
		}
	}
	links, _ := filepath.Glob("/sys/class/net/gnv*b")
	for _, link := range links {
		name := filepath.Base(link)
		if of(prefix + strings.TrimSuffix(strings.TrimPrefix(name, "gnv"), "b")) {
			_ = exec.Command("ip", "link", "delete", name).Run()
		}
	}
}

// processesOf returns what is in a control group and those below it.
func processesOf(dir string) (pids []int) {
	out, _ := exec.Command("find", dir, "-name", "cgroup.procs").Output()
	for path := range strings.Lines(string(out)) {
		text, _ := os.ReadFile(strings.TrimSpace(path))
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// shadowProcesses returns the names of the shadows whose processes run on the node.
func (h *node) shadowProcesses() (names []string) {
	dirs, _ := groupsOf(fmt.Sprintf("%s-%s", mine, h.name))
	for _, dir := range dirs {
		for _, pid := range processesOf(dir) {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			for arg := range strings.SplitSeq(string(text), "\x00") {
				if strings.HasPrefix(arg, "gnomon-shadow-") {
					names = append(names, arg)
				}
			}
		}
	}
	return names
}

// removeGroups removes a control group with those below it, the deepest first.
// What is in them has just been killed, and may take a moment to go.
func removeGroups(dir string) {
	out, _ := exec.Command("find", dir, "-depth", "-type", "d").Output()
	for _, pid := range processesOf(dir) { // shadows are in networks of their own
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for group := range strings.Lines(string(out)) {
		for range 100 {
			if err := os.Remove(strings.TrimSpace(group)); err == nil || os.IsNotExist(err) {
				break
			}
			_ = exec.Command("sleep", "0.05").Run()
		}
	}
}
