package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
	"github.com/gnomon-vm/gnomon/wire/hostpb/hostpbconnect"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the VMs of this host live: usage, demand, forecast, allocation, reservation",
		Args:  exactArgs(),
	}
	socket := socketFlag(cmd)
	var interval time.Duration
	durationFlag(cmd.Flags(), &interval, "interval", time.Second, "time between refreshes, at least 100ms")
	once := cmd.Flags().Bool("once", false, "print one table and end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if interval < 100*time.Millisecond {
			return usagef("--interval %v: want at least 100ms", interval)
		}
		client, w := hostClient(*socket), cmd.OutOrStdout()
		if *once || !term.IsTerminal(int(os.Stdout.Fd())) {
			return renderTop(cmd.Context(), client, w)
		}
		for {
			var frame bytes.Buffer
			if err := renderTop(cmd.Context(), client, &frame); err != nil {
				return err
			}
			fmt.Fprint(w, "\x1b[H\x1b[2J", frame.String())
			select {
			case <-time.After(interval):
			case <-cmd.Context().Done():
				return nil
			}
		}
	}
	return cmd
}

// renderTop writes one table of all VMs and the host's totals.
func renderTop(ctx context.Context, client hostpbconnect.HostServiceClient, w io.Writer) error {
	st, err := client.Status(ctx, connect.NewRequest(&hostpb.StatusRequest{}))
	if err != nil {
		return err
	}
	vms, err := client.ListVMs(ctx, connect.NewRequest(&hostpb.ListVMsRequest{}))
	if err != nil {
		return err
	}
	s := st.Msg
	fmt.Fprintf(w, "gnomon %s on %s   accel %s   hypervisor %s   server %s   history %s\n",
		s.GetVersion(), s.GetHost(), s.GetAccel(), s.GetHypervisor(), s.GetServer(), s.GetHistory())
	fmt.Fprintf(w, "cpu: %s allocated, %s reserved, %s free   memory: %s allocated, %s reserved, %s free\n\n",
		gnomon.Format(gnomon.CPU, s.GetAllocated().GetCpuMillicores()), gnomon.Format(gnomon.CPU, s.GetReserved().GetCpuMillicores()),
		gnomon.Format(gnomon.CPU, s.GetFree().GetCpuMillicores()),
		gnomon.Format(gnomon.Memory, s.GetAllocated().GetMemoryBytes()), gnomon.Format(gnomon.Memory, s.GetReserved().GetMemoryBytes()),
		gnomon.Format(gnomon.Memory, s.GetFree().GetMemoryBytes()))
	var rows [][]string
	for _, v := range vms.Msg.GetVms() {
		for i, row := range resourceRows(v.GetResources()) {
			name, policy := "", ""
			if i == 0 {
				name, policy = v.GetName(), v.GetPolicy()
			}
			rows = append(rows, append([]string{name, policy}, row...))
		}
	}
	if len(rows) == 0 {
		fmt.Fprintln(w, "No VM is taken in. \"gnomon vm ls --all\" lists those that run.")
		return nil
	}
	return printTable(w, append([]string{"vm", "policy"}, resourceHeader...), rows)
}
