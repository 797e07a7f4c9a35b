package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// An order is one thing that a host is to do once. It is part of what the host
// is to run until the host has settled it, so that nothing is lost by a restart
// of anything; and it is under a lease, so that no clock decides when it is too
// old to be carried out.

// outcomesKept is for how long it is known what became of an order.
const outcomesKept = 24 * time.Hour

func (v *view) putOrder(b []byte, id string) error {
	v.dropOrder(id)
	o := &serverpb.OrderRecord{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, o); err != nil {
		return err
	}
	if o.GetOrder().GetId() != id {
		return fmt.Errorf("it is of the order %q", o.GetOrder().GetId())
	}
	v.orders[id] = o
	if o.Outcome == nil {
		if v.pending[o.GetHost()] == nil {
			v.pending[o.GetHost()] = map[string]bool{}
		}
		v.pending[o.GetHost()][id] = true
	}
	return nil
}

func (v *view) dropOrder(id string) {
	host := v.orders[id].GetHost()
	if delete(v.pending[host], id); len(v.pending[host]) == 0 {
		delete(v.pending, host)
	}
	delete(v.orders, id)
}

// ordersFor returns what a host has not settled, the oldest first.
func (v *view) ordersFor(host string) []*serverpb.Order {
	var records []*serverpb.OrderRecord
	for id := range v.pending[host] {
		records = append(records, v.orders[id])
	}
	slices.SortFunc(records, func(a, b *serverpb.OrderRecord) int {
		return cmp.Or(cmp.Compare(a.GetCreatedUnixNano(), b.GetCreatedUnixNano()), cmp.Compare(a.GetOrder().GetId(), b.GetOrder().GetId()))
	})
	var orders []*serverpb.Order
	for _, r := range records {
		orders = append(orders, r.GetOrder())
	}
	return orders
}

// identify returns the id of the order that a request is for, the same whenever it
// is made again under its request_id, and what else it says, for checkSame.
func identify(m requested) (id, request string) {
	field := m.ProtoReflect().Descriptor().Fields().ByName("request_id")
	rest := proto.Clone(m)
	rest.ProtoReflect().Clear(field)
	if m.GetRequestId() == "" {
		return rand.Text(), digest(rest)
	}
	only := m.ProtoReflect().New()
	only.Set(field, m.ProtoReflect().Get(field))
	return digest(only.Interface())[:32], digest(rest)
}

// requested is a request that may have an id.
type requested interface {
	proto.Message
	GetRequestId() string
}

func digest(m proto.Message) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return "" // plain fields
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// give stores an order for its host, for as long as the host may take. It
// returns the revision since when it is stored, or 0 if there was news of any
// order since the revision before: together they might be too much.
func (s *Server) give(ctx context.Context, o *serverpb.OrderRecord, before int64, lifetime time.Duration) (int64, error) {
	key := keyOf(orderPrefix, o.GetOrder().GetId())
	put, err := s.leased(ctx, key, o, lifetime)
	if err != nil {
		return 0, err
	}
	r, err := s.commit(ctx, []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(orderPrefix).WithPrefix(), "<", before+1),
		clientv3.Compare(clientv3.CreateRevision(keyOf(hostPrefix, o.GetHost())), ">", 0),
	}, put)
	if err != nil || !r.Succeeded {
		return 0, err
	}
	return r.Header.Revision, nil
}

// leased returns what stores a message for a while.
func (s *Server) leased(ctx context.Context, key string, m proto.Message, lifetime time.Duration) (clientv3.Op, error) {
	id, err := s.lease(ctx, lifetime)
	if err != nil {
		return clientv3.Op{}, err
	}
	return putMessage(key, m, clientv3.WithLease(id))
}

// hand gives an order to its host if a check holds, and returns the revision
// since when it is stored.
func (s *Server) hand(ctx context.Context, o *serverpb.OrderRecord, lifetime time.Duration, check func(*view) error) (since int64, err error) {
	o.Order.Attempt, o.CreatedUnixNano = rand.Text(), time.Now().UnixNano()
	for range conflictRetries {
		var before int64
		if err := s.read(ctx, func(v *view) error {
			before = v.revision
			return check(v)
		}); err != nil {
			return 0, err
		}
		if since, err = s.give(ctx, o, before, lifetime); err != nil || since > 0 {
			return since, err
		}
	}
	return 0, errConflict()
}

// carry has a host prepare something and waits for what becomes of it, which is
// an error if that was one.
func (s *Server) carry(ctx context.Context, o *serverpb.OrderRecord) (*serverpb.Outcome, error) {
	since, err := s.hand(ctx, o, prepareLifetime, func(*view) error { return nil })
	if err != nil {
		return nil, err
	}
	done, err := s.settled(ctx, o.GetOrder().GetId(), since)
	if err != nil {
		return nil, err
	}
	if done.GetOutcome().GetError() != "" {
		return nil, orderError(done)
	}
	return done.GetOutcome(), nil
}

// settled waits until the host has settled an order that is stored since a
// revision, or it has expired.
func (s *Server) settled(ctx context.Context, id string, since int64) (*serverpb.OrderRecord, error) {
	for {
		var o *serverpb.OrderRecord
		behind := false
		changed := s.mirror.read(func(v *view) {
			if behind = v == nil || v.revision < since; !behind {
				o = v.orders[id]
			}
		})
		switch {
		case behind:
		case o == nil:
			return nil, refusal(connect.CodeDeadlineExceeded, reasonNotInTime,
				errors.New("the host did not tell in time what became of it: see \"gnomon vm ls\" there, and repeat the request with the same id"))
		case o.Outcome != nil:
			return o, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, connect.NewError(connect.CodeDeadlineExceeded, ctx.Err())
		case <-s.done:
			return nil, errStopping()
		}
	}
}

// Settle implements HostLinkService.
func (s *Server) Settle(ctx context.Context, req *connect.Request[serverpb.SettleRequest]) (*connect.Response[serverpb.SettleResponse], error) {
	m := req.Msg
	if err := checkHostName(m.GetHost()); err != nil {
		return nil, err
	}
	if err := speaksFor(ctx, m.GetHost()); err != nil {
		return nil, err
	}
	if err := checkOutcome(m.GetOutcome()); err != nil {
		return nil, err
	}
	key := keyOf(orderPrefix, m.GetOrder())
	read, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	got, err := s.store.Get(read, key)
	if err != nil {
		return nil, storeError(err)
	}
	done := connect.NewResponse(&serverpb.SettleResponse{})
	if len(got.Kvs) == 0 {
		return done, nil // it has expired: nobody waits
	}
	o := &serverpb.OrderRecord{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(got.Kvs[0].Value, o); err != nil {
		return nil, refuse(connect.CodeInternal, "the store's entry %s is damaged: %w", key, err)
	}
	switch {
	case o.GetHost() != m.GetHost():
		return nil, refuse(connect.CodePermissionDenied, "order %q is not for host %q", shorten(m.GetOrder()), m.GetHost())
	case o.GetOutcome() != nil || o.GetOrder().GetAttempt() != m.GetAttempt():
		return done, nil
	}
	o.Outcome, o.SettledUnixNano = m.GetOutcome(), time.Now().UnixNano()
	kept := outcomesKept
	switch what := o.GetOrder().GetWhat().(type) {
	case *serverpb.Order_Describe: // it is read at once, and large
		kept = requestTimeout * 2
	case *serverpb.Order_Receive:
		what.Receive.Handover = nil
	}
	put, err := s.leased(ctx, key, o, kept)
	if err != nil {
		return nil, err
	}
	// One that was settled or has expired meanwhile stays as it is.
	_, err = s.commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", got.Kvs[0].ModRevision)}, put)
	return done, err
}

// maxOutcome bounds what a host tells of an order, in bytes.
const maxOutcome = 4096

// maxAgentState bounds what is handed over of what an agent learned, in bytes: it
// goes through the store.
const maxAgentState = 512 << 10

// maxLimitsDetail bounds what is handed over of how a VM's limits are made up, in
// bytes: a hundred disks can each have a throttle of their own.
const maxLimitsDetail = 64 << 10

func checkOutcome(o *serverpb.Outcome) error {
	if o == nil {
		return refuseField("outcome", "outcome: it is missing")
	}
	if len(o.GetError()) > maxOutcome {
		return refuseField("outcome.error", "outcome.error: %d bytes, want at most %d", len(o.GetError()), maxOutcome)
	}
	if n := len(o.GetHandover().GetAgentState()); n > maxAgentState {
		return refuseField("outcome.handover.agent_state", "outcome.handover.agent_state: %d bytes, want at most %d", n, maxAgentState)
	}
	if n := len(o.GetHandover().GetLimitsDetail()); n > maxLimitsDetail {
		return refuseField("outcome.handover.limits_detail", "outcome.handover.limits_detail: %d bytes, want at most %d", n, maxLimitsDetail)
	}
	if err := checkText("outcome.shadow", o.GetShadow(), true); err != nil {
		return err
	}
	return checkText("outcome.reason", o.GetReason(), true)
}
