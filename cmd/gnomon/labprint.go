package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"

	"github.com/gnomon-vm/gnomon/lab/report"
)

// progressOf returns what draws the bar at so many done of a total.
func progressOf(p *progress) func(done, total int) {
	return func(_, total int) {
		if p.n == 0 {
			p.start(total)
		}
		p.step()
	}
}

func two(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

func spanText(s report.Span) string {
	if math.IsNaN(s.Low) {
		return "-"
	}
	return two(s.Low) + " to " + two(s.High)
}

// printReport writes the short form of a report.
func printReport(w io.Writer, r *report.Report, out string) error {
	fmt.Fprintln(w, "Slack at equal violation, relative to the best peer of each data set, resource and target (geometric mean):")
	kinds := map[string]string{}
	for _, p := range r.Policies {
		kinds[p.Name] = p.Faithful
	}
	var rows [][]string
	for _, rank := range r.Ranking {
		rows = append(rows, []string{rank.Policy, kinds[rank.Policy], two(rank.Ratio.Value), spanText(rank.Ratio), fmt.Sprintf("%d of %d", rank.Reached, rank.Of)})
	}
	if err := printTable(w, []string{"policy", "kind", "ratio", "95 % interval", "targets kept"}, rows); err != nil {
		return err
	}
	rows = nil
	verdicts := r.Verdicts()
	for _, v := range verdicts {
		row := []string{v.Dataset, v.Resource, percentOf(v.Target)}
		for _, s := range []report.Standing{v.Product, v.Peer, v.Any, v.Oracle} {
			text := percentOf(s.Slack)
			switch {
			case s.Policy == "":
				text = "-"
			case s.Reached():
				text += " " + s.Policy
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(w, "\nThe least slack at equal violation:")
	if err := printTable(w, []string{"data set", "resource", "violation", "product", "best peer", "best peer or control", "oracle"}, rows); err != nil {
		return err
	}
	if b := report.BalanceOf(verdicts); b.Of > 0 {
		fmt.Fprintf(w, "\nIn %d of %d cases the product needs more than the best of peers and controls, in %d of them beyond chance; in %d it needs less beyond chance.\n", b.Above, b.Of, b.Worse, b.Better)
	}
	_, err := fmt.Fprintf(w, "\nThe report is %s\n", filepath.Join(out, "report.html"))
	return err
}

// reportView is a report as scripts see it. Slack is in percent; what is absent
// is not kept, or has no interval.
type reportView struct {
	Out     string        `json:"out"`
	Ranking []rankingView `json:"ranking"`
	Summary []summaryView `json:"summary"`
}

type rankingView struct {
	Policy  string   `json:"policy"`
	Ratio   float64  `json:"ratio_to_best_peer"`
	Low     *float64 `json:"ratio_lo,omitempty"`
	High    *float64 `json:"ratio_hi,omitempty"`
	Reached int      `json:"targets_kept"`
	Of      int      `json:"targets"`
}

type summaryView struct {
	Dataset  string   `json:"dataset"`
	Resource string   `json:"resource"`
	Policy   string   `json:"policy"`
	Target   float64  `json:"violation_target_pct"`
	Slack    *float64 `json:"slack_pct,omitempty"`
	Low      *float64 `json:"slack_lo,omitempty"`
	High     *float64 `json:"slack_hi,omitempty"`
}

func viewReport(r *report.Report, out string) reportView {
	view := reportView{Out: out, Ranking: []rankingView{}, Summary: []summaryView{}}
	for _, rank := range r.Ranking {
		view.Ranking = append(view.Ranking, rankingView{
			rank.Policy, rank.Ratio.Value, finite(rank.Ratio.Low, 1), finite(rank.Ratio.High, 1), rank.Reached, rank.Of,
		})
	}
	for _, c := range r.Cells {
		for _, e := range c.Entries {
			for t, target := range r.Options.Targets {
				s := e.Interval[t]
				view.Summary = append(view.Summary, summaryView{
					c.Dataset, c.Resource, e.Policy, target * 100, finite(s.Value, 100), finite(s.Low, 100), finite(s.High, 100),
				})
			}
		}
	}
	return view
}
