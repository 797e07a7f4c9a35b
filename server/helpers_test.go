package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// patience is how long a busy machine may take.
const patience = time.Minute

// The test binary can be an etcd of its own, for tests to kill.
func TestMain(m *testing.M) {
	if dir := os.Getenv("GNOMON_TEST_ETCD_DIR"); dir != "" {
		runEtcd(dir, os.Getenv("GNOMON_TEST_ETCD_URL"))
	}
	os.Exit(m.Run())
}

func runEtcd(dir, address string) {
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = dir, "error"
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*u}, []url.URL{*u}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.InitialClusterToken = fmt.Sprint(os.Getpid())
	if quota := os.Getenv("GNOMON_TEST_ETCD_QUOTA"); quota != "" {
		if cfg.QuotaBackendBytes, err = strconv.ParseInt(quota, 10, 64); err != nil {
			panic(err)
		}
	}
	if members := os.Getenv("GNOMON_TEST_ETCD_MEMBERS"); members != "" {
		joinMembers(cfg, os.Getenv("GNOMON_TEST_ETCD_NAME"), members)
	}
	if _, err := embed.StartEtcd(cfg); err != nil {
		panic(err)
	}
	// Its life ends with the test's: standard input is then closed.
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// etcdProcess is a real etcd server in a process of its own.
type etcdProcess struct {
	t       *testing.T
	binary  string // "" for the test binary
	dir     string
	address string
	env     []string // more for the test binary
	cmd     *exec.Cmd
	stdin   io.Closer
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func startEtcd(t *testing.T, binary string) *etcdProcess {
	e := &etcdProcess{t: t, binary: binary, dir: filepath.Join(t.TempDir(), "etcd"), address: "http://" + freeAddress(t)}
	e.start()
	t.Cleanup(e.kill)
	return e
}

func (e *etcdProcess) start() {
	e.t.Helper()
	if e.binary == "" {
		e.cmd = exec.Command(os.Args[0])
		e.cmd.Env = append(os.Environ(), "GNOMON_TEST_ETCD_DIR="+e.dir, "GNOMON_TEST_ETCD_URL="+e.address)
		e.cmd.Env = append(e.cmd.Env, e.env...)
	} else {
		peer := "http://" + freeAddress(e.t)
		e.cmd = exec.Command(e.binary, "--data-dir", e.dir, "--listen-client-urls", e.address, "--advertise-client-urls", e.address,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--log-level", "error")
	}
	var err error
	if e.stdin, err = e.cmd.StdinPipe(); err != nil {
		e.t.Fatal(err)
	}
	e.cmd.Stderr = e.t.Output()
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	eventually(e.t, "etcd to listen", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(e.address, "http://"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	c := e.client()
	defer c.Close()
	eventually(e.t, "etcd to answer", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := c.Get(ctx, "x")
		return err == nil
	})
}

func (e *etcdProcess) client() *clientv3.Client {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.address}, DialTimeout: 2 * time.Second, DialKeepAliveTime: time.Second, Logger: zap.NewNop()})
	if err != nil {
		e.t.Fatal(err)
	}
	return c
}

func (e *etcdProcess) kill() {
	if e.cmd == nil {
		return
	}
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait()
	_ = e.stdin.Close()
	e.cmd = nil
}

// eventually waits for a condition of the world outside this process.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited %v in vain for %s", patience, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// running is a server that serves.
type running struct {
	*Server
	api  serverpbconnect.ManagementServiceClient
	url  string
	stop func()
}

func serve(t *testing.T, o Options) *running { return serveOn(t, o, "127.0.0.1:0") }

func serveOn(t *testing.T, o Options, address string) *running {
	t.Helper()
	if o.DataDir == "" && o.EtcdEndpoints == nil {
		o.DataDir = t.TempDir()
	}
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.mirror.checkEvery = 100 * time.Millisecond
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	web := NewHTTPServer(s.Handler())
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	secure := s.TLS() != nil // asked now: serving HTTP/2 sets a TLSConfig, too
	if web.TLSConfig = s.TLS(); secure {
		parts.Go(func() { _ = web.ServeTLS(l, "", "") })
	} else {
		parts.Go(func() { _ = web.Serve(l) })
	}
	parts.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	r := &running{Server: s, url: "http://" + l.Addr().String()}
	if secure {
		r.url = "https://" + l.Addr().String()
	}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		_ = web.Close()
		parts.Wait()
	})
	t.Cleanup(r.stop)
	r.api = serverpbconnect.NewManagementServiceClient(http.DefaultClient, r.url)
	if secure { // past the network
		r.api = serverpbconnect.NewManagementServiceClient(&http.Client{Transport: inside{s}}, "http://inside")
	}
	return r
}

// testHost is a host's end of the link.
type testHost struct {
	t      *testing.T
	name   string
	link   *hostlink.Link
	mu     sync.Mutex
	states []*serverpb.DesiredState
	status string
	stop   func()
}

var capacity = map[string]int64{"cpu": 8000, "memory": 16 << 30}

func connectHost(t *testing.T, url, name string) *testHost {
	t.Helper()
	return connectBy(t, hostlink.Servers{URLs: []string{url}}, name)
}

// connectBy has a host connect to any of several servers, by its identity if it
// has one.
func connectBy(t *testing.T, servers hostlink.Servers, name string) *testHost {
	t.Helper()
	h := startHost(t, servers, name)
	h.until("the first state", func(*serverpb.DesiredState) bool { return true })
	return h
}

// startHost does not wait for a connection.
func startHost(t *testing.T, servers hostlink.Servers, name string) *testHost {
	t.Helper()
	h := &testHost{t: t, name: name}
	h.link = hostlink.New(hostlink.Options{
		Servers: servers,
		OnState: func(d *serverpb.DesiredState) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.states = append(h.states, d)
		},
		OnStatus: func(s string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.status = s
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		h.link.Run(ctx, &serverpb.WatchRequest{Host: name, Version: "1", Accel: "tcg", Capacity: capacity, TakesOrders: true, MigrationUri: "qemu+tls://" + name + "/system"})
	})
	h.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(h.stop)
	return h
}

// last returns the latest state and how many there were.
func (h *testHost) last() (*serverpb.DesiredState, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.states) == 0 {
		return nil, 0
	}
	return h.states[len(h.states)-1], len(h.states)
}

func (h *testHost) currentStatus() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status
}

func (h *testHost) until(what string, ok func(*serverpb.DesiredState) bool) *serverpb.DesiredState {
	h.t.Helper()
	h.t.Cleanup(func() {
		if h.t.Failed() {
			h.t.Logf("%s: the link is %q", h.name, h.currentStatus())
		}
	})
	var d *serverpb.DesiredState
	eventually(h.t, h.name+": "+what, func() bool {
		d, _ = h.last()
		return d != nil && ok(d)
	})
	return d
}

func (h *testHost) report(r *serverpb.ReportRequest) {
	h.t.Helper()
	r.Host = h.name
	if err := h.link.Report(context.Background(), r); err != nil {
		h.t.Fatal(err)
	}
}

func must[T any](t *testing.T) func(*connect.Response[T], error) *T {
	return func(r *connect.Response[T], err error) *T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r.Msg
	}
}

func (r *running) account(name, host string) (*serverpb.Account, error) {
	a, err := r.api.CreateAccount(context.Background(), connect.NewRequest(&serverpb.CreateAccountRequest{Name: name, Host: host}))
	if err != nil {
		return nil, err
	}
	return a.Msg.GetAccount(), nil
}

func (r *running) set(scope *serverpb.Scope, values map[string]string) (int64, error) {
	s, err := r.api.SetConfig(context.Background(), connect.NewRequest(&serverpb.SetConfigRequest{Scope: scope, Values: values}))
	if err != nil {
		return 0, err
	}
	return s.Msg.GetRevision(), nil
}

func (r *running) get(t *testing.T, scope *serverpb.Scope, key string) (value, origin string) {
	t.Helper()
	g := must[serverpb.GetConfigResponse](t)(r.api.GetConfig(context.Background(), connect.NewRequest(&serverpb.GetConfigRequest{Scope: scope})))
	for _, p := range g.GetParameters() {
		if p.GetKey() == key {
			return p.GetValue(), p.GetOrigin()
		}
	}
	t.Fatalf("no %s", key)
	return "", ""
}

func (r *running) host(t *testing.T, name string) *serverpb.Host {
	t.Helper()
	l := must[serverpb.ListHostsResponse](t)(r.api.ListHosts(context.Background(), connect.NewRequest(&serverpb.ListHostsRequest{})))
	for _, h := range l.GetHosts() {
		if h.GetName() == name {
			return h
		}
	}
	return nil
}

func (r *running) revision(t *testing.T) int64 {
	t.Helper()
	g, err := r.store.Get(context.Background(), guardKey)
	if err != nil {
		t.Fatal(err)
	}
	return g.Header.Revision
}
