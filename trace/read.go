package trace

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// timeColumns are the names that the column of times goes by.
var timeColumns = []string{"timestamp_s", "t_s"}

// Read reads a trace from CSV, plain or compressed with gzip: a header
// "timestamp_s,<metric>,…" (or "t_s,…"), then rows of numbers with ascending
// times. An empty field, NaN or NA is a missing value. Name becomes the trace's;
// errors carry it and the line.
func Read(r io.Reader, name string) (*Trace, error) {
	t, err := newRows(r, name).trace()
	if err != nil {
		return nil, fmt.Errorf("read trace %w", err)
	}
	t.Name = name
	return t, nil
}

// rows reads records, and names the place of what is wrong.
type rows struct {
	csv  *csv.Reader
	name string
	line int // of the record read last
}

func newRows(r io.Reader, name string) *rows {
	c := csv.NewReader(newDecoder(r))
	c.FieldsPerRecord = -1
	c.ReuseRecord = true
	c.TrimLeadingSpace = true
	return &rows{csv: c, name: name}
}

// next returns the next record, whose fields hold until the next call, or
// io.EOF.
func (r *rows) next() ([]string, error) {
	record, err := r.csv.Read()
	var syntax *csv.ParseError
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case errors.As(err, &syntax):
		r.line = syntax.Line
		return nil, r.errorf("%w: want comma-separated values, quotes doubled within quotes", syntax.Err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		// Of compressed text; its lines before that were read.
		return nil, fmt.Errorf("%s: cut off after line %d: want the whole of the compressed file", r.name, r.line)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	r.line, _ = r.csv.FieldPos(0)
	return record, nil
}

// errorf returns an error at the present line.
func (r *rows) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", r.name, r.line, fmt.Errorf(format, args...))
}

// header returns the first record.
func (r *rows) header(want string) ([]string, error) {
	record, err := r.next()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: empty file: want %s", r.name, want)
	}
	return slices.Clone(record), err
}

// number reads a field; a missing value is NaN.
func (r *rows) number(field, column string) (float64, error) {
	field = strings.TrimSpace(field)
	if missing(field) {
		return math.NaN(), nil
	}
	v, err := strconv.ParseFloat(field, 64)
	if err != nil || math.IsInf(v, 0) {
		return 0, r.errorf("%s is %q: want a finite number, or an empty field for a missing value", column, short(field))
	}
	return v, nil
}

func missing(field string) bool {
	return field == "" || strings.EqualFold(field, "nan") || strings.EqualFold(field, "na")
}

func isTime(column string) bool {
	return slices.Contains(timeColumns, strings.ToLower(strings.TrimSpace(column)))
}

// short keeps a message readable whatever the file holds.
func short(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func (r *rows) trace() (*Trace, error) {
	const want = `a header "timestamp_s,<metric>,…" and rows of numbers`
	header, err := r.header(want)
	if err != nil {
		return nil, err
	}
	return r.timed(header)
}

// timed reads the rows below a header with times.
func (r *rows) timed(header []string) (*Trace, error) {
	if !isTime(header[0]) {
		return nil, r.errorf("first column is %q: want timestamp_s or t_s", short(header[0]))
	}
	if len(header) < 2 {
		return nil, r.errorf("no metric: want a header \"%s,<metric>,…\"", header[0])
	}
	names, err := r.names(header[1:])
	if err != nil {
		return nil, err
	}
	t := &Trace{Columns: make([]Column, len(names))}
	for i, name := range names {
		t.Columns[i].Name = name
	}
	var origin float64
	for {
		record, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = r.row(t, header, record, &origin)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(t.Times) == 0 {
		return nil, r.errorf("a header and no row: want at least one row of values")
	}
	return t, nil
}

// row appends a record; origin is the time of the first one.
func (r *rows) row(t *Trace, header, record []string, origin *float64) error {
	if len(record) != len(header) {
		return r.errorf("row has %d fields: want %d, as the header has", len(record), len(header))
	}
	at, err := r.number(record[0], header[0])
	if err != nil {
		return err
	}
	if math.IsNaN(at) {
		return r.errorf("%s is missing: want seconds in every row", header[0])
	}
	n := len(t.Times)
	if n == 0 {
		*origin = at
	}
	at -= *origin
	if math.IsInf(at, 0) {
		return r.errorf("%s is %s: want seconds", header[0], short(record[0]))
	}
	if n > 0 && at <= t.Times[n-1] {
		return r.errorf("%s is %s after %v: want ascending times, none twice", header[0], record[0], *origin+t.Times[n-1])
	}
	t.Times = append(t.Times, at)
	for i := range t.Columns {
		c := &t.Columns[i]
		v, err := r.number(record[1+i], c.Name)
		if err != nil {
			return err
		}
		c.Values = append(c.Values, v)
	}
	return nil
}

// names checks the names of a header's columns.
func (r *rows) names(header []string) ([]string, error) {
	names := make([]string, len(header))
	for i, name := range header {
		names[i] = strings.TrimSpace(name)
		if names[i] == "" {
			return nil, r.errorf("column %d of the metrics has no name: want one for each", i+1)
		}
		if slices.Contains(names[:i], names[i]) {
			return nil, r.errorf("column %q stands twice: want different names", short(names[i]))
		}
	}
	return names, nil
}
