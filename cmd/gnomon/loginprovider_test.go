package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// publicStorage is the storage of a provider to which gnomon is a public client:
// one without a secret.
type publicStorage struct{ *storage.Storage }

func (s publicStorage) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	return publicClient{c}, err
}

type publicClient struct{ op.Client }

func (publicClient) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }
func (publicClient) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodNone }

// The login works with a provider that others have written.
func TestLoginAtAProviderOfOthers(t *testing.T) {
	web := httptest.NewUnstartedServer(nil)
	issuer := "http://" + web.Listener.Addr().String()
	storage.RegisterClients(storage.DeviceClient("gnomon", ""))
	people := publicStorage{storage.NewStorage(storage.NewUserStore(issuer))}
	before := slog.Default()
	defer slog.SetDefault(before)
	web.Config.Handler = exampleop.SetupServer(issuer, people, slog.New(slog.DiscardHandler), false, op.WithAllowInsecure())
	web.Start()
	defer web.Close()

	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv(tokenFileEnv, "")
	data := t.TempDir()
	c, _, _ := startCentral(t, &centralFlags{dataDir: data, tls: true, people: peopleFlags{
		issuer: issuer, client: "gnomon", claim: "sub", roles: []string{"id1=operator"}}}, slog.New(slog.DiscardHandler))
	fleet, err := gnomonCommand("access", "fleet", "--server", unixScheme+filepath.Join(data, serverSocket))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNOMON_SERVER", c.url())

	var said safeBuffer
	root := rootCommand()
	root.SetOut(&said)
	root.SetErr(&said)
	root.SetArgs([]string{"login", "--fleet", strings.TrimSpace(fleet)})
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(t.Context()) }()
	page := regexp.MustCompile(`Open (\S+) in a browser and confirm the code (\S+)\n`)
	within(t, time.Minute, "the address to open", func() bool { return page.MatchString(said.String()) })
	found := page.FindStringSubmatch(said.String())
	res, err := http.Get(found[1])
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("the page %s: %v, %v", found[1], res, err)
	}
	res.Body.Close()
	if err := people.CompleteDeviceAuthorization(t.Context(), found[2], "id1"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || !strings.HasSuffix(said.String(), "logged in as person id1, operator\n") {
		t.Fatalf("login: %v, %s", err, said.String())
	}
	if _, err := gnomonCommand("config", "set", "hold=3s"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "gnomon", "login.json")); err != nil {
		t.Error(err)
	}
}
