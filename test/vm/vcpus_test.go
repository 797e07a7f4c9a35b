package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A VM whose definition allows more vCPUs than it runs with gets what it asks for
// by being given them, and has its own number again after the daemon.
func TestVCPUsArePlugged(t *testing.T) {
	s := newSystem(t, "-c", mine+"-c-*")
	g, definition := newGuest(t, s.dir, mine+"-c-a", "", "", "")
	text, err := os.ReadFile(definition)
	if err != nil {
		t.Fatal(err)
	}
	more := strings.Replace(string(text), "<vcpu>1</vcpu>", `<vcpu current="1">2</vcpu>`, 1)
	if more == string(text) {
		t.Fatalf("no vCPU in %s", text)
	}
	if err := os.WriteFile(definition, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "create", definition)
	g.open(t)
	g.awaitReady(t)
	daemon := s.up(t)
	s.ok(t, "config", "set", "cpu.hotplug=true", "hold=5m", "--vm", g.id)
	within(t, settle, "it is given what it asks for", func() error {
		if r := s.run("vm", "request", g.name, "cpu", "1800m"); r.code != 0 || !strings.HasPrefix(r.stdout, "granted") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	within(t, settle, "that is explained", func() error {
		if n := vcpusOf(t, g.name); n != 2 {
			return fmt.Errorf("it has %d vCPUs, want 2", n)
		}
		if out := s.ok(t, "vm", "explain", g.name); !strings.Contains(out, "It has 2 vCPUs of 2 that it may have, and 1 of its own.") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	daemon.stop(t)
	within(t, settle, "its guest lets go of it", func() error {
		if n := vcpusOf(t, g.name); n != 1 {
			return fmt.Errorf("it has %d vCPUs", n)
		}
		return nil
	})
	if limit := cpuLimit(t, g.name); limit != -1 {
		t.Errorf("each vCPU is limited to %d after the daemon; it had no limit", limit)
	}
	s.clean(t, g.name)
}

// vcpusOf counts the threads that run a domain's vCPUs.
func vcpusOf(t *testing.T, name string) (n int) {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", pidOf(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range names {
		if comm, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(comm), "CPU ") {
			n++
		}
	}
	return n
}
