package trace

import (
	"math"
	"strings"
	"testing"
)

func TestReadSeries(t *testing.T) {
	tests := map[string]struct {
		text string
		want []Series
	}{
		"a column":               {"1\n2\n3.5\n", []Series{{Name: "in", Values: []float64{1, 2, 3.5}}}},
		"a column with a header": {"sales\n1\n\n-3\n", []Series{{Name: "sales", Values: []float64{1, nan, -3}}}},
		"quoted, windows":        {"\"sales\"\r\n\"1\"\r\n2\r\n\r\n", []Series{{Name: "sales", Values: []float64{1, 2}}}},
		"missing in a column":    {"1\nNA\n3\n\n\n", []Series{{Name: "in", Values: []float64{1, nan, 3}}}},
		"times and a gap":        {"t_s,a,b\n0,1,5\n1,2,\n2,3,7\n4,4,8\n", []Series{{Name: "a", Values: []float64{1, 2, 3, nan, 4}}, {Name: "b", Values: []float64{5, nan, 7, nan, 8}}}},
		"columns, no times":      {"a,b\n1,5\n2,\n", []Series{{Name: "a", Values: []float64{1, 2}}, {Name: "b", Values: []float64{5}}}},
		"one value":              {"7", []Series{{Name: "in", Values: []float64{7}}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ReadSeries(strings.NewReader(test.text), "dir/in.csv")
			compare(t, got, err, test.want)
		})
	}
}

func compare(t *testing.T, got []Series, err error, want []Series) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i].Name != want[i].Name || !same(got[i].Values, want[i].Values) {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
}

func TestReadWide(t *testing.T) {
	tests := map[string]struct {
		text string
		want []Series
	}{
		"as the M4 competition": {"\"V1\",\"V2\",\"V3\",\"V4\"\n\"H1\",\"605\",\"586\",\"559\"\n\"H2\",3124.5,2990,\n", []Series{{Name: "H1", Values: []float64{605, 586, 559}}, {Name: "H2", Values: []float64{3124.5, 2990}}}},
		"rows of any length":    {"id\na,1,2,3\nb,4\n", []Series{{Name: "a", Values: []float64{1, 2, 3}}, {Name: "b", Values: []float64{4}}}},
		"numbered, with years":  {"id,2001,2002,2003\na,1,,3\nb,,2,\n", []Series{{Name: "a", Values: []float64{1, nan, 3}}, {Name: "b", Values: []float64{2}}}},
		"quotes and commas":     {"id,v\n\"a, \"\"b\"\"\",1\n", []Series{{Name: "a, \"b\"", Values: []float64{1}}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ReadWide(strings.NewReader(test.text), "in.csv")
			compare(t, got, err, test.want)
		})
	}
}

func TestReadSeriesRefuses(t *testing.T) {
	tests := map[string]struct {
		wide       bool
		text, want string
	}{
		"nothing":               {false, "", "in.csv: empty file: want a column of values"},
		"a name only":           {false, "sales\n", `in.csv:1: series "sales" has no value`},
		"text in a column":      {false, "1\n2\nx\n", `in.csv:3: value is "x": want a finite number`},
		"a wide line":           {false, "1\n2,3\n", "in.csv:2: row has 2 fields: want 1"},
		"a ragged row":          {false, "a,b\n1,2\n3\n", "in.csv:3: row has 1 fields: want 2"},
		"times going back":      {false, "t_s,a\n2,2\n1,3\n", "in.csv:3: t_s is 1 after 2"},
		"rows without names":    {false, "1,2\n3,4\n", "in.csv:1: several columns and no header"},
		"an empty column":       {false, "a,b\n1,\n2,\n", `series "b" has no value`},
		"wide: nothing":         {true, "", "in.csv: empty file: want a header line"},
		"wide: a header only":   {true, "id,v\n", "in.csv:1: a header and no row"},
		"wide: no header":       {true, "a,3,1,4\nb,1,5,9\n", "in.csv:1: the first line holds values"},
		"wide: text":            {true, "id,v\na,1\nb,two\n", `in.csv:3: a value of series "b" is "two": want a finite number`},
		"wide: no identifier":   {true, "id,v\n,1\n", "in.csv:2: the series has no identifier"},
		"wide: twice":           {true, "id,v\na,1\na,2\n", `in.csv:3: identifier "a" was in line 2`},
		"wide: an empty series": {true, "id,v,w\na,1,2\nb,,\n", `in.csv:3: series "b" has no value`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			read := ReadSeries
			if test.wide {
				read = ReadWide
			}
			_, err := read(strings.NewReader(test.text), "in.csv")
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "read series ") {
				t.Fatalf("got %v, want %q", err, test.want)
			}
		})
	}
}

// Whatever is read: either one clear line of error, or series that are finite
// or missing within, and known at both ends.
func FuzzRead(f *testing.F) {
	for _, text := range []string{"", "1\n2\n", "t_s,a\n0,1\n1,\n", "id,v\na,1,2\n", "\"a\n", "\x1f\x8b\x08", "\ufeffa,b\n1,NA\n", "t_s,a\n-1e308,1\n1e308,2\n", "1\n\n\n2\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if tr, err := Read(strings.NewReader(string(text)), "in.csv"); err == nil {
			for i, at := range tr.Times {
				if math.IsNaN(at) || i > 0 && at <= tr.Times[i-1] {
					t.Fatalf("times %v", tr.Times)
				}
			}
		}
		narrow, errNarrow := ReadSeries(strings.NewReader(string(text)), "in.csv")
		wide, errWide := ReadWide(strings.NewReader(string(text)), "in.csv")
		if errNarrow == nil && len(narrow) == 0 || errWide == nil && len(wide) == 0 {
			t.Fatal("neither series nor an error")
		}
		for _, s := range append(narrow, wide...) {
			if n := len(s.Values); n == 0 || math.IsNaN(s.Values[0]) || math.IsNaN(s.Values[n-1]) {
				t.Fatalf("series %v", s)
			}
			for _, v := range s.Values {
				if math.IsInf(v, 0) {
					t.Fatalf("series %v", s)
				}
			}
		}
	})
}
