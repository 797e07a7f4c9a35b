package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/gnomon-vm/gnomon/server"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// startServer serves the management API and returns its address.
func startServer(t *testing.T) string {
	t.Helper()
	s, err := server.New(server.Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := server.NewHTTPServer(s.Handler())
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = web.Serve(l) })
	parts.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		_ = web.Close()
		parts.Wait()
	})
	return "http://" + l.Addr().String()
}

// gnomonCommand runs the program in this process.
func gnomonCommand(args ...string) (out string, err error) {
	var b bytes.Buffer
	root := rootCommand()
	root.SetOut(&b)
	root.SetErr(&b)
	root.SetArgs(args)
	err = root.ExecuteContext(context.Background())
	return b.String(), err
}

// commands returns what runs a command that is to succeed, and returns what it
// printed, and what runs one that is to fail with an exit code and words.
func commands(t *testing.T) (run func(args ...string) string, fails func(code int, want string, args ...string)) {
	run = func(args ...string) string {
		t.Helper()
		out, err := gnomonCommand(args...)
		if err != nil {
			t.Fatalf("gnomon %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	fails = func(code int, want string, args ...string) {
		t.Helper()
		if _, err := gnomonCommand(args...); err == nil || exitCode(err) != code || !strings.Contains(err.Error(), want) {
			t.Errorf("gnomon %s: %v, want %q and exit %d", strings.Join(args, " "), err, want, code)
		}
	}
	return run, fails
}

func TestManagementCommands(t *testing.T) {
	url := startServer(t)
	t.Setenv("GNOMON_SERVER", url)
	connected := make(chan struct{}, 100)
	var parts sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	link := hostlink.New(hostlink.Options{
		Servers: hostlink.Servers{URLs: []string{url}},
		OnState: func(*serverpb.DesiredState) { connected <- struct{}{} },
	})
	parts.Go(func() {
		link.Run(ctx, &serverpb.WatchRequest{Host: "node1", Version: "1", Accel: "kvm", Capacity: map[string]int64{"cpu": 8000, "memory": 16 << 30}})
	})
	t.Cleanup(func() { cancel(); parts.Wait() })
	<-connected
	if err := link.Report(ctx, &serverpb.ReportRequest{Host: "node1", Free: map[string]int64{"cpu": 7000, "memory": 8 << 30},
		Associations: []*serverpb.Association{{Vm: "id-1", VmName: "web1", Account: "acme"}}}); err != nil {
		t.Fatal(err)
	}

	for _, tc := range []struct {
		line string
		want string // in the output or the error
		code int
	}{
		{"account create acme", "account acme created; its shadow is provisioned on node1", 0},
		{"account create acme", "exists already", exitFailure},
		{"account create Acme", "lower-case letters", exitUsage},
		{"account create beta --host node9", `"node9" is not known: there are node1`, exitNotFound},
		{"account create", "want NAME, got 0 arguments", exitUsage},
		{"account ls", "acme  node1  none    -      50 ", 0},
		{"config set quota=cpu=8,memory=32GiB priority=80 --account acme", "", 0},
		{"account ls", "acme  node1  none    cpu=8,memory=32GiB  80 ", 0},
		{"account show acme", "Quota:    cpu=8,memory=32GiB\nPriority: 80\n", 0},
		{"account show acme", "web1  node1", 0},
		{"account show beta", "does not exist", exitNotFound},
		{"config set quota=cpu=0", "want an amount above 0; leave it out for no bound", exitUsage},
		{"config set priority=101", "want a whole number from 0 to 100", exitUsage},
		{"config set quota=cpu=1 --vm web1", "cannot be set for one vm", exitUsage},
		{"config set priority=1 --host node1", "cannot be set for one host", exitUsage},
		{"config unset quota priority --account acme", "", 0},
		{"account rm beta", "does not exist", exitNotFound},
		{"account rm acme", "web1 on node1", exitUsage},
		{"host ls", "node1  connected  1        kvm    1    0        7 cores of 8 cores  8 GiB of 16 GiB", 0},
		{"host rm node1", `"node1" is connected: stop its daemon first`, exitUsage},
		{"host rm node2", "there are node1", exitNotFound},
		{"host rm", "want NAME, got 0 arguments", exitUsage},
		{"config set headroom=50% hold=20s --vm web1", "", 0},
		{"config set predictionHorizon=10s", "", 0},
		{"config get headroom --vm web1", "50%\n", 0},
		{"config get --vm web1", "predictionHorizon       10s                                            global", 0},
		{"config get hedroom", `did you mean "headroom"?`, exitUsage},
		{"config get headroom hold", "at most one KEY", exitUsage},
		{"config set predictionHorizon=500ms", "must be at least monitoringInterval", exitUsage},
		{"config set headroom", "want KEY=VALUE", exitUsage},
		{"config set headroom=", "gnomon config unset headroom", exitUsage},
		{"config set hold=1s hold=2s", "given twice", exitUsage},
		{"config set", "at least one KEY=VALUE", exitUsage},
		{"config set hold=1s --account a --vm b", "not several", exitUsage},
		{"config set hold=1s --account=", "--account is empty", exitUsage},
		{"config unset headroom --vm web1", "", 0},
		{"config get headroom --vm web1", "20%\n", 0},
		{"config get -o yaml", "want table or json", exitUsage},
		{"config schema", "monitoringInterval      1s", 0},
		{"account ls --server 127.0.0.1:7070", "want an address like http://", exitUsage},
		{"account ls --server http://127.0.0.1:1", `reach the server at http://127.0.0.1:1: connect: connection refused: start it with "gnomon up" or "gnomon server", or name its address with --server`, exitUnavailable},
		{"account ls --server unix:///nowhere/server.sock", "no such file or directory: start it with", exitUnavailable},
		{"login --server http://127.0.0.1:1", "reach the server at http://127.0.0.1:1: connect: connection refused", exitUnavailable},
		{"history query up --history-url http://127.0.0.1:1", "name its address with --history-url", exitUnavailable},
		{"vm ls --socket /nowhere/host.sock", `no host daemon at /nowhere/host.sock: start it with "gnomon up" or "gnomon host", or name its socket with --socket`, exitUnavailable},
	} {
		out, err := gnomonCommand(strings.Fields(tc.line)...)
		code := 0
		if err != nil {
			code, out = exitCode(err), out+explain(err)
		}
		if code != tc.code || !strings.Contains(out, tc.want) {
			t.Errorf("gnomon %s: exit %d, want %d, with %q in\n%s", tc.line, code, tc.code, tc.want, out)
		}
	}

	for _, tc := range []struct{ line, want string }{
		{"account ls -o json", `"name":"acme"`},
		{"host ls -o json", `"capacity":{"cpu":8000`},
		{"config get -o json", `"key":"shadow.enabled"`},
		{"config get hold -o json", `{"key":"hold","value":"10s","origin":"default"}`},
		{"config schema -o json", `"scopes":["global"`},
		{"config set hold=9s -o json", `{"revision":`},
		{"account create zeta -o json", `"host":"node1"`},
		{"config unset hold -o json", `{"revision":`},
		{"account ls --output json", `"shadow":"none"`},
		{"account show acme -o json", `"quota":"","priority":"50"`},
		{"host ls -o json --server " + url, `"free":{"cpu":7000`},
	} {
		out, err := gnomonCommand(strings.Fields(tc.line)...)
		var compact bytes.Buffer
		if err == nil {
			err = json.Compact(&compact, []byte(out))
		}
		if err != nil || !strings.Contains(compact.String(), tc.want) {
			t.Errorf("gnomon %s: %v, want %s in\n%s", tc.line, err, tc.want, out)
		}
	}

	for line, want := range map[string]string{
		"__complete config set pred":    "predictionHorizon=",
		"__complete config get --vm we": "web1",
		"__complete account rm a":       "acme",
	} {
		if out, err := gnomonCommand(strings.Fields(line)...); err != nil || !strings.Contains(out, want) {
			t.Errorf("gnomon %s: %v, want %q in\n%s", line, err, want, out)
		}
	}
}
