package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ReadFile reads a trace from a file as Read does; the trace is named after it.
func ReadFile(path string) (*Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	defer f.Close()
	t, err := Read(f, path)
	if err != nil {
		return nil, err
	}
	t.Name = Base(path)
	return t, nil
}

// Base returns the name of a file without folder and the extensions .csv, .gz.
func Base(path string) string {
	return strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".gz"), ".csv")
}

// FindFiles returns the files below a folder that end in .csv or .csv.gz,
// sorted, but for one called manifest.csv, which tells of the others. Finding
// none is an error.
func FindFiles(dir string) ([]string, error) {
	var found []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() || name == "manifest.csv" {
			return nil
		}
		if strings.HasSuffix(name, ".csv") || strings.HasSuffix(name, ".csv.gz") {
			found = append(found, filepath.Join(dir, path))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find traces in %s: %w", dir, err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("find traces in %s: none there: want files that end in .csv or .csv.gz", dir)
	}
	slices.Sort(found)
	return found, nil
}

// decoder decompresses what starts as gzip does and drops a byte order mark,
// looking at the content only when it is first read.
type decoder struct {
	from io.Reader
	text io.Reader
}

func newDecoder(r io.Reader) *decoder { return &decoder{from: r} }

// Read implements io.Reader.
func (d *decoder) Read(p []byte) (int, error) {
	if d.text == nil {
		if err := d.open(); err != nil {
			return 0, err
		}
	}
	return d.text.Read(p)
}

func (d *decoder) open() error {
	content := bufio.NewReaderSize(d.from, 1<<16)
	// An error to peek shows again at the first read.
	if magic, _ := content.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(content)
		if err != nil {
			return fmt.Errorf("decompress: %w", err)
		}
		content = bufio.NewReaderSize(z, 1<<16)
	}
	mark := []byte("\ufeff")
	if start, _ := content.Peek(len(mark)); bytes.Equal(start, mark) {
		_, _ = content.Discard(len(mark))
	}
	d.text = content
	return nil
}
