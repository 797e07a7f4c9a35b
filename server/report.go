package server

import (
	"context"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

const (
	maxAssociations = 10_000

	// Amounts change all the time. They are stored, for other servers and for
	// after a restart, when one has moved by more than a share of the capacity,
	// and then no more often than this.
	amountsPeriod = 30 * time.Second
	amountsShare  = 8
)

// Report implements HostLinkService.
func (s *Server) Report(ctx context.Context, req *connect.Request[serverpb.ReportRequest]) (*connect.Response[serverpb.ReportResponse], error) {
	m := req.Msg
	if err := checkReport(m); err != nil {
		return nil, err
	}
	if err := speaksFor(ctx, m.GetHost()); err != nil {
		return nil, err
	}
	var record *serverpb.Host
	var stored *serverpb.ReportRequest
	var revision int64
	s.mirror.read(func(v *view) {
		if v != nil {
			record = v.hosts[m.GetHost()]
			stored, revision = v.reports[m.GetHost()], v.revision
		}
	})
	s.mu.Lock()
	_, linked := s.links[m.GetHost()]
	s.mu.Unlock()
	if record == nil && !linked {
		return nil, errUnknown(m.GetHost())
	}
	l := s.touch(m.GetHost(), func(l *link) {
		l.free, l.predicted, l.needs, l.capacity = m.GetFree(), m.GetPredicted(), m.GetNeeds(), m.GetCapacity()
		if l.revision <= revision {
			l.stored = nil // the mirror has it
		}
	})
	if l.revision > revision {
		stored = l.stored
	}
	if m.GetUnchanged() {
		if stored == nil || m.GetDigest() == "" || stored.GetDigest() != m.GetDigest() {
			return connect.NewResponse(&serverpb.ReportResponse{Resend: true}), nil
		}
		m.Associations, m.Warm, m.Unchanged = stored.GetAssociations(), stored.GetWarm(), false
	} else {
		for _, a := range m.GetAssociations() {
			a.Host = "" // it is the report's
		}
	}
	if stored != nil && sameReport(stored, m) && (time.Since(l.storedAt) < amountsPeriod || !moved(record.GetCapacity(), stored, m)) {
		return connect.NewResponse(&serverpb.ReportResponse{}), nil
	}
	if err := s.storeReport(ctx, m); err != nil {
		return nil, err
	}
	return connect.NewResponse(&serverpb.ReportResponse{}), nil
}

func (s *Server) storeReport(ctx context.Context, m *serverpb.ReportRequest) error {
	put, err := putReport(keyOf(reportPrefix, m.GetHost()), m)
	if err != nil {
		return err
	}
	registered := clientv3.Compare(clientv3.CreateRevision(keyOf(hostPrefix, m.GetHost())), ">", 0)
	r, err := s.commitForHost(ctx, []clientv3.Cmp{registered}, put)
	if err != nil {
		return err
	}
	if !r.Succeeded {
		return errUnknown(m.GetHost()) // removed meanwhile
	}
	s.metrics.reports.Inc()
	s.touch(m.GetHost(), func(l *link) { l.stored, l.storedAt, l.revision = m, time.Now(), r.Header.Revision })
	return nil
}

func errUnknown(host string) error {
	return refuse(connect.CodeFailedPrecondition, "host %q is not known: it must watch before it reports", host)
}

// sameReport compares all but the amounts. Reports of one digest are the same
// but for those.
func sameReport(a, b *serverpb.ReportRequest) bool {
	if a.GetDigest() != "" || b.GetDigest() != "" {
		return a.GetDigest() == b.GetDigest()
	}
	a = &serverpb.ReportRequest{Associations: a.GetAssociations(), Warm: a.GetWarm()}
	return proto.Equal(a, &serverpb.ReportRequest{Associations: b.GetAssociations(), Warm: b.GetWarm()})
}

// moved tells whether an amount has changed so much that it is to be stored.
func moved(capacity map[string]int64, before, now *serverpb.ReportRequest) bool {
	far := func(a, b map[string]int64) bool {
		if len(a) != len(b) {
			return true
		}
		for r, was := range a {
			if d := b[r] - was; max(d, -d) > capacity[r]/amountsShare {
				return true
			}
		}
		return false
	}
	return far(before.GetCapacity(), now.GetCapacity()) || far(before.GetFree(), now.GetFree()) || far(before.GetPredicted(), now.GetPredicted())
}

func checkReport(m *serverpb.ReportRequest) error {
	if err := checkHostName(m.GetHost()); err != nil {
		return err
	}
	if n := len(m.GetAssociations()) + len(m.GetWarm()); n > maxAssociations {
		return refuseField("associations", "associations: %d, want at most %d", n, maxAssociations)
	}
	for _, a := range m.GetAssociations() {
		if a.GetHost() != "" && a.GetHost() != m.GetHost() {
			return refuseField("associations", "associations: host %q reports for %q", m.GetHost(), a.GetHost())
		}
		if err := checkText("associations: vm", a.GetVm(), false); err != nil {
			return err
		}
		for _, t := range [...]struct{ field, text string }{
			{"vm_name", a.GetVmName()}, {"account", a.GetAccount()}, {"shadow", a.GetShadow()}, {"shadow_state", a.GetShadowState()},
		} {
			if err := checkText("associations: "+t.field, t.text, true); err != nil {
				return err
			}
		}
	}
	for _, w := range m.GetWarm() {
		if err := checkText("warm: name", w.GetName(), true); err != nil {
			return err
		}
		if err := checkText("warm: shadow", w.GetShadow(), true); err != nil {
			return err
		}
	}
	if n := len(m.GetNeeds()); n > maxAssociations {
		return refuseField("needs", "needs: %d, want at most %d", n, maxAssociations)
	}
	for _, n := range m.GetNeeds() {
		if err := checkText("needs: vm", n.GetVm(), false); err != nil {
			return err
		}
		if err := checkAmounts("needs: predicted", n.GetPredicted()); err != nil {
			return err
		}
	}
	if err := checkText("digest", m.GetDigest(), true); err != nil {
		return err
	}
	if err := checkAmounts("capacity", m.GetCapacity()); err != nil {
		return err
	}
	if err := checkAmounts("predicted", m.GetPredicted()); err != nil {
		return err
	}
	return checkAmounts("free", m.GetFree())
}
