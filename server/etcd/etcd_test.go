package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEmbeddedKeepsState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	var cluster uint64
	for i := range 2 {
		s, err := Open(context.Background(), Options{DataDir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Get(context.Background(), "/gnomon/k")
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 && (len(r.Kvs) != 1 || r.Header.ClusterId != cluster) {
			t.Errorf("after a restart: %v", r)
		}
		cluster = r.Header.ClusterId
		if _, err := s.Put(context.Background(), "/gnomon/k", "v"); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	other, err := Open(context.Background(), Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	r, err := other.Get(context.Background(), "/gnomon/k")
	if err != nil {
		t.Fatal(err)
	}
	if r.Header.ClusterId == cluster {
		t.Error("a fresh directory has the id of another cluster")
	}
}

func TestRefusals(t *testing.T) {
	busy := t.TempDir()
	s, err := Open(context.Background(), Options{DataDir: busy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := t.TempDir()
	if err := os.MkdirAll(filepath.Join(damaged, "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(damaged, "member", "snap", "db"), []byte(strings.Repeat("x", 8192)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		o    Options
		want string
	}{
		"nothing":      {Options{}, "want a data directory or the endpoints"},
		"both":         {Options{DataDir: busy, Endpoints: []string{"x"}}, "not both"},
		"in use":       {Options{DataDir: busy}, "is in use by process"},
		"a file":       {Options{DataDir: filepath.Join(file, "x")}, "not a directory"},
		"not writable": {Options{DataDir: "/proc/gnomon"}, "create data directory"},
		"no cluster":   {Options{Endpoints: []string{"http://127.0.0.1:1"}}, "check that it runs"},
		"damaged":      {Options{DataDir: damaged}, "start etcd in " + damaged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(context.Background(), tc.o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			t.Log(err)
		})
	}
}

// A real file system of that size, full where filled says so.
func mountSmall(t *testing.T, size string) string {
	dir := t.TempDir()
	if err := unix.Mount("gnomon-test", dir, "tmpfs", 0, "size="+size); errors.Is(err, unix.EPERM) {
		t.Skip("mounting a small file system takes root")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestDiskTooSmall(t *testing.T) {
	dir := mountSmall(t, "64m")
	_, err := Open(context.Background(), Options{DataDir: filepath.Join(dir, "data")})
	if err == nil || !strings.Contains(err.Error(), "nearly full: 64 MiB free, want 192 MiB") {
		t.Errorf("got %v", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("it left %v", names)
	}
}

// When the disk fills up while it runs, the process is told and lives on.
func TestDiskFills(t *testing.T) {
	dir := mountSmall(t, "200m")
	s, err := Open(context.Background(), Options{DataDir: filepath.Join(dir, "data")})
	if err != nil {
		t.Fatal(err)
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<16)
	for err == nil {
		_, err = fill.Write(block)
	}
	fill.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	value := strings.Repeat("x", 1<<20)
	var failed error
	for i := 0; failed == nil && ctx.Err() == nil; i++ {
		put, stop := context.WithTimeout(ctx, 2*time.Second)
		_, _ = s.Put(put, fmt.Sprint("/gnomon/", i), value)
		stop()
		select {
		case failed = <-s.Failed:
		default:
		}
	}
	if !errors.Is(failed, unix.ENOSPC) {
		t.Errorf("got %v, want no space left", failed)
	}
	t.Log("failed:", failed, "close:", s.Close())
}
