package report

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"github.com/gnomon-vm/gnomon/lab"
)

// number writes a value as CSV: empty where there is none.
func number(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', 10, 64)
}

func percent(v float64) string { return number(v * 100) }

func writeCSV(w io.Writer, header []string, rows [][]string) error {
	c := csv.NewWriter(w)
	_ = c.Write(header) // an error sticks and is told by the last Flush
	_ = c.WriteAll(rows)
	return c.Error()
}

var resultsHeader = []string{
	"dataset", "resource", "policy", "knob", "vms", "violation_pct", "slack_pct",
	"violation_lo", "violation_hi", "slack_lo", "slack_hi", "vm_hours", "demand_mean", "allocation_mean",
	"unmet", "unmet_pct", "delay_p99_s", "delay_p99_worst_s", "resizes_per_vm_hour", "kills_per_vm_day",
	"hit_rate_pct", "lead_p50_s", "waste", "waste_pct",
}

// writeResults writes a line for each setting of each policy: shares and their
// bounds in percent, amounts in cores, bytes or bytes/s, unmet and waste in
// those times seconds.
func (r *Report) writeResults(w io.Writer) error {
	rows := make([][]string, 0, len(r.Rows))
	for _, row := range r.Rows {
		rows = append(rows, []string{
			row.Dataset, row.Resource, row.Policy, number(row.Knob), strconv.Itoa(row.VMs),
			percent(row.Violation.Value), percent(row.Slack.Value),
			percent(row.Violation.Low), percent(row.Violation.High), percent(row.Slack.Low), percent(row.Slack.High),
			number(row.Hours), number(row.Demand), number(row.Allocation),
			number(row.Unmet), percent(row.UnmetShare), number(row.DelayP99), number(row.DelayWorst),
			number(row.ResizesPerHour), number(row.KillsPerDay),
			percent(row.HitRate), number(row.Lead), number(row.Waste), percent(row.WasteShare),
		})
	}
	return writeCSV(w, resultsHeader, rows)
}

// writeSummary writes the slack at equal violation, empty where the policy does
// not keep the target.
func (r *Report) writeSummary(w io.Writer) error {
	var rows [][]string
	for _, c := range r.Cells {
		for _, e := range c.Entries {
			for t, target := range r.Options.Targets {
				span := e.Interval[t]
				rows = append(rows, []string{c.Dataset, c.Resource, e.Policy, percent(target), percent(span.Value), percent(span.Low), percent(span.High)})
			}
		}
	}
	return writeCSV(w, []string{"dataset", "resource", "policy", "violation_target_pct", "slack_pct", "slack_lo", "slack_hi"}, rows)
}

// outcomesHeader names the columns of what each VM met, in lab.Outcome's units.
var outcomesHeader = []string{
	"dataset", "vm", "resource", "policy", "knob", "seconds", "violation_s", "unmet", "demand", "allocation",
	"slack", "delay_p99_s", "resizes", "kills", "hits", "misses", "lead_p50_s", "waste",
}

// exact writes a value so that reading it gives the same.
func exact(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// writeOutcomes writes every VM's outcome, compressed with gzip.
func (r *Report) writeOutcomes(w io.Writer) error {
	rows := make([][]string, 0, len(r.outcomes))
	for _, o := range r.outcomes {
		rows = append(rows, []string{
			o.Dataset, o.VM, o.Resource, o.Policy, exact(o.Knob), exact(o.Seconds), exact(o.Violation), exact(o.Unmet),
			exact(o.Demand), exact(o.Allocation), exact(o.Slack), exact(o.DelayP99), strconv.Itoa(o.Resizes), strconv.Itoa(o.Kills),
			strconv.Itoa(o.Hits), strconv.Itoa(o.Misses), exact(o.LeadP50), exact(o.Waste),
		})
	}
	z := gzip.NewWriter(w)
	return errors.Join(writeCSV(z, outcomesHeader, rows), z.Close())
}

// ReadOutcomes reads what Write left in a folder of every VM. Errors name file
// and line.
func ReadOutcomes(dir string) ([]lab.Outcome, error) {
	path := dir + string(os.PathSeparator) + outcomesFile
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read outcomes: %w", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read outcomes %s: %w", path, err)
	}
	outcomes, err := parseOutcomes(z)
	if err != nil {
		return nil, fmt.Errorf("read outcomes %s%w", path, err)
	}
	return outcomes, nil
}

func parseOutcomes(r io.Reader) ([]lab.Outcome, error) {
	c := csv.NewReader(r)
	c.FieldsPerRecord = len(outcomesHeader)
	c.ReuseRecord = true
	var out []lab.Outcome
	for line := 1; ; line++ {
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf(": %w", err)
		}
		if line == 1 {
			for i, name := range outcomesHeader {
				if record[i] != name {
					return nil, fmt.Errorf(":1: column %d is %q: want %q", i+1, record[i], name)
				}
			}
			continue
		}
		o, err := parseOutcome(record)
		if err == nil {
			err = check(o)
		}
		if err != nil {
			return nil, fmt.Errorf(":%d: %w", line, err)
		}
		out = append(out, o)
	}
	if len(out) == 0 {
		return nil, errors.New(": no outcome in it")
	}
	return out, nil
}

func parseOutcome(record []string) (lab.Outcome, error) {
	o := lab.Outcome{Dataset: record[0], VM: record[1], Resource: record[2], Policy: record[3]}
	var err error
	for i, field := range map[int]*float64{
		4: &o.Knob, 5: &o.Seconds, 6: &o.Violation, 7: &o.Unmet, 8: &o.Demand, 9: &o.Allocation,
		10: &o.Slack, 11: &o.DelayP99, 16: &o.LeadP50, 17: &o.Waste,
	} {
		v, perr := strconv.ParseFloat(record[i], 64)
		if perr != nil {
			err = errors.Join(err, fmt.Errorf("%s is %q: want a number", outcomesHeader[i], record[i]))
		}
		*field = v
	}
	for i, field := range map[int]*int{12: &o.Resizes, 13: &o.Kills, 14: &o.Hits, 15: &o.Misses} {
		v, perr := strconv.Atoi(record[i])
		if perr != nil || v < 0 {
			err = errors.Join(err, fmt.Errorf("%s is %q: want a whole number, 0 or more", outcomesHeader[i], record[i]))
		}
		*field = v
	}
	return o, err
}
