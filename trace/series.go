package trace

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Series is a sequence of values at equal distances.
type Series struct {
	Name   string
	Values []float64 // oldest first, NaN where missing
	// Place is the file, and for a series in a row of its own also the line, for
	// messages.
	Place string
}

// ReadSeries reads series from CSV, plain or compressed with gzip: one column of
// values without a header, or below a header one series a column. Where the
// header's first column is a time in seconds ("timestamp_s" or "t_s") the rows
// that are absent, by the median distance, count as missing values. A lone
// column is named by its header, else by name; in a lone column, an empty line
// is a missing value. Errors carry name and line.
func ReadSeries(r io.Reader, name string) ([]Series, error) {
	series, err := newRows(r, name).series()
	if err != nil {
		return nil, fmt.Errorf("read series %w", err)
	}
	return series, nil
}

func (r *rows) series() ([]Series, error) {
	first, err := r.header("a column of values, or a header and rows of numbers")
	if err != nil {
		return nil, err
	}
	if isTime(first[0]) {
		t, err := r.timed(first)
		if err != nil {
			return nil, err
		}
		var out []Series
		for _, c := range t.Columns {
			out = append(out, Series{Name: c.Name, Values: t.Regular(c.Values)})
		}
		return r.complete(out)
	}
	if len(first) == 1 {
		return r.column(first[0])
	}
	names, err := r.names(first)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, err := strconv.ParseFloat(name, 64); err == nil {
			return nil, r.errorf("several columns and no header, but %q: want a line of names first (or --wide for one series a row)", short(name))
		}
	}
	return r.columns(names)
}

// column reads one column of values; first may be its name.
func (r *rows) column(first string) ([]Series, error) {
	s := Series{Name: Base(r.name)}
	if v, err := r.number(first, "value"); err == nil {
		s.Values = append(s.Values, v)
	} else {
		s.Name = strings.TrimSpace(first)
	}
	for {
		before := r.line
		record, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(record) != 1 {
			return nil, r.errorf("row has %d fields: want 1, as the lines before", len(record))
		}
		if len(s.Values) > 0 {
			for range min(maxGap, r.line-before-1) {
				s.Values = append(s.Values, math.NaN())
			}
		}
		v, err := r.number(record[0], "value")
		if err != nil {
			return nil, err
		}
		s.Values = append(s.Values, v)
	}
	return r.complete([]Series{s})
}

// columns reads the rows below a header without times.
func (r *rows) columns(names []string) ([]Series, error) {
	out := make([]Series, len(names))
	for i, name := range names {
		out[i].Name = name
	}
	for {
		record, err := r.next()
		if errors.Is(err, io.EOF) {
			return r.complete(out)
		}
		if err != nil {
			return nil, err
		}
		if len(record) != len(names) {
			return nil, r.errorf("row has %d fields: want %d, as the header has", len(record), len(names))
		}
		for i := range out {
			v, err := r.number(record[i], names[i])
			if err != nil {
				return nil, err
			}
			out[i].Values = append(out[i].Values, v)
		}
	}
}

// complete refuses series without a value and drops missing values at both ends
// of each.
func (r *rows) complete(all []Series) ([]Series, error) {
	for i := range all {
		all[i].Values = trim(all[i].Values)
		if all[i].Place == "" {
			all[i].Place = r.name
		}
		if len(all[i].Values) == 0 {
			return nil, r.errorf("series %q has no value: want at least one", short(all[i].Name))
		}
	}
	return all, nil
}

// trim returns the values without missing ones at either end.
func trim(values []float64) []float64 {
	known := func(v float64) bool { return !math.IsNaN(v) }
	first := slices.IndexFunc(values, known)
	if first < 0 {
		return nil
	}
	last := len(values) - 1
	for !known(values[last]) {
		last--
	}
	return values[first : last+1]
}

// ReadWide reads series as forecasting competitions publish them, plain or
// compressed with gzip: a header line, then one series a row: an identifier and
// as many values as it has. Fields left empty at the end of a row are no values;
// those within it are missing. Errors carry name and line.
func ReadWide(r io.Reader, name string) ([]Series, error) {
	series, err := newRows(r, name).wide()
	if err != nil {
		return nil, fmt.Errorf("read series %w", err)
	}
	return series, nil
}

func (r *rows) wide() ([]Series, error) {
	header, err := r.header("a header line, then an identifier and values in each row")
	if err != nil {
		return nil, err
	}
	if looksLikeValues(header[1:]) {
		return nil, r.errorf("the first line holds values (%q, …): want a header line first", short(header[1]))
	}
	var out []Series
	seen := map[string]int{}
	for {
		record, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		id := strings.TrimSpace(record[0])
		if id == "" {
			return nil, r.errorf("the series has no identifier: want one in the first field")
		}
		if line, twice := seen[id]; twice {
			return nil, r.errorf("identifier %q was in line %d already: want different ones", short(id), line)
		}
		seen[id] = r.line
		values := make([]float64, 0, len(record)-1)
		place := fmt.Sprintf("a value of series %q", short(id))
		for _, field := range record[1:] {
			v, err := r.number(field, place)
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
		one, err := r.complete([]Series{{Name: id, Values: values, Place: fmt.Sprintf("%s:%d", r.name, r.line)}})
		if err != nil {
			return nil, err
		}
		out = append(out, one...)
	}
	if len(out) == 0 {
		return nil, r.errorf("a header and no row: want at least one series")
	}
	return out, nil
}

// looksLikeValues tells a row of values from a header, which may number its
// columns, or name them by years.
func looksLikeValues(fields []string) bool {
	var numbers []float64
	for _, field := range fields {
		v, err := strconv.ParseFloat(strings.TrimSpace(field), 64)
		if err != nil && !missing(strings.TrimSpace(field)) {
			return false
		}
		if err == nil {
			numbers = append(numbers, v)
		}
	}
	for i := 2; i < len(numbers); i++ {
		if numbers[i]-numbers[i-1] != numbers[1]-numbers[0] {
			return true
		}
	}
	return false
}
