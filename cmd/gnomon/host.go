package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

func hostCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host",
		Short: "Run the host daemon alone, or look at hosts",
		Long: `Runs the daemon of one host: it takes in the VMs of libvirt, gives each a shadow,
and moves CPU, memory, disk and network bandwidth ahead of demand. It is linked to
the servers of the fleet that the host joined; without any it works by itself,
with the default parameters.`,
		Example: `  gnomon host
  gnomon host --server https://mgmt-1:7070,https://mgmt-2:7070
  gnomon host --vms 'web-*,db-*'`,
	}
	flags := addDaemonFlags(cmd)
	server := cmd.Flags().String("server", envOr("GNOMON_SERVER", ""), "addresses of the management servers, with commas between (env GNOMON_SERVER; default: those that the host joined, or none)")
	historyURL := cmd.Flags().String("history-url", "", "Prometheus-compatible time-series database (default: the first server's)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := newLogger(flags.logLevel, flags.logFormat)
		if err != nil {
			return err
		}
		servers, err := findServers(*server, flags, cmd.Flags().Changed("name"))
		if err != nil {
			return err
		}
		return runHost(cmd.Context(), flags, servers, *historyURL, log)
	}
	cmd.AddCommand(hostListCommand(), hostLabelCommand(),
		hostCordonCommand("cordon", "Have no account placed on a host any more", true),
		hostCordonCommand("uncordon", "Have accounts placed on a host again", false),
		hostRemoveCommand(), hostJoinCommand(), hostRevokeCommand(), hostStatusCommand())
	return cmd
}

// runHost runs the daemon alone. An empty address of the history means that of
// the first server, if there is one.
func runHost(ctx context.Context, flags *daemonFlags, servers hostlink.Servers, historyURL string, log *slog.Logger) (err error) {
	parts, err := connectHost(ctx, flags)
	if err != nil {
		return err
	}
	defer parts.close()
	deps := daemonDeps{servers: servers, log: log, registry: prometheus.NewRegistry()}
	var transport http.RoundTripper
	if historyURL == "" && len(servers.URLs) > 0 {
		historyURL = hostlink.BaseURL(servers.URLs[0]) + "/history"
		transport = hostlink.NewHTTPClient(servers.TLS()).Transport
	}
	if historyURL != "" {
		if deps.history, err = history.New(historyURL, transport); err != nil {
			return usageError{fmt.Errorf("--history-url: %w", err)}
		}
		deps.historyURL = historyURL
	}
	if err := parts.prepare(flags, log); err != nil {
		return err
	}
	if deps.history != nil {
		if err := deps.openWriter(flags); err != nil {
			return err
		}
		defer closeWriter(deps.writer, log)
	}
	return runDaemon(ctx, flags, parts, deps)
}

// historyCloseTimeout is how long a stopping daemon tries to store what its
// history does not hold yet.
const historyCloseTimeout = 3 * time.Second

// openWriter begins to write the history. Only the process that has the host may
// use its buffer.
func (d *daemonDeps) openWriter(f *daemonFlags) error {
	limit, err := f.bufferLimit()
	if err != nil {
		return err
	}
	buffer, err := history.OpenBuffer(filepath.Join(f.stateDir, "history"), limit)
	if err != nil {
		return err
	}
	d.writer = history.NewWriter(d.history, history.WriterOptions{Buffer: buffer, Logger: d.log, Registerer: d.registry})
	return nil
}

func hostStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the daemon's parts are well, and the host's book",
		Args:  exactArgs(),
	}
	socket := socketFlag(cmd)
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		res, err := hostClient(*socket).Status(cmd.Context(), connect.NewRequest(&hostpb.StatusRequest{}))
		if err != nil {
			return err
		}
		if asJSON {
			return printProto(cmd.OutOrStdout(), res.Msg)
		}
		return printStatus(cmd.OutOrStdout(), res.Msg)
	})
	return cmd
}

func printStatus(w io.Writer, s *hostpb.StatusResponse) error {
	fmt.Fprintf(w, "Host:        %s\nVersion:     %s\nAccel:       %s\nHypervisor:  %s\nServer:      %s\nHistory:     %s\nRunning for: %s\nCPU time:    %s\nMemory:      %s\nPressure:    %s\n\n",
		s.GetHost(), s.GetVersion(), s.GetAccel(), s.GetHypervisor(), s.GetServer(), orDash(s.GetHistory()),
		time.Since(time.Unix(0, s.GetStartedUnixNano())).Round(time.Second),
		time.Duration(s.GetCpuNs()).Round(10*time.Millisecond), gnomon.Format(gnomon.Memory, s.GetMemoryBytes()),
		pressureText(s.GetPressure()))
	var rows [][]string
	for r := range gnomon.AllResources() {
		f := func(a *hostpb.Amounts) string { return gnomon.Format(r, amountOf(a, r)) }
		row := []string{r.String(), f(s.GetCapacity()), f(s.GetAllocated()), f(s.GetReserved()), f(s.GetFree())}
		if amountOf(s.GetCapacity(), r) == gnomon.UnboundedCapacity {
			row[1], row[4] = "unbounded", "unbounded"
		}
		rows = append(rows, row)
	}
	if err := printTable(w, []string{"resource", "capacity", "allocated", "reserved", "free"}, rows); err != nil {
		return err
	}
	return printQuotas(w, s.GetQuotas())
}

// printQuotas tells what accounts may have ahead of demand, and have.
func printQuotas(w io.Writer, quotas []*hostpb.Quota) error {
	if len(quotas) == 0 {
		return nil
	}
	var rows [][]string
	for _, q := range quotas {
		row := []string{orDash(q.GetAccount())}
		for r := range gnomon.AllResources() {
			may := "unbounded"
			if quota := amountOf(q.GetQuota(), r); quota > 0 {
				may = gnomon.Format(r, quota)
			}
			row = append(row, gnomon.Format(r, amountOf(q.GetAhead(), r))+" / "+may)
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(w)
	return printTable(w, []string{"account", "cpu ahead/quota", "memory ahead/quota", "disk ahead/quota", "network ahead/quota"}, rows)
}

// pressureText tells how onsets are told, and why not better.
func pressureText(p *hostpb.Pressure) string {
	text := p.GetSource()
	if len(p.GetResources()) > 0 {
		text += " (" + strings.Join(p.GetResources(), ", ") + ")"
	}
	if why := p.GetWhyNotBetter(); why != "" {
		text += "; not " + strings.ReplaceAll(why, "\n", "; not ")
	}
	return text
}

func amountOf(a *hostpb.Amounts, r gnomon.Resource) int64 {
	switch r {
	case gnomon.CPU:
		return a.GetCpuMillicores()
	case gnomon.Memory:
		return a.GetMemoryBytes()
	case gnomon.Disk:
		return a.GetDiskBytesPerSecond()
	case gnomon.Network:
		return a.GetNetworkBytesPerSecond()
	}
	return 0
}
