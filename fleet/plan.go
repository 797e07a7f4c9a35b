package fleet

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// State is what there is of what a file names.
type State struct {
	Accounts map[string]*serverpb.Account
	Hosts    map[string]*serverpb.Host
}

// Plan is what has to be done for the fleet to be as the file says, in this
// order.
type Plan struct {
	Hosts    []*serverpb.UpdateHostRequest
	Create   []*serverpb.CreateAccountRequest
	Accounts []*serverpb.UpdateAccountRequest

	// Layers are those that the file names, whether or not they differ: the
	// server tells. Those of accounts in Create are in NewLayers.
	Layers    []*serverpb.LayerChange
	NewLayers []*serverpb.LayerChange

	// Lines say what the plan does, but for Layers.
	Lines []string
}

// Compare returns the plan for a fleet that is in some state. It fails for
// hosts that have never connected: they join by themselves.
func (f *File) Compare(s State) (*Plan, error) {
	p := &Plan{}
	if f.Config != nil {
		p.Layers = append(p.Layers, layer(&serverpb.Scope{}, f.Config))
	}
	for _, h := range f.Hosts {
		now, ok := s.Hosts[h.Name]
		if !ok {
			return nil, fmt.Errorf("host %q is not known: start its daemon first", h.Name)
		}
		p.host(h, now)
	}
	for _, a := range f.Accounts {
		p.account(a, s.Accounts[a.Name])
	}
	for _, m := range f.VMs {
		if m.Config != nil {
			p.Layers = append(p.Layers, layer(&serverpb.Scope{Vm: m.Name}, m.Config))
		}
	}
	return p, nil
}

func layer(s *serverpb.Scope, v Values) *serverpb.LayerChange {
	return &serverpb.LayerChange{Scope: s, Values: v, Replace: true}
}

func (p *Plan) host(h Host, now *serverpb.Host) {
	u := &serverpb.UpdateHostRequest{Host: &serverpb.Host{Name: h.Name}}
	var paths []string
	if h.Labels != nil && !maps.Equal(h.Labels, now.GetLabels()) {
		u.Host.Labels = h.Labels
		paths = append(paths, "labels")
		p.say("~ host %s: labels: %s -> %s", h.Name, gnomon.FormatLabels(now.GetLabels()), gnomon.FormatLabels(h.Labels))
	}
	if h.Cordoned != nil && *h.Cordoned != now.GetCordoned() {
		u.Host.Cordoned = *h.Cordoned
		paths = append(paths, "cordoned")
		p.say("~ host %s: cordoned: %v -> %v", h.Name, now.GetCordoned(), *h.Cordoned)
	}
	if len(paths) > 0 {
		u.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
		p.Hosts = append(p.Hosts, u)
	}
	if h.Config != nil {
		p.Layers = append(p.Layers, layer(&serverpb.Scope{Host: h.Name}, h.Config))
	}
}

func (p *Plan) account(a Account, now *serverpb.Account) {
	scope := &serverpb.Scope{Account: a.Name}
	if now == nil {
		p.Create = append(p.Create, &serverpb.CreateAccountRequest{Name: a.Name, Host: a.Host, HostLabels: a.HostLabels})
		where := "on a host to be chosen"
		if a.Host != "" {
			where = "on " + a.Host
		}
		p.say("+ account %s %s", a.Name, where)
		if len(a.Config) > 0 {
			p.NewLayers = append(p.NewLayers, layer(scope, a.Config))
			for _, key := range slices.Sorted(maps.Keys(a.Config)) {
				p.say("+ account %s: %s: %s", a.Name, key, a.Config[key])
			}
		}
		return
	}
	u := &serverpb.UpdateAccountRequest{Account: &serverpb.Account{Name: a.Name}}
	var paths []string
	if a.Host != "" && a.Host != now.GetHost() {
		u.Account.Host = a.Host
		paths = append(paths, "host")
		p.say("~ account %s: host: %s -> %s", a.Name, now.GetHost(), a.Host)
	}
	if a.HostLabels != nil && !maps.Equal(a.HostLabels, now.GetHostLabels()) {
		u.Account.HostLabels = a.HostLabels
		paths = append(paths, "host_labels")
		p.say("~ account %s: hostLabels: %s -> %s", a.Name, gnomon.FormatLabels(now.GetHostLabels()), gnomon.FormatLabels(a.HostLabels))
	}
	if len(paths) > 0 {
		u.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
		p.Accounts = append(p.Accounts, u)
	}
	if a.Config != nil {
		p.Layers = append(p.Layers, layer(scope, a.Config))
	}
}

func (p *Plan) say(format string, args ...any) {
	p.Lines = append(p.Lines, fmt.Sprintf(format, args...))
}

// Line says what an edit of the configuration does.
func Line(e *serverpb.ConfigEdit) string {
	where := "global"
	switch s := e.GetScope(); {
	case s.GetAccount() != "":
		where = "account " + s.GetAccount()
	case s.GetHost() != "":
		where = "host " + s.GetHost()
	case s.GetVm() != "" && e.GetName() != "":
		where = "vm " + e.GetName()
	case s.GetVm() != "":
		where = "vm " + s.GetVm()
	}
	switch {
	case e.GetBefore() == "":
		return fmt.Sprintf("+ %s: %s: %s", where, e.GetKey(), e.GetAfter())
	case e.GetAfter() == "":
		return fmt.Sprintf("- %s: %s: %s", where, e.GetKey(), e.GetBefore())
	}
	return fmt.Sprintf("~ %s: %s: %s -> %s", where, e.GetKey(), e.GetBefore(), e.GetAfter())
}
