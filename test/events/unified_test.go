package events

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/appliance"
)

// Whatever this host has, all works on one with cgroup v2: the tests of what is
// told by control groups and of what is confined by them pass in a guest that
// has it. Not part of make test: an emulated guest of two CPUs locked up once while
// the kernel changed its own code, so that they take turns here.
func TestUnifiedControlGroups(t *testing.T) {
	if os.Getenv("GNOMON_TEST_UNIFIED") == "" {
		t.Skip("boots a guest, for minutes; GNOMON_TEST_UNIFIED=1, or make test-unified, runs it")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	init, files := filepath.Join(dir, "init"), tools(t, "cat", "cut", "grep", "setpriv", "sh", "sleep", "tail", "true")
	command(t, exec.Command("go", "build", "-o", init, "./testdata/unified"))
	for name, folder := range map[string]string{"pressure": "../../pressure", "cell": "../../shadow/cell", "shadow": "../../shadow"} {
		path := filepath.Join(dir, name)
		command(t, exec.Command("go", "test", "-c", "-o", path, folder))
		files["tests/"+name] = path
	}
	files["etc/shadow"] = filepath.Join(dir, "secret")
	if err := os.WriteFile(files["etc/shadow"], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := appliance.FetchKernel(t.Context(), filepath.Join(root, "build", "kernel"), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(dir, "agent")
	command(t, exec.Command("go", "build", "-ldflags=-s -w", "-o", agent, "../../cmd/gnomon-agent"))
	of, err := appliance.Build(t.Context(), appliance.Options{KernelTree: tree, Init: agent, Out: filepath.Join(dir, "appliance")})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{appliance.ManifestFile, appliance.KernelFile, appliance.InitrdFile, appliance.InitFile} {
		files["appliance/"+name] = filepath.Join(of.Dir, name)
	}
	img, err := appliance.Build(t.Context(), appliance.Options{
		KernelTree: tree, Init: init, Modules: []string{"veth"}, Files: files, Out: filepath.Join(dir, "guest")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-machine", "q35", "-accel", "tcg,thread=single", "-smp", "2", "-m", "512", "-kernel", img.KernelPath(), "-initrd", img.InitrdPath(),
		"-append", "console=ttyS0 quiet panic=-1").CombinedOutput()
	said := string(out)
	t.Log(said)
	if err != nil || !strings.Contains(said, "tests ended: <nil>") || strings.Contains(said, "--- SKIP") {
		t.Errorf("the guest ended with %v: its tests did not all pass", err)
	}
}

var library = regexp.MustCompile(`/\S+`)

// tools returns where in a guest programs of this host have to be, with the
// libraries they need, and where they are here.
func tools(t *testing.T, names ...string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		files["bin/"+name] = path
		for _, needed := range library.FindAllString(command(t, exec.Command("ldd", path)), -1) {
			files[needed[1:]] = needed
		}
	}
	return files
}
