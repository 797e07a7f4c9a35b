// Package peopletest is an OpenID Connect provider for tests: real discovery, keys
// and tokens over HTTP, with one person, who agrees to everything.
package peopletest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Provider is a provider that runs.
type Provider struct {
	URL string // its issuer

	t   testing.TB
	web *httptest.Server

	mu      sync.Mutex
	key     jose.JSONWebKey
	claims  map[string]any
	life    time.Duration
	asked   int  // for its keys
	agreed  bool // by the person who logs in
	refresh string
}

// Client is the id that the provider knows gnomon by.
const Client = "gnomon"

// Start starts a provider whose person has these claims. Its tokens are good
// for an hour.
func Start(t testing.TB, claims map[string]any) *Provider {
	t.Helper()
	p := &Provider{t: t, claims: claims, life: time.Hour}
	p.Rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("POST /device", p.device)
	mux.HandleFunc("GET /agree", p.agree)
	mux.HandleFunc("POST /token", p.token)
	p.web = httptest.NewServer(mux)
	p.URL = p.web.URL
	t.Cleanup(p.web.Close)
	return p
}

// Stop ends it: nobody answers any more.
func (p *Provider) Stop() { p.web.Close() }

// Rotate has the provider sign with a new key, and forget the last one.
func (p *Provider) Rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key = jose.JSONWebKey{Key: key, KeyID: rand.Text(), Algorithm: string(jose.ES256), Use: "sig"}
}

// Asked returns how often the provider was asked for its keys.
func (p *Provider) Asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// SetLife changes for how long tokens are good from now on.
func (p *Provider) SetLife(life time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.life = life
}

// Token returns a token of the person's, with some claims changed.
func (p *Provider) Token(change map[string]any) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		p.t.Error(err)
		return ""
	}
	now := time.Now()
	claims := map[string]any{"iss": p.URL, "aud": Client, "iat": now.Unix(), "exp": now.Add(p.life).Unix()}
	maps.Copy(claims, p.claims)
	maps.Copy(claims, change)
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		p.t.Error(err)
	}
	return text
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{
		"issuer": p.URL, "jwks_uri": p.URL + "/keys", "token_endpoint": p.URL + "/token",
		"device_authorization_endpoint": p.URL + "/device", "authorization_endpoint": p.URL + "/none",
		"id_token_signing_alg_values_supported": []string{"RS256", "ES256"},
	})
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{p.key.Public()}})
}

func (p *Provider) device(w http.ResponseWriter, r *http.Request) {
	if r.PostFormValue("client_id") != Client {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"device_code": "device", "user_code": "ABCD-EFGH", "verification_uri": p.URL + "/agree", "expires_in": 600, "interval": 1,
	})
}

// agree is the page that the person opens.
func (p *Provider) agree(http.ResponseWriter, *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.agreed = true
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	agreed, refresh := p.agreed, p.refresh
	p.mu.Unlock()
	switch grant := r.PostFormValue("grant_type"); {
	case grant == "refresh_token" && (refresh == "" || r.PostFormValue("refresh_token") != refresh):
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	case grant != "refresh_token" && !agreed:
		answer(w, http.StatusBadRequest, map[string]any{"error": "authorization_pending"})
		return
	}
	text := p.Token(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh = rand.Text()
	answer(w, http.StatusOK, map[string]any{
		"access_token": "opaque", "token_type": "Bearer", "expires_in": int(p.life.Seconds()), "refresh_token": p.refresh, "id_token": text,
	})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
