package demo

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/demo/workload"
)

// realLibvirt connects to the system's libvirt. Without one the test is left
// out, unless the environment says that there has to be one.
func realLibvirt(t *testing.T) *machines {
	t.Helper()
	m, err := connectLibvirt(DefaultLibvirtSocket)
	switch {
	case err == nil && os.Geteuid() == 0:
		t.Cleanup(m.close)
		return m
	case os.Getenv("GNOMON_TEST_VM") == "":
		t.Skipf("needs root and libvirt, and GNOMON_TEST_VM is not set: %v", err)
	}
	t.Fatalf("GNOMON_TEST_VM is set: this has to run as root with libvirt: %v", err)
	return nil
}

// guestImage builds the guest's image where QEMU's user can read it.
func guestImage(t *testing.T) appliance.Image {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "gnomon-demo-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	init := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-o", init, "../cmd/gnomon-load")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build gnomon-load: %v\n%s", err, out)
	}
	tree, err := appliance.FetchKernel(t.Context(), "../build/kernel", nil)
	if err != nil {
		t.Fatal(err)
	}
	image, err := appliance.Build(t.Context(), appliance.Options{
		KernelTree: tree, Init: init, Modules: GuestModules, Out: filepath.Join(dir, "image"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// A real guest does what the schedule says on all four resources, and tells.
func TestGuestRunsTheWorkload(t *testing.T) {
	m, image := realLibvirt(t), guestImage(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	speed, err := trial(ctx, m, image, "tcg", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := makeDisk(filepath.Dir(image.Dir), "disk")
	if err != nil {
		t.Fatal(err)
	}
	g, err := m.boot(ctx, guestSpec{
		name: namePrefix + "test", accel: "tcg", image: image, tap: "gnmdemotest", disk: disk,
		cmdline: guestCommandLine(3, speed.iterations),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.destroy(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := g.await(ctx, workload.Ready); err != nil {
		t.Fatal(err)
	}
	if err := g.tell(workload.CommandGo); err != nil {
		t.Fatal(err)
	}
	items, over := 0, map[gnomon.Resource]workload.Report{}
	for len(over) < gnomon.NumResources {
		select {
		case r := <-g.reports:
			switch r.Kind {
			case workload.Item:
				items++
			case workload.Over:
				over[r.Resource] = r
			case workload.Trouble:
				t.Fatalf("the guest has trouble: %s", r.Text)
			}
		case <-ctx.Done():
			t.Fatalf("only %v finished", over)
		}
	}
	if items < 30 {
		t.Errorf("%d work items, want at least those of a burst", items)
	}
	if got := over[gnomon.Memory].Bytes; got < workload.MemoryBytes*9/10 {
		t.Errorf("the guest held %d bytes, want %d", got, workload.MemoryBytes)
	}
	for _, r := range []gnomon.Resource{gnomon.Disk, gnomon.Network} {
		if over[r].Bytes < 7<<20 {
			t.Errorf("%v: %d bytes in a burst, want several MiB", r, over[r].Bytes)
		}
	}
}
