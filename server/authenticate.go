package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/gnomon-vm/gnomon/server/people"
	"github.com/gnomon-vm/gnomon/server/trust"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// Who calls is found out once for every request, in this order: by the token it
// carries; by the certificate of its connection, which is a host's; and by the
// user at the other end of a connection that does not leave the machine.

// identify adds who calls to the request's context.
func (s *Server) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.callerOf(r)
		if errors.Is(err, errExpired) {
			w.Header().Set("Connection", "close") // the next may show a later certificate
		}
		next.ServeHTTP(w, r.WithContext(access.With(r.Context(), c, err)))
	})
}

func (s *Server) callerOf(r *http.Request) (access.Caller, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, text, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return access.Caller{}, errors.New("the header Authorization: want Bearer and a token")
		}
		return s.bearer(r.Context(), strings.TrimSpace(text))
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return s.certified(r.Context(), r.TLS)
	}
	if !forwarded(r) {
		if p, ok := peerOf(r.Context()); ok {
			return p.caller(), nil
		}
	}
	if s.open {
		return access.Caller{Name: "anyone", Role: access.Admin}, nil
	}
	return access.Caller{}, nil
}

// forwarded tells whether a proxy on this machine speaks for somebody who may
// be elsewhere.
func forwarded(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(h) != "" {
			return true
		}
	}
	return false
}

// bearer finds whose token it is.
func (s *Server) bearer(ctx context.Context, text string) (access.Caller, error) {
	if people.Looks(text) {
		return s.loggedIn(ctx, text)
	}
	t, err := trust.ParseToken(text)
	if err != nil {
		return access.Caller{}, err
	}
	if t.Kind != trust.AccessKind {
		return access.Caller{}, fmt.Errorf("token %s is for a host to join with, and nothing else", t)
	}
	known, err := entryOf(ctx, s, func(v *view) map[string]accessToken { return v.tokens }, tokenPrefix, t.ID)
	if err != nil {
		return access.Caller{}, err
	}
	if known == nil || !t.Matches(known.Hash) {
		return access.Caller{}, fmt.Errorf("token %s is not known: it was removed, or is of another fleet", t)
	}
	if known.ended(time.Now()) {
		return access.Caller{}, fmt.Errorf("token %s of %s has expired at %s", t, known.Name, known.Expires.Format(time.RFC3339))
	}
	role, err := access.ParseRole(known.Role)
	if err != nil {
		return access.Caller{}, fmt.Errorf("token %s: %w", t, err)
	}
	return access.Caller{Name: "token " + known.Name, Role: role, Account: known.Account}, nil
}

// loggedIn finds whose token of the provider of identities it is.
func (s *Server) loggedIn(ctx context.Context, text string) (access.Caller, error) {
	if s.people == nil {
		return access.Caller{}, errors.New("this server takes no tokens of a provider of identities: start it with --oidc-issuer, or call with a token of gnomon's (gnomon access create)")
	}
	c, err := s.people.Caller(ctx, text)
	if errors.Is(err, people.ErrUnavailable) {
		return access.Caller{}, refuse(connect.CodeUnavailable, "%w", err)
	}
	return c, err
}

// DescribeLogin implements AccessService.
func (s *Server) DescribeLogin(context.Context, *connect.Request[serverpb.DescribeLoginRequest]) (*connect.Response[serverpb.DescribeLoginResponse], error) {
	r := &serverpb.DescribeLoginResponse{}
	if s.authority != nil {
		r.Fleet = s.authority.Fingerprint()
	}
	if p := s.people; p != nil {
		r.Issuer, r.ClientId, r.Scopes = p.Issuer, p.Client, people.Scopes()
	}
	return connect.NewResponse(r), nil
}

var errExpired = errors.New("the certificate has expired")

// certified finds whose certificate it is. TLS has checked that the fleet's
// authority signed it.
func (s *Server) certified(ctx context.Context, state *tls.ConnectionState) (access.Caller, error) {
	cert := state.PeerCertificates[0]
	host, ok := trust.HostOf(cert)
	if !ok {
		return access.Caller{}, errors.New("the certificate is of no host")
	}
	if time.Now().After(cert.NotAfter) {
		return access.Caller{}, fmt.Errorf("%w: host %q has to connect anew with a later one, or to join again", errExpired, host)
	}
	known, err := entryOf(ctx, s, func(v *view) map[string]identity { return v.identities }, identityPrefix, host)
	if err != nil {
		return access.Caller{}, err
	}
	if known == nil || known.Key != trust.Fingerprint(cert) {
		return access.Caller{}, fmt.Errorf("the certificate of host %q was revoked: create a token (gnomon server token create) and have the host join again", host)
	}
	return access.Caller{Name: "host " + host, Host: host}, nil
}

// entryOf returns an entry of the mirror, or, since that may lag behind, of
// the store. It is nil where neither has it.
func entryOf[T any](ctx context.Context, s *Server, in func(*view) map[string]T, prefix, name string) (*T, error) {
	var found *T
	s.mirror.read(func(v *view) {
		if v == nil {
			return
		}
		if t, ok := in(v)[name]; ok {
			found = &t
		}
	})
	if found != nil {
		return found, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := s.store.Get(ctx, keyOf(prefix, name))
	if err != nil {
		return nil, storeError(err)
	}
	if len(r.Kvs) == 0 {
		return nil, nil
	}
	one := map[string]T{}
	if err := readJSON(r.Kvs[0].Value, one, name); err != nil {
		return nil, refuse(connect.CodeInternal, "the store's entry %s%s is damaged: %w", prefix, name, err)
	}
	t := one[name]
	return &t, nil
}
