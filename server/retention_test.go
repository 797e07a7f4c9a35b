package server

import (
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// told is what a server last said of the retention.
type told struct {
	mu    sync.Mutex
	last  Retention
	times int
}

func (o *told) hear(r Retention) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last, o.times = r, o.times+1
}

func (o *told) until(t *testing.T, what string, want Retention) {
	t.Helper()
	for _, m := range []*map[string]time.Duration{&want.ByAccount, &want.ByHost} {
		if *m == nil {
			*m = map[string]time.Duration{}
		}
	}
	if want.ByVM == nil {
		want.ByVM = map[gnomon.VMID]time.Duration{}
	}
	var last Retention
	defer func() {
		if t.Failed() {
			t.Logf("last told %v, want %v", last, want)
		}
	}()
	eventually(t, what, func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		last = o.last
		return reflect.DeepEqual(last, want)
	})
}

func TestRetentionOfEveryScope(t *testing.T) {
	t.Parallel()
	o := Options{DataDir: t.TempDir()}
	var heard told
	o.OnRetention = heard.hear
	s := serve(t, o)
	const day = 24 * time.Hour
	heard.until(t, "the default at first", Retention{Default: 15 * day})

	h := connectHost(t, s.url, "node1")
	h.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{
		{Vm: "id-1", VmName: "web", Account: "acme"}, {Vm: "id-2", VmName: "db"}}})
	if _, err := s.account("acme", "node1"); err != nil {
		t.Fatal(err)
	}
	const gone = "6f1e1c1e-9b1a-4d2e-8f3a-000000000000"
	set := func(scope *serverpb.Scope, key, value string) {
		t.Helper()
		if _, err := s.set(scope, map[string]string{key: value}); err != nil {
			t.Fatal(err)
		}
	}
	set(nil, retentionKey, "2d")
	heard.until(t, "the global period", Retention{Default: 2 * day})
	set(&serverpb.Scope{Vm: "db"}, retentionKey, "30d")
	set(&serverpb.Scope{Vm: gone}, retentionKey, "1h")
	want := Retention{Default: 2 * day, ByVM: map[gnomon.VMID]time.Duration{"id-2": 30 * day, gone: time.Hour}}
	heard.until(t, "the VMs' periods", want)

	heard.mu.Lock()
	before := heard.times
	heard.mu.Unlock()
	set(&serverpb.Scope{Vm: "web"}, "hold", "3s")
	set(&serverpb.Scope{Account: "acme"}, "hold", "3s")
	set(&serverpb.Scope{Account: "acme"}, retentionKey, "3d")
	want.ByAccount = map[string]time.Duration{"acme": 3 * day}
	want.ByVM["id-1"] = 3 * day
	heard.until(t, "the account's period", want)
	heard.mu.Lock()
	if heard.times != before+1 {
		t.Errorf("told %d times of one change, others being no news", heard.times-before)
	}
	heard.mu.Unlock()

	set(&serverpb.Scope{Host: "node1"}, retentionKey, "4d")
	want.ByHost = map[string]time.Duration{"node1": 4 * day}
	want.ByVM["id-1"] = 4 * day // a host's overrides an account's
	heard.until(t, "the host's period", want)
	// This one may have values from its time on node1: they too are kept as the
	// VM now is.
	connectHost(t, s.url, "node2").report(&serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "id-3"}}})
	want.ByVM["id-3"] = 2 * day
	heard.until(t, "the VM of another host", want)
	h.report(&serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "id-2", VmName: "db"}}})
	delete(want.ByVM, "id-1")
	heard.until(t, "one VM less", want)

	h.stop()
	s.stop()
	var again told
	o.OnRetention = again.hear
	serve(t, o)
	again.until(t, "all after a restart", want)
}
