package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon/shadow/cell"
)

// shadowProcess returns the process of a shadow, which is no domain: a QEMU with
// its name.
func shadowProcess(name string) (int, error) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err == nil && bytes.HasPrefix(text, []byte("/usr/bin/qemu-system-x86_64\x00-name\x00"+name+"\x00")) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, fmt.Errorf("shadow %s: %w", name, os.ErrNotExist)
}

// shadowRecord is what the daemon notes of a shadow in its run directory.
type shadowRecord struct {
	Name   string
	ID     cell.Cell
	For    string
	Paused bool
}

// shadowsIn returns the shadows that run for daemons below dir.
func shadowsIn(dir string) (out []shadowRecord) {
	paths, _ := filepath.Glob(filepath.Join(dir, "run", "shadows", "*", "shadow.json"))
	for _, path := range paths {
		var r shadowRecord
		text, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(text, &r) != nil {
			continue
		}
		if _, err := r.ID.PID(); err == nil {
			out = append(out, r)
		}
	}
	return out
}

// noted checks what is noted of a shadow.
func (w *wholeTest) noted(name, what string, check func(shadowRecord) bool) func() error {
	return func() error {
		for _, r := range shadowsIn(w.dir) {
			if r.Name != name {
				continue
			}
			if check(r) {
				return nil
			}
			return fmt.Errorf("%+v: want it %s", r, what)
		}
		return fmt.Errorf("%s does not run", name)
	}
}

func isPaused(r shadowRecord) bool { return r.Paused }

// endShadows ends those that run for daemons below dir.
func endShadows(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, r := range shadowsIn(dir) {
		errs = append(errs, r.ID.Kill(ctx))
	}
	return errors.Join(errs...)
}

// shadowLimit returns a shadow's CPU limit in millicores.
func shadowLimit(t *testing.T, id string) int64 {
	t.Helper()
	l, err := cell.Cell(id).Limited()
	if err != nil {
		t.Fatal(err)
	}
	return l.CPU
}
