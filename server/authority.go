package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/gnomon-vm/gnomon/server/trust"
)

// authorityKey holds the fleet's authority, its key sealed with the fleet key.
const authorityKey = prefix + "access/authority"

// openAuthority returns the fleet's authority. The first server of a fleet
// makes it, and the key's file; the others need a copy of that.
func openAuthority(ctx context.Context, store clientv3.KV, keyFile string) (*trust.Authority, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := store.Get(ctx, authorityKey)
	if err != nil {
		return nil, storeError(err)
	}
	key, err := trust.ReadFleetKey(keyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(r.Kvs) > 0:
		return nil, fmt.Errorf("this fleet has an authority already, and %s is missing: copy that file from another server of the fleet, or from a backup", keyFile)
	case errors.Is(err, fs.ErrNotExist):
		key = trust.NewFleetKey()
		if err := key.Write(keyFile); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	if len(r.Kvs) == 0 {
		return makeAuthority(ctx, store, key, keyFile)
	}
	return unseal(r.Kvs[0].Value, key, keyFile)
}

// makeAuthority stores a new authority, unless another server was first.
func makeAuthority(ctx context.Context, store clientv3.KV, key trust.FleetKey, keyFile string) (*trust.Authority, error) {
	a, err := trust.NewAuthority(time.Now())
	if err != nil {
		return nil, err
	}
	b, err := a.Seal(key)
	if err != nil {
		return nil, err
	}
	r, err := store.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(authorityKey), "=", 0)).
		Then(clientv3.OpPut(authorityKey, string(b))).Else(clientv3.OpGet(authorityKey)).Commit()
	if err != nil {
		return nil, storeError(err)
	}
	if r.Succeeded {
		return a, nil
	}
	return unseal(r.Responses[0].GetResponseRange().Kvs[0].Value, key, keyFile)
}

func unseal(stored []byte, key trust.FleetKey, keyFile string) (*trust.Authority, error) {
	a, err := trust.Open(stored, key)
	if errors.Is(err, trust.ErrOtherKey) {
		return nil, fmt.Errorf("%w than %s: copy that file from another server of the fleet, or from a backup", err, keyFile)
	}
	return a, err
}

// TLS returns how to listen so that callers are known by the fleet's
// certificates; nil without a fleet key.
func (s *Server) TLS() *tls.Config {
	if s.authority == nil {
		return nil
	}
	return s.authority.ServerTLS(s.names)
}
