package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// obey has a host connect that carries every order out at once, by saying so.
func obey(t *testing.T, url, host string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	connected := make(chan struct{})
	var once sync.Once
	var running sync.WaitGroup
	var link *hostlink.Link
	link = hostlink.New(hostlink.Options{
		Servers: hostlink.Servers{URLs: []string{url}},
		OnState: func(s *serverpb.DesiredState) {
			once.Do(func() { close(connected) })
			for _, o := range s.GetOrders() {
				out := &serverpb.Outcome{Shadow: "s1", Warm: true, StartNs: 250_000_000, AssociateNs: 12_345_000}
				if err := link.Settle(ctx, &serverpb.SettleRequest{Host: host, Order: o.GetId(), Attempt: o.GetAttempt(), Outcome: out}); err != nil {
					t.Error(err)
				}
			}
		},
	})
	running.Go(func() {
		link.Run(ctx, &serverpb.WatchRequest{Host: host, TakesOrders: true, Capacity: map[string]int64{"cpu": 4000, "memory": 8 << 30}})
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	<-connected
}

func TestVMDeploy(t *testing.T) {
	url := startServer(t)
	t.Setenv("GNOMON_SERVER", url)
	obey(t, url, "node1")
	if out, err := gnomonCommand("account", "create", "acme"); err != nil {
		t.Fatal(out, err)
	}
	file := filepath.Join(t.TempDir(), "web.xml")
	if err := os.WriteFile(file, []byte(`<domain type="kvm"><name>web</name><memory unit="GiB">1</memory></domain>`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := gnomonCommand("vm", "deploy", "-f", file, "--account", "acme")
	if err != nil || !strings.HasPrefix(out, "web runs on node1 (") || !strings.HasSuffix(out, "; the account's shadow s1 was its own 12 ms after its start\n") {
		t.Errorf("%q, %v", out, err)
	}
	out, err = gnomonCommand("vm", "deploy", "-f", file, "--account", "acme", "--name", "web-2", "--host", "node1", "--request-id", "x", "-o", "json")
	var v deployView
	if err != nil || json.Unmarshal([]byte(out), &v) != nil || v.Name != "web-2" || v.Host != "node1" || v.Shadow != "s1" || !v.Warm || v.StartMs != 250 || v.AssociateMs != 12.345 || v.ID == "" {
		t.Errorf("%s, %v: %+v", out, err, v)
	}
	out, err = gnomonCommand("vm", "deploy", "-f", file, "--account", "acme", "--dry-run")
	if err != nil || !strings.Contains(out, "web would run on node1") {
		t.Errorf("%q, %v", out, err)
	}
	for _, c := range []struct {
		args, says string
		code       int
	}{
		{"--account acme", "-f is missing", exitUsage},
		{"-f /nonexistent/web.xml --account acme", "/nonexistent/web.xml", exitUsage},
		{"-f " + file, "neither the request nor the definition", exitUsage},
		{"-f " + file + " --account beta", `"beta" does not exist`, exitNotFound},
		{"-f " + file + " --account acme --name a/b", `definition: name: "a/b"`, exitUsage},
		{"-f " + file + " --account acme --host node9", `"node9" is not known`, exitNotFound},
		{"-f " + file + " --account acme --host-label zone=b", "zone=b", exitUsage},
		{"-f " + file + " --account acme -o yaml", "table or json", exitUsage},
	} {
		_, err := gnomonCommand(append([]string{"vm", "deploy"}, strings.Fields(c.args)...)...)
		if exitCode(err) != c.code || err == nil || !strings.Contains(explain(err), c.says) {
			t.Errorf("%s: exit code %d, %v; want %d with %q", c.args, exitCode(err), err, c.code, c.says)
		}
	}
}
