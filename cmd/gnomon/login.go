package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/server/trust"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// loginCommand is `gnomon login`.
func loginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Log in at the server's provider of identities (OpenID Connect)",
		Long: `Logs a person in: prints an address and a code, which any browser takes, and waits
until that is done. What the provider then gives is kept in
~/.config/gnomon/login.json, for this user alone, renewed as long as the
provider does so, and shown to that server and no other. A token in
GNOMON_TOKEN_FILE goes before it.

A server that other machines reach is known by the fingerprint of its fleet,
which an administrator prints with "gnomon access fleet".`,
		Example: `  gnomon login --server https://mgmt:7070 --fleet 3f1c…
  gnomon logout`,
		Args: exactArgs(),
	}
	server := serverFlag(cmd)
	fleet := cmd.Flags().String("fleet", "", "fingerprint of the fleet that the server has to be of")
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		l, err := logIn(cmd.Context(), *server, *fleet, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		var me *serverpb.WhoAmIResponse
		err = callAccess(cmd.Context(), l.Server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
			r, err := c.WhoAmI(ctx, connect.NewRequest(&serverpb.WhoAmIRequest{}))
			if err == nil {
				me = r.Msg
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("logged in at %s, but the server: %w", l.Issuer, err)
		}
		if asJSON {
			return printProto(cmd.OutOrStdout(), me)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "logged in as "+whoLine(me))
		return err
	})
	return cmd
}

// logoutCommand is `gnomon logout`.
func logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget what \"gnomon login\" keeps", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := loginPath()
			if err != nil {
				return err
			}
			said := "logged out"
			if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
				said = "nobody was logged in"
			} else if err != nil {
				return fmt.Errorf("log out: %w", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
			return err
		},
	}
}

// login is what is kept of somebody who logged in.
type login struct {
	Server  string    `json:"server"` // which alone is shown the token
	Fleet   string    `json:"fleet,omitempty"`
	Issuer  string    `json:"issuer"`
	Client  string    `json:"client_id"`
	Scopes  []string  `json:"scopes"`
	Token   string    `json:"id_token"`
	Refresh string    `json:"refresh_token,omitempty"`
	Expires time.Time `json:"expires"`
}

func loginPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", usagef("log in: %w", err)
	}
	return filepath.Join(dir, "gnomon", "login.json"), nil
}

// loginFor returns who is logged in at a server; nil for nobody.
func loginFor(server string) (*login, error) {
	path, err := loginPath()
	if err != nil {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read login: %w", err)
	}
	var l login
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("read login: %s: %w: log in again (gnomon login)", path, err)
	}
	if l.Server != server {
		return nil, nil
	}
	return &l, nil
}

// save keeps the login where this user alone can read it.
func (l *login) save() error {
	path, err := loginPath()
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep login: %w", err)
	}
	if err := renameio.WriteFile(path, b, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("keep login: %w", err)
	}
	return nil
}

// logIn has somebody log in at the provider of a server, and keeps what it gives.
func logIn(ctx context.Context, server, fleet string, tell io.Writer) (*login, error) {
	if err := checkServer(server); err != nil {
		return nil, err
	}
	l := &login{Server: server, Fleet: strings.ToLower(fleet)}
	switch {
	case strings.HasPrefix(server, unixScheme):
		return nil, usagef("--server %s: who may open the server's socket needs no login", server)
	case strings.HasPrefix(server, "https://") && fleet == "":
		return nil, usagef("--fleet: want the fingerprint of the server's fleet: an administrator prints it with \"gnomon access fleet\"")
	case strings.HasPrefix(server, "http://") && !loopback(server):
		return nil, usagef("--server %s: a login is not sent without TLS, except to this machine", server)
	}
	asking, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	how, err := serverpbconnect.NewAccessServiceClient(l.client(), server).DescribeLogin(asking, connect.NewRequest(&serverpb.DescribeLoginRequest{}))
	if err != nil {
		return nil, unreached(server, err)
	}
	if l.Issuer, l.Client, l.Scopes = how.Msg.GetIssuer(), how.Msg.GetClientId(), how.Msg.GetScopes(); l.Issuer == "" {
		return nil, usagef("the server %s has no provider of identities: have it started with --oidc-issuer, or use a token (gnomon access create)", server)
	}
	p, err := l.provider(asking)
	if err != nil {
		return nil, err
	}
	if p.Config.Endpoint.DeviceAuthURL == "" {
		return nil, fmt.Errorf("the provider %s has no device authorization: allow it for the client %q", l.Issuer, l.Client)
	}
	code, err := p.DeviceAuth(asking)
	if err != nil {
		return nil, fmt.Errorf("log in at %s: %w", l.Issuer, err)
	}
	where := code.VerificationURI
	if code.VerificationURIComplete != "" {
		where = code.VerificationURIComplete
	}
	fmt.Fprintf(tell, "Open %s in a browser and confirm the code %s\n", where, code.UserCode)
	token, err := p.DeviceAccessToken(ctx, code)
	if err != nil {
		return nil, fmt.Errorf("log in at %s: %w", l.Issuer, err)
	}
	if err := l.take(ctx, p, token); err != nil {
		return nil, err
	}
	return l, l.save()
}

// client reaches the login's server, without the login.
func (l *login) client() *http.Client {
	if l.Fleet == "" {
		return hostlink.NewHTTPClient(nil)
	}
	return hostlink.NewHTTPClient(trust.PinnedTLS(l.Fleet, nil, nil))
}

// provider is a provider of identities, and how it is used.
type provider struct {
	*oidc.Provider
	oauth2.Config
}

// provider asks the provider how it is used.
func (l *login) provider(ctx context.Context) (*provider, error) {
	p, err := oidc.NewProvider(ctx, l.Issuer)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("the provider of identities %s: %w", l.Issuer, err))
	}
	return &provider{p, oauth2.Config{ClientID: l.Client, Endpoint: p.Endpoint(), Scopes: l.Scopes}}, nil
}

// take takes over what the provider gave.
func (l *login) take(ctx context.Context, p *provider, t *oauth2.Token) error {
	text, ok := t.Extra("id_token").(string)
	if !ok {
		return fmt.Errorf("the provider %s gave no ID token", l.Issuer)
	}
	id, err := p.VerifierContext(ctx, &oidc.Config{ClientID: l.Client}).Verify(ctx, text)
	if err != nil {
		return fmt.Errorf("what the provider %s gave is no good: %w", l.Issuer, err)
	}
	l.Token, l.Expires = text, id.Expiry
	if t.RefreshToken != "" {
		l.Refresh = t.RefreshToken
	}
	return nil
}

// renewAhead is how long before its end a login is renewed.
const renewAhead = 30 * time.Second

// current returns the token to show, a later one if the last is at its end.
func (l *login) current(ctx context.Context) (string, error) {
	if time.Until(l.Expires) > renewAhead || l.Refresh == "" {
		return l.Token, nil // the server tells if it is too old
	}
	p, err := l.provider(ctx)
	if err != nil {
		return "", err
	}
	t, err := p.TokenSource(ctx, &oauth2.Token{RefreshToken: l.Refresh}).Token()
	if err != nil {
		return "", connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("your login at %s has ended: log in again (gnomon login): %w", l.Issuer, err))
	}
	if err := l.take(ctx, p, t); err != nil {
		return "", err
	}
	return l.Token, l.save()
}

// withLogin adds a login to requests.
type withLogin struct {
	http.RoundTripper
	mu sync.Mutex
	l  *login
}

// RoundTrip implements http.RoundTripper.
func (w *withLogin) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	text, err := w.l.current(r.Context())
	w.mu.Unlock()
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+text)
	return w.RoundTripper.RoundTrip(r)
}
