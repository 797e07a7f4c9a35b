package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// writeWhole has write fill the file called name, which is there only once it is
// whole; or stdout where name is "-".
func writeWhole(stdout io.Writer, name string, write func(io.Writer) error) error {
	var err error
	switch st, missing := os.Stat(name); {
	case name == "-":
		name, err = "the result", buffered(stdout, write)
	case missing == nil && !st.Mode().IsRegular():
		err = writeInto(name, write)
	default:
		err = replaceFile(name, write)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func replaceFile(name string, write func(io.Writer) error) error {
	f, err := renameio.NewPendingFile(name, renameio.WithTempDir(filepath.Dir(name)),
		renameio.WithPermissions(0o644), renameio.WithExistingPermissions())
	if err != nil {
		return err
	}
	defer f.Cleanup() //nolint:errcheck // of what was not written
	if err := buffered(f, write); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// writeInto writes to a device or a pipe, which cannot be replaced.
func writeInto(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return cmp.Or(buffered(f, write), f.Close())
}

func buffered(w io.Writer, write func(io.Writer) error) error {
	b := bufio.NewWriter(w)
	return cmp.Or(write(b), b.Flush())
}
