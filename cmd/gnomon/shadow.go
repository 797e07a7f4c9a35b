package main

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
	"github.com/gnomon-vm/gnomon/wire/hostpb/hostpbconnect"
	"github.com/spf13/cobra"
)

func shadowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shadow",
		Short: "Shadow VMs of this host: list, show, suspend, resume",
	}
	socket := socketFlag(cmd)
	cmd.AddCommand(shadowListCommand(socket), shadowShowCommand(socket),
		shadowSuspendCommand(socket), shadowResumeCommand(socket))
	return cmd
}

func listShadows(cmd *cobra.Command, socket string) ([]*hostpb.Shadow, error) {
	res, err := hostClient(socket).ListShadows(cmd.Context(), connect.NewRequest(&hostpb.ListShadowsRequest{}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetShadows(), nil
}

func completeShadows(socket *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		shadows, err := listShadows(cmd, *socket)
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, s := range shadows {
			names = append(names, s.GetName())
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func shadowListCommand(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the shadow VMs and what they cost",
		Args:    exactArgs(),
	}
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		shadows, err := listShadows(cmd, *socket)
		if err != nil {
			return err
		}
		if asJSON {
			return printProtoList(cmd.OutOrStdout(), shadows)
		}
		var rows [][]string
		for _, s := range shadows {
			agent := "away"
			if s.GetConnected() {
				agent = "connected"
			}
			rows = append(rows, []string{
				s.GetName(), orDash(s.GetVm()), orDash(s.GetAccount()), s.GetState(), agent,
				gnomon.Format(gnomon.CPU, s.GetCpuLimitMillicores()), gnomon.Format(gnomon.Memory, s.GetMemoryBytes()),
				gnomon.Format(gnomon.Memory, s.GetMemoryResidentBytes()),
				(time.Duration(s.GetCpuNs())).Round(10 * time.Millisecond).String(), fmt.Sprint(s.GetRestarts()),
			})
		}
		return printTable(cmd.OutOrStdout(),
			[]string{"name", "vm", "account", "state", "agent", "cpu limit", "memory", "resident", "cpu time", "restarts"}, rows)
	})
	return cmd
}

func shadowShowCommand(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show SHADOW",
		Short:             "Show one shadow VM",
		Args:              exactArgs("SHADOW"),
		ValidArgsFunction: completeShadows(socket),
	}
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		shadows, err := listShadows(cmd, *socket)
		if err != nil {
			return err
		}
		for _, s := range shadows {
			if s.GetName() != args[0] && s.GetId() != args[0] {
				continue
			}
			if asJSON {
				return printProto(cmd.OutOrStdout(), s)
			}
			fmt.Fprintf(cmd.OutOrStdout(),
				"Name:        %s\nID:          %s\nVM:          %s\nAccount:     %s\nState:       %s\nAgent:       %s\nCPU limit:   %s\nMemory:      %s\nResident:    %s\nCPU time:    %s\nAgent heap:  %s\nStarted:     %s\nRestarts:    %d\n",
				s.GetName(), s.GetId(), orDash(s.GetVm()), orDash(s.GetAccount()), s.GetState(),
				map[bool]string{true: "connected", false: "away"}[s.GetConnected()],
				gnomon.Format(gnomon.CPU, s.GetCpuLimitMillicores()), gnomon.Format(gnomon.Memory, s.GetMemoryBytes()),
				gnomon.Format(gnomon.Memory, s.GetMemoryResidentBytes()), time.Duration(s.GetCpuNs()).Round(time.Millisecond),
				gnomon.Format(gnomon.Memory, s.GetAgentHeapBytes()),
				time.Unix(0, s.GetStartedUnixNano()).Format(time.RFC3339), s.GetRestarts())
			return nil
		}
		return connect.NewError(connect.CodeNotFound, fmt.Errorf("shadow %q: no such shadow; see \"gnomon shadow ls\"", args[0]))
	})
	return cmd
}

func shadowSuspendCommand(socket *string) *cobra.Command {
	return shadowVerb(socket, "suspend", "suspended", "Suspend a shadow VM; its VM is served by the standard path until it is resumed",
		func(ctx context.Context, c hostpbconnect.HostServiceClient, shadow string) error {
			_, err := c.SuspendShadow(ctx, connect.NewRequest(&hostpb.SuspendShadowRequest{Shadow: shadow}))
			return err
		})
}

func shadowResumeCommand(socket *string) *cobra.Command {
	return shadowVerb(socket, "resume", "resumed", "Resume a suspended shadow VM",
		func(ctx context.Context, c hostpbconnect.HostServiceClient, shadow string) error {
			_, err := c.ResumeShadow(ctx, connect.NewRequest(&hostpb.ResumeShadowRequest{Shadow: shadow}))
			return err
		})
}

func shadowVerb(socket *string, verb, done, short string, do func(context.Context, hostpbconnect.HostServiceClient, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " SHADOW", Short: short, Args: exactArgs("SHADOW"), ValidArgsFunction: completeShadows(socket),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := do(cmd.Context(), hostClient(*socket), args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", args[0], done)
			return err
		},
	}
}
