package shadow

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/hypervisor"
)

func TestNamesAreUniqueAndShort(t *testing.T) {
	valid := regexp.MustCompile(`^gnomon-shadow-[A-Za-z0-9._-]+$`)
	rapid.Check(t, func(t *rapid.T) {
		taken := map[string]bool{}
		label := rapid.String().Draw(t, "label")
		for range rapid.IntRange(1, 15).Draw(t, "n") {
			name := Name(label, func(n string) bool { return taken[n] })
			if taken[name] || len(name) > maxName || !valid.MatchString(name) {
				t.Fatalf("name %q for label %q", name, label)
			}
			taken[name] = true
		}
	})
	if got := Name("web-1", func(string) bool { return false }); got != "gnomon-shadow-web-1" {
		t.Errorf("got %q", got)
	}
}

// fakeAppliance makes files that pass for an appliance.
func fakeAppliance(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		appliance.KernelFile: "k", appliance.InitrdFile: "i", appliance.ManifestFile: `{"kernel":"6","hash":"0123456789abcdef"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A template and its clones agree on the machine, and a shadow has no network,
// no disk and nothing that gives a template's pages back.
func TestArguments(t *testing.T) {
	for _, accel := range []string{"tcg", "kvm"} {
		boot, clone := bootArgs("a", accel), cloneArgs("a", accel)
		devices := func(args []string) (out []string) {
			for i, a := range args {
				if a == "-device" || a == "-M" || a == "-m" {
					out = append(out, a, args[i+1])
				}
			}
			return out
		}
		if !slices.Equal(devices(boot), devices(clone)) {
			t.Errorf("%s: a template has %v, a clone %v", accel, devices(boot), devices(clone))
		}
		for _, args := range [][]string{boot, clone} {
			if line := strings.Join(args, " "); strings.Contains(line, "net") || strings.Contains(line, "drive") || strings.Contains(line, "balloon") {
				t.Errorf("%s: %s", accel, line)
			}
		}
		if got := slices.ContainsFunc(clone, func(a string) bool { return strings.HasPrefix(a, accel) }); !got {
			t.Errorf("%s is not in %v", accel, clone)
		}
	}
}

func TestRefusedShadows(t *testing.T) {
	l, err := NewLauncher(Options{Appliance: fakeAppliance(t), RunDir: shortDir(t), Accel: "tcg"})
	if err != nil {
		t.Fatal(err)
	}
	good := Spec{Name: "gnomon-shadow-a", For: hypervisor.Warm, Size: config.Size{CPU: 50, Memory: MinMemory}}
	for name, tc := range map[string]struct {
		spoil func(*Spec)
		want  string
	}{
		"no name":   {func(s *Spec) { s.Name = "" }, "name of 0 bytes"},
		"long name": {func(s *Spec) { s.Name = strings.Repeat("x", 61) }, "name of 61 bytes"},
		"no VM":     {func(s *Spec) { s.For = "" }, "no VM"},
		"too small": {func(s *Spec) { s.Size.Memory = MinMemory - 1 }, "at least 80"},
		"no CPU":    {func(s *Spec) { s.Size.CPU = 0 }, "more than 0"},
	} {
		spec := good
		tc.spoil(&spec)
		if _, err := l.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tc.want)
		}
	}
}

func TestLauncherRefuses(t *testing.T) {
	image, run := fakeAppliance(t), shortDir(t)
	for name, tc := range map[string]struct {
		opts Options
		want string
	}{
		"no appliance":    {Options{Appliance: t.TempDir(), RunDir: run, Accel: "tcg"}, "make appliance"},
		"no acceleration": {Options{Appliance: image, RunDir: run}, "want kvm or tcg"},
		"long directory":  {Options{Appliance: image, RunDir: filepath.Join(run, strings.Repeat("x", 50)), Accel: "tcg"}, "too long"},
	} {
		if _, err := NewLauncher(tc.opts); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tc.want)
		}
	}
}

func TestCostOfThisProcess(t *testing.T) {
	pss, err := PSS(os.Getpid())
	if err != nil || pss < 1<<20 || pss > 16<<30 {
		t.Errorf("PSS of this process: %d, %v", pss, err)
	}
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		now, err := CPUTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now > before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a busy loop used no CPU time")
		}
	}
}
