package server

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/gnomon-vm/gnomon/server/access"
	"github.com/gnomon-vm/gnomon/server/trust"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// Join implements JoinService.
func (s *Server) Join(ctx context.Context, req *connect.Request[serverpb.JoinRequest]) (*connect.Response[serverpb.JoinResponse], error) {
	if err := s.needAuthority(); err != nil {
		return nil, err
	}
	token, err := trust.ParseToken(req.Msg.GetToken())
	if err != nil {
		return nil, connect.NewError(connect.CodeUnauthenticated, err)
	}
	if err := checkHostName(req.Msg.GetHost()); err != nil {
		return nil, err
	}
	key, fingerprint, err := trust.ParseRequest(req.Msg.GetRequest())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	for range conflictRetries {
		j := &joining{s: s, token: token, host: req.Msg.GetHost(), fingerprint: fingerprint, now: time.Now().UTC()}
		if err := j.admit(ctx); err != nil {
			s.log.Warn("host not admitted", "host", j.host, "token", token.ID, "why", err)
			return nil, err
		}
		cert, err := s.authority.SignHost(j.host, key, j.now)
		if err != nil {
			return nil, connect.NewError(connect.CodeInternal, err)
		}
		j.identity = identity{Key: fingerprint, Serial: cert.SerialNumber.Text(16), Issued: j.now, Ends: cert.NotAfter}
		done, err := j.commit(ctx)
		if err != nil {
			return nil, err
		}
		if done {
			s.log.Info("host joined", "host", j.host, "token", token.ID, "until", cert.NotAfter)
			return connect.NewResponse(&serverpb.JoinResponse{Certificate: cert.Raw, Authority: s.authority.Certificate.Raw}), nil
		}
	}
	return nil, errConflict()
}

// joining is one attempt of a host to join.
type joining struct {
	s           *Server
	token       trust.Token
	host        string
	fingerprint string // of the host's key
	now         time.Time

	stored        joinToken
	tokenRevision int64
	lease         int64
	hostRevision  int64
	identity      identity
}

// admit reads what is known of token and host, and says why they may not join.
func (j *joining) admit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := j.s.store.Txn(ctx).Then(
		clientv3.OpGet(keyOf(joinTokenPrefix, j.token.ID)), clientv3.OpGet(keyOf(identityPrefix, j.host)),
	).Commit()
	if err != nil {
		return storeError(err)
	}
	tokens, hosts := r.Responses[0].GetResponseRange().Kvs, r.Responses[1].GetResponseRange().Kvs
	if len(tokens) > 0 {
		one := map[string]joinToken{}
		if err := readJSON(tokens[0].Value, one, ""); err != nil {
			return refuse(connect.CodeInternal, "join token %s is damaged in the store: create another", j.token)
		}
		j.stored, j.tokenRevision, j.lease = one[""], tokens[0].ModRevision, tokens[0].Lease
	}
	if err := j.checkToken(len(tokens) > 0); err != nil {
		return err
	}
	if len(hosts) == 0 {
		return nil
	}
	one := map[string]identity{}
	if err := readJSON(hosts[0].Value, one, ""); err != nil {
		return refuse(connect.CodeInternal, "host %q is damaged in the store: revoke it (gnomon host revoke %s)", j.host, j.host)
	}
	if j.hostRevision = hosts[0].ModRevision; one[""].Key != j.fingerprint {
		return refuse(connect.CodeAlreadyExists, "the name %q is taken, by a host that joined at %s: give this one another --name; or, if that one is gone or this is it with a new disk, gnomon host revoke %s first",
			j.host, one[""].Issued.Format(time.RFC3339), j.host)
	}
	return nil
}

const another = "create another with \"gnomon server token create\""

func (j *joining) checkToken(known bool) error {
	t := j.token
	switch {
	case t.Kind != trust.JoinKind:
		return refuse(connect.CodeUnauthenticated, "token %s is a person's or a program's: a host joins with one of \"gnomon server token create\"", t)
	case t.Fleet != j.s.authority.Fingerprint():
		return refuse(connect.CodeUnauthenticated, "token %s is of another fleet: %s on a server of this one", t, another)
	case !known || !t.Matches(j.stored.Hash):
		return refuse(connect.CodeUnauthenticated, "token %s is not known: it was removed, or mistyped; %s", t, another)
	case j.stored.UsedBy != "" && (j.stored.UsedBy != j.host || j.stored.UsedKey != j.fingerprint):
		return refuse(connect.CodeUnauthenticated, "token %s has been used already, by host %q at %s, and is good for one host: %s",
			t, j.stored.UsedBy, j.stored.UsedAt.Format(time.RFC3339), another)
	case j.now.After(j.stored.Expires):
		return refuse(connect.CodeUnauthenticated, "token %s expired at %s (here it is %s): %s",
			t, j.stored.Expires.Format(time.RFC3339), j.now.Format(time.RFC3339), another)
	case j.stored.Host != "" && j.stored.Host != j.host:
		return refuse(connect.CodePermissionDenied, "token %s is for host %q, not %q: join with --name %s, or %s", t, j.stored.Host, j.host, j.stored.Host, another)
	}
	return nil
}

// commit uses the token up and takes the host in, both or neither; it is not
// done if another came between.
func (j *joining) commit(ctx context.Context) (done bool, err error) {
	j.stored.UsedBy, j.stored.UsedKey, j.stored.UsedAt = j.host, j.fingerprint, &j.now
	tokenKey, hostKey := keyOf(joinTokenPrefix, j.token.ID), keyOf(identityPrefix, j.host)
	r, err := j.s.commit(withChange(ctx, "host "+j.host+" with join token "+j.token.ID, "Join"), []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(tokenKey), "=", j.tokenRevision),
		clientv3.Compare(clientv3.ModRevision(hostKey), "=", j.hostRevision),
	}, clientv3.OpPut(tokenKey, encodeJSON(j.stored), clientv3.WithLease(clientv3.LeaseID(j.lease))),
		clientv3.OpPut(hostKey, encodeJSON(j.identity)))
	if err != nil {
		return false, err
	}
	return r.Succeeded, nil
}

// Renew implements JoinService. The key stays the same, so that nothing is lost
// with an answer that does not arrive.
func (s *Server) Renew(ctx context.Context, req *connect.Request[serverpb.RenewRequest]) (*connect.Response[serverpb.RenewResponse], error) {
	if err := s.needAuthority(); err != nil {
		return nil, err
	}
	key, fingerprint, err := trust.ParseRequest(req.Msg.GetRequest())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	c, err := access.From(ctx)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnauthenticated, err)
	}
	known, err := entryOf(ctx, s, func(v *view) map[string]identity { return v.identities }, identityPrefix, c.Host)
	if err != nil {
		return nil, err
	}
	if known == nil || known.Key != fingerprint {
		return nil, refuse(connect.CodePermissionDenied, "host %q renews the certificate of another key than it joined with", c.Host)
	}
	now := time.Now().UTC()
	cert, err := s.authority.SignHost(c.Host, key, now)
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	hostKey := keyOf(identityPrefix, c.Host)
	after := identity{Key: fingerprint, Serial: cert.SerialNumber.Text(16), Issued: known.Issued, Ends: cert.NotAfter}
	// Revoked meanwhile is revoked.
	r, err := s.commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.Value(hostKey), "=", encodeJSON(*known))}, clientv3.OpPut(hostKey, encodeJSON(after)))
	if err != nil {
		return nil, err
	}
	if !r.Succeeded {
		return nil, connect.NewError(connect.CodeAborted, errors.New("the host was revoked or renewed meanwhile: try again"))
	}
	s.log.Info("certificate renewed", "host", c.Host, "until", cert.NotAfter)
	return connect.NewResponse(&serverpb.RenewResponse{Certificate: cert.Raw}), nil
}

// RevokeHost implements AccessService. The host's streams end when this
// server and the others see the change.
func (s *Server) RevokeHost(ctx context.Context, req *connect.Request[serverpb.RevokeHostRequest]) (*connect.Response[serverpb.RevokeHostResponse], error) {
	if err := s.remove(ctx, identityPrefix, req.Msg.GetName(), "certificate of host"); err != nil {
		return nil, err
	}
	return connect.NewResponse(&serverpb.RevokeHostResponse{}), nil
}
