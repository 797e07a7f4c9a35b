package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The rules that are printed are rules to Prometheus itself.
func TestHistoryRules(t *testing.T) {
	text, err := gnomonCommand("history", "rules")
	if err != nil {
		t.Fatal(err)
	}
	var file ruleFile
	if out, err := gnomonCommand("history", "rules", "-o", "json"); err != nil || json.Unmarshal([]byte(out), &file) != nil || len(file.Groups) != 2 || len(file.Groups[0].Rules) != 72 {
		t.Errorf("as JSON: %v, %.200s", err, out)
	}
	path := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("GNOMON_REQUIRE_EXTERNAL") == "1" {
			t.Fatal("promtool is not installed, and GNOMON_REQUIRE_EXTERNAL=1 wants it")
		}
		t.Skip("promtool is not installed: apt-get install --no-install-recommends prometheus")
	}
	if out, err := exec.Command(promtool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}
