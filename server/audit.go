package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// The log of changes: one entry for each transaction that somebody's call
// made, written by that transaction itself, so that neither is without the
// other. It is not part of what servers mirror.
const (
	auditPrefix = "/gnomon/audit/v1/"
	auditKeep   = 90 * 24 * time.Hour
	auditPrune  = time.Hour

	// auditValue bounds what is kept of one value, in bytes.
	auditValue = 16 << 10
)

// madeBy is whose call a context belongs to, and what it does.
type madeBy struct{ who, what string }

type madeByKey struct{}

// withChange has what is committed in the context be logged.
func withChange(ctx context.Context, who, procedure string) context.Context {
	return context.WithValue(ctx, madeByKey{}, madeBy{who, path.Base(procedure)})
}

// withoutChange has what is committed in the context be left out of the log.
func withoutChange(ctx context.Context) context.Context {
	return context.WithValue(ctx, madeByKey{}, nil)
}

// logEntry is the stored form of one change.
type logEntry struct {
	At          time.Time    `json:"at"`
	Who         string       `json:"who"`
	What        string       `json:"what"`
	Differences []difference `json:"differences"`
}

type difference struct {
	Key    string `json:"key"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// logged tells whether a key is somebody's decision, which what hosts report
// is not; nor is what only repeats one.
func logged(key string) bool {
	for _, p := range []string{guardKey, reportPrefix, onlinePrefix, changePrefix} {
		if strings.HasPrefix(key, p) {
			return false
		}
	}
	return true
}

// record returns what a transaction is to have in addition so that the change
// it makes is in the log: nothing where the context is of no change.
func (s *Server) record(ctx context.Context, ops []clientv3.Op) (same []clientv3.Cmp, put []clientv3.Op, err error) {
	c, ok := ctx.Value(madeByKey{}).(madeBy)
	if !ok {
		return nil, nil, nil
	}
	e := logEntry{At: time.Now().UTC(), Who: c.who, What: c.what}
	var read []clientv3.Op
	for _, op := range ops {
		if key := string(op.KeyBytes()); logged(key) {
			e.Differences = append(e.Differences, difference{Key: strings.TrimPrefix(key, prefix), After: clip(op.ValueBytes())})
			read = append(read, clientv3.OpGet(key))
		}
	}
	if len(read) == 0 {
		return nil, nil, nil
	}
	r, err := s.store.Txn(ctx).Then(read...).Commit()
	if err != nil {
		return nil, nil, err
	}
	for i, response := range r.Responses {
		var revision int64
		for _, kv := range response.GetResponseRange().Kvs {
			revision = kv.ModRevision
			e.Differences[i].Before = clip(kv.Value)
		}
		same = append(same, clientv3.Compare(clientv3.ModRevision(prefix+e.Differences[i].Key), "=", revision))
	}
	e.Differences = slices.DeleteFunc(e.Differences, func(d difference) bool { return d.Before == d.After })
	if len(e.Differences) == 0 {
		return same, nil, nil
	}
	key := auditKey(e.At) + "-" + rand.Text()[:8]
	return same, []clientv3.Op{clientv3.OpPut(key, encodeJSON(e))}, nil
}

// auditKey sorts by time.
func auditKey(at time.Time) string { return fmt.Sprintf("%s%020d", auditPrefix, at.UnixNano()) }

// clip shortens what is too long for the log.
func clip(b []byte) string {
	if len(b) > auditValue {
		return fmt.Sprintf("(%d bytes)", len(b))
	}
	return string(b)
}

// ListChanges implements AccessService.
func (s *Server) ListChanges(ctx context.Context, req *connect.Request[serverpb.ListChangesRequest]) (*connect.Response[serverpb.ListChangesResponse], error) {
	size, err := pageSize(req.Msg.GetPageSize(), 100)
	if err != nil {
		return nil, err
	}
	end := clientv3.GetPrefixRangeEnd(auditPrefix)
	if token := req.Msg.GetPageToken(); token != "" {
		if _, err := strconv.ParseUint(strings.Split(token, "-")[0], 10, 64); err != nil {
			return nil, refuseField("page_token", "page_token %q: want one that a list returned", shorten(token))
		}
		end = auditPrefix + token
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	from := auditKey(time.Unix(0, max(req.Msg.GetSinceUnixNano(), 0)))
	if from >= end {
		return connect.NewResponse(&serverpb.ListChangesResponse{}), nil
	}
	got, err := s.store.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(size)),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return nil, storeError(err)
	}
	r := &serverpb.ListChangesResponse{}
	for _, kv := range got.Kvs {
		var e logEntry
		if err := json.Unmarshal(kv.Value, &e); err != nil {
			s.log.Error("pass over a damaged entry of the log of changes", "key", string(kv.Key), "err", err)
			continue
		}
		c := &serverpb.Change{AtUnixNano: e.At.UnixNano(), Who: e.Who, What: e.What}
		for _, d := range e.Differences {
			c.Differences = append(c.Differences, &serverpb.Difference{Key: d.Key, Before: d.Before, After: d.After})
		}
		r.Changes = append(r.Changes, c)
	}
	if got.More {
		r.NextPageToken = strings.TrimPrefix(string(got.Kvs[len(got.Kvs)-1].Key), auditPrefix)
	}
	return connect.NewResponse(r), nil
}

// pruneChanges drops old entries of the log until ctx ends.
func (s *Server) pruneChanges(ctx context.Context) {
	tick := time.NewTicker(auditPrune)
	defer tick.Stop()
	for {
		prune, cancel := context.WithTimeout(ctx, requestTimeout)
		_, err := s.store.Delete(prune, auditPrefix, clientv3.WithRange(auditKey(time.Now().Add(-auditKeep))))
		cancel()
		if err != nil && ctx.Err() == nil {
			s.log.Warn("old changes not dropped from the log; tried again in an hour", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
