package trace

import (
	"bytes"
	"compress/gzip"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var nan = math.NaN()

// same compares values, with NaN equal to itself.
func same(a, b []float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return x == y || math.IsNaN(x) && math.IsNaN(y) })
}

func TestRead(t *testing.T) {
	tests := map[string]string{
		"plain":                     "timestamp_s,cpu,mem\n10,1,2.5\n11,,3\n13,4e2,NaN\n",
		"the other name of time":    "t_s,cpu,mem\n0,1,2.5\n1,,3\n3,400,NA\n",
		"windows, byte order mark":  "\ufefftimestamp_s,cpu,mem\r\n10,1,2.5\r\n11,,3\r\n13,400,\r\n",
		"quotes, spaces, no end":    "\"timestamp_s\", cpu ,mem\n\"10\", 1,\"2.5\"\n11,,3\n13, 400 ,",
		"clock instead of a start":  "timestamp_s,cpu,mem\n1700000000,1,2.5\n1700000001,,3\n1700000003,400,nan\n",
		"empty lines between rows":  "\ntimestamp_s,cpu,mem\n\n0,1,2.5\n\n1,,3\n3,400,\n\n",
		"compressed without saying": compressed(t, "timestamp_s,cpu,mem\n10,1,2.5\n11,,3\n13,400,\n"),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Read(strings.NewReader(text), "x.csv")
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != "x.csv" || len(got.Columns) != 2 {
				t.Fatalf("got %+v", got)
			}
			if want := []float64{0, 1, 3}; !slices.Equal(got.Times, want) {
				t.Errorf("times %v, want %v", got.Times, want)
			}
			if want := []float64{1, nan, 400}; !same(got.Column("cpu"), want) {
				t.Errorf("cpu %v, want %v", got.Column("cpu"), want)
			}
			if want := []float64{2.5, 3, nan}; !same(got.Column("mem"), want) {
				t.Errorf("mem %v, want %v", got.Column("mem"), want)
			}
			if got.Column("disk") != nil {
				t.Error("a column that is not there has values")
			}
		})
	}
}

func compressed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReadRefuses(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"nothing":             {"", "x.csv: empty file: want a header"},
		"a header only":       {"timestamp_s,cpu\n", "x.csv:1: a header and no row"},
		"no times":            {"cpu,mem\n1,2\n", `x.csv:1: first column is "cpu": want timestamp_s or t_s`},
		"no metric":           {"t_s\n1\n", "x.csv:1: no metric: want a header"},
		"a nameless metric":   {"t_s,cpu,\n1,2,3\n", "x.csv:1: column 2 of the metrics has no name"},
		"a metric twice":      {"t_s,cpu,cpu\n1,2,3\n", `x.csv:1: column "cpu" stands twice`},
		"a short row":         {"t_s,cpu,mem\n1,2,3\n2,5\n", "x.csv:3: row has 2 fields: want 3"},
		"a long row":          {"t_s,cpu\n1,2\n2,3,4\n", "x.csv:3: row has 3 fields: want 2"},
		"text":                {"t_s,cpu\n1,2\n2,many\n", `x.csv:3: cpu is "many": want a finite number`},
		"infinity":            {"t_s,cpu\n1,2\n2,-Inf\n", `x.csv:3: cpu is "-Inf": want a finite number`},
		"text as time":        {"t_s,cpu\n2020-01-01,2\n", `x.csv:2: t_s is "2020-01-01"`},
		"no time":             {"t_s,cpu\n1,2\n,3\n", "x.csv:3: t_s is missing: want seconds"},
		"times that go back":  {"t_s,cpu\n5,2\n4,3\n", "x.csv:3: t_s is 4 after 5: want ascending"},
		"a time twice":        {"t_s,cpu\n5,2\n6,2\n6,3\n", "x.csv:4: t_s is 6 after 6: want ascending"},
		"a quote not closed":  {"t_s,cpu\n5,\"2\n", "x.csv:"},
		"a broken compressed": {"\x1f\x8b\x00", "x.csv: cut off after line 0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Read(strings.NewReader(test.text), "x.csv")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if !strings.HasPrefix(err.Error(), "read trace ") {
				t.Errorf("%q does not say what was tried", err)
			}
		})
	}
}

func TestCutCompressedFileIsAnError(t *testing.T) {
	whole := compressed(t, "t_s,cpu\n"+strings.Repeat("1,2\n", 1))
	_, err := Read(strings.NewReader(whole[:len(whole)-6]), "x.csv")
	if err == nil || !strings.Contains(err.Error(), "x.csv: cut off after line 2") {
		t.Fatalf("half a file: got %v", err)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := FindFiles(dir); err == nil || !strings.Contains(err.Error(), "none there") {
		t.Errorf("an empty folder: got %v", err)
	}
	text := "timestamp_s,cpu\n0,1\n1,2\n"
	for name, content := range map[string]string{
		"b/two.csv.gz": compressed(t, text), "b/one.csv": text, "a.csv": text, "manifest.csv": "file,rows\n", "b/README.md": "no trace",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := FindFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range files {
		tr, err := ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, tr.Name)
	}
	if want := []string{"a", "one", "two"}; !slices.Equal(names, want) {
		t.Errorf("found %v, want %v", names, want)
	}
	if _, err := FindFiles(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: got %v", err)
	}
	bad := filepath.Join(dir, "bad.csv")
	if err := os.WriteFile(bad, []byte("t_s,cpu\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(bad); err == nil || !strings.Contains(err.Error(), bad+":2:") {
		t.Errorf("an error without file and line: %v", err)
	}
}

func TestRegularMarksAbsentRows(t *testing.T) {
	tr := &Trace{Times: []float64{0, 1, 2, 5, 5.4, 6.4}}
	got := tr.Regular([]float64{1, 2, 3, 4, 5, 6})
	if want := []float64{1, 2, 3, nan, nan, 4, 5, 6}; !same(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	tr = &Trace{Times: []float64{0, 1, 2, 3, 1e12}}
	if got := len(tr.Regular(make([]float64, 5))); got > 3000 {
		t.Errorf("a gap of an age takes %d values", got)
	}
	if got := (&Trace{Times: []float64{0}}).Regular([]float64{7}); !same(got, []float64{7}) {
		t.Errorf("one row: got %v", got)
	}
}

// What is written is read again as it was.
func TestWriteAndReadAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, columns := rapid.IntRange(1, 20).Draw(t, "rows"), rapid.IntRange(1, 4).Draw(t, "columns")
		in := &Trace{Name: "x"}
		at := 0.0
		for range rows {
			in.Times = append(in.Times, at)
			at += rapid.Float64Range(0.001, 1e6).Draw(t, "step")
		}
		value := rapid.OneOf(rapid.Float64(), rapid.Just(math.NaN()))
		for i := range columns {
			name := strings.Repeat("a,\"b", i+1)
			in.Columns = append(in.Columns, Column{name, rapid.SliceOfN(value, rows, rows).Draw(t, "values")})
		}
		var b bytes.Buffer
		if err := Write(&b, in); err != nil {
			t.Fatal(err)
		}
		out, err := Read(&b, "x")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(in.Times, out.Times) || len(out.Columns) != columns {
			t.Fatalf("wrote %+v, read %+v", in, out)
		}
		for i, c := range in.Columns {
			if out.Columns[i].Name != c.Name || !same(c.Values, out.Columns[i].Values) {
				t.Fatalf("wrote %+v, read %+v", c, out.Columns[i])
			}
		}
	})
}

func TestWriteRefusesUnequalColumns(t *testing.T) {
	bad := &Trace{Name: "x", Times: []float64{0, 1}, Columns: []Column{{"cpu", []float64{1}}}}
	if err := Write(&bytes.Buffer{}, bad); err == nil || !strings.Contains(err.Error(), "column cpu has 1 values: want 2") {
		t.Errorf("got %v", err)
	}
}
