package libvirt

import (
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// The figures are those of a guest of 512 MiB with autodeflate, as read.
func TestABalloonThatDeflatesItselfIsNotUsedMemory(t *testing.T) {
	const mib = 1 << 20
	dm := &domain{def: &definition{booted: 512 * mib, deflates: true}, live: newLive(1)}
	t0 := time.Unix(1000, 0)
	for _, step := range []struct {
		what                  string
		at                    time.Time
		actual, plugged, want int64
	}{
		{"an empty balloon", t0, 512, 0, 470},
		{"200 MiB in the balloon, told since", t0.Add(time.Second), 312, 0, 270},
		{"the balloon moved, nothing told since", t0.Add(time.Second), 412, 0, 270},
		{"told again", t0.Add(2 * time.Second), 412, 0, 370},
		{"100 MiB in the balloon and 64 plugged", t0.Add(3 * time.Second), 476, 64, 370},
	} {
		got := dm.withoutBalloon(hypervisor.Counters{
			MemoryAt: step.at, MemoryActual: step.actual * mib, MemoryAvailable: 470 * mib,
		}, step.plugged*mib)
		if got != step.want*mib {
			t.Errorf("%s: %d MiB, want %d", step.what, got/mib, step.want)
		}
	}
}

func TestAutodeflateIsReadFromTheDefinition(t *testing.T) {
	for value, want := range map[string]bool{` autodeflate="on"`: true, ` autodeflate="off"`: false, ``: false} {
		def, err := parseDefinition(`<domain type="kvm"><memory>524288</memory><devices><memballoon model="virtio"` + value + `/></devices></domain>`)
		if err != nil {
			t.Fatal(err)
		}
		if def.deflates != want {
			t.Errorf("memballoon%s: deflates %v, want %v", value, def.deflates, want)
		}
	}
}
