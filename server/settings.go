package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// scope is where configuration is set: the name is empty for global, and of a
// VM it is the id.
type scope struct {
	kind config.Scope
	name string

	vmName string // of a VM, if known
}

// String names the scope for people: "account acme".
func (c scope) String() string {
	return config.NamedLayer{Scope: c.kind, Name: cmp.Or(c.vmName, c.name)}.Origin()
}

func (c scope) key() string {
	switch c.kind {
	case config.Account:
		return keyOf(accountConfig, c.name)
	case config.Host:
		return keyOf(hostConfig, c.name)
	case config.VM:
		return keyOf(vmConfig, c.name)
	}
	return globalKey
}

// stored returns the layer that is set at the scope.
func (v *view) stored(c scope) layer {
	switch c.kind {
	case config.Account:
		return v.byAccount[c.name]
	case config.Host:
		return v.byHost[c.name]
	case config.VM:
		return v.byVM[c.name]
	}
	return v.global
}

// with returns a view that has values at the scope, sharing the rest.
func (v *view) with(c scope, l layer) *view {
	w := *v
	set := func(m map[string]layer) map[string]layer {
		m = maps.Clone(m)
		m[c.name] = l
		return m
	}
	switch c.kind {
	case config.Account:
		w.byAccount = set(v.byAccount)
	case config.Host:
		w.byHost = set(v.byHost)
	case config.VM:
		w.byVM = set(v.byVM)
	default:
		w.global = l
	}
	return &w
}

// resolve finds the scope that a request names.
func (v *view) resolve(m *serverpb.Scope) (scope, error) {
	named := 0
	for _, n := range []string{m.GetAccount(), m.GetHost(), m.GetVm()} {
		if n != "" {
			named++
		}
	}
	switch {
	case named > 1:
		return scope{}, refuseField("scope", "scope: want one of account, host and vm, not several")
	case m.GetAccount() != "":
		if _, ok := v.accounts[m.GetAccount()]; !ok {
			return scope{}, refuse(connect.CodeNotFound, "account %q does not exist", shorten(m.GetAccount()))
		}
		return scope{kind: config.Account, name: m.GetAccount()}, nil
	case m.GetHost() != "":
		if _, ok := v.hosts[m.GetHost()]; !ok {
			return scope{}, refuse(connect.CodeNotFound, "host %q is not known: %s", shorten(m.GetHost()), v.hostNames())
		}
		return scope{kind: config.Host, name: m.GetHost()}, nil
	case m.GetVm() != "":
		return v.resolveVM(m.GetVm())
	}
	return scope{kind: config.Global}, nil
}

// message is the scope as the API has it.
func (c scope) message() *serverpb.Scope {
	switch c.kind {
	case config.Account:
		return &serverpb.Scope{Account: c.name}
	case config.Host:
		return &serverpb.Scope{Host: c.name}
	case config.VM:
		return &serverpb.Scope{Vm: c.name}
	}
	return &serverpb.Scope{}
}

// resolveVM finds a VM by id, or by a name that only one has. One that no host
// reports is found by the name it had when it was configured, or taken by its
// UUID.
func (v *view) resolveVM(ref string) (scope, error) {
	if m, ok := v.vm(ref); ok {
		return scope{kind: config.VM, name: ref, vmName: m.name}, nil
	}
	if l, ok := v.byVM[ref]; ok {
		return scope{kind: config.VM, name: ref, vmName: l.Name}, nil
	}
	found := map[string]string{}
	for m := range v.vms() {
		if m.name == ref {
			found[m.id] = m.id + " on " + m.host
		}
	}
	if len(found) == 0 {
		for id, l := range v.byVM {
			if l.Name == ref {
				found[id] = id
			}
		}
	}
	switch {
	case len(found) == 1:
		for id := range found {
			return scope{kind: config.VM, name: id, vmName: ref}, nil
		}
	case len(found) > 1:
		return scope{}, refuseField("scope.vm", "vm %q: several have this name (%s): give the id", ref, strings.Join(slices.Sorted(maps.Values(found)), ", "))
	case uuid.MatchString(ref):
		return scope{kind: config.VM, name: ref}, nil
	}
	return scope{}, refuse(connect.CodeNotFound, "vm %q: no host reports it; one that is not running yet can be given by its UUID", shorten(ref))
}

// layers returns the layers that hold at a scope, the widest first.
func (v *view) layers(c scope) []config.NamedLayer {
	ls := []config.NamedLayer{{Scope: config.Global, Values: v.global.Values}}
	account, host := "", ""
	switch c.kind {
	case config.Account:
		account = c.name
	case config.Host:
		host = c.name
	case config.VM:
		m, _ := v.vm(c.name)
		account, host = m.account, m.host
	}
	ls = v.addAccountAndHost(ls, account, host)
	if c.kind == config.VM {
		ls = append(ls, config.NamedLayer{Scope: config.VM, Name: cmp.Or(c.vmName, c.name), Values: v.byVM[c.name].Values})
	}
	return ls
}

func (v *view) addAccountAndHost(ls []config.NamedLayer, account, host string) []config.NamedLayer {
	if account != "" {
		ls = append(ls, config.NamedLayer{Scope: config.Account, Name: account, Values: v.byAccount[account].Values})
	}
	if host != "" {
		ls = append(ls, config.NamedLayer{Scope: config.Host, Name: host, Values: v.byHost[host].Values})
	}
	return ls
}

// GetConfig implements ManagementService.
func (s *Server) GetConfig(ctx context.Context, req *connect.Request[serverpb.GetConfigRequest]) (*connect.Response[serverpb.GetConfigResponse], error) {
	r := &serverpb.GetConfigResponse{}
	err := s.read(ctx, func(v *view) error {
		c, err := v.resolve(req.Msg.GetScope())
		if err != nil {
			return err
		}
		r.Parameters = s.effective(v.layers(c))
		return nil
	})
	return respond(r, err)
}

// effective returns every parameter that the layers give.
func (s *Server) effective(ls []config.NamedLayer) (all []*serverpb.Parameter) {
	p, origin, err := config.Merge(ls...)
	if err != nil {
		s.log.Warn("some configuration is passed over", "err", err)
	}
	values := p.Values()
	for _, k := range config.Schema() {
		all = append(all, &serverpb.Parameter{Key: k.Name, Value: values[k.Name], Origin: origin[k.Name]})
	}
	return all
}

// SetConfig implements ManagementService.
func (s *Server) SetConfig(ctx context.Context, req *connect.Request[serverpb.SetConfigRequest]) (*connect.Response[serverpb.SetConfigResponse], error) {
	m := req.Msg
	if len(m.GetValues()) == 0 {
		return nil, refuseField("values", "values: none is given")
	}
	done, err := s.changeConfig(ctx, m.GetComment(), false, func(v *view) (proposal, error) {
		c, err := v.resolve(m.GetScope())
		if err != nil {
			return proposal{}, err
		}
		after, invalid := change(c, v.stored(c), m.GetValues())
		return proposal{layers: []planned{{c, v.stored(c), after}}, invalid: invalid}, nil
	})
	return respond(&serverpb.SetConfigResponse{Revision: done.revision, Version: done.version}, err)
}

// maxLayers is how many layers can change as one: etcd takes 128 operations in
// a transaction.
const maxLayers = 100

// ApplyConfig implements ManagementService.
func (s *Server) ApplyConfig(ctx context.Context, req *connect.Request[serverpb.ApplyConfigRequest]) (*connect.Response[serverpb.ApplyConfigResponse], error) {
	m := req.Msg
	if n := len(m.GetLayers()); n == 0 || n > maxLayers {
		return nil, refuseField("layers", "layers: %d, want 1 to %d", n, maxLayers)
	}
	done, err := s.changeConfig(ctx, m.GetComment(), m.GetValidateOnly(), func(v *view) (p proposal, err error) {
		seen := map[string]bool{}
		for i, l := range m.GetLayers() {
			c, err := v.resolve(l.GetScope())
			if err != nil {
				return p, err
			}
			if seen[c.key()] {
				return p, refuseField(fmt.Sprintf("layers[%d].scope", i), "layers[%d]: scope %s is given twice", i, c)
			}
			seen[c.key()] = true
			values := l.GetValues()
			if l.GetReplace() {
				values = replacing(v.stored(c), values)
			}
			after, invalid := change(c, v.stored(c), values)
			p.layers = append(p.layers, planned{c, v.stored(c), after})
			p.invalid = errors.Join(p.invalid, invalid)
		}
		return p, nil
	})
	return respond(&serverpb.ApplyConfigResponse{Version: done.version, Edits: editMessages(done.edits)}, err)
}

// replacing returns values with those unset that the layer has beside them.
func replacing(l layer, values map[string]string) map[string]string {
	all := map[string]string{}
	for key := range l.Values {
		all[key] = ""
	}
	maps.Copy(all, values)
	return all
}

// change returns the layer with values set and, where empty, unset. Those that
// are wrong by themselves are left out and make the error.
func change(c scope, l layer, values map[string]string) (layer, error) {
	next := layer{Values: maps.Clone(l.Values), Set: maps.Clone(l.Set), Name: cmp.Or(c.vmName, l.Name)}
	if next.Values == nil {
		next.Values = map[string]string{}
	}
	if next.Set == nil {
		next.Set = map[string]int64{}
	}
	check := map[string]string{}
	for key, value := range values {
		_, known := config.Lookup(key)
		_, set := l.Values[key]
		value = strings.TrimSpace(value)
		switch {
		case value != "":
			check[key] = value
			if config.Validate(c.kind, map[string]string{key: value}) == nil {
				next.Values[key] = value
			}
		case known || set:
			delete(next.Values, key)
		default:
			check[key] = value // Validate tells what key may be meant
		}
	}
	return next, config.Validate(c.kind, check)
}

// newProblems returns what would be wrong after a change at a scope, wherever
// it has an effect, that is not wrong already.
func newProblems(before, after *view, c scope) error {
	known := map[string]bool{}
	for _, ls := range before.affected(c) {
		for _, p := range problems(ls) {
			known[p.Error()] = true
		}
	}
	var fresh []error
	for _, ls := range after.affected(c) {
		for _, p := range problems(ls) {
			if !known[p.Error()] {
				known[p.Error()] = true
				fresh = append(fresh, p)
			}
		}
	}
	return errors.Join(fresh...)
}

func problems(ls []config.NamedLayer) []error {
	_, _, err := config.Merge(ls...)
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return nil
}

// distinct returns names of layers, in order, one for each different content:
// what fits one fits all that say the same.
func distinct(layers map[string]layer) []string {
	seen := map[string]bool{}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(layers)) {
		if content := encodeJSON(layers[name].Values); !seen[content] {
			seen[content] = true
			names = append(names, name)
		}
	}
	return names
}

// affected returns every combination of layers that a change at the scope can
// have a part in: any account's VM may run on any host.
func (v *view) affected(c scope) [][]config.NamedLayer {
	accounts := append([]string{""}, distinct(v.byAccount)...)
	hosts := append([]string{""}, distinct(v.byHost)...)
	vms := slices.Sorted(maps.Keys(v.byVM))
	switch c.kind {
	case config.Account:
		accounts = []string{c.name}
	case config.Host:
		hosts = []string{c.name}
	case config.VM:
		accounts, hosts, vms = nil, nil, []string{c.name}
	}
	global := config.NamedLayer{Scope: config.Global, Values: v.global.Values}
	var all [][]config.NamedLayer
	for _, a := range accounts {
		for _, h := range hosts {
			all = append(all, v.addAccountAndHost([]config.NamedLayer{global}, a, h))
		}
	}
	for _, id := range vms {
		m, _ := v.vm(id)
		if c.kind == config.Account && m.account != c.name || c.kind == config.Host && m.host != c.name {
			continue
		}
		ls := v.addAccountAndHost([]config.NamedLayer{global}, m.account, m.host)
		all = append(all, append(ls, config.NamedLayer{Scope: config.VM, Name: cmp.Or(v.byVM[id].Name, id), Values: v.byVM[id].Values}))
	}
	return all
}
