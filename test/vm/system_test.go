package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/wire/hostpb"
	"github.com/gnomon-vm/gnomon/wire/hostpb/hostpbconnect"
)

const (
	hostName   = "gnv-host"
	startLimit = 30 * time.Second
	stopLimit  = 45 * time.Second

	// settle is what libvirt may take on a busy machine to end a domain, and a
	// guest to give memory back.
	settle = 30 * time.Second

	// recovery is what the system may take to be whole after a part returned.
	recovery = 10 * time.Second
)

// system is one host's folders, and the processes that work in them.
type system struct {
	whose        *testing.T // until it ends, processes live
	dir, address string
	selection    string
	host         hostpbconnect.HostServiceClient
	wrap         []string // what runs the program elsewhere; empty for here
}

// newSystem makes the folders where QEMU's user can reach them.
func newSystem(t *testing.T, name, selection string) *system {
	t.Helper()
	dir := filepath.Join(os.TempDir(), mine+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			saveLogs(t, dir)
		}
		sweep(func(pid int) bool { return pid == os.Getpid() })
	})
	if err := os.CopyFS(filepath.Join(dir, "guest"), os.DirFS(loadImage)); err != nil {
		t.Fatal(err)
	}
	s := &system{whose: t, dir: dir, address: freeAddress(t), selection: selection}
	socket := s.path("run", "host.sock")
	s.host = hostpbconnect.NewHostServiceClient(&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}, "http://host")
	return s
}

// saveLogs prints what the daemons said, the latest of it.
func saveLogs(t *testing.T, dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, path := range logs {
		text, _ := os.ReadFile(path)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		t.Logf("%s:\n%s", filepath.Base(path), strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}

func (s *system) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// daemonFlags are those of `gnomon host` and `gnomon up`.
func (s *system) daemonFlags() []string {
	return []string{"--name", hostName, "--vms", s.selection, "--accel", "tcg", "--appliance", agentImage,
		"--state-dir", s.path("state"), "--run-dir", s.path("run"), "--guard-grace", "4s"}
}

func (s *system) serverFlags() []string {
	return []string{"--listen", s.address, "--data-dir", s.path("data")}
}

// process is a running daemon.
type process struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	err   error         // what it ended with; read after ended
}

// start starts a gnomon process whose output goes to a log.
func (s *system) start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return s.spawn(t, name, append(append(slices.Clone(s.wrap), program), args...)...)
}

// spawn starts a process whose output goes to a log.
func (s *system) spawn(t *testing.T, name string, args ...string) *process {
	t.Helper()
	log, err := os.OpenFile(s.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{name: name, cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	s.whose.Cleanup(p.kill)
	return p
}

// up starts `gnomon up` and waits until it is ready.
func (s *system) up(t *testing.T) *process {
	t.Helper()
	p := s.start(t, "up", append(append([]string{"up"}, s.daemonFlags()...), s.serverFlags()...)...)
	s.awaitReady(t, p)
	return p
}

func (s *system) awaitReady(t *testing.T, p *process) time.Duration {
	t.Helper()
	return within(t, startLimit, p.name+" is ready", func() error {
		select {
		case <-p.ended:
			t.Fatalf("%s ended by itself: %v", p.name, p.err)
		default:
		}
		return s.whole()
	})
}

// whole returns what is missing for the daemon's links to be well.
func (s *system) whole() error {
	st, err := s.status()
	if err != nil {
		return err
	}
	if st.GetHypervisor() != "connected" || st.GetServer() != "connected" {
		return fmt.Errorf("hypervisor %s, server %s", st.GetHypervisor(), st.GetServer())
	}
	return nil
}

func (s *system) status() (*hostpb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	res, err := s.host.Status(ctx, connect.NewRequest(&hostpb.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// kill ends a process at once, as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stop ends a process as a service manager does, and checks that it ends well.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		if p.err != nil {
			t.Errorf("%s ended with %v", p.name, p.err)
		}
	case <-time.After(stopLimit):
		p.kill()
		t.Errorf("%s did not end within %v of SIGTERM", p.name, stopLimit)
	}
}

// result is what a command printed and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

// run runs the program with the system's socket and server.
func (s *system) run(args ...string) result {
	return runAs(0, []string{"GNOMON_SOCKET=" + s.path("run", "host.sock"), "GNOMON_SERVER=http://" + s.address}, args...)
}

// runAs runs the program as a user; one that does not end is killed.
func runAs(uid uint32, env []string, args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
	if err != nil && r.code < 0 {
		r.stderr += err.Error()
	}
	return r
}

// ok runs a command that has to succeed and returns what it prints.
func (s *system) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		t.Fatalf("gnomon %s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

// get runs a command with -o json and decodes what it prints.
func get[T any](t *testing.T, s *system, args ...string) (v T) {
	t.Helper()
	return decode[T](t, s.ok(t, append(args, "-o", "json")...))
}

// decode reads what a command printed as JSON.
func decode[T any](t *testing.T, out string) (v T) {
	t.Helper()
	if err := jsonInto(out, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func jsonInto(text string, v any) error {
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return fmt.Errorf("%w in %s", err, text)
	}
	return nil
}

// vms returns what the daemon tells of the VMs that are taken in.
func (s *system) vms() ([]*hostpb.VM, error) {
	res, err := s.host.ListVMs(context.Background(), connect.NewRequest(&hostpb.ListVMsRequest{}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetVms(), nil
}

// vm returns what the daemon tells of one of them.
func (s *system) vm(name string) (*hostpb.VM, error) {
	all, err := s.vms()
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.GetName() == name {
			return v, nil
		}
	}
	return nil, fmt.Errorf("%s is not taken in", name)
}

// shadows returns the shadows the daemon tells of.
func (s *system) shadows() ([]*hostpb.Shadow, error) {
	res, err := s.host.ListShadows(context.Background(), connect.NewRequest(&hostpb.ListShadowsRequest{}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetShadows(), nil
}

// shadowOf returns a VM's shadow if its agent is connected.
func (s *system) shadowOf(vm string) (*hostpb.Shadow, error) {
	list, err := s.shadows()
	if err != nil {
		return nil, err
	}
	for _, sh := range list {
		if sh.GetVm() != vm {
			continue
		}
		if !sh.GetConnected() {
			return sh, fmt.Errorf("shadow %s is %s, its agent away", sh.GetName(), sh.GetState())
		}
		return sh, nil
	}
	return nil, fmt.Errorf("%s has no shadow; there are %v", vm, list)
}

// served returns what is missing for a VM to be served by its agent.
func (s *system) served(vm string) error {
	if _, err := s.shadowOf(vm); err != nil {
		return err
	}
	v, err := s.vm(vm)
	if err != nil {
		return err
	}
	for _, r := range v.GetResources() {
		if r.GetLimited() && r.GetModel() == "" {
			return fmt.Errorf("no forecast of %s", r.GetResource())
		}
	}
	return nil
}

// query asks the history for the newest value of an expression, which has to
// have exactly one.
func (s *system) query(expression string) (float64, error) {
	client := http.Client{Timeout: 5 * time.Second}
	res, err := client.Get("http://" + s.address + "/history/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Status string
		Data   struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("%w in %s", err, body)
	}
	if answer.Status != "success" || len(answer.Data.Result) != 1 {
		return 0, fmt.Errorf("%s: want one value: %s", expression, body)
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	return strconv.ParseFloat(text, 64)
}

// fresh returns what is missing for a VM's usage to arrive in the history.
func (s *system) fresh(vm string) error {
	at, err := s.query(fmt.Sprintf(`timestamp(gnomon_vm_cpu_usage_cores{vm=%q})`, vm))
	if err != nil {
		return err
	}
	if age := time.Since(time.UnixMilli(int64(at * 1000))); age > 3*time.Second {
		return fmt.Errorf("the newest sample of %s is %v old", vm, age)
	}
	return nil
}

// clean checks that nothing of the system is left but its files.
func (s *system) clean(t *testing.T, guests ...string) {
	t.Helper()
	if left := processesIn(s.dir); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	for _, name := range domainsIn(s.dir) {
		if !slices.Contains(guests, name) {
			t.Errorf("domain %s is left", name)
		}
	}
	for _, r := range shadowsIn(s.dir) {
		t.Errorf("shadow %s is left", r.Name)
	}
	for _, pattern := range []string{"*.sock", "shadows/*"} {
		if left, _ := filepath.Glob(s.path("run", pattern)); len(left) > 0 {
			t.Errorf("files are left: %v", left)
		}
	}
	if left := controlGroupsOf(mine + "-"); len(left) != len(guests) {
		t.Errorf("control groups %v: want those of %v alone", left, guests)
	}
}

// controlGroupsOf returns the domains' CPU control groups with that in their
// names.
func controlGroupsOf(name string) (dirs []string) {
	for _, pattern := range []string{"/sys/fs/cgroup/cpu/machine*/*", "/sys/fs/cgroup/machine*/*"} {
		found, _ := filepath.Glob(pattern)
		for _, dir := range found {
			// systemd escapes the dashes of a domain's name.
			if strings.Contains(strings.ReplaceAll(dir, `\x2d`, "-"), name) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}
