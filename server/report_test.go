package server

import (
	"errors"
	"testing"

	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// What a report leaves out as unchanged is what the one with that digest said,
// and is asked for where that is not known.
func TestShortReports(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	h := connectHost(t, s.url, "node1")
	short := func(digest string, free int64) error {
		return h.link.Report(t.Context(), &serverpb.ReportRequest{
			Host: "node1", Digest: digest, Unchanged: true, Free: map[string]int64{"cpu": free}})
	}
	if d, _ := h.last(); !d.GetShortReports() {
		t.Fatal("the host is not told that it may leave out what is unchanged")
	}
	for _, digest := range []string{"", "a"} {
		if err := short(digest, 1); !errors.Is(err, hostlink.ErrResend) {
			t.Errorf("digest %q before any report: %v, want the whole to be asked for", digest, err)
		}
	}
	h.report(&serverpb.ReportRequest{Digest: "a", Associations: []*serverpb.Association{{Vm: "x"}, {Vm: "y"}}})
	before := s.revision(t)
	if err := short("a", 7); err != nil {
		t.Fatal(err)
	}
	if got := s.host(t, "node1"); got.GetVms() != 2 || got.GetFree()["cpu"] != 7 {
		t.Errorf("got %v, want 2 VMs and the latest amounts", got)
	}
	if now := s.revision(t); now != before {
		t.Errorf("a short report wrote %d times", now-before)
	}
	if err := short("b", 7); !errors.Is(err, hostlink.ErrResend) {
		t.Errorf("another digest: %v, want the whole to be asked for", err)
	}
}

func TestAmountsAreStoredWhenTheyMove(t *testing.T) {
	capacity := map[string]int64{"cpu": 8000}
	report := func(free, predicted int64) *serverpb.ReportRequest {
		return &serverpb.ReportRequest{Free: map[string]int64{"cpu": free}, Predicted: map[string]int64{"cpu": predicted}}
	}
	for _, c := range []struct {
		now  *serverpb.ReportRequest
		want bool
	}{
		{report(4000, 4000), false}, {report(4900, 3100), false}, {report(5001, 4000), true},
		{report(4000, 2900), true}, {&serverpb.ReportRequest{}, true},
	} {
		if got := moved(capacity, report(4000, 4000), c.now); got != c.want {
			t.Errorf("%v: %v, want %v", c.now, got, c.want)
		}
	}
}
