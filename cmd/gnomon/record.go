package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/demand"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/libvirt"
	"github.com/spf13/cobra"
)

// recordFlags are what `gnomon record` is told.
type recordFlags struct {
	vms        []string
	out        string
	interval   time.Duration
	duration   time.Duration
	libvirt    string
	from       string
	historyURL string
	start, end string
}

func recordCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "record",
		Short: "Record what VMs use as traces, one CSV file a VM",
		Long: `Reads the counters of running VMs and writes what each used, one CSV file a VM,
a row an interval, written out at once: CPU in cores and percent, memory in use,
disk and network bandwidth. A value that is not known is an empty field. It ends
after --duration, on Ctrl-C, or when all its VMs are gone. It sets no limit,
overwrites no file, and has balloons tell their statistics, without which memory
is not known. A VM whose limits bind shows its limits: record it without.

With --from history the traces are of what the history kept, --start to --end. It
does not keep what a VM's machine has, so there is no CPU in percent, and no
capacity in the manifest.`,
		Example: `  gnomon record --vm db --vm 'web-*' --interval 1s --duration 1h --out traces/mine
  gnomon record --from history --vm db --start 24h --out traces/yesterday`,
		Args: exactArgs(),
	}
	f := &recordFlags{}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.vms, "vm", nil, "name, ID or pattern like web-* of VMs to record; may be given several times")
	fl.StringVar(&f.out, "out", "", "folder for the traces; those in it are kept")
	durationFlag(fl, &f.interval, "interval", time.Second, "time between rows, 100ms to 1h")
	durationFlag(fl, &f.duration, "duration", 0, "how long to record, 0 until Ctrl-C")
	fl.StringVar(&f.libvirt, "libvirt-socket", "", "Unix socket of libvirtd or virtqemud (default: the system's)")
	fl.StringVar(&f.from, "from", "live", "live (the hypervisor) or history")
	fl.StringVar(&f.historyURL, "history-url", defaultHistory(),
		"with --from history: its address, below which /api/v1 is found (env GNOMON_HISTORY, or that of GNOMON_SERVER)")
	fl.StringVar(&f.start, "start", "1h", "with --from history: a time (RFC 3339) or how long ago")
	fl.StringVar(&f.end, "end", "0s", "with --from history: a time (RFC 3339) or how long ago")
	completeValues(cmd, "from", "live", "history")
	_ = cmd.MarkFlagDirname("out")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(cmd); err != nil {
			return err
		}
		if f.from == "history" {
			return recordHistory(cmd.Context(), f, cmd.ErrOrStderr())
		}
		driver, err := libvirt.Open(cmd.Context(), libvirt.Options{Socket: f.libvirt})
		if err != nil {
			return err
		}
		defer driver.Close()
		return recordLive(cmd.Context(), driver, f, cmd.ErrOrStderr(), clock{time.Now, time.After})
	}
	return cmd
}

// check finds what is wrong with the flags.
func (f *recordFlags) check(cmd *cobra.Command) error {
	if f.from != "live" && f.from != "history" {
		return usagef("--from %q: want live or history", f.from)
	}
	if len(f.vms) == 0 {
		return usagef("--vm is missing: want the name, ID or pattern of VMs to record")
	}
	for _, p := range f.vms {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return usagef("--vm %q: want a name, an ID or a pattern like web-*", p)
		}
	}
	if f.out == "" {
		return usagef("--out is missing: want the folder for the traces")
	}
	if f.interval < 100*time.Millisecond || f.interval > time.Hour {
		return usagef("--interval %v: want 100ms to 1h", f.interval)
	}
	if f.duration > 0 && f.duration < f.interval {
		return usagef("--duration %v: want at least the interval, or 0 until Ctrl-C", f.duration)
	}
	for _, name := range []string{"start", "end", "history-url"} {
		if f.from == "live" && cmd.Flags().Changed(name) {
			return usagef("--%s is of --from history: the hypervisor knows only the present", name)
		}
	}
	if f.from == "history" && (cmd.Flags().Changed("duration") || cmd.Flags().Changed("libvirt-socket")) {
		return usagef("--duration and --libvirt-socket are of --from live: the history is read from --start to --end")
	}
	return nil
}

// recorded is one VM being recorded.
type recorded struct {
	machine hypervisor.Machine
	meter   demand.Meter
	file    *traceFile
	gone    bool
}

// recordLive records until the duration is over, ctx ends or no VM is left.
func recordLive(ctx context.Context, driver hypervisor.Driver, f *recordFlags, log io.Writer, c clock) error {
	machines, err := driver.Machines(ctx)
	if err != nil {
		return err
	}
	picked, err := pickMachines(machines, f.vms)
	if err != nil {
		return err
	}
	vms, err := openTraces(f.out, picked)
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "recording %s every %v into %s\n", counted(len(vms), "VM"), f.interval, f.out)
	r := &recorder{driver: driver, vms: vms, log: log}
	err = r.run(ctx, f.interval, f.duration, c)
	rows := 0
	for _, v := range vms {
		rows += v.file.rows
		err = errors.Join(err, v.file.close())
	}
	if err == nil && rows == 0 {
		err = errors.New("record VMs: it ended before the second reading: nothing is known of an interval, and nothing written")
	}
	if err == nil {
		fmt.Fprintf(log, "wrote %d rows into %s\n", rows, f.out)
	}
	return err
}

// pickMachines returns the machines that a name, ID or pattern asks for. A
// pattern leaves shadow VMs out; each has to find something.
func pickMachines(machines []hypervisor.Machine, wanted []string) ([]hypervisor.Machine, error) {
	found := make([]bool, len(wanted))
	var out []hypervisor.Machine
	for _, m := range machines {
		take := false
		for i, w := range wanted {
			match, _ := path.Match(w, m.Name) // checked with the flags
			if m.Name == w || string(m.ID) == w || match && m.ShadowOf == "" {
				found[i], take = true, true
			}
		}
		if take {
			out = append(out, m)
		}
	}
	if i := slices.Index(found, false); i >= 0 {
		var names []string
		for _, m := range machines {
			if m.ShadowOf == "" {
				names = append(names, m.Name)
			}
		}
		if len(names) == 0 {
			return nil, notFoundf("no running VM is called %q: none runs", wanted[i])
		}
		return nil, notFoundf("no running VM is called %q; there are: %s", wanted[i], strings.Join(names, ", "))
	}
	return out, nil
}

// openTraces makes sure that every VM has a file name of its own that is free.
// The files come with their first rows.
func openTraces(dir string, machines []hypervisor.Machine) ([]*recorded, error) {
	var out []*recorded
	for _, m := range machines {
		v := &recorded{machine: m, file: newTraceFile(dir, m.Name, float64(m.VCPUs), float64(m.Max[gnomon.Memory]))}
		for _, o := range out {
			if o.file.path == v.file.path {
				return nil, usagef("record VMs %s and %s: both would be %s: record them apart", o.machine.Name, m.Name, v.file.path)
			}
		}
		if _, err := os.Lstat(v.file.path); err == nil {
			return nil, usagef("record VM %s: %s is there already: choose another --out, or move it away", m.Name, v.file.path)
		}
		out = append(out, v)
	}
	return out, nil
}

// recorder reads counters and writes rows.
type recorder struct {
	driver hypervisor.Driver
	vms    []*recorded
	log    io.Writer
	failed bool // the last reading
}

// clock is the time that readings keep: the machine's, or a test's.
type clock struct {
	now   func() time.Time
	after func(time.Duration) <-chan time.Time
}

// run reads at every multiple of the interval since its start; those that come
// too late are left out. The first reading begins the first interval.
func (r *recorder) run(ctx context.Context, interval, duration time.Duration, c clock) error {
	start := c.now()
	for due := time.Duration(0); ; {
		left, err := r.turn(ctx)
		if err != nil {
			return err
		}
		if left == 0 {
			fmt.Fprintln(r.log, "no VM is left to record")
			return nil
		}
		elapsed := c.now().Sub(start)
		due = max(due+interval, elapsed.Truncate(interval))
		if duration > 0 && due > duration {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.after(max(0, due-elapsed)):
		}
	}
}

// turn reads all VMs once and returns how many are left.
func (r *recorder) turn(ctx context.Context) (int, error) {
	var ids []gnomon.VMID
	for _, v := range r.vms {
		if !v.gone {
			ids = append(ids, v.machine.ID)
		}
	}
	counters, err := r.driver.Read(ctx, ids)
	if err != nil {
		if ctx.Err() == nil && !r.failed {
			r.failed = true
			fmt.Fprintf(r.log, "reading failed, rows are missing until it works again: %v\n", err)
		}
		return len(ids), nil
	}
	r.failed = false
	left := 0
	for _, v := range r.vms {
		if v.gone {
			continue
		}
		i := slices.IndexFunc(counters, func(c hypervisor.Counters) bool { return c.VM == v.machine.ID })
		if i < 0 {
			v.gone = r.isGone(ctx, v)
			if !v.gone {
				left++
			}
			continue
		}
		left++
		if s, ok := v.meter.Next(counters[i]); ok {
			if err := v.file.write(s.At, rowOf(s, v.machine.VCPUs)); err != nil {
				return left, err
			}
		}
	}
	return left, nil
}

// isGone asks whether a VM that could not be read has stopped.
func (r *recorder) isGone(ctx context.Context, v *recorded) bool {
	machines, err := r.driver.Machines(ctx)
	if err != nil || slices.ContainsFunc(machines, func(m hypervisor.Machine) bool { return m.ID == v.machine.ID }) {
		return false
	}
	fmt.Fprintf(r.log, "VM %s has stopped; its trace ends here\n", v.machine.Name)
	return true
}
