package people

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/gnomon-vm/gnomon/server/people/peopletest"
)

func verifierOf(t *testing.T, p *peopletest.Provider) *Verifier {
	t.Helper()
	v, err := New(Provider{Issuer: p.URL, Client: peopletest.Client, Claim: "groups", Grants: map[string]Grant{
		"sre": {Role: access.Admin}, "ops": {Role: access.Operator}, "all": {Role: access.Viewer},
		"acme": {access.Viewer, "acme"}, "beta": {access.Viewer, "beta"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWhoSomebodyIs(t *testing.T) {
	p := peopletest.Start(t, map[string]any{"sub": "248289", "email": "ann@example.com"})
	v := verifierOf(t, p)
	const ann = "person 248289 (ann@example.com)"
	for name, c := range map[string]struct {
		groups any
		want   access.Caller
		says   string
	}{
		"one text":          {"ops", access.Caller{Name: ann, Role: access.Operator}, ""},
		"the most counts":   {[]string{"all", "acme", "beta", "sre", "ops"}, access.Caller{Name: ann, Role: access.Admin}, ""},
		"one account":       {[]string{"guests", "acme"}, access.Caller{Name: ann, Role: access.Viewer, Account: "acme"}, ""},
		"all rather":        {[]string{"acme", "all", "beta"}, access.Caller{Name: ann, Role: access.Viewer}, ""},
		"two accounts":      {[]string{"beta", "acme"}, access.Caller{}, "gives the accounts acme and beta"},
		"other groups":      {[]string{"guests"}, access.Caller{}, ann + `: none of the values of the claim "groups", which are ["guests"], has a role`},
		"no groups":         {nil, access.Caller{}, "has a role"},
		"groups of another": {map[string]any{"sre": true}, access.Caller{}, "has a role"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.Caller(t.Context(), p.Token(map[string]any{"groups": c.groups}))
			if got != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %+v, %v; want %+v, %q", got, err, c.want, c.says)
			}
		})
	}
	if n := p.Asked(); n != 1 {
		t.Errorf("the provider was asked %d times for its keys", n)
	}
}

func TestNames(t *testing.T) {
	p := peopletest.Start(t, map[string]any{"groups": "sre"})
	v := verifierOf(t, p)
	for name, c := range map[string]struct {
		claims map[string]any
		want   string
	}{
		"a subject":           {map[string]any{"sub": "ann"}, "person ann"},
		"a name that lies":    {map[string]any{"sub": "ann", "email": "a\nb", "name": "Ann"}, "person ann (Ann)"},
		"no subject":          {map[string]any{}, ""},
		"not printable":       {map[string]any{"sub": "a\x1b[2J"}, ""},
		"longer than allowed": {map[string]any{"sub": strings.Repeat("a", 256)}, ""},
	} {
		got, err := v.Caller(t.Context(), p.Token(c.claims))
		if got.Name != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got.Name, err, c.want)
		}
	}
}

// Each thing that can be wrong with a token is told apart, and the token is in
// no error.
func TestBadTokens(t *testing.T) {
	p := peopletest.Start(t, map[string]any{"sub": "ann", "groups": "sre"})
	other := peopletest.Start(t, map[string]any{"sub": "ann", "groups": "sre"})
	v := verifierOf(t, p)
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	good := p.Token(nil)
	for name, c := range map[string]struct {
		token string
		says  string // empty if it is good
	}{
		"good":                          {good, ""},
		"of another provider":           {p.Token(map[string]any{"iss": other.URL}), "of another provider than " + p.URL},
		"signed by another provider":    {other.Token(map[string]any{"iss": p.URL}), "not signed by a key of " + p.URL},
		"for another program":           {p.Token(map[string]any{"aud": "wiki"}), `for another program than "gnomon"`},
		"for several programs":          {p.Token(map[string]any{"aud": []string{"wiki", "gnomon"}}), ""},
		"expired":                       {p.Token(map[string]any{"exp": at(-time.Hour)}), "has expired at"},
		"expired by less than the skew": {p.Token(map[string]any{"exp": at(-skew / 2)}), ""},
		"of a clock that is ahead":      {p.Token(map[string]any{"iat": at(time.Hour), "exp": at(2 * time.Hour)}), "still to come: set the clocks"},
		"of a clock a little ahead":     {p.Token(map[string]any{"iat": at(skew / 2)}), ""},
		"not good yet":                  {p.Token(map[string]any{"nbf": at(time.Hour)}), "not good yet"},
		"changed":                       {good[:len(good)-8] + "AAAAAAAA", "not signed by a key of"},
		"without a signature":           {"eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".", "not one of " + p.URL},
		"no token":                      {"a.b.c", "not one of " + p.URL},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.Caller(t.Context(), c.token)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v, %v; want %q", got, err, c.says)
			}
			if err != nil && (got != access.Caller{} || strings.Contains(err.Error(), c.token) || errors.Is(err, ErrUnavailable)) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestKeysAreReplaced(t *testing.T) {
	p := peopletest.Start(t, map[string]any{"sub": "ann", "groups": "sre"})
	v := verifierOf(t, p)
	before := p.Token(nil)
	if _, err := v.Caller(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	p.Rotate()
	if _, err := v.Caller(t.Context(), p.Token(nil)); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
	if _, err := v.Caller(t.Context(), before); err == nil || !strings.Contains(err.Error(), "not signed by a key") {
		t.Errorf("a token of the key that was withdrawn: %v", err)
	}
	p.Stop()
	p.Rotate()
	if _, err := v.Caller(t.Context(), p.Token(nil)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a new key of a provider that is away: %v", err)
	}
}

// A provider that is away at first is found later, and not asked all the time.
func TestProviderComesLate(t *testing.T) {
	p := peopletest.Start(t, map[string]any{"sub": "ann", "groups": "sre"})
	v := verifierOf(t, p)
	now := time.Now()
	v.now = func() time.Time { return now }
	v.Issuer = "http://127.0.0.1:1"
	if _, err := v.Caller(t.Context(), p.Token(nil)); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), v.Issuer) {
		t.Errorf("no provider: %v", err)
	}
	v.Issuer = p.URL
	if _, err := v.Caller(t.Context(), p.Token(nil)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("within the pause: %v", err)
	}
	now = now.Add(askPause)
	if _, err := v.Caller(t.Context(), p.Token(nil)); err != nil {
		t.Errorf("after the pause: %v", err)
	}
}

func TestCheck(t *testing.T) {
	good := Provider{Issuer: "https://id.example.com/realms/x", Client: "gnomon", Claim: "groups", Grants: map[string]Grant{"a": {Role: access.Viewer}}}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for says, change := range map[string]func(*Provider){
		`issuer "http://id.example.com"`: func(p *Provider) { p.Issuer = "http://id.example.com" },
		`issuer "id.example.com"`:        func(p *Provider) { p.Issuer = "id.example.com" },
		"client id":                      func(p *Provider) { p.Client = "" },
		"claim":                          func(p *Provider) { p.Claim = "" },
		"roles":                          func(p *Provider) { p.Grants = nil },
	} {
		bad := good
		change(&bad)
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	for text, want := range map[string]Grant{"admin": {Role: access.Admin}, "viewer:acme": {access.Viewer, "acme"}} {
		if got, err := ParseGrant(text); got != want || err != nil {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "root", "operator:acme", "viewer:"} {
		if g, err := ParseGrant(text); err == nil {
			t.Errorf("%q is %+v", text, g)
		}
	}
}
