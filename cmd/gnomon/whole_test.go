package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A file is replaced by one that is whole, or stays as it was.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "out.csv")
	write := func(text string, err error) error {
		return writeWhole(nil, name, func(w io.Writer) error {
			if _, failed := io.WriteString(w, text); failed != nil {
				return failed
			}
			return err
		})
	}
	if err := write("first", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := write(strings.Repeat("x", 1<<16), syscall.ENOSPC); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("what could not be written: %v", err)
	}
	if b, _ := os.ReadFile(name); string(b) != "first" {
		t.Errorf("a failure left %q", b)
	}
	if err := write("second", nil); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode() != 0o640 || info.Size() != int64(len("second")) {
		t.Errorf("afterwards %v, %v", info, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("it left %v", left)
	}
	// A device is written to; what fails there is told once.
	err = writeWhole(nil, "/dev/full", func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Repeat("x", 1<<16))
		return err
	})
	if !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a full device: %v", err)
	}
}
