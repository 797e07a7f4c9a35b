package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestBinaryIsSmall holds the budget of what every shadow has in memory.
func TestBinaryIsSmall(t *testing.T) {
	const budget = 6_000_000 // bytes
	out := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	st, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", st.Size())
	if st.Size() > budget {
		t.Errorf("the agent has %d bytes, at most %d are allowed", st.Size(), budget)
	}
}
