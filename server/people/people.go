// Package people finds out who a person is, and what they may do, by the ID
// token of an OpenID Connect provider.
package people

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/gnomon-vm/gnomon/server/access"
)

// Provider is an OpenID Connect provider, and what its people may do.
type Provider struct {
	Issuer string // its URL, as its tokens have it; https, or http on this machine
	Client string // the id that it knows gnomon by, which its tokens are to be for

	// Claim is the claim of a token that says what its holder may do: a text or a
	// list of texts. Grants says what each of those is worth; others are worth
	// nothing.
	Claim  string
	Grants map[string]Grant
}

// Grant is what somebody may do.
type Grant struct {
	Role    access.Role
	Account string // with the role viewer, the only account they see; empty for all
}

// ParseGrant reads a role, or viewer:ACCOUNT.
func ParseGrant(text string) (Grant, error) {
	name, account, one := strings.Cut(text, ":")
	role, err := access.ParseRole(name)
	if err != nil {
		return Grant{}, err
	}
	if one && (role != access.Viewer || account == "") {
		return Grant{}, fmt.Errorf("%q: want viewer:ACCOUNT: who sees one account only is a viewer", text)
	}
	return Grant{role, account}, nil
}

// Check returns what is wrong with how the provider is described.
func (p Provider) Check() error {
	u, err := url.Parse(p.Issuer)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())):
		return fmt.Errorf("issuer %q: want the https address of an OpenID Connect provider", p.Issuer)
	case p.Client == "":
		return errors.New("client id: none is given: want the one that the provider knows gnomon by")
	case p.Claim == "":
		return errors.New("claim: none is given: want the one that holds people's groups or roles")
	case len(p.Grants) == 0:
		return errors.New("roles: none is given: want what the groups of the provider may do, such as sre=admin")
	}
	return nil
}

// Scopes are what a program asks the provider for when somebody logs in: who they
// are, and to stay logged in.
func Scopes() []string {
	return []string{oidc.ScopeOpenID, "profile", "email", "groups", oidc.ScopeOfflineAccess}
}

// ErrUnavailable is returned while the provider cannot be asked for its keys.
var ErrUnavailable = errors.New("the provider of identities does not answer")

const (
	// askTimeout bounds a request to the provider.
	askTimeout = 5 * time.Second

	// askPause is the least between attempts to reach a provider that is away.
	askPause = 2 * time.Second

	// skew is how far the provider's clock and this one may be apart.
	skew = time.Minute
)

// Verifier knows people by their tokens. It may be used concurrently.
type Verifier struct {
	Provider
	http *http.Client
	now  func() time.Time

	mu     sync.Mutex
	found  *oidc.IDTokenVerifier // nil until the provider has answered
	failed error                 // why it did not
	asked  time.Time
}

// New returns a verifier of the provider's tokens, which is asked when the first
// comes. The error is that of Check.
func New(p Provider) (*Verifier, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	return &Verifier{Provider: p, http: &http.Client{Timeout: askTimeout}, now: time.Now}, nil
}

// verifier returns what checks tokens, and asks the provider for its keys' place
// if that is not known yet.
func (v *Verifier) verifier() (*oidc.IDTokenVerifier, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.found != nil {
		return v.found, nil
	}
	if v.failed != nil && v.now().Sub(v.asked) < askPause {
		return nil, v.failed
	}
	// It lives longer than who asks first.
	p, err := oidc.NewProvider(oidc.ClientContext(context.Background(), v.http), v.Issuer)
	if v.asked = v.now(); err != nil {
		v.failed = fmt.Errorf("%w: %s: %w", ErrUnavailable, v.Issuer, err)
		return nil, v.failed
	}
	v.found = p.Verifier(&oidc.Config{ClientID: v.Client, Now: func() time.Time { return v.now().Add(-skew) }})
	return v.found, nil
}

// Looks tells whether a text has the form of such a token.
func Looks(text string) bool { return strings.Count(text, ".") == 2 }

// Caller returns whose token it is, as the log of changes is to have them, and
// what they may do. The error tells what is wrong with the token and never
// repeats it; it wraps ErrUnavailable where the provider has to be asked and does
// not answer.
func (v *Verifier) Caller(ctx context.Context, token string) (access.Caller, error) {
	verifier, err := v.verifier()
	if err != nil {
		return access.Caller{}, err
	}
	t, err := verifier.Verify(ctx, token)
	if err != nil {
		return access.Caller{}, v.explain(err)
	}
	if early := t.IssuedAt.Sub(v.now()); early > skew {
		return access.Caller{}, fmt.Errorf("the token is of %s, which is still to come: set the clocks of the provider and of the server right", t.IssuedAt.UTC().Format(time.RFC3339))
	}
	var claims map[string]any
	if err := t.Claims(&claims); err != nil {
		return access.Caller{}, fmt.Errorf("the token's claims cannot be read: %w", err)
	}
	name, err := nameOf(t.Subject, claims)
	if err != nil {
		return access.Caller{}, err
	}
	grant, err := v.grant(claims)
	if err != nil {
		return access.Caller{}, fmt.Errorf("%s: %w", name, err)
	}
	return access.Caller{Name: name, Role: grant.Role, Account: grant.Account}, nil
}

// explain says what is wrong with a token in words that tell what to do.
func (v *Verifier) explain(err error) error {
	var expired *oidc.TokenExpiredError
	switch text := err.Error(); {
	case errors.As(err, &expired):
		return fmt.Errorf("the token has expired at %s: log in again (gnomon login), or see that the clocks are right; here it is %s",
			expired.Expiry.UTC().Format(time.RFC3339), v.now().UTC().Format(time.RFC3339))
	case strings.Contains(text, "fetching keys"):
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, v.Issuer, err)
	case strings.Contains(text, "issued by a different provider"):
		return fmt.Errorf("the token is of another provider than %s: %w", v.Issuer, err)
	case strings.Contains(text, "expected audience"):
		return fmt.Errorf("the token is for another program than %q: %w", v.Client, err)
	case strings.Contains(text, "nbf"):
		return fmt.Errorf("the token is not good yet: set the clocks of the provider and of the server right: %w", err)
	case strings.Contains(text, "verify") && strings.Contains(text, "signature"):
		return fmt.Errorf("the token is not signed by a key of %s: %w", v.Issuer, err)
	}
	return fmt.Errorf("the token is not one of %s: %w", v.Issuer, err)
}

// maxName bounds a subject, and a name, in bytes: as the specification has it.
const maxName = 255

// nameOf is how the log of changes has somebody: by the subject, which the
// provider gives to nobody else, ever, with the name they go by.
func nameOf(subject string, claims map[string]any) (string, error) {
	if !printable(subject) {
		return "", fmt.Errorf("the token's subject: want 1 to %d bytes of printable text", maxName)
	}
	for _, claim := range []string{"email", "preferred_username", "name"} {
		if known, ok := claims[claim].(string); ok && printable(known) && known != subject {
			return fmt.Sprintf("person %s (%s)", subject, known), nil
		}
	}
	return "person " + subject, nil
}

func printable(s string) bool {
	return s != "" && len(s) <= maxName && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0
}

// grant returns the most of what the holder's groups are worth.
func (v *Verifier) grant(claims map[string]any) (Grant, error) {
	groups := texts(claims[v.Claim])
	role, accounts := access.None, map[string]bool{}
	for _, g := range groups {
		next := v.Grants[g]
		if next.Role > role {
			role, accounts = next.Role, map[string]bool{}
		}
		if next.Role == role {
			accounts[next.Account] = true
		}
	}
	switch {
	case role == access.None:
		return Grant{}, fmt.Errorf("none of the values of the claim %q, which are %q, has a role here", v.Claim, groups)
	case accounts[""]:
		return Grant{Role: role}, nil
	case len(accounts) > 1:
		return Grant{}, fmt.Errorf("the claim %q gives the accounts %s: want one, or viewer of all", v.Claim, strings.Join(slices.Sorted(maps.Keys(accounts)), " and "))
	}
	return Grant{role, slices.Collect(maps.Keys(accounts))[0]}, nil
}

// texts returns a claim that is a text, or a list of them.
func texts(claim any) []string {
	switch c := claim.(type) {
	case string:
		return []string{c}
	case []any:
		var all []string
		for _, e := range c {
			if s, ok := e.(string); ok {
				all = append(all, s)
			}
		}
		return all
	}
	return nil
}
