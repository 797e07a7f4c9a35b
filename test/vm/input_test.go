package vm

import (
	"strings"
	"testing"
)

// What is wrong with a value is told by its name, with the value and what is
// allowed, and changes nothing.
func TestBadInput(t *testing.T) {
	s := newSystem(t, "-i", "none")
	daemon := s.up(t)
	before := s.ok(t, "config", "get")
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"config set predictHorizon=5s", 2, []string{"predictHorizon", "predictionHorizon"}},
		{"config get bogus", 2, []string{"bogus"}},
		{"config unset bogus", 2, []string{"bogus"}},
		{"config set predictionHorizon=500ms monitoringInterval=1s", 2, []string{"predictionHorizon", "500ms", "monitoringInterval", "1s"}},
		{"config set predictionHorizon=100ms", 2, []string{"predictionHorizon", "100ms", "monitoringInterval"}},
		{"config set predictionHorizon=5", 2, []string{"predictionHorizon", `"5"`, "100ms to 1h"}},
		{"config set predictionHorizon=2h", 2, []string{"predictionHorizon", "2h", "100ms to 1h"}},
		{"config set monitoringInterval=-1s", 2, []string{"monitoringInterval", "-1s", "100ms to 1h"}},
		{"config set limits.floor=memory=2GiB limits.ceiling=memory=1GiB", 2, []string{"limits.floor", "2GiB", "limits.ceiling", "1GiB"}},
		{"config set preAllocationThreshold=cpu=-50m", 2, []string{"preAllocationThreshold", "-50m", "0 or more"}},
		{"config set preAllocationThreshold=gpu=1", 2, []string{"preAllocationThreshold", "gpu", "cpu, memory, disk, network"}},
		{"config set preAllocationThreshold=memory=16ZiB", 2, []string{"preAllocationThreshold", "16ZiB"}},
		{"config set shadow.baseResources=cpu=1m", 2, []string{"shadow.baseResources", "1m", "10m to 16 cores"}},
		{"config set shadow.baseResources=memory=1GiB", 2, []string{"shadow.baseResources", "1GiB", "shadow.maxResources"}},
		{"config set scalingPolicy=wild", 2, []string{"scalingPolicy", "wild", "fixed, proportional or step"}},
		{"config set historyRetentionPeriod=5m", 2, []string{"historyRetentionPeriod", "5m", "1h to 3650d"}},
		{"config set shortagePrice=0", 2, []string{"shortagePrice", "0.01 to"}},
		{"config set headroom=lots", 2, []string{"headroom", "lots", "0% to 1000%"}},
		{"config set onExit=keep --vm 00000000-0000-4000-8000-000000000001", 2, []string{"onExit", "global", "host"}},
		{"config set headroom=10% --vm x --host y", 2, []string{"--vm", "--host"}},
		{"config set headroom=10% --vm=", 2, []string{"--vm", "empty"}},
		{"config set headroom", 2, []string{"headroom", "KEY=VALUE"}},
		{"config set headroom=", 2, []string{"headroom", "unset"}},
		{"config set headroom=10% bogus=1", 2, []string{"bogus"}},
		{"config set", 2, []string{"KEY=VALUE"}},

		{"vm show nosuch", 3, []string{`"nosuch"`, "gnomon vm ls --all"}},
		{"vm explain nosuch", 3, []string{`"nosuch"`}},
		{"vm enroll nosuch", 3, []string{`"nosuch"`}},
		{"vm release nosuch", 3, []string{`"nosuch"`}},
		{"vm request nosuch cpu 1", 3, []string{`"nosuch"`}},
		{"vm request nosuch gpu 1", 2, []string{`"gpu"`, "cpu, memory, disk, network"}},
		{"vm request nosuch memory 4Gigs", 2, []string{`"4Gigs"`, "memory"}},
		{"vm request nosuch memory -1", 2, []string{"-1"}},
		{"vm request nosuch cpu 0", 2, []string{"0", "more than 0"}},
		{"vm request nosuch cpu 1 --ahead -5s", 2, []string{"--ahead", "-5s"}},
		{"vm request nosuch cpu 1 --ahead 5s --lifetime 1h", 2, []string{"--lifetime", "1h", "10m"}},
		{"vm request nosuch cpu 1 --ahead 2m --lifetime 1m", 2, []string{"--ahead", "2m", "--lifetime"}},
		{"vm request nosuch cpu", 2, []string{"VM RESOURCE LEVEL"}},
		{"vm explain nosuch --last 0", 2, []string{"--last", "0", "1 to 256"}},
		{"vm ls -o yaml", 2, []string{"--output", "yaml", "table or json"}},
		{"vm lss", 2, []string{"lss"}},
		{"vm ls extra", 2, []string{"argument"}},
		{"vm ls --bogus", 2, []string{"--bogus"}},
		{"vm ls --socket /nonexistent/host.sock", 4, []string{"/nonexistent/host.sock", "gnomon up"}},
		{"bogus", 2, []string{"bogus"}},
		{"shadow show nosuch", 3, []string{`"nosuch"`}},
		{"shadow suspend nosuch", 3, []string{`"nosuch"`}},
		{"shadow resume nosuch", 3, []string{`"nosuch"`}},
		{"account create a/b", 2, []string{`"a/b"`}},
		{"account create acme --host nosuch", 3, []string{`"nosuch"`}},
		{"account rm nosuch", 3, []string{`"nosuch"`}},
		{"account ls --server nowhere", 2, []string{"--server", "nowhere", "http://"}},
		{"account ls --server http://127.0.0.1:1", 4, []string{"127.0.0.1:1"}},
		{"history query cpu(", 2, []string{"parse error"}},
		{"top --interval 1ms", 2, []string{"--interval", "1ms", "100ms"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			refused(t, c.args, s.run(strings.Fields(c.args)...), c.code, c.says...)
		})
	}
	if after := s.ok(t, "config", "get"); after != before {
		t.Errorf("the configuration before\n%s\nand after\n%s", before, after)
	}
	s.outputs(t)
	daemon.stop(t)
	s.clean(t)
}

// outputs checks that every command that prints can print JSON, on a host with
// nothing on it.
func (s *system) outputs(t *testing.T) {
	t.Helper()
	for _, args := range []string{"vm ls", "vm ls --all", "shadow ls", "account ls", "host ls", "config get", "config schema"} {
		if list := get[[]map[string]any](t, s, strings.Fields(args)...); list == nil {
			t.Errorf("gnomon %s -o json: null, want a list", args)
		}
	}
	for _, args := range []string{"host status", "version", "config get headroom"} {
		if object := get[map[string]any](t, s, strings.Fields(args)...); len(object) == 0 {
			t.Errorf("gnomon %s -o json: nothing", args)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if s.ok(t, "completion", shell) == "" {
			t.Errorf("no completion for %s", shell)
		}
	}
}
