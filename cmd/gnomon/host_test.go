package main

import (
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// A capacity that nobody told is no number of bytes.
func TestStatusOfAHostWithoutRates(t *testing.T) {
	var out strings.Builder
	book := func(cpu, disk int64) *hostpb.Amounts {
		return &hostpb.Amounts{CpuMillicores: cpu, MemoryBytes: 1 << 30, DiskBytesPerSecond: disk, NetworkBytesPerSecond: 5e6}
	}
	err := printStatus(&out, &hostpb.StatusResponse{Host: "node1",
		Capacity: book(4000, gnomon.UnboundedCapacity), Allocated: book(1000, 2e6), Reserved: book(0, 0), Free: book(3000, gnomon.UnboundedCapacity-2e6)})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"cpu       4 cores    1 core     0 cores   3 cores\n",
		"disk      unbounded  2 MB/s     0 B/s     unbounded\n",
	} {
		if !strings.Contains(out.String(), row) {
			t.Errorf("want %q in\n%s", row, out.String())
		}
	}
}
