// Package access says who may call what of the management server: callers,
// their roles, and one table of all methods.
package access

import (
	"context"
	"fmt"
)

// Role is what a caller may do. A higher one may all that a lower one may.
type Role int

// The roles, in order.
const (
	None     Role = iota
	Viewer        // look
	Operator      // change accounts, hosts and configuration
	Admin         // say who may do so, and see the log of changes
)

var roleNames = map[Role]string{None: "", Viewer: "viewer", Operator: "operator", Admin: "admin"}

// String is the role's name; empty for None.
func (r Role) String() string { return roleNames[r] }

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	for _, r := range []Role{Viewer, Operator, Admin} {
		if r.String() == s {
			return r, nil
		}
	}
	return None, fmt.Errorf("role %q: want viewer, operator or admin", s)
}

// Caller is who makes a call.
type Caller struct {
	Name    string // as the log of changes has it, such as "token ci" or "host node1"
	Role    Role
	Account string // the only account it sees; empty for all
	Host    string // of a host daemon with a certificate, its host
}

// SpeaksFor tells whether the caller may act as a host's daemon.
func (c Caller) SpeaksFor(host string) bool {
	if c.Host != "" {
		return c.Host == host
	}
	return c.Role == Admin
}

type key struct{}

// identified is what became of finding out who calls.
type identified struct {
	caller Caller
	err    error
}

// With returns a context in which the caller is known, or why it is not.
func With(ctx context.Context, c Caller, err error) context.Context {
	return context.WithValue(ctx, key{}, identified{c, err})
}

// From returns who calls, or why that is not known. Without With nobody does.
func From(ctx context.Context) (Caller, error) {
	i, _ := ctx.Value(key{}).(identified)
	return i.caller, i.err
}
