package host

import (
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// desired is what the server wants of this host, as last heard. It is kept on
// disk, so that a host without its server goes on with what it knows.
type desired struct {
	Revision  int64                        `json:"revision"`
	Accounts  []string                     `json:"accounts,omitempty"`
	Global    map[string]string            `json:"global,omitempty"`
	Host      map[string]string            `json:"host,omitempty"`
	ByAccount map[string]map[string]string `json:"by_account,omitempty"`
	ByVM      map[string]map[string]string `json:"by_vm,omitempty"`
}

func desiredFrom(p *serverpb.DesiredState) desired {
	return desired{
		Revision:  p.GetRevision(),
		Accounts:  p.GetAccounts(),
		Global:    p.GetGlobal(),
		Host:      p.GetHost(),
		ByAccount: layersFrom(p.GetByAccount()),
		ByVM:      layersFrom(p.GetByVm()),
	}
}

func layersFrom(in map[string]*serverpb.Layer) map[string]map[string]string {
	out := make(map[string]map[string]string, len(in))
	for name, l := range in {
		out[name] = l.GetValues()
	}
	return out
}

// parameters returns the effective parameters of a VM; of the host itself if
// all are empty. Layers that do not fit together (from a server that is newer)
// count as far as they do.
func (d desired) parameters(account string, id gnomon.VMID, name string) config.Parameters {
	p, _, _ := config.Merge(
		config.NamedLayer{Scope: config.Global, Values: d.Global},
		config.NamedLayer{Scope: config.Account, Name: account, Values: d.ByAccount[account]},
		config.NamedLayer{Scope: config.Host, Values: d.Host},
		config.NamedLayer{Scope: config.VM, Name: name, Values: d.ByVM[name]},
		config.NamedLayer{Scope: config.VM, Name: string(id), Values: d.ByVM[string(id)]},
	)
	return p
}
