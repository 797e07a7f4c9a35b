package embedded

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/history"
)

// One operation is one second of 100 VMs: 2,000 values through the client,
// the wire format and the handler.
func BenchmarkSecondOf100VMs(b *testing.B) {
	d, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	c, at := d.Client(), time.Now().Add(-time.Hour)
	points := make([]history.Point, 0, 2000)
	for b.Loop() {
		points, at = points[:0], at.Add(time.Second)
		for vm := range 100 {
			labels := []history.Label{{Name: "host", Value: "h"}, {Name: "vm_id", Value: fmt.Sprint(vm)}}
			for m := range 20 {
				points = append(points, history.Point{Metric: fmt.Sprintf("m%d", m), Labels: labels, At: at, Value: float64(vm)})
			}
		}
		if err := c.Write(b.Context(), points); err != nil {
			b.Fatal(err)
		}
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapInuse)/(1<<20), "MiB-heap")
}
