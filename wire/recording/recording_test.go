package recording

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
)

func event(i int) gnomon.Event {
	return gnomon.Event{
		At: time.Unix(int64(i), 5).UTC(),
		Sampled: &gnomon.Sample{
			VM: "7f1b", At: time.Unix(int64(i), 0).UTC(), Interval: time.Second,
			Known: gnomon.SetOf(gnomon.CPU, gnomon.Disk), Usage: gnomon.Resources{int64(i), 0, 3, 0},
		},
	}
}

func collect(t *testing.T, r io.Reader) ([]gnomon.Event, error) {
	t.Helper()
	var events []gnomon.Event
	for e, err := range Read(r) {
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
	return events, nil
}

// write records n events and returns the files.
func write(t *testing.T, opts Options, n int) []string {
	t.Helper()
	dir := t.TempDir()
	w, err := Create(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := w.Write(event(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestEventsComeBack(t *testing.T) {
	for _, plain := range []bool{true, false} {
		files := write(t, Options{MaxBytes: 1 << 20, Keep: 1, Plain: plain}, 50)
		if len(files) != 1 {
			t.Fatalf("plain %v: %d files", plain, len(files))
		}
		b, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		got, err := collect(t, bytes.NewReader(b))
		if err != nil || len(got) != 50 || !reflect.DeepEqual(got[49], event(49)) {
			t.Errorf("plain %v: %d events, %v; last %+v", plain, len(got), err, got[len(got)-1])
		}
	}
}

func TestCutRecordingGivesWhatIsWhole(t *testing.T) {
	for _, plain := range []bool{true, false} {
		b, err := os.ReadFile(write(t, Options{MaxBytes: 1 << 20, Keep: 1, Plain: plain}, 20)[0])
		if err != nil {
			t.Fatal(err)
		}
		last := 0
		for cut := 1; cut < len(b); cut++ {
			got, err := collect(t, bytes.NewReader(b[:cut]))
			if err != nil {
				t.Fatalf("plain %v, cut at %d: %v", plain, cut, err)
			}
			for i, e := range got {
				if !reflect.DeepEqual(e, event(i)) {
					t.Fatalf("plain %v, cut at %d: event %d is %+v", plain, cut, i, e)
				}
			}
			if len(got) < last {
				t.Fatalf("plain %v: more of the file gave fewer events", plain)
			}
			last = len(got)
		}
		if last < 19 {
			t.Errorf("plain %v: the longest cut gave %d events of 20", plain, last)
		}
	}
}

func TestBadLineIsAnError(t *testing.T) {
	got, err := collect(t, strings.NewReader(`{"at":"2026-01-01T00:00:00Z","tick":{}}`+"\n{nonsense\n"+`{"at":"2026-01-01T00:00:00Z","tick":{}}`+"\n"))
	if err == nil || !strings.Contains(err.Error(), "line 2") || len(got) != 1 {
		t.Errorf("got %d events, %v", len(got), err)
	}
	if _, err := collect(t, strings.NewReader(strings.Repeat("x", maxLine+2))); err == nil {
		t.Error("an endless line was let through")
	}
}

func TestRotationKeepsTheNewest(t *testing.T) {
	files := write(t, Options{MaxBytes: 1000, Keep: 3}, 200)
	if len(files) != 3 {
		t.Fatalf("%d files, want 3: %v", len(files), files)
	}
	var seen []gnomon.Event
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		es, err := collect(t, f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, es...)
	}
	first := 200 - len(seen)
	for i, e := range seen {
		if !reflect.DeepEqual(e, event(first+i)) {
			t.Fatalf("event %d is %+v, want number %d", i, e, first+i)
		}
	}
	if len(seen) < 3 {
		t.Errorf("only %d events kept", len(seen))
	}
}

func TestWriterGoesOnWithNewFile(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		w, err := Create(dir, Options{MaxBytes: 1 << 20, Keep: 10})
		if err != nil {
			t.Fatal(err)
		}
		// A crash: flushed, never closed.
		if err := w.Write(event(i)); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Files(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v: want 3 files", files, err)
	}
	for i, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		es, err := collect(t, f)
		f.Close()
		if err != nil || len(es) != 1 || !reflect.DeepEqual(es[0], event(i)) {
			t.Errorf("%s: %+v, %v", name, es, err)
		}
	}
	if _, err := Create(dir, Options{Keep: -1}); err == nil {
		t.Error("a writer that keeps less than nothing was made")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"at":"2026-01-01T00:00:00Z","tick":{}}` + "\n"))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, err := range Read(bytes.NewReader(b)) {
			_ = err
		}
	})
}

// What fails ends the file and not the recording.
func TestWriterGoesOnAfterAnError(t *testing.T) {
	for _, plain := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "recording")
		w, err := Create(dir, Options{Plain: plain})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(event(0)); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		w.file.Close() // as a disk that fails
		if err := errors.Join(w.Write(event(1)), w.Flush()); err == nil {
			t.Errorf("plain %v: no error", plain)
		}
		away := dir + "-away"
		if err := os.Rename(dir, away); err != nil {
			t.Fatal(err)
		}
		if err := w.Write(event(2)); err == nil {
			t.Errorf("plain %v: no error without a folder", plain)
		}
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Write(event(3)), w.Close()); err != nil {
			t.Errorf("plain %v: afterwards: %v", plain, err)
		}
		files, err := Files(dir)
		if err != nil || len(files) != 2 {
			t.Fatalf("plain %v: files %v, %v", plain, files, err)
		}
		for i, want := range []int{0, 3} {
			b, err := os.ReadFile(files[i])
			if err != nil {
				t.Fatal(err)
			}
			if got, err := collect(t, bytes.NewReader(b)); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], event(want)) {
				t.Errorf("plain %v: file %d holds %+v, %v", plain, i, got, err)
			}
		}
	}
}
