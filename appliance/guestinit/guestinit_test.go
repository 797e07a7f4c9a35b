package guestinit

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFindPort(t *testing.T) {
	class := t.TempDir()
	for dev, name := range map[string]string{"vport0p1": "org.gnomon.agent.0\n", "vport0p2": "other\n"} {
		if err := os.MkdirAll(filepath.Join(class, dev), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, dev, "name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if dev, ok := findPort(class, "org.gnomon.agent.0"); !ok || dev != "/dev/vport0p1" {
		t.Errorf("findPort = %q, %v", dev, ok)
	}
	if dev, ok := findPort(class, "org.gnomon.agent"); ok {
		t.Errorf("findPort found %q by half a name", dev)
	}
}

func TestPluggedCPU(t *testing.T) {
	for event, want := range map[string]string{
		"add@/devices/system/cpu/cpu1\x00ACTION=add\x00":       "/devices/system/cpu/cpu1",
		"remove@/devices/system/cpu/cpu1\x00ACTION=remove\x00": "",
		"add@/devices/virtual/block/loop0\x00ACTION=add\x00":   "",
		"": "",
	} {
		if got, ok := pluggedCPU([]byte(event)); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", event, got, ok)
		}
	}
}

func TestParameter(t *testing.T) {
	for _, tc := range []struct {
		cmdline, key, want string
		ok                 bool
	}{
		{"quiet gnomon.seed=7 panic=-1\n", "gnomon.seed", "7", true},
		{"gnomon.note=a=b", "gnomon.note", "a=b", true},
		{"xgnomon.seed=7", "gnomon.seed", "", false},
		{"gnomon.seed", "gnomon.seed", "", false},
	} {
		if got, ok := parameter(tc.cmdline, tc.key); got != tc.want || ok != tc.ok {
			t.Errorf("parameter(%q, %q) = %q, %v", tc.cmdline, tc.key, got, ok)
		}
	}
}

func TestAvailable(t *testing.T) {
	if got := Available(); got < 1<<20 || got%1024 != 0 {
		t.Errorf("%d bytes are available, want at least a MiB in whole KiB", got)
	}
}
