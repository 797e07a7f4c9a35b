package main

import (
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gnomon-vm/gnomon/lab/report"
)

func labCompareCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compare BEFORE AFTER",
		Short: "Tell what changed between two reports beyond what the choice of VMs explains",
		Long: `Compares slack at equal violation, per data set, resource, policy and target, of
two folders that "gnomon lab run" wrote. A change counts if the 95 % interval of
the difference over resamples of the VMs, paired where both met the same VMs,
leaves 0 out, or if only one of the two keeps the target.`,
		Example: `  gnomon lab compare lab-before lab-after`,
		Args:    exactArgs("BEFORE", "AFTER"),

		ValidArgsFunction: completeFiles,
	}
	all := cmd.Flags().Bool("all", false, "show also what did not change")
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		before, err := report.ReadOutcomes(args[0])
		if err != nil {
			return usageError{err}
		}
		after, err := report.ReadOutcomes(args[1])
		if err != nil {
			return usageError{err}
		}
		changes, err := report.Compare(before, after, report.Options{Seed: 1})
		if err != nil {
			return err
		}
		return printChanges(cmd.OutOrStdout(), changes, *all, asJSON)
	})
	return cmd
}

// changeView is a change as scripts see it, in percent and percentage points.
type changeView struct {
	Dataset  string   `json:"dataset"`
	Resource string   `json:"resource"`
	Policy   string   `json:"policy"`
	Target   float64  `json:"violation_target_pct"`
	Before   *float64 `json:"before_slack_pct,omitempty"`
	After    *float64 `json:"after_slack_pct,omitempty"`
	Change   *float64 `json:"change,omitempty"`
	Low      *float64 `json:"change_lo,omitempty"`
	High     *float64 `json:"change_hi,omitempty"`
	Paired   bool     `json:"paired"`
	Beyond   bool     `json:"beyond_interval"`
}

func printChanges(w io.Writer, changes []report.Change, all, asJSON bool) error {
	views, rows := []changeView{}, [][]string{}
	beyond := 0
	for _, c := range changes {
		if c.Beyond {
			beyond++
		}
		if !c.Beyond && !all {
			continue
		}
		d := c.Difference
		views = append(views, changeView{
			c.Dataset, c.Resource, c.Policy, c.Target * 100, finite(c.Before, 100), finite(c.After, 100),
			finite(d.Value, 100), finite(d.Low, 100), finite(d.High, 100), c.Paired, c.Beyond,
		})
		change, bounds := "-", "-"
		if !math.IsNaN(d.Value) {
			change = fmt.Sprintf("%+.1f", d.Value*100)
		}
		if !math.IsNaN(d.Low) {
			bounds = fmt.Sprintf("%+.1f to %+.1f", d.Low*100, d.High*100)
		}
		mark := ""
		if c.Beyond {
			mark = "changed"
		}
		rows = append(rows, []string{c.Dataset, c.Resource, c.Policy, percentOf(c.Target), percentOf(c.Before), percentOf(c.After), change, bounds, mark})
	}
	if asJSON {
		return printJSON(w, views)
	}
	if len(rows) > 0 {
		if err := printTable(w, []string{"data set", "resource", "policy", "violation", "before", "after", "points", "95 % interval", ""}, rows); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%d of %d slacks at equal violation changed beyond their interval\n", beyond, len(changes))
	return err
}

// percentOf writes a share, 0..1, as percent; "not kept" where it is infinite.
func percentOf(share float64) string {
	if math.IsInf(share, 0) {
		return "not kept"
	}
	return strconv.FormatFloat(share*100, 'f', 1, 64) + " %"
}

// finite returns v times scale, nil where it is no number JSON has.
func finite(v, scale float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	v *= scale
	return &v
}
