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

// obey has a host connect that carries every order out at once, by saying so, and
// reports what it is told to.
func obey(t *testing.T, url, host string, reports ...*serverpb.ReportRequest) {
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
				out := &serverpb.Outcome{Shadow: "s1", Warm: true, StartNs: 250_000_000, AssociateNs: 12_345_000, MoveNs: 1_500_000_000}
				if err := link.Settle(ctx, &serverpb.SettleRequest{Host: host, Order: o.GetId(), Attempt: o.GetAttempt(), Outcome: out}); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		},
	})
	running.Go(func() {
		link.Run(ctx, &serverpb.WatchRequest{Host: host, TakesOrders: true, MigrationUri: "qemu+tls://" + host + "/system", Capacity: map[string]int64{"cpu": 4000, "memory": 8 << 30}})
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	<-connected
	for _, r := range reports {
		r.Host = host
		if err := link.Report(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
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

func TestAdviseAndMove(t *testing.T) {
	url := startServer(t)
	t.Setenv("GNOMON_SERVER", url)
	obey(t, url, "node1", &serverpb.ReportRequest{
		Associations: []*serverpb.Association{{Vm: "id-1", VmName: "web"}}, Predicted: map[string]int64{"cpu": 3900},
		Needs: []*serverpb.VMNeeds{{Vm: "id-1", Predicted: map[string]int64{"cpu": 2000}, MemoryBytes: 1 << 30}},
	})
	out, err := gnomonCommand("advise")
	if err != nil || !strings.HasPrefix(out, "unsolved: node1 is predicted to need 3.9 cores of its 4 cores of cpu (98%)") {
		t.Errorf("with nowhere to go: %q, %v", out, err)
	}
	obey(t, url, "node2", &serverpb.ReportRequest{})
	out, err = gnomonCommand("advise")
	if err != nil || !strings.HasPrefix(out, "move web from node1 to node2: node1 is predicted to need") {
		t.Errorf("%q, %v", out, err)
	}
	out, err = gnomonCommand("advise", "--apply", "-o", "json")
	var v adviceView
	if err != nil || json.Unmarshal([]byte(out), &v) != nil || len(v.Moves) != 1 || !v.Moves[0].Done || v.Moves[0].Ms != 1500 || v.Moves[0].To != "node2" {
		t.Errorf("%s, %v", out, err)
	}
	// The host still reports the VM, so it can be moved once more.
	out, err = gnomonCommand("vm", "move", "web", "--to", "node2")
	if want := "web moved from node1 to node2 in 1.5 s; back: gnomon vm move web --to node1\n"; err != nil || out != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
	if out, err := gnomonCommand("advise", "--undo"); err != nil || out != "nothing to move\n" {
		t.Errorf("to take back what did not come about: %q, %v", out, err)
	}
	for args, says := range map[string]string{"vm move web": "--to is missing", "vm move web --to node1": "is on host \"node1\" already", "advise -o yaml": "table or json"} {
		if _, err := gnomonCommand(strings.Fields(args)...); exitCode(err) != exitUsage || !strings.Contains(explain(err), says) {
			t.Errorf("%s: %v, want %q", args, err, says)
		}
	}
}
