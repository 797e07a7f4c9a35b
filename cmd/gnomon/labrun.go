package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/lab"
	"github.com/gnomon-vm/gnomon/lab/report"
)

// labFlags are what `gnomon lab run` is told.
type labFlags struct {
	traces, out         string
	policies            []string
	datasets, resources []string
	knobs               []string
	half                string
	vms                 int
	seed                uint64
	contention          bool
	vpa                 string
}

func labRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Play policies against traces and write a report",
		Long: `Plays each policy at every setting of its knob against each trace, and writes
results.csv, summary.csv, outcomes.csv.gz and report.html into --out, all of them
or none. The same traces, flags and seed give the same figures.

Traces are CSV files, plain or compressed with gzip, as TRACES/DATASET/VM.csv or
all in one folder, which is one data set then: a column timestamp_s and any of
cpu_cores, cpu_pct, mem_used_bytes, mem_pct, disk_read_bytes_s,
disk_write_bytes_s, disk_bytes_s, net_rx_bytes_s, net_tx_bytes_s, net_bytes_s. A
manifest.csv beside them may tell capacities: columns file, ncpu,
mem_total_bytes. "gnomon record" writes such folders.`,
		Example: `  gnomon lab run --traces traces --out lab-out
  gnomon lab run --traces traces --policies gnomon,neon --datasets mine --resources cpu,memory --out lab-out
  gnomon lab run --traces traces --policies control-last --knob control-last=0.1,0.5,1 --out lab-out`,
		Args: exactArgs(),
	}
	f := &labFlags{}
	fl := cmd.Flags()
	fl.StringVar(&f.traces, "traces", "", "folder of the traces")
	fl.StringVar(&f.out, "out", "", "folder for the report; an earlier report in it is replaced")
	fl.StringSliceVar(&f.policies, "policies", nil, "policies to play (default: all; see \"gnomon lab policies\")")
	fl.StringSliceVar(&f.datasets, "datasets", nil, "data sets to play (default: all)")
	fl.StringSliceVar(&f.resources, "resources", nil, "resources to play: cpu,memory,disk,network (default: all)")
	fl.StringArrayVar(&f.knobs, "knob", nil, "settings of a policy's knob, like neon=1,1.5,2 (default: its own sweep); may be given several times")
	fl.StringVar(&f.half, "half", "all", "which VMs of each data set to play: all, choose (the 1st, 3rd, …) or report (the 2nd, 4th, …), so as to tune on one half and report on the other")
	fl.IntVar(&f.vms, "vms", 0, "how many VMs of each data set to play at most, the first by name (default: all)")
	fl.Uint64Var(&f.seed, "seed", 1, "decides all that is drawn")
	fl.BoolVar(&f.contention, "contention", false, "have the VMs of a data set share hosts that cannot give all of them what they may have")
	fl.StringVar(&f.vpa, "vpa", defaultVPA(), "the program that plays vpa and vpa-fast (\"make lab-vpa\"); without it there are none")
	completeList(cmd, "policies", namesOf(labPolicies(defaultVPA()))...)
	completeList(cmd, "resources", resourceNames()...)
	completeValues(cmd, "half", "all", "choose", "report")
	_ = cmd.MarkFlagDirname("traces")
	_ = cmd.MarkFlagDirname("out")
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error { return runLab(cmd, f, asJSON) })
	return cmd
}

func runLab(cmd *cobra.Command, f *labFlags, asJSON bool) error {
	knobs, err := f.check()
	if err != nil {
		return err
	}
	if err := report.CheckFolder(f.out); err != nil {
		return usageError{err}
	}
	inputs, err := readInputs(f, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	r, err := playLab(cmd.Context(), f, knobs, inputs, report.Options{
		Seed: f.seed, Command: commandLine(cmd), Machine: machineLine(),
	}, newProgress(cmd.ErrOrStderr(), "lab"))
	if err != nil {
		return err
	}
	if err := r.Write(f.out); err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), viewReport(r, f.out))
	}
	return printReport(cmd.OutOrStdout(), r, f.out)
}

func playLab(ctx context.Context, f *labFlags, knobs map[string][]float64, inputs []lab.Input, o report.Options, p *progress) (*report.Report, error) {
	defer p.finish()
	outcomes, err := lab.Evaluate(ctx, lab.Evaluation{
		Traces: inputs, Policies: f.policies, Resources: f.resources, Knobs: knobs, Seed: f.seed, Contention: f.contention,
		External: vpaPolicies(f.vpa),
	}, progressOf(p))
	if err != nil {
		return nil, err
	}
	// A program sizes CPU and memory; what it leaves alone says nothing of it.
	outcomes = slices.DeleteFunc(outcomes, func(o lab.Outcome) bool {
		return isVPA(o.Policy) && o.Resource != gnomon.CPU.String() && o.Resource != gnomon.Memory.String()
	})
	return report.New(outcomes, labPolicies(f.vpa), o)
}

// check finds what is wrong with the flags and returns the knobs' settings, nil
// where every policy has its own.
func (f *labFlags) check() (map[string][]float64, error) {
	switch {
	case f.traces == "":
		return nil, usagef("--traces is missing: want the folder of the traces")
	case f.out == "":
		return nil, usagef("--out is missing: want a folder for the report")
	case f.vms < 0:
		return nil, usagef("--vms %d: want 1 or more, or 0 for all", f.vms)
	case f.half != "all" && f.half != "choose" && f.half != "report":
		return nil, usagef("--half %q: want all, choose or report", f.half)
	}
	for _, name := range f.resources {
		if _, err := gnomon.ParseResource(name); err != nil {
			return nil, usagef("--resources: %w", err)
		}
	}
	for _, name := range f.policies {
		if err := f.known("--policies", name); err != nil {
			return nil, err
		}
	}
	if len(f.policies) == 0 {
		f.policies = namesOf(labPolicies(f.vpa))
	}
	return f.parseKnobs()
}

func (f *labFlags) parseKnobs() (map[string][]float64, error) {
	if len(f.knobs) == 0 {
		return nil, nil
	}
	knobs := map[string][]float64{}
	for _, text := range f.knobs {
		name, values, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usagef("--knob %q: want a policy and its settings, like neon=1,1.5,2", text)
		}
		if err := f.known("--knob", name); err != nil {
			return nil, err
		}
		if !slices.Contains(f.policies, name) {
			return nil, usagef("--knob %q: policy %s is not among --policies", text, name)
		}
		for _, value := range strings.Split(values, ",") {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, usagef("--knob %q: setting %q: want a number", text, value)
			}
			if slices.Contains(knobs[name], v) {
				return nil, usagef("--knob %q: setting %v stands twice", text, v)
			}
			knobs[name] = append(knobs[name], v)
		}
	}
	return knobs, nil
}

// known returns an error that lists the policies if name is none.
func (f *labFlags) known(flag, name string) error {
	names := namesOf(labPolicies(f.vpa))
	if slices.Contains(names, name) {
		return nil
	}
	hint := ""
	if f.vpa == "" && isVPA(name) {
		hint = "; it is played by gnomon-lab-vpa: build that with \"make lab-vpa\", or name it with --vpa"
	}
	return usagef("%s: unknown policy %q: want one of %s%s", flag, name, strings.Join(names, ", "), hint)
}

// labPolicies returns the laboratory's policies and those of the program vpa,
// if that is named.
func labPolicies(vpa string) []lab.PolicyInfo {
	all := lab.Policies()
	for _, x := range vpaPolicies(vpa) {
		all = append(all, x.PolicyInfo)
	}
	return all
}

func namesOf(policies []lab.PolicyInfo) []string {
	var names []string
	for _, p := range policies {
		names = append(names, p.Name)
	}
	return names
}

func resourceNames() []string {
	var names []string
	for r := range gnomon.AllResources() {
		names = append(names, r.String())
	}
	return names
}

// commandLine returns the command with the flags that were given, in the order
// of their names.
func commandLine(cmd *cobra.Command) string {
	line := []string{cmd.CommandPath()}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = []string{strings.Join(list.GetSlice(), ",")}
			if f.Value.Type() == "stringArray" {
				values = list.GetSlice()
			}
		}
		for _, v := range values {
			if f.Value.Type() == "bool" {
				line = append(line, "--"+f.Name+"="+v)
				continue
			}
			line = append(line, "--"+f.Name, v)
		}
	})
	return strings.Join(line, " ")
}

func labPoliciesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policies",
		Short: "List the policies, what each is and where it comes from",
		Args:  exactArgs(),
	}
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		if asJSON {
			return printJSON(cmd.OutOrStdout(), viewPolicies())
		}
		return printPolicies(cmd.OutOrStdout())
	})
	return cmd
}

// policyView is a policy as scripts see it.
type policyView struct {
	Name   string    `json:"name"`
	Kind   string    `json:"kind"`
	Title  string    `json:"title"`
	Knob   string    `json:"knob"`
	Sweep  []float64 `json:"sweep"`
	Source string    `json:"source"`
}

func viewPolicies() []policyView {
	var views []policyView
	for _, p := range labPolicies(defaultVPA()) {
		views = append(views, policyView{p.Name, p.Faithful, p.Title, p.Knob, p.Sweep, p.Source})
	}
	return views
}

func printPolicies(w io.Writer) error {
	var rows [][]string
	for _, v := range viewPolicies() {
		sweep := make([]string, len(v.Sweep))
		for i, s := range v.Sweep {
			sweep[i] = strconv.FormatFloat(s, 'g', -1, 64)
		}
		rows = append(rows, []string{v.Name, v.Kind, v.Title, v.Knob, strings.Join(sweep, " "), v.Source})
	}
	if err := printTable(w, []string{"policy", "kind", "what it is", "knob", "settings", "source"}, rows); err != nil {
		return fmt.Errorf("print policies: %w", err)
	}
	return nil
}
