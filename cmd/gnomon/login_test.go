package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/server/people/peopletest"
)

// Somebody logs in with a browser, works as what their groups are worth, and the
// log of changes has them. The login is renewed, and goes to its server alone.
func TestLogin(t *testing.T) {
	provider := peopletest.Start(t, map[string]any{"sub": "248289", "email": "ann@example.com", "groups": []string{"staff", "ops"}})
	data, config := t.TempDir(), t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	t.Setenv(tokenFileEnv, "")
	c, _, _ := startCentral(t, &centralFlags{dataDir: data, tls: true, people: peopleFlags{
		issuer: provider.URL, client: peopletest.Client, claim: "groups", roles: []string{"ops=operator"}}}, slog.New(slog.DiscardHandler))
	socket := unixScheme + filepath.Join(data, serverSocket)
	run, fails := commands(t)
	fleet := strings.TrimSpace(run("access", "fleet", "--server", socket))
	t.Setenv("GNOMON_SERVER", c.url())
	fails(exitUsage, "--fleet: want the fingerprint", "login")
	fails(exitUnavailable, "another fleet", "login", "--fleet", strings.Repeat("0", 64))
	fails(exitUsage, "needs no login", "login", "--server", socket)

	var said safeBuffer
	root := rootCommand()
	root.SetOut(&said)
	root.SetErr(&said)
	root.SetArgs([]string{"login", "--fleet", fleet})
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(context.Background()) }()
	page := regexp.MustCompile(`Open (\S+) in a browser and confirm the code ABCD-EFGH\n`)
	within(t, time.Minute, "the address to open", func() bool { return page.MatchString(said.String()) })
	res, err := http.Get(page.FindStringSubmatch(said.String())[1])
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if err := <-done; err != nil || !strings.HasSuffix(said.String(), "logged in as person 248289 (ann@example.com), operator\n") {
		t.Fatalf("login: %v, %s", err, said.String())
	}

	path := filepath.Join(config, "gnomon", "login.json")
	kept := func() string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		return string(b)
	}
	first := kept()
	run("config", "set", "hold=3s")
	run("history", "query", "vector(1)")
	fails(exitDenied, "takes admin", "audit")
	if out := run("audit", "--server", socket); !strings.Contains(out, "person 248289 (ann@example.com)") {
		t.Errorf("the log of changes:\n%s", out)
	}
	if kept() != first {
		t.Error("a login that is good was renewed")
	}
	if l, err := loginFor("https://127.0.0.1:1"); l != nil || err != nil {
		t.Errorf("another server is shown %v, %v", l, err)
	}

	// What is near its end is renewed.
	provider.SetLife(renewAhead / 2)
	run("login", "--fleet", fleet)
	short := kept()
	provider.SetLife(time.Hour)
	run("access", "whoami")
	if kept() == short {
		t.Error("a login at its end was not renewed")
	}

	// A token goes before a login.
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(run("access", "create", "bob", "--server", socket)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(tokenFileEnv, token)
	if out := run("access", "whoami"); out != "token bob, viewer\n" {
		t.Errorf("with a token: %s", out)
	}
	t.Setenv(tokenFileEnv, "")

	for _, want := range []string{"logged out\n", "nobody was logged in\n"} {
		if out := run("logout"); out != want {
			t.Errorf("logout printed %q, want %q", out, want)
		}
	}
	fails(exitUnavailable, "certificate", "access", "whoami")
}

func TestNoProvider(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv(tokenFileEnv, "")
	_, url, _ := startCentral(t, &centralFlags{dataDir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if _, err := gnomonCommand("login", "--server", url); err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), "--oidc-issuer") {
		t.Errorf("login: %v", err)
	}
	for want, f := range map[string]peopleFlags{
		"want --oidc-issuer":   {roles: []string{"a=admin"}},
		"want VALUE=ROLE":      {issuer: "https://id", client: "gnomon", claim: "groups", roles: []string{"admin"}},
		`role "root"`:          {issuer: "https://id", client: "gnomon", claim: "groups", roles: []string{"a=root"}},
		"want the https":       {issuer: "http://id", client: "gnomon", claim: "groups", roles: []string{"a=admin"}},
		"roles: none is given": {issuer: "https://id", client: "gnomon", claim: "groups"},
	} {
		if p, err := f.provider(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, %v; want %q", f, p, err, want)
		}
	}
	f := peopleFlags{issuer: "https://id", client: "gnomon", claim: "groups", roles: []string{"cn=ops,dc=x=operator"}}
	if p, err := f.provider(); err != nil || p.Grants["cn=ops,dc=x"].Role.String() != "operator" {
		t.Errorf("%+v, %v", p, err)
	}
}
