package appliance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// kernelTree returns the kernel, fetched once for all tests of the checkout.
func kernelTree(t *testing.T) string {
	t.Helper()
	tree, err := FetchKernel(t.Context(), filepath.Join("..", "build", "kernel"), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func buildTestInit(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "init")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", bin, "./testdata/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build test init: %v\n%s", err, out)
	}
	return bin
}

func TestApplianceBoots(t *testing.T) {
	note := filepath.Join(t.TempDir(), "note")
	if err := os.WriteFile(note, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := Build(t.Context(), Options{
		KernelTree: kernelTree(t),
		Init:       buildTestInit(t),
		Modules:    []string{"virtio_pci", "virtio_console", "virtio_balloon", "virtio_net", "virtio_blk", "virtio-rng"},
		Files:      map[string]string{"/etc/note": note},
		Out:        filepath.Join(t.TempDir(), "out"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config",
		"-M", "q35,accel=tcg", "-m", "128", "-display", "none", "-no-reboot",
		"-kernel", img.KernelPath(), "-initrd", img.InitrdPath(),
		"-append", "console=ttyS0 quiet panic=-1 gnomon.seed=7",
		"-serial", "stdio", "-device", "virtio-serial-pci",
		"-chardev", "null,id=c0", "-device", "virtserialport,chardev=c0,name=test.port",
	).CombinedOutput()
	if err != nil {
		t.Fatalf("run guest: %v\n%s", err, out)
	}
	for _, want := range []string{"setup: <nil>", "port: /dev/vport", "seed: 7 true", "note: hello <nil>"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the guest did not say %q:\n%s", want, out)
		}
	}
}

func TestModulesComeAfterWhatTheyDependOn(t *testing.T) {
	tree := kernelTree(t)
	version, _, err := findKernel(tree)
	if err != nil {
		t.Fatal(err)
	}
	mods, err := resolveModules(filepath.Join(tree, "lib/modules", version), []string{"virtio_net", "virtio_pci", "virtio_net"})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range mods {
		deps, err := m.depends()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range deps {
			if !slices.Contains(order, moduleName(d)) {
				t.Errorf("%s comes before %s, which it depends on", m.name, d)
			}
		}
		if slices.Contains(order, m.name) {
			t.Errorf("%s comes twice", m.name)
		}
		order = append(order, m.name)
	}
	for _, want := range []string{"failover", "net_failover", "virtio_ring", "virtio_pci"} {
		if !slices.Contains(order, want) {
			t.Errorf("%s is missing from %v", want, order)
		}
	}
}

func TestBuildIsReproducibleAndSkipsWhatIsThere(t *testing.T) {
	tree := kernelTree(t)
	init := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(init, []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	var got [2][]byte
	opts := Options{KernelTree: tree, Init: init, Modules: []string{"virtio_pci"}}
	for i := range got {
		opts.Out = filepath.Join(t.TempDir(), "out")
		img, err := Build(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if got[i], err = os.ReadFile(img.InitrdPath()); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got[0], got[1]) {
		t.Error("two builds of the same inputs differ")
	}

	before, err := os.Stat(filepath.Join(opts.Out, ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(filepath.Join(opts.Out, ManifestFile))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("an unchanged appliance was built again (%v)", err)
	}
	if err := os.WriteFile(init, []byte("#!x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	after, err = os.Stat(filepath.Join(opts.Out, ManifestFile))
	if err != nil || os.SameFile(before, after) {
		t.Errorf("a changed init did not lead to a new appliance (%v)", err)
	}
}

func TestBuildRefuses(t *testing.T) {
	tree := kernelTree(t)
	for name, tc := range map[string]struct {
		opts Options
		want string
	}{
		"no kernel":      {Options{KernelTree: t.TempDir(), Init: os.Args[0]}, "find kernel"},
		"no init":        {Options{KernelTree: tree, Init: "/nonexistent"}, "no such file"},
		"unknown module": {Options{KernelTree: tree, Init: os.Args[0], Modules: []string{"warp_drive"}}, `no module "warp_drive"`},
	} {
		t.Run(name, func(t *testing.T) {
			tc.opts.Out = filepath.Join(t.TempDir(), "out")
			_, err := Build(t.Context(), tc.opts)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Build: got %v, want an error with %q", err, tc.want)
			}
			if _, err := Open(tc.opts.Out); err == nil {
				t.Error("a refused build left an appliance")
			}
		})
	}
}
