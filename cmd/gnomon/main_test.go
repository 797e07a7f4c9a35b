package main

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

func TestMisspeltCommands(t *testing.T) {
	_, fails := commands(t)
	for line, want := range map[string]string{
		"vms":                 `unknown command "vms", did you mean vm?; see "gnomon --help"`,
		"vm lss":              `unknown command "lss", did you mean ls?; see "gnomon vm --help"`,
		"lab comp":            `did you mean compare?`,
		"nothing-like-it":     `unknown command "nothing-like-it"; see "gnomon --help"`,
		"host lss":            `did you mean ls?`,
		"help vms":            `did you mean vm?`,
		"help vm lss":         `see "gnomon vm --help"`,
		"completion basch":    `did you mean bash?`,
		"server token nosuch": `see "gnomon server token --help"`,
	} {
		fails(exitUsage, want, strings.Fields(line)...)
	}
}

// A file that is named and cannot be read is a wrong value, whatever it is for.
func TestUnreadableFiles(t *testing.T) {
	_, fails := commands(t)
	for _, line := range []string{
		"apply -f /nowhere", "diff -f /nowhere", "vm deploy -f /nowhere", "lab compare /nowhere /nowhere",
		"host join --server https://127.0.0.1:1 --token-file /nowhere",
		"server --etcd-endpoints https://127.0.0.1:1 --etcd-cacert /nowhere",
	} {
		fails(exitUsage, "/nowhere", strings.Fields(line)...)
	}
}

func TestServerFlags(t *testing.T) {
	_, fails := commands(t)
	fails(exitUsage, `--listen "7070": want ADDRESS:PORT, such as 127.0.0.1:7070`, "server", "--listen", "7070")
	fails(exitUsage, "want one of them, not both", "server", "--tls", "--insecure")
}

func TestDurations(t *testing.T) {
	_, fails := commands(t)
	t.Setenv("GNOMON_SERVER", "http://127.0.0.1:1")
	for _, text := range []string{"7d", "2w", "36h", "1d12h"} {
		fails(exitUnavailable, "reach the server", "audit", "--last", text)
	}
	for _, text := range []string{"7", "-1h", "soon"} {
		fails(exitUsage, `for "--last" flag: want a duration with a unit, such as 500ms, 10s, 1h30m, 15d or 2w, and 0 or more`, "audit", "--last", text)
	}
}

func TestHelp(t *testing.T) {
	run, _ := commands(t)
	for _, line := range []string{"help vm show", "vm show --help"} {
		if out := run(strings.Fields(line)...); !strings.Contains(out, "gnomon vm show VM [flags]") {
			t.Errorf("gnomon %s printed:\n%s", line, out)
		}
	}
	for _, line := range []string{"", "help", "--help"} {
		if out := run(strings.Fields(line)...); !strings.Contains(out, "Run it:") {
			t.Errorf("gnomon %s printed:\n%s", line, out)
		}
	}
}

// full is a disk that has no room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// What could not be printed is told, whoever printed it.
func TestOutputOnAFullDisk(t *testing.T) {
	for _, line := range []string{"--help", "version", "config schema", "history rules"} {
		root := rootCommand()
		root.SetArgs(strings.Fields(line))
		root.SetOut(full{})
		if err := runCommand(t.Context(), root); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("gnomon %s: %v, want %v", line, err, syscall.ENOSPC)
		}
	}
}
