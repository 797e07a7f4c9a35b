package trace

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
)

// Write writes a trace as CSV that Read reads, a missing value as an empty
// field. A column of another length than Times is an error.
func Write(w io.Writer, t *Trace) error {
	header := []string{timeColumns[0]}
	for _, c := range t.Columns {
		if len(c.Values) != len(t.Times) {
			return fmt.Errorf("write trace %s: column %s has %d values: want %d, one for each time", t.Name, c.Name, len(c.Values), len(t.Times))
		}
		header = append(header, c.Name)
	}
	buffer := bufio.NewWriter(w)
	out := csv.NewWriter(buffer)
	record := header
	// An error sticks to the writer and is told by the last Flush.
	_ = out.Write(record)
	for i, at := range t.Times {
		record[0] = number(at)
		for j, c := range t.Columns {
			record[1+j] = number(c.Values[i])
		}
		_ = out.Write(record)
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write trace %s: %w", t.Name, err)
	}
	if err := buffer.Flush(); err != nil {
		return fmt.Errorf("write trace %s: %w", t.Name, err)
	}
	return nil
}

// number formats a value so that reading it gives the same.
func number(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
