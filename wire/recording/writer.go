package recording

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/gnomon-vm/gnomon"
)

// The defaults of Options: some days of a host with a dozen VMs.
const (
	DefaultMaxBytes = 64 << 20
	DefaultKeep     = 16
)

// Options bounds what a Writer keeps.
type Options struct {
	// MaxBytes is the size, before compression, at which a new file begins; 0 for
	// the default.
	MaxBytes int64

	// Keep is how many files stay, the one being written included; 0 for the
	// default.
	Keep int

	// Plain leaves the lines uncompressed.
	Plain bool
}

// Writer appends events to files in a directory, named events-NNNNNNNN.jsonl
// with .gz if compressed, the newest with the highest number. Its methods may
// be called concurrently.
type Writer struct {
	dir  string
	opts Options

	mu    sync.Mutex
	next  int
	file  *os.File
	zip   *gzip.Writer
	out   io.Writer
	bytes int64
}

// Create returns a writer that goes on in dir with a new file. It makes dir if
// it is missing.
func Create(dir string, opts Options) (*Writer, error) {
	if opts.MaxBytes < 0 || opts.Keep < 0 {
		return nil, fmt.Errorf("open recording: %d bytes in each of %d files: want more than none", opts.MaxBytes, opts.Keep)
	}
	if opts.MaxBytes == 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.Keep == 0 {
		opts.Keep = DefaultKeep
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	w := &Writer{dir: dir, opts: opts}
	files, err := Files(dir)
	if err != nil {
		return nil, err
	}
	if len(files) > 0 {
		if _, err := fmt.Sscanf(filepath.Base(files[len(files)-1]), "events-%d.", &w.next); err != nil {
			return nil, fmt.Errorf("open recording: number of %s: %w", files[len(files)-1], err)
		}
		w.next++
	}
	return w, nil
}

// Files returns the recording's files in dir, oldest first.
func Files(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "events-*.jsonl*"))
	if err != nil {
		return nil, fmt.Errorf("list recordings: %w", err)
	}
	slices.Sort(files)
	return files, nil
}

// Write appends one event. It is on the disk after the next Flush, rotation or
// Close. After an error the recording goes on in another file, as soon as one can
// be written.
func (w *Writer) Write(e gnomon.Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	line = append(line, '\n')
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil || w.bytes+int64(len(line)) > w.opts.MaxBytes {
		if err := w.rotate(); err != nil {
			return fmt.Errorf("write recording: %w", err)
		}
	}
	if _, err := w.out.Write(line); err != nil {
		_ = w.closeFile() // it is the same error
		return fmt.Errorf("write recording: %w", err)
	}
	w.bytes += int64(len(line))
	return nil
}

// rotate closes the file, begins the next one and, once that can be written,
// removes those too many.
func (w *Writer) rotate() error {
	if err := w.closeFile(); err != nil {
		return err
	}
	if err := w.begin(); err != nil {
		return err
	}
	return w.prune()
}

func (w *Writer) begin() error {
	name := fmt.Sprintf("events-%08d.jsonl", w.next)
	if !w.opts.Plain {
		name += ".gz"
	}
	f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	w.file, w.out, w.bytes = f, f, 0
	if !w.opts.Plain {
		w.zip = gzip.NewWriter(f)
		w.out = w.zip
		if err := w.zip.Flush(); err != nil {
			_ = w.closeFile() // it is the same error
			return errors.Join(err, os.Remove(f.Name()))
		}
	}
	w.next++
	return nil
}

func (w *Writer) prune() error {
	files, err := Files(w.dir)
	if err != nil {
		return err
	}
	for len(files) > w.opts.Keep {
		if err := os.Remove(files[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		files = files[1:]
	}
	return nil
}

// Flush writes what is buffered, so that a crash loses nothing up to here.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.zip == nil {
		return nil
	}
	if err := w.zip.Flush(); err != nil {
		_ = w.closeFile() // it is the same error
		return fmt.Errorf("flush recording: %w", err)
	}
	return nil
}

// Close ends the file. A later Write begins another.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.closeFile(); err != nil {
		return fmt.Errorf("close recording: %w", err)
	}
	return nil
}

func (w *Writer) closeFile() error {
	var errs []error
	if w.zip != nil {
		errs = append(errs, w.zip.Close())
	}
	if w.file != nil {
		errs = append(errs, w.file.Close())
	}
	w.file, w.zip, w.out = nil, nil, nil
	return errors.Join(errs...)
}
