package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// As an operator does it: a token from the server's socket, a host that joins
// with it, and then people with tokens of their own.
func TestJoinByTheCommandLine(t *testing.T) {
	data, state := t.TempDir(), t.TempDir()
	var log safeBuffer
	c, _, _ := startCentral(t, &centralFlags{dataDir: data, tls: true}, slog.New(slog.NewTextHandler(&log, nil)))
	t.Setenv("GNOMON_SERVER", unixScheme+filepath.Join(data, serverSocket))
	run, fails := commands(t)
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}

	token := run("server", "token", "create", "--host", "node1")
	path := file("join", token)
	join := []string{"host", "join", "--server", c.url(), "--state-dir", state, "--token-file", path, "--name"}
	fails(exitDenied, `is for host "node1", not "node2"`, append(join, "node2")...)
	if out := run(append(join, "node1")...); !strings.HasPrefix(out, "host node1 joined") {
		t.Errorf("it said %q", out)
	}
	servers, err := findServers("", &daemonFlags{stateDir: state, name: "elsewhere"}, false)
	if err != nil || len(servers.URLs) != 1 || servers.URLs[0] != c.url() || servers.Identity.Host() != "node1" {
		t.Errorf("the daemon finds %+v, %v", servers, err)
	}
	if _, err := findServers("", &daemonFlags{stateDir: state, name: "elsewhere"}, true); err == nil || !strings.Contains(err.Error(), `joined as "node1"`) {
		t.Errorf("by another name: %v", err)
	}
	if _, err := findServers(c.url(), &daemonFlags{stateDir: t.TempDir()}, false); err == nil || !strings.Contains(err.Error(), "has not joined a fleet") {
		t.Errorf("a host that has not joined: %v", err)
	}
	fails(exitUsage, "seen by every user", "host", "join", strings.TrimSpace(token))
	fails(exitUsage, "joins over TLS", "host", "join", "--server", "http://127.0.0.1:1", "--token-file", path)
	fails(exitUsage, "not a token", "host", "join", "--server", c.url(), "--token-file", file("x", "x"))

	viewer := file("viewer", run("access", "create", "alice"))
	t.Setenv("GNOMON_SERVER", c.url())
	fails(exitUnavailable, `certificate signed by unknown authority: a login or a token says`, "host", "ls") // without a token there is no trust in the authority
	t.Setenv("GNOMON_TOKEN_FILE", viewer)
	if out := run("access", "whoami"); out != "token alice, viewer\n" {
		t.Errorf("whoami: %q", out)
	}
	run("host", "ls")
	run("history", "query", "vector(1)")
	fails(exitDenied, "takes operator", "config", "set", "hold=3s")
	fails(exitDenied, "takes admin", "audit")

	t.Setenv("GNOMON_SERVER", unixScheme+filepath.Join(data, serverSocket))
	run("host", "revoke", "node1")
	if out := run("audit"); !strings.Contains(out, "RevokeHost") || !strings.Contains(out, "host node1 with join token") || strings.Contains(out, strings.Split(token, "-")[2]) {
		t.Errorf("the log of changes:\n%s", out)
	}
	if out := run("server", "token", "ls"); !strings.Contains(out, "used by node1") {
		t.Errorf("token ls:\n%s", out)
	}
	if strings.Contains(log.String(), strings.Split(token, "-")[2]) {
		t.Error("the secret is in the server's log")
	}
}
