package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/gnomon-vm/gnomon/lab"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the template shows: words and coordinates, all made here.
type page struct {
	Command, Machine string
	Seed             uint64
	Resamples        int
	Cells, VMs       int
	VMHours          string
	Style            template.CSS
	Targets          []string
	Policies         []policyView
	Ranking          []rankView
	Verdicts         []verdictView
	Balance          Balance
	HasProduct       bool
	HasPeer          bool
	Frame            frame
	Panels           []panelView
}

type policyView struct{ Class, Name, Title, Kind, Knob, Source string }

type rankView struct{ Place, Class, Name, Kind, Ratio, Interval, Reached, Best string }

type verdictView struct {
	Dataset, Resource, Target                            string
	Product, ProductName, Peer, PeerName                 string
	Any, AnyName, Oracle, RatioPeer, RatioBest, Interval string
	Worse                                                bool
}

type panelView struct {
	ID, Dataset, Resource string
	VMs                   int
	Lines                 []lineView
	Details               []detailView
}

type lineView struct {
	Class, Title, Path string
	Dots               []dotView
}

type dotView struct{ X, Y, Title string }

type detailView struct {
	Class, Name                                                        string
	Slacks                                                             []string
	Knob, Violation, Unmet, Delay, Resizes, Kills, HitRate, Lead, Lost string
}

// writePage writes the report as one page that needs nothing else.
func (r *Report) writePage(w io.Writer) error {
	if err := pageTemplate.Execute(w, r.page()); err != nil {
		return fmt.Errorf("render page: %w", err)
	}
	return nil
}

func (r *Report) page() page {
	p := page{
		Command: r.Options.Command, Machine: r.Options.Machine, Seed: r.Options.Seed, Resamples: r.Options.Resamples,
		Cells: len(r.Cells), Style: styleOf(r.Policies), Frame: newFrame(r.Options.Targets),
	}
	machines := map[string]bool{}
	hours := map[string]float64{}
	for _, o := range r.outcomes {
		id := o.Dataset + "/" + o.VM
		machines[id] = true
		hours[id] = max(hours[id], o.Seconds/3600)
	}
	total := 0.0
	for _, o := range r.outcomes { // in the outcomes' order, so that sums are the same
		id := o.Dataset + "/" + o.VM
		total += hours[id]
		hours[id] = 0
	}
	p.VMs, p.VMHours = len(machines), short(total)
	for _, t := range r.Options.Targets {
		p.Targets = append(p.Targets, short(t*100)+" %")
	}
	for i, info := range r.Policies {
		p.Policies = append(p.Policies, policyView{class(i), info.Name, info.Title, info.Faithful, info.Knob, info.Source})
	}
	classes, kinds := r.classes(), r.kinds()
	for i, rank := range r.Ranking {
		place := strconv.Itoa(i + 1)
		p.Ranking = append(p.Ranking, rankView{
			place, classes[rank.Policy], rank.Policy, kinds[rank.Policy], short(rank.Ratio.Value),
			interval(rank.Ratio, 1), fmt.Sprintf("%d of %d", rank.Reached, rank.Of), strconv.Itoa(rank.Best),
		})
	}
	verdicts := r.Verdicts()
	p.Balance = BalanceOf(verdicts)
	for _, v := range verdicts {
		view := viewVerdict(v)
		p.HasProduct = p.HasProduct || v.Product.Policy != ""
		p.HasPeer = p.HasPeer || v.Peer.Policy != ""
		p.Verdicts = append(p.Verdicts, view)
	}
	for i, c := range r.Cells {
		p.Panels = append(p.Panels, r.panel(i, c, classes))
	}
	return p
}

func class(i int) string { return "p" + strconv.Itoa(i) }

func (r *Report) classes() map[string]string {
	classes := map[string]string{}
	for i, p := range r.Policies {
		classes[p.Name] = class(i)
	}
	return classes
}

func viewVerdict(v Verdict) verdictView {
	view := verdictView{
		Dataset: v.Dataset, Resource: v.Resource, Target: short(v.Target*100) + " %",
		Product: reading(v.Product), ProductName: v.Product.Policy, Peer: reading(v.Peer), PeerName: v.Peer.Policy,
		Any: reading(v.Any), AnyName: v.Any.Policy, Oracle: reading(v.Oracle),
	}
	if v.Product.Policy == "" {
		return view
	}
	if v.Peer.Policy != "" {
		view.RatioPeer = short(counted(v.Product.Slack) / counted(v.Peer.Slack))
	}
	if v.Any.Policy != "" {
		view.RatioBest, view.Interval = short(v.Ratio.Value), interval(v.Ratio, 1)
		view.Worse = v.Ratio.Value > 1
	}
	return view
}

func reading(s Standing) string {
	switch {
	case s.Policy == "":
		return "–"
	case !s.Reached():
		return "not kept"
	case s.Bound:
		return "≤ " + short(s.Slack*100) + " %"
	}
	return short(s.Slack*100) + " %"
}

// interval writes a span's bounds times scale, nothing where there are none.
func interval(s Span, scale float64) string {
	if math.IsNaN(s.Low) {
		return ""
	}
	high := "…"
	if !math.IsInf(s.High, 0) {
		high = short(s.High * scale)
	}
	if math.IsInf(s.Low, 0) {
		return ""
	}
	return short(s.Low*scale) + " – " + high
}

// short writes a value for people: three digits or so.
func short(v float64) string {
	switch abs := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case abs >= 1e5:
		return strconv.FormatFloat(v, 'g', 3, 64)
	case abs >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case abs >= 10:
		return trimZeros(strconv.FormatFloat(v, 'f', 1, 64))
	case abs >= 0.01:
		return trimZeros(strconv.FormatFloat(v, 'f', 2, 64))
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

func trimZeros(s string) string { return strings.TrimRight(strings.TrimRight(s, "0"), ".") }

// unmetUnits are the units people read unmet demand in, and what makes one.
var unmetUnits = map[string]struct {
	name string
	per  float64
}{
	"cpu": {"core-s", 1}, "memory": {"GiB-s", 1 << 30}, "disk": {"MB", 1e6}, "network": {"MB", 1e6},
}

// details tells of each policy its slack at the targets and what else came of
// the loosest setting that keeps the first target.
func (r *Report) details(c Cell, classes map[string]string) []detailView {
	var out []detailView
	for _, e := range c.Entries {
		d := detailView{Class: classes[e.Policy], Name: e.Policy}
		for t := range r.Options.Targets {
			text := reading(Standing{e.Policy, e.At[t]})
			if bounds := interval(e.Interval[t], 100); bounds != "" && e.At[t].Reached() {
				text += " (" + bounds + ")"
			}
			d.Slacks = append(d.Slacks, text)
		}
		if row, ok := r.picked(c, e); ok {
			unit := unmetUnits[c.Resource]
			if unit.per == 0 {
				unit.per = 1
			}
			d.Knob, d.Violation = short(row.Knob), short(row.Violation.Value*100)+" %"
			d.Unmet = short(row.Unmet/unit.per) + " " + unit.name
			d.Delay, d.Resizes, d.Kills = short(row.DelayP99)+" s", short(row.ResizesPerHour), short(row.KillsPerDay)
			if !math.IsNaN(row.HitRate) {
				d.HitRate = short(row.HitRate*100) + " %"
			}
			if !math.IsNaN(row.Lead) {
				d.Lead = short(row.Lead) + " s"
			}
			if row.Waste > 0 {
				d.Lost = short(row.WasteShare*100) + " %"
			}
		}
		out = append(out, d)
	}
	return out
}

// picked returns the row of the setting with the least slack that keeps the
// first target.
func (r *Report) picked(c Cell, e Entry) (Row, bool) {
	var knob float64
	found := false
	for _, p := range e.Curve {
		if p.Violation <= r.Options.Targets[0] {
			knob, found = p.Knob, true
		}
	}
	if !found {
		return Row{}, false
	}
	for _, row := range r.Rows {
		if row.Dataset == c.Dataset && row.Resource == c.Resource && row.Policy == e.Policy && row.Knob == knob {
			return row, true
		}
	}
	return Row{}, false
}

// base is a policy's name without its variant, which shares its colour.
func base(name string) string { return strings.TrimSuffix(name, "-fast") }

// styleOf returns the colours and line styles of the policies, for light and
// dark, and the rules by which a legend's box hides a policy's lines.
func styleOf(policies []lab.PolicyInfo) template.CSS {
	var b strings.Builder
	hues, controls := map[string]int{}, 0
	for i, p := range policies {
		color, width, dash := "var(--ink)", "1.4", "none"
		switch p.Faithful {
		case Product:
			color, width = "var(--product)", "2.8"
			if strings.Contains(p.Name, "-") {
				width, dash = "1.8", "5 2"
			}
		case Oracle:
			dash = "1.5 3"
		case Control:
			color = "var(--control)"
			dash = []string{"none", "6 3", "2 2", "8 2 2 2", "4 4", "10 3"}[controls%6]
			controls++
		default:
			key := base(p.Name)
			if _, ok := hues[key]; !ok {
				hues[key] = len(hues) % 8
			}
			color = fmt.Sprintf("var(--h%d)", hues[key])
			if key != p.Name {
				dash = "5 3"
			}
		}
		c := class(i)
		fmt.Fprintf(&b, ".%s{--c:%s;--w:%s;--d:%s}\nbody:has(#s-%s:not(:checked)) g.%s{display:none}\n", c, color, width, dash, c, c)
	}
	return template.CSS(b.String()) //nolint:gosec // made of constants and numbers alone
}
