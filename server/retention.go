package server

import (
	"context"
	"reflect"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
)

// Retention is for how long the history is to be kept. The values of a VM are
// kept as ByVM says, all of them, wherever it ran; those of a VM without an
// entry, such as one that ended, as is said of its host, else of its account;
// those of a host likewise; and else Default.
type Retention struct {
	Default   time.Duration
	ByAccount map[string]time.Duration // accounts with a period of their own
	ByHost    map[string]time.Duration // hosts with a period of their own
	ByVM      map[gnomon.VMID]time.Duration
}

const retentionKey = "historyRetentionPeriod"

// retentionOf returns the period that holds with the layers, and whether the
// last of them sets it.
func retentionOf(ls []config.NamedLayer) (keep time.Duration, own bool) {
	p, origin, _ := config.Merge(ls...)
	return p.HistoryRetentionPeriod, origin[retentionKey] == ls[len(ls)-1].Origin()
}

// retention returns the periods in effect.
func (v *view) retention() Retention {
	r := Retention{ByAccount: map[string]time.Duration{}, ByHost: map[string]time.Duration{}, ByVM: map[gnomon.VMID]time.Duration{}}
	r.Default, _ = retentionOf(v.layers(scope{kind: config.Global}))
	if !setsRetention(v.byAccount) && !setsRetention(v.byHost) && !setsRetention(v.byVM) {
		return r // there may be a million VMs
	}
	for name := range v.byAccount {
		if keep, own := retentionOf(v.layers(scope{kind: config.Account, name: name})); own {
			r.ByAccount[name] = keep
		}
	}
	for name := range v.byHost {
		if keep, own := retentionOf(v.layers(scope{kind: config.Host, name: name})); own {
			r.ByHost[name] = keep
		}
	}
	v.retainVMs(&r)
	return r
}

func setsRetention(layers map[string]layer) bool {
	for _, l := range layers {
		if _, ok := l.Values[retentionKey]; ok {
			return true
		}
	}
	return false
}

// retainVMs fills ByVM: with the VMs that hosts report, unless Default holds
// for all there is of them, and with the others that have a period of their
// own.
func (v *view) retainVMs(r *Retention) {
	global := config.NamedLayer{Scope: config.Global, Values: v.global.Values}
	type place struct{ account, host string }
	shared := map[place]time.Duration{}
	for m := range v.vms() {
		id, p := m.id, place{m.account, m.host}
		keep, known := shared[p]
		if l, own := v.byVM[id]; own || !known {
			ls := v.addAccountAndHost([]config.NamedLayer{global}, m.account, m.host)
			if own {
				ls = append(ls, config.NamedLayer{Scope: config.VM, Name: id, Values: l.Values})
			}
			keep, _ = retentionOf(ls)
			if !own {
				shared[p] = keep
			}
		}
		if keep != r.Default || len(r.ByAccount)+len(r.ByHost) > 0 {
			r.ByVM[gnomon.VMID(id)] = keep
		}
	}
	for id, l := range v.byVM {
		if len(v.where[id]) > 0 {
			continue
		}
		if keep, own := retentionOf([]config.NamedLayer{global, {Scope: config.VM, Name: id, Values: l.Values}}); own {
			r.ByVM[gnomon.VMID(id)] = keep
		}
	}
}

// tellRetention calls onRetention at first and whenever it changes.
func (s *Server) tellRetention(ctx context.Context) {
	if s.onRetention == nil {
		return
	}
	var last *Retention
	for {
		var now *Retention
		began := time.Now()
		changed := s.mirror.read(func(v *view) {
			if v != nil {
				r := v.retention()
				now = &r
			}
		})
		took := time.Since(began)
		if now != nil && !reflect.DeepEqual(now, last) {
			s.onRetention(*now)
			last = now
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(retentionPause, 20*took)):
		}
	}
}

// retentionPause is the least between looks for changes of the retention, which
// take up to a twentieth of the time: changes in between are told as one.
const retentionPause = 200 * time.Millisecond
