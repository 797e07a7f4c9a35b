package demo

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
)

// liveVM is what the live table shows of one VM.
type liveVM struct {
	title   string // its role in the comparison
	states  []*hostpb.ResourceState
	starved [gnomon.NumResources]float64
	latency Quantiles
}

// writeTable writes the live table.
func writeTable(w io.Writer, elapsed, total time.Duration, vms []liveVM) error {
	of := ""
	if total > 0 {
		of = fmt.Sprintf(" of %v", total)
	}
	fmt.Fprintf(w, "%v%s\n", elapsed.Truncate(time.Second), of)
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "VM\tRESOURCE\tUSAGE\tDEMAND\tFORECAST\tALLOCATION\tRESERVATION\tHITS\tMISSES\tSTARVED")
	for _, vm := range vms {
		title := vm.title
		for _, s := range vm.states {
			r, err := gnomon.ParseResource(s.GetResource())
			if err != nil {
				continue
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%.1f s\n", title, r,
				gnomon.Format(r, s.GetUsage()), gnomon.Format(r, s.GetDemand()), forecast(r, s),
				allocation(r, s), gnomon.Format(r, s.GetReservation()), s.GetHits(), s.GetMisses(), vm.starved[r])
			title = ""
		}
		fmt.Fprintf(tw, "%s\twork\tp50 %s\tp99 %s\t\t\t\t\t\t\n", title, milliseconds(vm.latency.P50), milliseconds(vm.latency.P99))
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

func forecast(r gnomon.Resource, s *hostpb.ResourceState) string {
	if s.GetModel() == "" {
		return "-"
	}
	return gnomon.Format(r, s.GetForecastMedian()) + " to " + gnomon.Format(r, s.GetForecastHigh())
}

func allocation(r gnomon.Resource, s *hostpb.ResourceState) string {
	if !s.GetLimited() {
		return "not limited"
	}
	return gnomon.Format(r, s.GetAllocation())
}

func milliseconds(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f ms", *v)
}

// Write writes the summary for people, the VMs side by side.
func (s Summary) Write(w io.Writer) error {
	fmt.Fprintf(w, "%.0f seconds under %s, seed %d\n\n", s.Seconds, strings.ToUpper(s.Accel), s.Seed)
	tw := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
	row := func(label string, cell func(VMSummary) string) {
		fmt.Fprint(tw, label)
		for _, vm := range s.VMs {
			fmt.Fprint(tw, "\t", cell(vm))
		}
		fmt.Fprintln(tw)
	}
	row("", func(vm VMSummary) string { return vm.Name })
	row("policy", func(vm VMSummary) string { return vm.Policy })
	for r := range gnomon.AllResources() {
		row("starved of "+r.String(), func(vm VMSummary) string { return fmt.Sprintf("%.2f s", vm.StarvedSeconds.of(r)) })
	}
	row("starved in total", func(vm VMSummary) string { return fmt.Sprintf("%.2f s", vm.StarvedSeconds.sum()) })
	row("work item p50 / p99", func(vm VMSummary) string { return vm.WorkLatency.String() })
	row("work items done", func(vm VMSummary) string {
		return fmt.Sprintf("%d of %d, %d given up", vm.Work.Done, vm.Work.Arrived, vm.Work.GivenUp)
	})
	for r := range gnomon.AllResources() {
		row("mean allocation, "+r.String(), func(vm VMSummary) string { return vm.MeanAllocation.format(r) })
	}
	for r := range gnomon.AllResources() {
		row("mean reservation, "+r.String(), func(vm VMSummary) string { return vm.MeanReservation.format(r) })
	}
	row("reservations requested", func(vm VMSummary) string { return fmt.Sprint(vm.Reservations.Requested) })
	row("granted / partly / denied", func(vm VMSummary) string {
		return fmt.Sprintf("%d / %d / %d", vm.Reservations.Granted, vm.Reservations.Partial, vm.Reservations.Denied)
	})
	row("expired / revoked", func(vm VMSummary) string {
		return fmt.Sprintf("%d / %d", vm.Reservations.Expired, vm.Reservations.Revoked)
	})
	row("hit rate", func(vm VMSummary) string {
		if vm.HitRate == nil {
			return "-"
		}
		return fmt.Sprintf("%.0f %%", *vm.HitRate*100)
	})
	row("waste, cpu", func(vm VMSummary) string { return fmt.Sprintf("%.1f core-seconds", vm.Waste.CPU) })
	row("waste, memory", func(vm VMSummary) string { return fmt.Sprintf("%.1f GiB-seconds", vm.Waste.Memory/(1<<30)) })
	row("waste, disk", func(vm VMSummary) string { return fmt.Sprintf("%.1f MB", vm.Waste.Disk/1e6) })
	row("waste, network", func(vm VMSummary) string { return fmt.Sprintf("%.1f MB", vm.Waste.Network/1e6) })
	row("handover p50 / p99", func(vm VMSummary) string { return vm.Handover.String() })
	fmt.Fprintln(tw)
	cost := func(label string, c ProcessCost) {
		fmt.Fprintf(tw, "%s\t%.1f s of CPU\t%.1f MiB\n", label, c.CPUSeconds, float64(c.MemoryBytes)/(1<<20))
	}
	cost("cost of the shadow", s.Cost.Shadow)
	cost("cost of the daemon", s.Cost.Daemon)
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	return nil
}

func (q Quantiles) String() string {
	return milliseconds(q.P50) + " / " + milliseconds(q.P99)
}

func (p PerResource) of(r gnomon.Resource) float64 {
	return [gnomon.NumResources]float64{p.CPU, p.Memory, p.Disk, p.Network}[r]
}

func (p PerResource) sum() float64 { return p.CPU + p.Memory + p.Disk + p.Network }

func (a Amounts) format(r gnomon.Resource) string {
	return gnomon.Format(r, [gnomon.NumResources]int64{
		int64(a.CPU * 1000), int64(a.Memory), int64(a.Disk), int64(a.Network),
	}[r])
}
