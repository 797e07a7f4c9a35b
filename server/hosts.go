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

// GetHost implements ManagementService.
func (s *Server) GetHost(ctx context.Context, req *connect.Request[serverpb.GetHostRequest]) (*connect.Response[serverpb.GetHostResponse], error) {
	r := &serverpb.GetHostResponse{}
	err := s.read(ctx, func(v *view) error {
		if _, ok := v.hosts[req.Msg.GetName()]; !ok {
			return v.errNoHost(req.Msg.GetName())
		}
		r.Host = s.describe(v, req.Msg.GetName())
		return nil
	})
	return respond(r, err)
}

func (v *view) errNoHost(name string) error {
	return refuse(connect.CodeNotFound, "host %q is not known: %s", shorten(name), v.hostNames())
}

// ListHosts implements ManagementService.
func (s *Server) ListHosts(ctx context.Context, req *connect.Request[serverpb.ListHostsRequest]) (*connect.Response[serverpb.ListHostsResponse], error) {
	m := req.Msg
	if err := checkMask("read_mask", &serverpb.Host{}, m.GetReadMask()); err != nil {
		return nil, err
	}
	r := &serverpb.ListHostsResponse{}
	err := s.read(ctx, func(v *view) error {
		names, next, err := pageOf(slices.Sorted(maps.Keys(v.hosts)), m.GetPageSize(), m.GetPageToken())
		for _, name := range names {
			h := s.describe(v, name)
			masked(h, m.GetReadMask(), "name")
			r.Hosts = append(r.Hosts, h)
		}
		r.NextPageToken = next
		return err
	})
	return respond(r, err)
}

func (s *Server) describe(v *view, name string) *serverpb.Host {
	h := proto.CloneOf(v.hosts[name])
	h.Name = name
	presence, connected := v.online[name]
	h.Connected = connected
	h.Labels, h.Cordoned = v.notices[name].Labels, v.notices[name].Cordoned
	h.Capacity, h.Free, h.Predicted = s.capacityOf(v, name), s.freeOf(v, name), s.predictedOf(v, name)
	s.mu.Lock()
	if l := s.links[name]; l != nil {
		h.LastSeenUnixNano = max(h.LastSeenUnixNano, l.seen.UnixNano())
		if l.streams > 0 {
			h.LastSeenUnixNano = time.Now().UnixNano()
		}
	}
	s.mu.Unlock()
	if connected && presence.Server != s.id {
		h.LastSeenUnixNano = time.Now().UnixNano() // another server holds its stream
	}
	report := v.reports[name]
	for _, a := range report.GetAssociations() {
		h.Vms++
		if a.GetShadow() != "" {
			h.Shadows++
		}
	}
	for _, w := range report.GetWarm() {
		if w.GetShadow() == "warm" {
			h.Shadows++
		}
	}
	return h
}

// UpdateHost implements ManagementService.
func (s *Server) UpdateHost(ctx context.Context, req *connect.Request[serverpb.UpdateHostRequest]) (*connect.Response[serverpb.UpdateHostResponse], error) {
	m := req.Msg
	if err := checkUpdate(m.GetUpdateMask().GetPaths(), "labels", "cordoned"); err != nil {
		return nil, err
	}
	if err := checkLabels("host.labels", m.GetHost().GetLabels()); err != nil {
		return nil, err
	}
	name := m.GetHost().GetName()
	key := keyOf(noticePrefix, name)
	for range conflictRetries {
		var n notice
		var revision int64
		r := &serverpb.UpdateHostResponse{}
		err := s.read(ctx, func(v *view) error {
			if _, ok := v.hosts[name]; !ok {
				return v.errNoHost(name)
			}
			n, revision = v.notices[name], v.revision
			r.Host = s.describe(v, name)
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, path := range m.GetUpdateMask().GetPaths() {
			switch path {
			case "labels":
				n.Labels = m.GetHost().GetLabels()
			case "cordoned":
				n.Cordoned = m.GetHost().GetCordoned()
			}
		}
		r.Host.Labels, r.Host.Cordoned = n.Labels, n.Cordoned
		txn, err := s.commit(ctx, []clientv3.Cmp{
			clientv3.Compare(clientv3.ModRevision(key), "<", revision+1),
			clientv3.Compare(clientv3.CreateRevision(keyOf(hostPrefix, name)), ">", 0),
		}, clientv3.OpPut(key, encodeJSON(n)))
		if err != nil {
			return nil, err
		}
		if txn.Succeeded {
			return connect.NewResponse(r), nil
		}
	}
	return nil, errConflict()
}

// ListAssociations implements ManagementService.
func (s *Server) ListAssociations(ctx context.Context, req *connect.Request[serverpb.ListAssociationsRequest]) (*connect.Response[serverpb.ListAssociationsResponse], error) {
	m := req.Msg
	if err := checkMask("read_mask", &serverpb.Association{}, m.GetReadMask()); err != nil {
		return nil, err
	}
	size, err := pageSize(m.GetPageSize(), defaultPage)
	if err != nil {
		return nil, err
	}
	last, err := lastOf(m.GetPageToken())
	if err != nil {
		return nil, err
	}
	lastHost, lastVM, _ := strings.Cut(last, "\x00")
	r := &serverpb.ListAssociationsResponse{}
	err = s.read(ctx, func(v *view) error {
		for _, host := range slices.Sorted(maps.Keys(v.reports)) {
			if host < lastHost || m.GetHost() != "" && host != m.GetHost() {
				continue
			}
			all := slices.SortedStableFunc(slices.Values(v.reports[host].GetAssociations()),
				func(a, b *serverpb.Association) int { return cmp.Compare(a.GetVm(), b.GetVm()) })
			for _, a := range all {
				if host == lastHost && a.GetVm() <= lastVM || m.GetAccount() != "" && a.GetAccount() != m.GetAccount() {
					continue
				}
				if n := len(r.Associations); n == size {
					r.NextPageToken = tokenOf(r.Associations[n-1].GetHost() + "\x00" + r.Associations[n-1].GetVm())
					return nil
				}
				a = proto.CloneOf(a)
				a.Host = host
				masked(a, m.GetReadMask(), "host", "vm")
				r.Associations = append(r.Associations, a)
			}
		}
		return nil
	})
	return respond(r, err)
}

// DeleteHost implements ManagementService. The host's configuration, labels and
// what it last reported go with it. One that joined with a certificate has to
// join again.
func (s *Server) DeleteHost(ctx context.Context, req *connect.Request[serverpb.DeleteHostRequest]) (*connect.Response[serverpb.DeleteHostResponse], error) {
	name := req.Msg.GetName()
	_, err := s.changeConfig(ctx, "host removed", false, func(v *view) (proposal, error) {
		if _, ok := v.hosts[name]; !ok {
			return proposal{}, v.errNoHost(name)
		}
		if _, connected := v.online[name]; connected {
			return proposal{}, refuse(connect.CodeFailedPrecondition, "host %q is connected: stop its daemon first", name)
		}
		if accounts := slices.Sorted(maps.Keys(v.designated[name])); len(accounts) > 0 {
			return proposal{}, refuse(connect.CodeFailedPrecondition, "host %q holds the shadows of accounts (%s): remove them first", name, strings.Join(accounts, ", "))
		}
		p := v.clearing(scope{kind: config.Host, name: name})
		p.cmps = []clientv3.Cmp{
			clientv3.Compare(clientv3.CreateRevision(keyOf(onlinePrefix, name)), "=", 0),
			clientv3.Compare(clientv3.ModRevision(accountPrefix).WithPrefix(), "<", v.revision+1),
		}
		p.ops = []clientv3.Op{
			clientv3.OpDelete(keyOf(hostPrefix, name)), clientv3.OpDelete(keyOf(reportPrefix, name)), clientv3.OpDelete(keyOf(noticePrefix, name)),
			clientv3.OpDelete(keyOf(identityPrefix, name)),
		}
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	delete(s.links, name)
	s.mu.Unlock()
	return connect.NewResponse(&serverpb.DeleteHostResponse{}), nil
}
