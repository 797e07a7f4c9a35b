package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// engines are etcd servers in processes of their own.
func engines(t *testing.T, f func(t *testing.T, e *etcdProcess)) {
	t.Parallel()
	t.Run("this etcd", func(t *testing.T) {
		t.Parallel()
		f(t, startEtcd(t, ""))
	})
	t.Run("etcd of the system", func(t *testing.T) {
		t.Parallel()
		binary, err := exec.LookPath("etcd")
		if err != nil && os.Getenv("GNOMON_REQUIRE_EXTERNAL") == "" {
			t.Skip("no etcd in the path: install etcd-server to test with it")
		} else if err != nil {
			t.Fatal(err)
		}
		f(t, startEtcd(t, binary))
	})
}

func global(values map[string]string) func(*serverpb.DesiredState) bool {
	return func(d *serverpb.DesiredState) bool {
		for k, v := range values {
			if d.GetGlobal()[k] != v {
				return false
			}
		}
		return true
	}
}

func TestEtcdKilledAndBack(t *testing.T) {
	engines(t, func(t *testing.T, e *etcdProcess) {
		s := serve(t, Options{EtcdEndpoints: []string{e.address}})
		h := connectHost(t, s.url, "node1")
		first := map[string]string{"hold": "11s"}
		if _, err := s.set(nil, first); err != nil {
			t.Fatal(err)
		}
		h.until("hold", global(first))

		e.kill()
		_, err := s.set(nil, map[string]string{"hold": "12s"})
		wantCode(t, err, connect.CodeUnavailable, "see that etcd runs")
		if code, text := httpGet(t, s.url+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "store") {
			t.Errorf("readyz: %d %s", code, text)
		}
		if code, _ := httpGet(t, s.url+"/healthz"); code != http.StatusOK {
			t.Errorf("healthz: %d", code)
		}
		if h.currentStatus() != "connected" {
			t.Errorf("the host lost its server with the store: %s", h.currentStatus())
		}

		e.start()
		second := map[string]string{"hold": "13s"}
		eventually(t, "the store to be used again", func() bool { _, err := s.set(nil, second); return err == nil })
		h.until("the change after", global(second))
		eventually(t, "the host to be online", func() bool { return s.host(t, "node1").GetConnected() })
	})
}

// A store that begins anew has lower revisions; hosts follow it nevertheless.
func TestEtcdWiped(t *testing.T) {
	engines(t, func(t *testing.T, e *etcdProcess) {
		s := serve(t, Options{EtcdEndpoints: []string{e.address}})
		h := connectHost(t, s.url, "node1")
		for i := range 10 {
			if _, err := s.set(nil, map[string]string{"hold": fmt.Sprintf("%ds", i+1)}); err != nil {
				t.Fatal(err)
			}
		}
		before := h.until("hold", global(map[string]string{"hold": "10s"}))
		e.kill()
		if err := os.RemoveAll(e.dir); err != nil {
			t.Fatal(err)
		}
		e.start()
		after := h.until("nothing set", func(d *serverpb.DesiredState) bool { return len(d.GetGlobal()) == 0 })
		if after.GetRevision() >= before.GetRevision() || after.GetEpoch() == before.GetEpoch() {
			t.Errorf("revision %d of %s, then %d of %s", before.GetRevision(), before.GetEpoch(), after.GetRevision(), after.GetEpoch())
		}
		eventually(t, "the host to be online", func() bool { return s.host(t, "node1").GetConnected() })
	})
}

// proxy is a connection to etcd that can be cut, or held up.
type proxy struct {
	l    net.Listener
	to   string
	held sync.RWMutex // locked while nothing passes
	mu   sync.Mutex
	cut  bool
	open []net.Conn
}

func startProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, to: strings.TrimPrefix(to, "http://")}
	t.Cleanup(func() { l.Close(); p.setCut(true) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.join(c)
		}
	}()
	return p
}

func (p *proxy) join(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	up, err := net.Dial("tcp", p.to)
	if p.cut || err != nil {
		c.Close()
		return
	}
	p.open = append(p.open, c, up)
	go p.pass(up, c)
	go p.pass(c, up)
}

func (p *proxy) pass(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		p.held.RLock()
		_, failed := to.Write(b[:n])
		p.held.RUnlock()
		if err != nil || failed != nil {
			return
		}
	}
}

func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for _, c := range p.open {
			c.Close()
		}
		p.open = nil
	}
}

// What a server missed may have been compacted away when it is back.
func TestCompactedMeanwhile(t *testing.T) {
	engines(t, func(t *testing.T, e *etcdProcess) {
		p := startProxy(t, e.address)
		s := serve(t, Options{EtcdEndpoints: []string{"http://" + p.l.Addr().String()}})
		h := connectHost(t, s.url, "node1")
		p.setCut(true)

		direct := e.client()
		defer direct.Close()
		var r *clientv3.PutResponse
		var err error
		for i := range 5 {
			if r, err = direct.Put(context.Background(), globalKey, encodeJSON(layer{Values: map[string]string{"hold": fmt.Sprintf("%ds", i)}})); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := direct.Compact(context.Background(), r.Header.Revision); err != nil {
			t.Fatal(err)
		}
		p.setCut(false)
		h.until("the last change", global(map[string]string{"hold": "4s"}))
	})
}

func TestTwoServersOneEtcd(t *testing.T) {
	engines(t, func(t *testing.T, e *etcdProcess) {
		a := serve(t, Options{EtcdEndpoints: []string{e.address}})
		b := serve(t, Options{EtcdEndpoints: []string{e.address}})
		one, two := connectHost(t, a.url, "node1"), connectHost(t, b.url, "node2")
		if _, err := a.account("acme", "node2"); err != nil {
			t.Fatal(err)
		}
		two.until("the account", func(d *serverpb.DesiredState) bool { return len(d.GetAccounts()) == 1 })
		for _, s := range []*running{a, b} {
			for _, name := range []string{"node1", "node2"} {
				if h := s.host(t, name); !h.GetConnected() || h.GetLastSeenUnixNano() == 0 {
					t.Errorf("%s: %v", name, h)
				}
			}
		}

		// Each is right by itself; both together are not.
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				_, err := a.set(nil, map[string]string{"predictionHorizon": fmt.Sprintf("%ds", 2+i)})
				checkRaced(t, err)
			})
			wg.Go(func() {
				_, err := b.set(&serverpb.Scope{Account: "acme"}, map[string]string{"monitoringInterval": fmt.Sprintf("%ds", 11-i)})
				checkRaced(t, err)
			})
		}
		wg.Wait()
		if err := a.read(context.Background(), func(v *view) error {
			if v.guard == 0 {
				return errors.New("nothing was changed")
			}
			_, _, err := config.Merge(v.layers(scope{kind: config.Account, name: "acme"})...)
			return err
		}); err != nil {
			t.Errorf("together they do not fit: %v", err)
		}

		b.stop()
		eventually(t, "node2 to be offline", func() bool { return !a.host(t, "node2").GetConnected() })
		if !a.host(t, "node1").GetConnected() {
			t.Error("node1 went with the other server")
		}
		one.until("still there", func(*serverpb.DesiredState) bool { return one.currentStatus() == "connected" })
	})
}

func checkRaced(t *testing.T, err error) {
	if code := connect.CodeOf(err); err != nil && code != connect.CodeInvalidArgument && code != connect.CodeAborted {
		t.Error(err)
	}
}

// A host that moves between servers is never left with what another one last
// stored of it.
func TestReportsByTwoServers(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, "")
	a := serve(t, Options{EtcdEndpoints: []string{e.address}})
	b := serve(t, Options{EtcdEndpoints: []string{e.address}})
	h := connectHost(t, a.url, "node1")
	toB := hostlink.New(hostlink.Options{Servers: hostlink.Servers{URLs: []string{b.url}}})
	x := &serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "x"}}}
	y := &serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "y"}, {Vm: "z"}}}
	h.report(x)
	eventually(t, "b to know of it", func() bool {
		known := false
		b.mirror.read(func(v *view) { known = v != nil && v.reports["node1"] != nil })
		return known
	})
	y.Host = "node1"
	if err := toB.Report(t.Context(), y); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a to know of it", func() bool {
		known := false
		a.mirror.read(func(v *view) { known = len(v.reports["node1"].GetAssociations()) == 2 })
		return known
	})
	h.report(x)
	if n := b.host(t, "node1").GetVms(); n != 1 {
		t.Errorf("%d VMs, want what was told last", n)
	}
}

func TestServerRestarts(t *testing.T) {
	t.Parallel()
	o := Options{DataDir: t.TempDir()}
	address := freeAddress(t)
	s := serveOn(t, o, address)
	h := connectHost(t, s.url, "node1")
	if _, err := s.account("acme", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.set(nil, map[string]string{"hold": "11s"}); err != nil {
		t.Fatal(err)
	}
	h.until("hold", global(map[string]string{"hold": "11s"}))
	s.stop()
	eventually(t, "the host to notice", func() bool { return h.currentStatus() != "connected" })

	s = serveOn(t, o, address)
	eventually(t, "the host to be back", func() bool { return h.currentStatus() == "connected" && s.host(t, "node1").GetConnected() })
	if _, err := s.set(nil, map[string]string{"hold": "12s"}); err != nil {
		t.Fatal(err)
	}
	d := h.until("the change after", global(map[string]string{"hold": "12s"}))
	if len(d.GetAccounts()) != 1 {
		t.Errorf("got %v", d)
	}
	h.stop()
	eventually(t, "the host to be offline", func() bool { return !s.host(t, "node1").GetConnected() })
}

func TestTheLatestStreamCounts(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	client := serverpbconnect.NewHostLinkServiceClient(http.DefaultClient, s.url)
	ctx := t.Context()
	var streams [2]*connect.ServerStreamForClient[serverpb.DesiredState]
	for i := range streams {
		var err error
		if streams[i], err = client.Watch(ctx, connect.NewRequest(&serverpb.WatchRequest{Host: "node1"})); err != nil {
			t.Fatal(err)
		}
		if !streams[i].Receive() {
			t.Fatal(streams[i].Err())
		}
	}
	for streams[0].Receive() {
	}
	wantCode(t, streams[0].Err(), connect.CodeAborted, "connected by another stream")
	if !s.host(t, "node1").GetConnected() {
		t.Error("the end of the older stream took the host offline")
	}
	_ = streams[1].Close()
}

func TestBadWatches(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	client := serverpbconnect.NewHostLinkServiceClient(http.DefaultClient, s.url)
	for want, r := range map[string]*serverpb.WatchRequest{
		"host name":                  {Host: "a/b"},
		"capacity: unknown":          {Host: "a", Capacity: map[string]int64{"gpu": 1}},
		"capacity of cpu":            {Host: "a", Capacity: map[string]int64{"cpu": -1}},
		`version "\n": want at most`: {Host: "a", Version: "\n"},
	} {
		stream, err := client.Watch(t.Context(), connect.NewRequest(r))
		if err == nil {
			stream.Receive()
			err = stream.Err()
		}
		wantCode(t, err, connect.CodeInvalidArgument, want)
	}
}

func httpGet(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{
		Version: "1.2",
		Routes:  map[string]Route{"/extra/": {Handler: http.NotFoundHandler(), Rule: func(*http.Request) access.Rule { return access.Rule{Role: access.Viewer} }}},
	})
	eventually(t, "readiness", func() bool { code, _ := httpGet(t, s.url+"/readyz"); return code == http.StatusOK })
	if _, err := s.set(nil, map[string]string{"hold": "2s"}); err != nil {
		t.Fatal(err)
	}
	_, metrics := httpGet(t, s.url+"/metrics")
	for _, want := range []string{
		`gnomon_server_requests_total{code="ok",procedure="/gnomon.server.v1.ManagementService/SetConfig"} 1`,
		"gnomon_server_host_streams 0", `gnomon_server_info{version="1.2"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if code, _ := httpGet(t, s.url+"/extra/x"); code != http.StatusNotFound {
		t.Errorf("extra route: %d", code)
	}

	post := func(origin string) int {
		body := `{"values":{"hold":"1s"}}`
		req, err := http.NewRequest("POST", s.url+serverpbconnect.ManagementServiceSetConfigProcedure, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	if code := post("http://evil.example"); code != http.StatusForbidden {
		t.Errorf("of another origin: %d", code)
	}
	if code := post(""); code != http.StatusOK {
		t.Errorf("of a script: %d", code)
	}
}
