package server

import (
	"testing"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// An account goes where there will be room, not where there is some now.
func TestPlacedByForecast(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	one, two := connectHost(t, s.url, "node1"), connectHost(t, s.url, "node2")
	free := map[string]int64{"cpu": 6000, "memory": 12 << 30}
	one.report(&serverpb.ReportRequest{Free: free, Predicted: map[string]int64{"cpu": 7000}})
	two.report(&serverpb.ReportRequest{Free: map[string]int64{"cpu": 4000, "memory": 12 << 30}, Predicted: map[string]int64{"cpu": 3000}})
	if a, err := s.account("acme", ""); err != nil || a.GetHost() != "node2" {
		t.Errorf("got %v, %v; want node2, since node1 is about to be full", a, err)
	}
	if h := s.host(t, "node1"); h.GetPredicted()["cpu"] != 7000 {
		t.Errorf("got %v", h)
	}
}
