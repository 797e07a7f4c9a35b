package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon/lab"
	"github.com/gnomon-vm/gnomon/lab/report"
)

// writeReport writes a report of six VMs under two policies, the first of which
// has slack times factor.
func writeReport(t *testing.T, factor float64) string {
	t.Helper()
	var outcomes []lab.Outcome
	for vm := range 6 {
		for i, violation := range []float64{0.05, 0.005, 0.0005} {
			slack := 0.2*float64(i+1) + 0.01*float64(vm)
			for policy, by := range map[string]float64{"first": factor, "second": 1} {
				outcomes = append(outcomes, lab.Outcome{
					Dataset: "a", VM: fmt.Sprint("vm", vm), Resource: "cpu", Policy: policy, Knob: float64(i),
					Seconds: 1000, Violation: violation * 1000, Slack: slack * by, Demand: 1, Allocation: 2,
				})
			}
		}
	}
	r, err := report.New(outcomes, []lab.PolicyInfo{{Name: "first"}, {Name: "second"}}, report.Options{Resamples: 50})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "out")
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLabCompare(t *testing.T) {
	before, after := writeReport(t, 1), writeReport(t, 0.5)
	out, err := execute(t, labCommand(), "compare", before, after)
	if err != nil || !strings.HasSuffix(out, "2 of 4 slacks at equal violation changed beyond their interval\n") || strings.Contains(out, "second") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = execute(t, labCommand(), "compare", before, after, "--all"); err != nil || strings.Count(out, "second") != 2 || strings.Count(out, "changed\n") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = execute(t, labCommand(), "compare", before, after, "--format", "json")
	var changes []changeView
	if err != nil || json.Unmarshal([]byte(out), &changes) != nil || len(changes) != 2 || !changes[0].Paired || !changes[0].Beyond || *changes[0].High >= 0 {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = execute(t, labCommand(), "compare", before, before); err != nil || !strings.HasPrefix(out, "0 of 4 ") {
		t.Errorf("a run differs from itself: %v\n%s", err, out)
	}
}

func TestLabCompareRefuses(t *testing.T) {
	dir, empty := writeReport(t, 1), t.TempDir()
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "outcomes.csv.gz"), []byte("text, not compressed"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"want BEFORE AFTER, got 1 argument;": {dir},
		"no such file":                       {dir, empty},
		"outcomes.csv.gz: gzip: invalid":     {bad, dir},
		`--output "yaml": want table or js`:  {dir, dir, "--output", "yaml"},
	} {
		if _, err := execute(t, labCommand(), append([]string{"compare"}, args...)...); exitCode(err) != exitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}
