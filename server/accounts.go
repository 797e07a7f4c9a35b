package server

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// CreateAccount implements ManagementService.
func (s *Server) CreateAccount(ctx context.Context, req *connect.Request[serverpb.CreateAccountRequest]) (*connect.Response[serverpb.CreateAccountResponse], error) {
	m := req.Msg
	if err := checkNewAccount(m); err != nil {
		return nil, err
	}
	name := m.GetName()
	a := &serverpb.Account{Name: name, CreatedUnixNano: time.Now().UnixNano(), HostLabels: m.GetHostLabels(), RequestId: m.GetRequestId()}
	res := &serverpb.CreateAccountResponse{Account: a}
	created := false
	err := s.read(ctx, func(v *view) (err error) {
		if old, ok := v.accounts[name]; ok {
			if created = m.GetRequestId() != "" && old.GetRequestId() == m.GetRequestId(); created {
				res.Account = v.describeAccount(old)
				return nil
			}
			return refuse(connect.CodeAlreadyExists, "account %q exists already, on host %q", name, old.GetHost())
		}
		a.Host, res.WhyHost, err = s.designate(v, m.GetHost(), m.GetHostLabels())
		res.Account = v.describeAccount(a)
		return err
	})
	if err != nil || created {
		return respond(res, err)
	}
	key := keyOf(accountPrefix, name)
	put, err := putAccount(key, a)
	if err != nil {
		return nil, err
	}
	r, err := s.commit(ctx, []clientv3.Cmp{
		clientv3.Compare(clientv3.CreateRevision(key), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(keyOf(hostPrefix, a.GetHost())), ">", 0),
	}, put)
	if err != nil {
		return nil, err
	}
	if !r.Succeeded {
		return nil, refuse(connect.CodeAborted, "account %q was created, or host %q removed, by another: look, and try again", name, a.GetHost())
	}
	return connect.NewResponse(res), nil
}

func checkNewAccount(m *serverpb.CreateAccountRequest) error {
	if err := checkAccountName(m.GetName()); err != nil {
		return err
	}
	if err := checkRequestID(m.GetRequestId()); err != nil {
		return err
	}
	return checkLabels("host_labels", m.GetHostLabels())
}

func checkRequestID(id string) error {
	if len(id) > 64 {
		return refuseField("request_id", "request_id: %d bytes, want at most 64", len(id))
	}
	return checkText("request_id", id, true)
}

// putAccount stores an account without what its host reports and what its
// configuration says.
func putAccount(key string, a *serverpb.Account) (clientv3.Op, error) {
	a = proto.CloneOf(a)
	a.Shadow, a.Quota, a.Priority = "", "", ""
	return putMessage(key, a)
}

// designate returns the host for an account: the one asked for, or else the
// best that there is, and then why.
func (s *Server) designate(v *view, host string, labels map[string]string) (name, why string, err error) {
	if host == "" {
		return s.place(v, labels)
	}
	if _, ok := v.hosts[host]; !ok {
		return "", "", refuse(connect.CodeNotFound, "host %q is not known: %s", shorten(host), v.hostNames())
	}
	return host, "", nil
}

// hostNames tells which hosts there are.
func (v *view) hostNames() string {
	if len(v.hosts) == 0 {
		return "none has ever connected"
	}
	names := slices.Sorted(maps.Keys(v.hosts))
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	return "there are " + strings.Join(names, ", ")
}

// warmth is the state of an account's warm shadow, as its host reports it.
func (v *view) warmth(a *serverpb.Account) string {
	for _, w := range v.reports[a.GetHost()].GetWarm() {
		if w.GetName() == a.GetName() {
			return w.GetShadow()
		}
	}
	return "none"
}

func (v *view) describeAccount(a *serverpb.Account) *serverpb.Account {
	a = proto.CloneOf(a)
	a.Shadow = v.warmth(a)
	p, _, _ := config.Merge(v.layers(scope{kind: config.Account, name: a.GetName()})...)
	values := p.Values()
	a.Quota, a.Priority = values["quota"], values["priority"]
	return a
}

// GetAccount implements ManagementService.
func (s *Server) GetAccount(ctx context.Context, req *connect.Request[serverpb.GetAccountRequest]) (*connect.Response[serverpb.GetAccountResponse], error) {
	r := &serverpb.GetAccountResponse{}
	err := s.read(ctx, func(v *view) error {
		a, ok := v.accounts[req.Msg.GetName()]
		if !ok {
			return errNoAccount(req.Msg.GetName())
		}
		r.Account = v.describeAccount(a)
		return nil
	})
	return respond(r, err)
}

func errNoAccount(name string) error {
	return refuse(connect.CodeNotFound, "account %q does not exist", shorten(name))
}

// ListAccounts implements ManagementService.
func (s *Server) ListAccounts(ctx context.Context, req *connect.Request[serverpb.ListAccountsRequest]) (*connect.Response[serverpb.ListAccountsResponse], error) {
	m := req.Msg
	if err := checkMask("read_mask", &serverpb.Account{}, m.GetReadMask()); err != nil {
		return nil, err
	}
	r := &serverpb.ListAccountsResponse{}
	err := s.read(ctx, func(v *view) error {
		names, next, err := pageOf(slices.Sorted(maps.Keys(v.accounts)), m.GetPageSize(), m.GetPageToken())
		for _, name := range names {
			a := v.describeAccount(v.accounts[name])
			masked(a, m.GetReadMask(), "name")
			r.Accounts = append(r.Accounts, a)
		}
		r.NextPageToken = next
		return err
	})
	return respond(r, err)
}

// UpdateAccount implements ManagementService.
func (s *Server) UpdateAccount(ctx context.Context, req *connect.Request[serverpb.UpdateAccountRequest]) (*connect.Response[serverpb.UpdateAccountResponse], error) {
	m := req.Msg
	if err := checkUpdate(m.GetUpdateMask().GetPaths(), "host", "host_labels"); err != nil {
		return nil, err
	}
	if err := checkLabels("account.host_labels", m.GetAccount().GetHostLabels()); err != nil {
		return nil, err
	}
	name := m.GetAccount().GetName()
	key := keyOf(accountPrefix, name)
	for range conflictRetries {
		var a *serverpb.Account
		var revision int64
		err := s.read(ctx, func(v *view) (err error) {
			old, ok := v.accounts[name]
			if !ok {
				return errNoAccount(name)
			}
			a, revision = v.describeAccount(old), v.revision
			for _, path := range m.GetUpdateMask().GetPaths() {
				switch path {
				case "host_labels":
					a.HostLabels = m.GetAccount().GetHostLabels()
				case "host":
					a.Host = m.GetAccount().GetHost()
				}
			}
			if slices.Contains(m.GetUpdateMask().GetPaths(), "host") {
				a.Host, _, err = s.designate(v, a.GetHost(), a.GetHostLabels())
			}
			a.Shadow = v.warmth(a)
			return err
		})
		if err != nil {
			return nil, err
		}
		put, err := putAccount(key, a)
		if err != nil {
			return nil, err
		}
		r, err := s.commit(ctx, []clientv3.Cmp{
			clientv3.Compare(clientv3.ModRevision(key), "<", revision+1),
			clientv3.Compare(clientv3.CreateRevision(key), ">", 0),
			clientv3.Compare(clientv3.CreateRevision(keyOf(hostPrefix, a.GetHost())), ">", 0),
		}, put)
		if err != nil {
			return nil, err
		}
		if r.Succeeded {
			return connect.NewResponse(&serverpb.UpdateAccountResponse{Account: a}), nil
		}
	}
	return nil, errConflict()
}

// checkUpdate refuses a mask that names nothing, or what cannot be changed.
func checkUpdate(paths []string, may ...string) error {
	if len(paths) == 0 {
		return refuseField("update_mask", "update_mask: names no field: want %s", strings.Join(may, " or "))
	}
	for _, p := range paths {
		if !slices.Contains(may, p) {
			return refuseField("update_mask", "update_mask: %q cannot be changed: want %s", shorten(p), strings.Join(may, " or "))
		}
	}
	return nil
}

// DeleteAccount implements ManagementService. The account's configuration goes
// with it.
func (s *Server) DeleteAccount(ctx context.Context, req *connect.Request[serverpb.DeleteAccountRequest]) (*connect.Response[serverpb.DeleteAccountResponse], error) {
	name := req.Msg.GetName()
	key := keyOf(accountPrefix, name)
	_, err := s.changeConfig(ctx, "account removed", false, func(v *view) (proposal, error) {
		if _, ok := v.accounts[name]; !ok {
			return proposal{}, errNoAccount(name)
		}
		if running := v.runningOf(name); len(running) > 0 {
			return proposal{}, refuse(connect.CodeFailedPrecondition, "account %q still has VMs (%s): stop them, or give them another account, first", name, strings.Join(running, ", "))
		}
		p := v.clearing(scope{kind: config.Account, name: name})
		p.cmps = []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), ">", 0)}
		p.ops = []clientv3.Op{clientv3.OpDelete(key)}
		return p, nil
	})
	return respond(&serverpb.DeleteAccountResponse{}, err)
}

// runningOf names the first of an account's VMs on hosts that are connected.
func (v *view) runningOf(account string) []string {
	const few = 10
	var running []string
	for host := range v.spread[account] {
		if _, connected := v.online[host]; !connected {
			continue
		}
		for _, a := range v.reports[host].GetAssociations() {
			if a.GetAccount() == account && len(running) < few {
				running = append(running, cmp.Or(a.GetVmName(), a.GetVm())+" on "+host)
			}
		}
	}
	slices.Sort(running)
	return running
}

// clearing proposes that nothing is set at a scope that goes.
func (v *view) clearing(c scope) proposal {
	return proposal{layers: []planned{{c, v.stored(c), layer{}}}, unchecked: true}
}
