package libvirt

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/domainxml"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

func TestNoteOfOwnLimits(t *testing.T) {
	own := hypervisor.Original{Limits: hypervisor.Limits{2000, 1 << 30, hypervisor.Unlimited, 5_000_000}, VCPUs: 2, Detail: `{"disks":"<&>"}`}
	text, err := encodeNote(own)
	if err != nil {
		t.Fatal(err)
	}
	// As libvirt makes it of what it is given.
	inside := func(s string) string {
		return strings.Replace(strings.Replace(s, "<limits", `<own:limits xmlns:own="`+domainxml.OwnNamespace+`"`, 1), "</limits", "</own:limits", 1)
	}
	few := hypervisor.Original{Limits: hypervisor.Limits{hypervisor.Unlimited, 7, hypervisor.Unlimited, hypervisor.Unlimited}}
	for metadata, want := range map[string]*hypervisor.Original{
		inside(text): &own,
		inside(`<limits memory="7" cpu="-3" disk="much" vcpus="0" colour="red"></limits>`): &few,
		inside(`<limits cpu="100"></limits>`):                                              nil,
		text:                                                                               nil, // nobody's
	} {
		def, err := parseDefinition(`<domain type="qemu"><metadata>` + metadata + `</metadata></domain>`)
		if err != nil {
			t.Errorf("%s: %v", metadata, err)
			continue
		}
		if (def.own == nil) != (want == nil) || want != nil && *def.own != *want {
			t.Errorf("%s is read as %+v, want %+v", metadata, def.own, want)
		}
	}
}

// The note is where the limits are: a VM that is saved and restored has both, one
// that is started anew neither.
func TestNoteGoesWithTheLimits(t *testing.T) {
	b := newBench(t, Options{})
	id := b.start(t, guest{empty: true, stored: true, equipped: true})
	look := func() hypervisor.Machine {
		t.Helper()
		machines, err := b.d.Machines(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range machines {
			if m.ID == id {
				return m
			}
		}
		t.Fatal("it does not run")
		panic("unreachable")
	}
	virsh := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("virsh", append(args, string(id))...).CombinedOutput(); err != nil {
			t.Fatalf("virsh %v: %v: %s", args, err, out)
		}
	}
	own := look().Original
	if _, err := b.d.Apply(t.Context(), id, gnomon.Disk, 2_000_000, hypervisor.Terms{}); err != nil {
		t.Fatal(err)
	}
	if err := b.d.Note(t.Context(), id, own); err != nil {
		t.Fatal(err)
	}
	virsh("managedsave")
	virsh("start")
	if m := look(); m.Original.Limits[gnomon.Disk] != 2_000_000 || m.Own == nil || *m.Own != own {
		t.Errorf("restored it has limits %v and carries %+v as its own, want %+v", m.Original.Limits, m.Own, own)
	}
	virsh("destroy")
	virsh("start")
	if m := look(); m.Original.Limits[gnomon.Disk] != hypervisor.Unlimited || m.Own != nil {
		t.Errorf("started anew it has limits %v and carries %+v", m.Original.Limits, m.Own)
	}
}
