package server

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// version returns the version of the configuration, and the scope that a
// request is limited to, nil for none.
func (s *Server) version(ctx context.Context, m *serverpb.Scope) (version int64, only *scope, err error) {
	err = s.read(ctx, func(v *view) error {
		version = v.version
		if m == nil {
			return nil
		}
		c, err := v.resolvePast(m)
		only = &c
		return err
	})
	return version, only, err
}

// resolvePast is resolve for what may no longer exist: it is then taken by its
// name or id.
func (v *view) resolvePast(m *serverpb.Scope) (scope, error) {
	c, err := v.resolve(m)
	if connect.CodeOf(err) != connect.CodeNotFound {
		return c, err
	}
	switch {
	case m.GetAccount() != "":
		return scope{kind: config.Account, name: m.GetAccount()}, nil
	case m.GetHost() != "":
		return scope{kind: config.Host, name: m.GetHost()}, nil
	}
	return c, err
}

// of keeps the edits of one scope, all if it is nil.
func of(only *scope, edits []edit) []edit {
	if only == nil {
		return edits
	}
	return slices.DeleteFunc(edits, func(e edit) bool { return e.scope().key() != only.key() })
}

// ListConfigChanges implements ManagementService.
func (s *Server) ListConfigChanges(ctx context.Context, req *connect.Request[serverpb.ListConfigChangesRequest]) (*connect.Response[serverpb.ListConfigChangesResponse], error) {
	m := req.Msg
	size, err := pageSize(m.GetPageSize(), 100)
	if err != nil {
		return nil, err
	}
	top, only, err := s.version(ctx, m.GetScope())
	if err != nil {
		return nil, err
	}
	if t := m.GetPageToken(); t != "" {
		if top, err = strconv.ParseInt(t, 10, 64); err != nil || top < 0 {
			return nil, refuseField("page_token", "page_token %q: want one that a list returned", shorten(t))
		}
	}
	r := &serverpb.ListConfigChangesResponse{}
	for top > 0 {
		entries, err := s.entries(ctx, max(1, top-loadPage+1), top)
		if err != nil {
			return nil, err
		}
		for _, e := range slices.Backward(entries) {
			if e.Edits = of(only, e.Edits); len(e.Edits) == 0 {
				continue
			}
			if len(r.Changes) == size {
				r.NextPageToken = strconv.FormatInt(e.Version, 10)
				return connect.NewResponse(r), nil
			}
			r.Changes = append(r.Changes, &serverpb.ConfigChange{
				Version: e.Version, AtUnixNano: e.At, By: e.By, Comment: e.Comment, Edits: editMessages(e.Edits)})
		}
		if len(entries) == 0 {
			break // older ones are not kept
		}
		top -= loadPage
	}
	return connect.NewResponse(r), nil
}

// CompareConfig implements ManagementService.
func (s *Server) CompareConfig(ctx context.Context, req *connect.Request[serverpb.CompareConfigRequest]) (*connect.Response[serverpb.CompareConfigResponse], error) {
	m := req.Msg
	latest, only, err := s.version(ctx, m.GetScope())
	if err != nil {
		return nil, err
	}
	from, to := m.GetFromVersion(), m.GetToVersion()
	if to == 0 {
		to = latest
	}
	if err := errors.Join(checkVersion("from_version", from, latest), checkVersion("to_version", to, latest)); err != nil {
		return nil, unjoin(err)[0]
	}
	entries, err := s.entries(ctx, min(from, to)+1, max(from, to))
	if err != nil {
		return nil, err
	}
	edits := of(only, sum(entries))
	if from > to {
		edits = reversed(edits)
	}
	return connect.NewResponse(&serverpb.CompareConfigResponse{Edits: editMessages(edits)}), nil
}

// checkVersion refuses versions that are not, or whose changes are not kept.
func checkVersion(field string, version, latest int64) error {
	oldest := max(0, latest-keptChanges)
	switch {
	case version < 0 || version > latest:
		return refuseField(field, "%s %d: want 0 to %d, the latest", field, version, latest)
	case version < oldest:
		return refusal(connect.CodeOutOfRange, reasonVersionGone,
			errors.New(field+" "+strconv.FormatInt(version, 10)+": the last "+strconv.Itoa(keptChanges)+" changes are kept, back to version "+strconv.FormatInt(oldest, 10)))
	}
	return nil
}

// RollbackConfig implements ManagementService.
func (s *Server) RollbackConfig(ctx context.Context, req *connect.Request[serverpb.RollbackConfigRequest]) (*connect.Response[serverpb.RollbackConfigResponse], error) {
	m := req.Msg
	for range conflictRetries {
		latest, only, err := s.version(ctx, m.GetScope())
		if err != nil {
			return nil, err
		}
		if err := checkVersion("version", m.GetVersion(), latest); err != nil {
			return nil, err
		}
		entries, err := s.entries(ctx, m.GetVersion()+1, latest)
		if err != nil {
			return nil, err
		}
		back := reversed(of(only, sum(entries)))
		overtaken := false
		done, err := s.changeConfig(ctx, m.GetComment(), m.GetValidateOnly(), func(v *view) (proposal, error) {
			if overtaken = v.version != latest; overtaken {
				return proposal{}, errConflict()
			}
			return v.undo(back), nil
		})
		if overtaken {
			continue
		}
		return respond(&serverpb.RollbackConfigResponse{Version: done.version, Edits: editMessages(done.edits)}, err)
	}
	return nil, errConflict()
}

// undo proposes edits. Accounts and hosts that are gone stay so.
func (v *view) undo(edits []edit) proposal {
	values := map[string]map[string]string{}
	var scopes []scope
	for _, e := range edits {
		c := e.scope()
		if _, ok := v.accounts[c.name]; c.kind == config.Account && !ok {
			continue
		}
		if _, ok := v.hosts[c.name]; c.kind == config.Host && !ok {
			continue
		}
		if values[c.key()] == nil {
			values[c.key()] = map[string]string{}
			scopes = append(scopes, c)
		}
		values[c.key()][e.Key] = e.After
	}
	var p proposal
	for _, c := range scopes {
		after, invalid := change(c, v.stored(c), values[c.key()])
		p.layers = append(p.layers, planned{c, v.stored(c), after})
		p.invalid = errors.Join(p.invalid, invalid)
	}
	if len(p.layers) > maxLayers {
		p.invalid = errors.Join(p.invalid, refuse(connect.CodeInvalidArgument,
			"it would change %d layers, want at most %d: roll back one scope after the other", len(p.layers), maxLayers))
	}
	return p
}

// setBy returns, by key, the versions that set what a layer at the scope has.
func (v *view) setBy(l config.NamedLayer, c scope) map[string]int64 {
	switch l.Scope {
	case config.Account:
		return v.byAccount[l.Name].Set
	case config.Host:
		return v.byHost[l.Name].Set
	case config.VM:
		return v.byVM[c.name].Set
	}
	return v.global.Set
}

// ExplainConfig implements ManagementService.
func (s *Server) ExplainConfig(ctx context.Context, req *connect.Request[serverpb.ExplainConfigRequest]) (*connect.Response[serverpb.ExplainConfigResponse], error) {
	r := &serverpb.ExplainConfigResponse{}
	var settings []*serverpb.Setting
	err := s.read(ctx, func(v *view) error {
		c, err := v.resolve(req.Msg.GetScope())
		if err != nil {
			return err
		}
		ls := v.layers(c)
		for _, p := range s.effective(ls) {
			x := &serverpb.Explanation{Parameter: p}
			for _, l := range ls {
				if value, ok := l.Values[p.GetKey()]; ok {
					x.Settings = append(x.Settings, &serverpb.Setting{Origin: l.Origin(), Value: value, Version: v.setBy(l, c)[p.GetKey()]})
				}
			}
			settings = append(settings, x.Settings...)
			r.Parameters = append(r.Parameters, x)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	known := map[int64]entry{}
	for _, t := range settings {
		e, ok := known[t.GetVersion()]
		if !ok && t.GetVersion() > 0 {
			entries, err := s.entries(ctx, t.GetVersion(), t.GetVersion())
			if err != nil {
				return nil, err
			}
			if len(entries) > 0 {
				e = entries[0]
			}
			known[t.GetVersion()] = e
		}
		t.AtUnixNano, t.By = e.At, e.By
	}
	return connect.NewResponse(r), nil
}
