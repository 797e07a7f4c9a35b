package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

const fleetFile = `
config: {predictionHorizon: 10s, headroom: 30%}
hosts: [{name: node1, labels: {zone: a}}]
accounts: [{name: acme, hostLabels: {zone: a}, config: {hold: 20s}}]
`

func TestApplyAndVersions(t *testing.T) {
	url := startServer(t)
	t.Setenv("GNOMON_SERVER", url)
	connected := make(chan struct{}, 100)
	var parts sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	link := hostlink.New(hostlink.Options{
		Servers: hostlink.Servers{URLs: []string{url}},
		OnState: func(*serverpb.DesiredState) { connected <- struct{}{} },
	})
	parts.Go(func() { link.Run(ctx, &serverpb.WatchRequest{Host: "node1"}) })
	t.Cleanup(func() { cancel(); parts.Wait() })
	<-connected

	path := filepath.Join(t.TempDir(), "fleet.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(line string, want ...string) {
		t.Helper()
		out, err := gnomonCommand(strings.Fields(line)...)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %q is not in\n%s", line, w, out)
			}
		}
		if len(want) == 0 && out != "" {
			t.Errorf("%s: want nothing, got\n%s", line, out)
		}
	}
	write(fleetFile)
	plan := []string{"~ host node1: labels: none -> zone=a", "+ account acme on a host to be chosen", "+ account acme: hold: 20s", "+ global: headroom: 30%"}
	run("diff -f "+path, plan...)
	if _, err := gnomonCommand("diff", "-f", path, "--exit-code"); exitCode(err) != exitFailure {
		t.Errorf("diff --exit-code: %v", err)
	}
	run("apply --comment first -f "+path, plan...)
	run("diff --exit-code -f " + path)
	run("apply -f " + path)

	write(strings.Replace(fleetFile, "headroom: 30%", "hold: 5s", 1))
	run("apply -f "+path, "- global: headroom: 30%", "+ global: hold: 5s")
	run("config history", "version 3", "version 1", "(first)", "+ account acme: hold: 20s")
	run("config diff 2", "- global: headroom: 30%")
	run("config explain --account acme", "20s", "account acme", "(global)", "version 1")
	run("config rollback 2 --dry-run", "+ global: headroom: 30%")
	run("config rollback 2", "- global: hold: 5s")
	run("config get headroom", "30%")
	run("config history --last 1", "back to version 2")

	// What is wrong changes nothing.
	write("config: {predictionHorizon: 500ms}\nhosts: [{name: node1, labels: {zone: b}}]")
	if out, err := gnomonCommand("apply", "-f", path); exitCode(err) != exitUsage || out != "" {
		t.Errorf("apply of what does not fit: %v\n%s", err, out)
	}
	run("diff --exit-code -f " + writeIn(t, fleetFile))
}

func writeIn(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
