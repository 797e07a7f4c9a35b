package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/history/embedded"
)

// serveHistory serves a history as the server does and returns its address.
func serveHistory(t *testing.T) string {
	t.Helper()
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var points []history.Point
	for s := range 60 {
		points = append(points, history.FromSample(history.VM{Name: "db", ID: "id-db"}, gnomon.Sample{
			At: time.Now().Add(time.Duration(s-60) * time.Second), Known: gnomon.SetOf(gnomon.CPU),
			Usage: gnomon.Resources{1500}, Demand: gnomon.Resources{1500}, Allocation: gnomon.Resources{2000}}, gnomon.Resources{})...)
	}
	if err := db.Client().Write(t.Context(), points); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/history/", http.StripPrefix("/history", db))
	srv := httptest.NewServer(mux)
	t.Cleanup(func() { srv.Close(); _ = db.Close() })
	return srv.URL + "/history"
}

func runHistory(ctx context.Context, args ...string) (string, error) {
	cmd := historyCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	return out.String(), err
}

func TestHistoryQuery(t *testing.T) {
	url := serveHistory(t)
	out, err := runHistory(t.Context(), "query", "gnomon_vm_cpu_usage_cores", "--history-url", url)
	if err != nil || !strings.HasPrefix(out, "SERIES") || !strings.Contains(out, `gnomon_vm_cpu_usage_cores{vm="db", vm_id="id-db"}`) || !strings.Contains(out, "1.5") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = runHistory(t.Context(), "query", "gnomon_vm_cpu_usage_cores", "--start", "30s", "--step", "10s", "--history-url", url)
	if n := strings.Count(out, "1.5"); err != nil || n != 4 {
		t.Errorf("%d values, %v; want 4 of half a minute\n%s", n, err, out)
	}
	out, err = runHistory(t.Context(), "query", "sum(gnomon_vm_cpu_usage_cores)", "-o", "json", "--history-url", url)
	var got struct {
		ResultType string
		Result     []struct{ Value [2]any }
	}
	if err != nil || json.Unmarshal([]byte(out), &got) != nil || got.ResultType != "vector" || len(got.Result) != 1 || got.Result[0].Value[1] != "1.5" {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestHistoryPlot(t *testing.T) {
	url, dir := serveHistory(t), t.TempDir()
	for file, magic := range map[string]string{"a.svg": "<?xml", "b.png": "\x89PNG"} {
		path := filepath.Join(dir, file)
		if _, err := runHistory(t.Context(), "plot", "db", "--last", "1m", "--resource", "cpu", "--out", path, "--history-url", url); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(data, []byte(magic)) {
			t.Errorf("%s starts with %.10q, %v", file, data, err)
		}
	}
	if out, err := runHistory(t.Context(), "plot", "id-db", "--out", "-", "--history-url", url); err != nil || !strings.Contains(out, "</svg>") {
		t.Errorf("no SVG on the standard output: %v", err)
	}
}

func TestHistoryExitCodes(t *testing.T) {
	url := serveHistory(t)
	for _, c := range []struct {
		code int
		args []string
	}{
		{exitNotFound, []string{"plot", "nobody", "--out", "-"}},
		{exitUsage, []string{"plot"}},
		{exitUsage, []string{"plot", "db", "--out", "x.jpg"}},
		{exitUsage, []string{"plot", "db", "--resource", "gpu"}},
		{exitUsage, []string{"plot", "db", "--last", "0s"}},
		{exitUsage, []string{"query"}},
		{exitUsage, []string{"query", "up", "--start", "yesterday"}},
		{exitUsage, []string{"query", "up", "--start", "1m", "--end", "2m"}},
		{exitUsage, []string{"query", "up", "--start", "1m", "--step", "1us"}},
		{exitUsage, []string{"query", "up", "--history-url", "nowhere"}},
		{exitUnavailable, []string{"query", "up", "--history-url", "http://127.0.0.1:1/history"}},
		{exitUsage, []string{"query", "sum("}},
	} {
		args := c.args
		if !strings.Contains(strings.Join(args, " "), "--history-url") {
			args = append(args, "--history-url", url)
		}
		if _, err := runHistory(t.Context(), args...); err == nil || exitCode(err) != c.code {
			t.Errorf("%v: exit code %d (%v), want %d", c.args, exitCode(err), err, c.code)
		}
	}
}
