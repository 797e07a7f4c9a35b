package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// keptChanges is how many changes of the configuration are kept.
const keptChanges = 10_000

// entry is the stored form of one change of the configuration.
type entry struct {
	Version int64  `json:"version"`
	At      int64  `json:"at"` // Unix nanoseconds
	By      string `json:"by,omitempty"`
	Comment string `json:"comment,omitempty"`
	Edits   []edit `json:"edits"`
}

// edit is one value of one layer that changed; empty is not set.
type edit struct {
	Scope  config.Scope `json:"scope"`
	Of     string       `json:"of,omitempty"`   // the account or host, or the VM's id
	Name   string       `json:"name,omitempty"` // of a VM
	Key    string       `json:"key"`
	Before string       `json:"before,omitempty"`
	After  string       `json:"after,omitempty"`
}

func (e edit) scope() scope { return scope{kind: e.Scope, name: e.Of, vmName: e.Name} }

func changeKey(version int64) string { return fmt.Sprintf("%s%016d", changePrefix, version) }

// planned is what is to become of one layer.
type planned struct {
	scope         scope
	before, after layer
}

// proposal is a change of the configuration before it is made.
type proposal struct {
	layers  []planned
	invalid error // values that are wrong by themselves

	unchecked bool           // whatever that leaves others with
	cmps      []clientv3.Cmp // what must hold besides
	ops       []clientv3.Op  // what is to be done with it
}

func (p proposal) edits() []edit {
	var all []edit
	for _, l := range p.layers {
		keys := maps.Clone(l.before.Values)
		if keys == nil {
			keys = map[string]string{}
		}
		maps.Copy(keys, l.after.Values)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			before, after := l.before.Values[key], l.after.Values[key]
			if before != after {
				all = append(all, edit{Scope: l.scope.kind, Of: l.scope.name, Name: l.after.Name, Key: key, Before: before, After: after})
			}
		}
	}
	return all
}

// check returns what would be wrong, wherever the change has an effect.
func (p proposal) check(v *view) error {
	if p.unchecked {
		return p.invalid
	}
	after := v
	for _, l := range p.layers {
		after = after.with(l.scope, l.after)
	}
	errs := unjoin(p.invalid)
	seen := map[string]bool{}
	for _, l := range p.layers {
		for _, problem := range unjoin(newProblems(v, after, l.scope)) {
			if !seen[problem.Error()] {
				seen[problem.Error()] = true
				errs = append(errs, problem)
			}
		}
	}
	return errors.Join(errs...)
}

// store returns what stores the layers as a version.
func (p proposal) store(version int64, edits []edit) []clientv3.Op {
	changed := map[string]bool{}
	byKey := map[string]*planned{}
	for i := range p.layers {
		byKey[p.layers[i].scope.key()] = &p.layers[i]
	}
	for _, e := range edits {
		key := e.scope().key()
		changed[key] = true
		if set := byKey[key].after.Set; e.After == "" {
			delete(set, e.Key)
		} else {
			set[e.Key] = version
		}
	}
	var ops []clientv3.Op
	for _, key := range slices.Sorted(maps.Keys(changed)) {
		if after := byKey[key].after; len(after.Values) == 0 {
			ops = append(ops, clientv3.OpDelete(key))
		} else {
			ops = append(ops, clientv3.OpPut(key, encodeJSON(after)))
		}
	}
	return ops
}

// changed is what came of a change.
type changed struct {
	revision int64 // of the store
	version  int64 // of the configuration
	edits    []edit
}

// changeConfig makes the change that propose proposes, which it is asked again
// if another came between. What is not valid is refused, and nothing changed;
// what changes nothing has no version of its own.
func (s *Server) changeConfig(ctx context.Context, comment string, validateOnly bool, propose func(*view) (proposal, error)) (changed, error) {
	if err := checkText("comment", comment, true); err != nil {
		return changed{}, err
	}
	for range conflictRetries {
		var p proposal
		var done changed
		var guarded int64
		err := s.read(ctx, func(v *view) (err error) {
			if p, err = propose(v); err != nil {
				return err
			}
			if err := p.check(v); err != nil {
				return refuseConfig(err)
			}
			guarded, done = v.guard, changed{revision: v.revision, version: v.version, edits: p.edits()}
			return nil
		})
		if err != nil || validateOnly || len(done.edits)+len(p.ops) == 0 {
			return done, err
		}
		ops := p.ops
		if len(done.edits) > 0 {
			done.version++
			ops = append(ops, p.store(done.version, done.edits)...)
			ops = append(ops,
				clientv3.OpPut(changeKey(done.version), encodeJSON(entry{
					Version: done.version, At: time.Now().UnixNano(), By: callerName(ctx), Comment: comment, Edits: done.edits})),
				clientv3.OpDelete(changeKey(done.version-keptChanges)))
		}
		ops = append(ops, clientv3.OpPut(guardKey, encodeJSON(guard{Version: done.version})))
		cmps := append(p.cmps, clientv3.Compare(clientv3.ModRevision(guardKey), "=", guarded))
		r, err := s.commit(ctx, cmps, ops...)
		if err != nil {
			return changed{}, err
		}
		if r.Succeeded {
			done.revision = r.Header.Revision
			return done, nil
		}
	}
	return changed{}, errConflict()
}

// entries returns the changes from one version to another, both included, in
// order. Those that are no longer kept are left out.
func (s *Server) entries(ctx context.Context, from, to int64) ([]entry, error) {
	var all []entry
	for from <= to {
		page, cancel := context.WithTimeout(ctx, requestTimeout)
		r, err := s.store.Get(page, changeKey(from), clientv3.WithRange(changeKey(to+1)), clientv3.WithLimit(loadPage))
		cancel()
		if err != nil {
			return nil, storeError(err)
		}
		for _, kv := range r.Kvs {
			var e entry
			if err := json.Unmarshal(kv.Value, &e); err != nil {
				s.log.Error("pass over a damaged entry of the store", "key", string(kv.Key), "err", err)
				continue
			}
			all = append(all, e)
		}
		if !r.More || len(all) == 0 {
			break
		}
		from = all[len(all)-1].Version + 1
	}
	return all, nil
}

// sum returns what changes come to together, in the order of first edits.
func sum(entries []entry) []edit {
	var all []edit
	at := map[string]int{}
	for _, n := range entries {
		for _, e := range n.Edits {
			id := e.scope().key() + "\x00" + e.Key
			if i, ok := at[id]; ok {
				all[i].After, all[i].Name = e.After, e.Name
				continue
			}
			at[id] = len(all)
			all = append(all, e)
		}
	}
	return slices.DeleteFunc(all, func(e edit) bool { return e.Before == e.After })
}

// reversed returns edits that undo others.
func reversed(edits []edit) []edit {
	back := slices.Clone(edits)
	for i := range back {
		back[i].Before, back[i].After = back[i].After, back[i].Before
	}
	return back
}

func editMessages(edits []edit) []*serverpb.ConfigEdit {
	all := make([]*serverpb.ConfigEdit, len(edits))
	for i, e := range edits {
		all[i] = &serverpb.ConfigEdit{Scope: e.scope().message(), Name: e.Name, Key: e.Key, Before: e.Before, After: e.After}
	}
	return all
}
