package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/gnomon-vm/gnomon/server/people"
)

// peopleFlags say whose people may log in at the server.
type peopleFlags struct {
	issuer, client, claim string
	roles                 []string
}

func (f *peopleFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.issuer, "oidc-issuer", "", "address of an OpenID Connect provider whose people may log in (gnomon login)")
	fl.StringVar(&f.client, "oidc-client-id", "gnomon", "id that the provider knows gnomon by, as a public client with device authorization")
	fl.StringVar(&f.claim, "oidc-claim", "groups", "claim of the provider's ID tokens that says what somebody may do")
	fl.StringArrayVar(&f.roles, "oidc-role", nil, "what a value of that claim is worth: VALUE=viewer, VALUE=viewer:ACCOUNT, VALUE=operator or VALUE=admin; may be repeated")
}

// provider returns what the flags say; nil for no provider.
func (f *peopleFlags) provider() (*people.Provider, error) {
	if f.issuer == "" {
		if len(f.roles) > 0 {
			return nil, usagef("--oidc-role: want --oidc-issuer with it")
		}
		return nil, nil
	}
	p := &people.Provider{Issuer: f.issuer, Client: f.client, Claim: f.claim, Grants: map[string]people.Grant{}}
	for _, text := range f.roles {
		i := strings.LastIndex(text, "=") // a value may be a name with more of them
		if i < 1 {
			return nil, usagef("--oidc-role %q: want VALUE=ROLE, such as sre=admin", text)
		}
		grant, err := people.ParseGrant(text[i+1:])
		if err != nil {
			return nil, usagef("--oidc-role %q: %w", text, err)
		}
		p.Grants[text[:i]] = grant
	}
	if err := p.Check(); err != nil {
		return nil, usagef("--oidc-…: %w", err)
	}
	return p, nil
}
