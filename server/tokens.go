package server

import (
	"context"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/gnomon-vm/gnomon/server/trust"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

const (
	identityPrefix  = prefix + "access/host/"
	joinTokenPrefix = prefix + "access/join/"
	tokenPrefix     = prefix + "access/token/"
)

// identity is the stored form of the key that a host may use. Removing it
// revokes all certificates for that key.
type identity struct {
	Key    string    `json:"key"` // fingerprint
	Serial string    `json:"serial"`
	Issued time.Time `json:"issued"`
	Ends   time.Time `json:"ends"`
}

// joinToken is the stored form of a token that a host joins with.
type joinToken struct {
	Hash    string     `json:"hash"`
	Host    string     `json:"host,omitempty"`
	By      string     `json:"by"`
	Created time.Time  `json:"created"`
	Expires time.Time  `json:"expires"`
	UsedBy  string     `json:"used_by,omitempty"`
	UsedKey string     `json:"used_key,omitempty"`
	UsedAt  *time.Time `json:"used_at,omitempty"`
}

// accessToken is the stored form of a person's or a program's token.
type accessToken struct {
	Name    string     `json:"name"`
	Role    string     `json:"role"`
	Account string     `json:"account,omitempty"`
	Hash    string     `json:"hash"`
	By      string     `json:"by"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
}

func (t accessToken) ended(now time.Time) bool { return t.Expires != nil && now.After(*t.Expires) }

// What a token's life is bounded by.
const (
	joinTokenLife    = time.Hour
	maxJoinTokenLife = 7 * 24 * time.Hour
	maxTokenLife     = 10 * 365 * 24 * time.Hour

	// spent is for how long a join token is kept after its life, so that a host
	// that comes too late is told so.
	spent = 30 * 24 * time.Hour
)

func (s *Server) needAuthority() error {
	if s.authority == nil {
		return refuse(connect.CodeFailedPrecondition, "this server has no authority, since it serves without TLS: start it with --tls, or with a --listen address that hosts can reach")
	}
	return nil
}

// callerName is who calls, for what is stored.
func callerName(ctx context.Context) string {
	c, _ := access.From(ctx)
	return c.Name
}

// lifetime reads a life in seconds.
func lifetime(seconds int64, byDefault, most time.Duration) (time.Duration, error) {
	if seconds < 0 || seconds > int64(most/time.Second) {
		return 0, refuse(connect.CodeInvalidArgument, "lifetime_seconds %d: want 0 to %d", seconds, int64(most/time.Second))
	}
	if seconds == 0 {
		return byDefault, nil
	}
	return time.Duration(seconds) * time.Second, nil
}

// CreateJoinToken implements AccessService.
func (s *Server) CreateJoinToken(ctx context.Context, req *connect.Request[serverpb.CreateJoinTokenRequest]) (*connect.Response[serverpb.CreateJoinTokenResponse], error) {
	if err := s.needAuthority(); err != nil {
		return nil, err
	}
	if name := req.Msg.GetHost(); name != "" {
		if err := checkHostName(name); err != nil {
			return nil, err
		}
	}
	life, err := lifetime(req.Msg.GetLifetimeSeconds(), joinTokenLife, maxJoinTokenLife)
	if err != nil {
		return nil, err
	}
	token := trust.NewToken(trust.JoinKind, s.authority.Fingerprint())
	now := time.Now().UTC()
	stored := joinToken{Hash: token.Hash(), Host: req.Msg.GetHost(), By: callerName(ctx), Created: now, Expires: now.Add(life)}
	lease, err := s.lease(ctx, life+spent)
	if err != nil {
		return nil, err
	}
	if _, err := s.commit(ctx, nil, clientv3.OpPut(keyOf(joinTokenPrefix, token.ID), encodeJSON(stored), clientv3.WithLease(lease))); err != nil {
		return nil, err
	}
	return connect.NewResponse(&serverpb.CreateJoinTokenResponse{Token: token.Text(), Info: stored.message(token.ID)}), nil
}

// lease has what is stored under it vanish by itself.
func (s *Server) lease(ctx context.Context, life time.Duration) (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	l, err := s.store.Grant(ctx, int64(life/time.Second))
	if err != nil {
		return 0, storeError(err)
	}
	return l.ID, nil
}

func (t joinToken) message(id string) *serverpb.JoinToken {
	m := &serverpb.JoinToken{
		Id: id, Host: t.Host, CreatedBy: t.By, CreatedUnixNano: t.Created.UnixNano(), ExpiresUnixNano: t.Expires.UnixNano(), UsedBy: t.UsedBy,
	}
	if t.UsedAt != nil {
		m.UsedUnixNano = t.UsedAt.UnixNano()
	}
	return m
}

// messages returns what is told of entries, in the order of their ids.
func messages[T, M any](entries map[string]T, message func(T, string) M) []M {
	all := make([]M, 0, len(entries))
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		all = append(all, message(entries[id], id))
	}
	return all
}

// ListJoinTokens implements AccessService.
func (s *Server) ListJoinTokens(ctx context.Context, _ *connect.Request[serverpb.ListJoinTokensRequest]) (*connect.Response[serverpb.ListJoinTokensResponse], error) {
	r := &serverpb.ListJoinTokensResponse{}
	err := s.read(ctx, func(v *view) error {
		r.Tokens = messages(v.joinTokens, joinToken.message)
		return nil
	})
	return respond(r, err)
}

// DeleteJoinToken implements AccessService.
func (s *Server) DeleteJoinToken(ctx context.Context, req *connect.Request[serverpb.DeleteJoinTokenRequest]) (*connect.Response[serverpb.DeleteJoinTokenResponse], error) {
	if err := s.remove(ctx, joinTokenPrefix, req.Msg.GetId(), "join token"); err != nil {
		return nil, err
	}
	return connect.NewResponse(&serverpb.DeleteJoinTokenResponse{}), nil
}

// remove deletes an entry that has to be there.
func (s *Server) remove(ctx context.Context, prefix, name, what string) error {
	key := keyOf(prefix, name)
	r, err := s.commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), ">", 0)}, clientv3.OpDelete(key))
	if err != nil {
		return err
	}
	if !r.Succeeded {
		return refuse(connect.CodeNotFound, "%s %q does not exist", what, shorten(name))
	}
	return nil
}

// CreateToken implements AccessService.
func (s *Server) CreateToken(ctx context.Context, req *connect.Request[serverpb.CreateTokenRequest]) (*connect.Response[serverpb.CreateTokenResponse], error) {
	if err := s.needAuthority(); err != nil {
		return nil, err
	}
	m := req.Msg
	if err := checkText("name", m.GetName(), false); err != nil {
		return nil, err
	}
	role, err := access.ParseRole(m.GetRole())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	life, err := lifetime(m.GetLifetimeSeconds(), 0, maxTokenLife)
	if err != nil {
		return nil, err
	}
	token := trust.NewToken(trust.AccessKind, s.authority.Fingerprint())
	now := time.Now().UTC()
	stored := accessToken{Name: m.GetName(), Role: role.String(), Account: m.GetAccount(), Hash: token.Hash(), By: callerName(ctx), Created: now}
	if life > 0 {
		ends := now.Add(life)
		stored.Expires = &ends
	}
	var cmps []clientv3.Cmp
	if m.GetAccount() != "" {
		if role != access.Viewer {
			return nil, refuse(connect.CodeInvalidArgument, "role %q: a token that sees one account only is a viewer's", m.GetRole())
		}
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(keyOf(accountPrefix, m.GetAccount())), ">", 0))
	}
	r, err := s.commit(ctx, cmps, clientv3.OpPut(keyOf(tokenPrefix, token.ID), encodeJSON(stored)))
	if err != nil {
		return nil, err
	}
	if !r.Succeeded {
		return nil, refuse(connect.CodeNotFound, "account %q does not exist", shorten(m.GetAccount()))
	}
	return connect.NewResponse(&serverpb.CreateTokenResponse{Token: token.Text(), Info: stored.message(token.ID)}), nil
}

func (t accessToken) message(id string) *serverpb.Token {
	m := &serverpb.Token{Id: id, Name: t.Name, Role: t.Role, Account: t.Account, CreatedBy: t.By, CreatedUnixNano: t.Created.UnixNano()}
	if t.Expires != nil {
		m.ExpiresUnixNano = t.Expires.UnixNano()
	}
	return m
}

// ListTokens implements AccessService.
func (s *Server) ListTokens(ctx context.Context, _ *connect.Request[serverpb.ListTokensRequest]) (*connect.Response[serverpb.ListTokensResponse], error) {
	r := &serverpb.ListTokensResponse{}
	err := s.read(ctx, func(v *view) error {
		r.Tokens = messages(v.tokens, accessToken.message)
		return nil
	})
	return respond(r, err)
}

// DeleteToken implements AccessService.
func (s *Server) DeleteToken(ctx context.Context, req *connect.Request[serverpb.DeleteTokenRequest]) (*connect.Response[serverpb.DeleteTokenResponse], error) {
	if err := s.remove(ctx, tokenPrefix, req.Msg.GetId(), "token"); err != nil {
		return nil, err
	}
	return connect.NewResponse(&serverpb.DeleteTokenResponse{}), nil
}

// WhoAmI implements AccessService.
func (s *Server) WhoAmI(ctx context.Context, _ *connect.Request[serverpb.WhoAmIRequest]) (*connect.Response[serverpb.WhoAmIResponse], error) {
	c, _ := access.From(ctx)
	return connect.NewResponse(&serverpb.WhoAmIResponse{Name: c.Name, Role: c.Role.String(), Account: c.Account, Host: c.Host}), nil
}
