package vm

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const nobody = 65534

// What keeps a daemon from starting is told in one message, and leaves nothing.
func TestStartRefused(t *testing.T) {
	s := newSystem(t, "-s", "none")
	taken, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	// A socket like libvirt's that only root may use.
	closed := s.path("closed.sock")
	l, err := net.Listen("unix", closed)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(closed, 0o600); err != nil {
		t.Fatal(err)
	}
	abandoned := s.path("abandoned.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: abandoned})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	full := s.path("small")
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	mountSmall(t, full)
	fill(t, full)
	work := s.path("work") // a folder in which anybody may create
	if err := os.Mkdir(work, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(work, 0o777); err != nil {
		t.Fatal(err)
	}
	common := []string{"--accel", "tcg", "--vms", "none", "--name", hostName,
		"--state-dir", filepath.Join(work, "state"), "--run-dir", filepath.Join(work, "run")}
	host := append([]string{"host", "--appliance", agentImage}, common...)
	up := append([]string{"up", "--appliance", agentImage, "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(work, "data")}, common...)
	for name, c := range map[string]struct {
		args []string
		uid  uint32
		code int
		says []string
	}{
		"libvirt is not there":        {append(host, "--libvirt-socket", s.path("none.sock")), 0, 4, []string{s.path("none.sock"), "start libvirtd"}},
		"libvirt is not there, up":    {append(up, "--libvirt-socket", s.path("none.sock")), 0, 4, []string{s.path("none.sock"), "start libvirtd"}},
		"libvirt is dead":             {append(up, "--libvirt-socket", abandoned), 0, 4, []string{abandoned, "start libvirtd"}},
		"libvirt may not be used":     {append(host, "--libvirt-socket", closed), nobody, 4, []string{closed, "no permission", "run as root"}},
		"libvirt may not be used, up": {append(up, "--libvirt-socket", closed), nobody, 4, []string{closed, "no permission", "run as root"}},
		"the port is taken":           {append(up, "--listen", s.address), 0, 1, []string{s.address, "address already in use", "--listen"}},
		"the state's disk is full":    {append(up, "--state-dir", full), 0, 1, []string{full, "no space left on device", "--state-dir"}},
		"no appliance":                {append(host, "--appliance", s.path("no-image")), 0, 1, []string{s.path("no-image")}},
		"no such acceleration":        {append(host, "--accel", "xen"), 0, 2, []string{"--accel", `"xen"`, "auto, kvm or tcg"}},
		"a negative grace":            {append(host, "--guard-grace", "-3s"), 0, 2, []string{"--guard-grace", "-3s", "0 or more"}},
		"a bad pattern":               {append(host, "--vms", "web-[,db"), 0, 2, []string{"--vms", `"web-["`}},
		"an empty pattern":            {append(host, "--vms", "web,,db"), 0, 2, []string{"--vms", "web,,db", "all, none, or name patterns"}},
		"an empty name":               {append(host, "--name", ""), 0, 2, []string{"--name", "empty"}},
		"a bad history":               {append(up, "--history-url", "ftp://x"), 0, 2, []string{"--history-url", "ftp://x"}},
		"a bad server":                {append(host, "--server", "mgmt:7070"), 0, 2, []string{"--server", `"mgmt:7070"`, "http://"}},
		"a bad log level":             {append(host, "--log-level", "loud"), 0, 2, []string{"--log-level", `"loud"`, "debug, info, warn or error"}},
		"a bad duration":              {append(host, "--guard-grace", "soon"), 0, 2, []string{"--guard-grace", `"soon"`}},
		"an unknown flag":             {append(host, "--fast"), 0, 2, []string{"--fast", "--help"}},
		"an argument too many":        {append(up, "now"), 0, 2, []string{"--help"}},
		"no data may be written":      {[]string{"server", "--listen", "127.0.0.1:0", "--data-dir", "/proc/gnomon"}, 0, 1, []string{"/proc/gnomon"}},
		"a bad address":               {[]string{"server", "--listen", "nowhere", "--data-dir", filepath.Join(work, "data")}, 0, 2, []string{"nowhere", "--listen"}},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, strings.Join(c.args[:1], " "), runAs(c.uid, nil, c.args...), c.code, c.says...)
			left, err := os.ReadDir(work)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range left {
				t.Errorf("it created %s", filepath.Join(work, entry.Name()))
				_ = os.RemoveAll(filepath.Join(work, entry.Name()))
			}
		})
	}
	s.clean(t)
}
