package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// manifestName is the file that tells of the traces in its folder and below.
const manifestName = "manifest.csv"

// traceColumns are the metrics of a recorded trace. The hypervisor's counters
// do not tell reads from writes, nor what was received from what was sent.
var traceColumns = [...]string{"cpu_cores", "cpu_pct", "mem_used_bytes", "disk_bytes_s", "net_bytes_s"}

// percentColumn is the column that takes the number of cores to know.
const percentColumn = 1

// traceRow holds a value for each of traceColumns, NaN where it is not known.
type traceRow [len(traceColumns)]float64

// rowOf returns what the sample tells of usage; vcpus is 0 where not known.
func rowOf(s gnomon.Sample, vcpus int) traceRow {
	var row traceRow
	for i := range row {
		row[i] = math.NaN()
	}
	if s.Known.Has(gnomon.CPU) {
		row[0] = float64(s.Usage[gnomon.CPU]) / 1000
		if vcpus > 0 {
			row[percentColumn] = row[0] / float64(vcpus) * 100
		}
	}
	for i, r := range []gnomon.Resource{gnomon.Memory, gnomon.Disk, gnomon.Network} {
		if s.Known.Has(r) {
			row[2+i] = float64(s.Usage[r])
		}
	}
	return row
}

// traceFile is a trace being written: each row is in the file as soon as it is
// known. The file is made with its first row, and never one that is there. It
// has no column of percent where the number of cores is not known.
type traceFile struct {
	path   string
	rows   int
	cores  float64 // capacity, 0 where it is not known
	memory float64
	file   *os.File
	begin  time.Time
}

func newTraceFile(dir, vm string, cores, memory float64) *traceFile {
	name := strings.Map(func(c rune) rune {
		if c == '/' || c == 0 {
			return '_'
		}
		return c
	}, vm)
	return &traceFile{path: filepath.Join(dir, name+".csv"), cores: cores, memory: memory}
}

// write appends a row.
func (f *traceFile) write(at time.Time, row traceRow) error {
	if f.file == nil {
		if err := f.open(at); err != nil {
			return err
		}
	}
	fields := []string{strconv.FormatFloat(math.Round(at.Sub(f.begin).Seconds()*1000)/1000, 'f', -1, 64)}
	for i, v := range row {
		if f.omits(i) {
			continue
		}
		if math.IsNaN(v) {
			fields = append(fields, "")
			continue
		}
		fields = append(fields, strconv.FormatFloat(math.Round(v*1000)/1000, 'f', -1, 64))
	}
	if _, err := f.file.WriteString(strings.Join(fields, ",") + "\n"); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	f.rows++
	return nil
}

// omits tells the columns that are left out.
func (f *traceFile) omits(column int) bool { return column == percentColumn && f.cores <= 0 }

func (f *traceFile) open(at time.Time) error {
	dir := filepath.Dir(f.path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder for traces: %w", err)
	}
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("create trace: %w", err)
	}
	f.file, f.begin = file, at
	header := []string{"timestamp_s"}
	for i, name := range traceColumns {
		if !f.omits(i) {
			header = append(header, name)
		}
	}
	if _, err := file.WriteString(strings.Join(header, ",") + "\n"); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return f.manifest(dir)
}

// manifest tells the VM's capacities in the folder's manifest.csv, which is made
// if there is none; one with other columns gets those it has.
func (f *traceFile) manifest(dir string) error {
	path := filepath.Join(dir, manifestName)
	columns, err := headerOf(path)
	if err != nil {
		return err
	}
	values := map[string]string{"file": filepath.Base(f.path), "ncpu": capacity(f.cores), "mem_total_bytes": capacity(f.memory)}
	line := ""
	if columns == nil {
		columns = []string{"file", "ncpu", "mem_total_bytes"}
		line = strings.Join(columns, ",") + "\n"
	}
	for i, c := range columns {
		columns[i] = quote(values[c])
	}
	line += strings.Join(columns, ",") + "\n"
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	_, err = file.WriteString(line)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// quote writes a field as CSV.
func quote(field string) string {
	if !strings.ContainsAny(field, "\",\n\r") {
		return field
	}
	return `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
}

func capacity(v float64) string {
	if v <= 0 {
		return ""
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// headerOf returns the columns of a CSV file, nil if there is no such file.
func headerOf(path string) ([]string, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	defer file.Close()
	line, err := bufio.NewReader(file).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("read manifest %s:1: %w: want a line of column names", path, err)
	}
	return strings.Split(strings.TrimRight(line, "\r\n"), ","), nil
}

// close ends the file.
func (f *traceFile) close() error {
	if f.file == nil {
		return nil
	}
	if err := f.file.Close(); err != nil {
		return fmt.Errorf("close trace: %w", err)
	}
	return nil
}
