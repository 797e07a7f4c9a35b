package main

import (
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
	"github.com/spf13/cobra"
)

func vmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vm",
		Short: "Active VMs of this host: list, show, explain, enroll, release, request; deploy, move to any host",
	}
	socket := socketFlag(cmd)
	cmd.AddCommand(vmListCommand(socket), vmShowCommand(socket), vmExplainCommand(socket),
		vmEnrollCommand(socket), vmReleaseCommand(socket), vmRequestCommand(socket), vmDeployCommand(), vmMoveCommand())
	return cmd
}

func vmListCommand(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the VMs that are taken in",
		Args:    exactArgs(),
	}
	all := cmd.Flags().BoolP("all", "a", false, "also list running VMs that are left alone")
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		res, err := hostClient(*socket).ListVMs(cmd.Context(), connect.NewRequest(&hostpb.ListVMsRequest{All: *all}))
		if err != nil {
			return err
		}
		if asJSON {
			return printProtoList(cmd.OutOrStdout(), res.Msg.GetVms())
		}
		var rows [][]string
		for _, v := range res.Msg.GetVms() {
			rows = append(rows, vmRow(v))
		}
		return printTable(cmd.OutOrStdout(),
			[]string{"name", "account", "state", "policy", "priority", "shadow", "cpu used/has", "memory used/has", "disk used/has", "network used/has"}, rows)
	})
	return cmd
}

func vmRow(v *hostpb.VM) []string {
	priority := "-"
	if v.GetEnrolled() {
		priority = fmt.Sprint(v.GetPriority())
	}
	row := []string{v.GetName(), orDash(v.GetAccount()), v.GetState(), orDash(v.GetPolicy()), priority, orDash(v.GetShadow())}
	for i := range gnomon.NumResources {
		if i >= len(v.GetResources()) {
			row = append(row, "-")
			continue
		}
		s := v.GetResources()[i]
		r := gnomon.Resource(i)
		has := "unlimited"
		if s.GetLimited() {
			has = gnomon.Format(r, s.GetAllocation())
		}
		row = append(row, gnomon.Format(r, s.GetUsage())+" / "+has)
	}
	return row
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func vmShowCommand(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show VM",
		Short:             "Show one VM: usage, demand, forecast, allocation and reservation per resource",
		Args:              exactArgs("VM"),
		ValidArgsFunction: completeVMs(socket, true),
	}
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		res, err := hostClient(*socket).ExplainVM(cmd.Context(), connect.NewRequest(&hostpb.ExplainVMRequest{Vm: args[0], Decisions: 1}))
		if err != nil {
			return err
		}
		v := res.Msg.GetVm()
		if asJSON {
			return printProto(cmd.OutOrStdout(), v)
		}
		w := cmd.OutOrStdout()
		fmt.Fprintf(w, "Name:     %s\nID:       %s\nAccount:  %s\nState:    %s\nPolicy:   %s\nShadow:   %s\n\n",
			v.GetName(), v.GetId(), orDash(v.GetAccount()), v.GetState(), orDash(v.GetPolicy()), orDash(v.GetShadow()))
		return printTable(w, resourceHeader, resourceRows(v.GetResources()))
	})
	return cmd
}

var resourceHeader = []string{"resource", "usage", "demand", "forecast", "up to", "allocation", "reserved", "floor", "ceiling", "hits", "misses", "model"}

func resourceRows(states []*hostpb.ResourceState) [][]string {
	var rows [][]string
	for i, s := range states {
		r := gnomon.Resource(i)
		f := func(v int64) string { return gnomon.Format(r, v) }
		if !s.GetLimited() {
			rows = append(rows, []string{s.GetResource(), f(s.GetUsage()), f(s.GetDemand()), "-", "-", "not limited: " + s.GetWhyNot()})
			continue
		}
		rows = append(rows, []string{
			s.GetResource(), f(s.GetUsage()), f(s.GetDemand()), f(s.GetForecastMedian()), f(s.GetForecastHigh()),
			f(s.GetAllocation()), f(s.GetReservation()), f(s.GetFloor()), f(s.GetCeiling()),
			fmt.Sprint(s.GetHits()), fmt.Sprint(s.GetMisses()), orDash(s.GetModel()),
		})
	}
	return rows
}

func vmExplainCommand(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "explain VM",
		Short:             "Tell in plain words why a VM has what it has",
		Args:              exactArgs("VM"),
		ValidArgsFunction: completeVMs(socket, true),
	}
	last := cmd.Flags().IntP("last", "n", 20, "how many of the latest decisions to show")
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		if *last < 1 || *last > 256 {
			return usagef("--last %d: want 1 to 256", *last)
		}
		res, err := hostClient(*socket).ExplainVM(cmd.Context(), connect.NewRequest(&hostpb.ExplainVMRequest{Vm: args[0], Decisions: int32(*last)}))
		if err != nil {
			return err
		}
		if asJSON {
			return printProto(cmd.OutOrStdout(), res.Msg)
		}
		w := cmd.OutOrStdout()
		fmt.Fprintf(w, "%s\n\n", res.Msg.GetVm().GetName())
		for _, line := range res.Msg.GetSummary() {
			fmt.Fprintf(w, "  %s\n", line)
		}
		if len(res.Msg.GetDecisions()) == 0 {
			return nil
		}
		fmt.Fprintln(w, "\nLatest decisions:")
		var rows [][]string
		for _, dec := range res.Msg.GetDecisions() {
			r, _ := gnomon.ParseResource(dec.GetResource())
			amount := gnomon.Format(r, dec.GetAmount())
			if gnomon.DecisionKind(dec.GetKind()) == gnomon.DecideWaste {
				amount += "·ms"
			}
			rows = append(rows, []string{
				time.Unix(0, dec.GetAtUnixNano()).Format("15:04:05.000"), dec.GetResource(), dec.GetKind(), amount, dec.GetReason(),
			})
		}
		return printTable(w, []string{"time", "resource", "what", "amount", "why"}, rows)
	})
	return cmd
}

func vmEnrollCommand(socket *string) *cobra.Command {
	return &cobra.Command{
		Use:               "enroll VM",
		Short:             "Take a VM in that the daemon's --vms selection leaves out",
		Args:              exactArgs("VM"),
		ValidArgsFunction: completeVMs(socket, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := hostClient(*socket).EnrollVM(cmd.Context(), connect.NewRequest(&hostpb.EnrollVMRequest{Vm: args[0]}))
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is taken in\n", args[0])
			}
			return err
		},
	}
}

func vmReleaseCommand(socket *string) *cobra.Command {
	return &cobra.Command{
		Use:               "release VM",
		Short:             "Give a VM its own limits back and leave it alone",
		Args:              exactArgs("VM"),
		ValidArgsFunction: completeVMs(socket, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := hostClient(*socket).ReleaseVM(cmd.Context(), connect.NewRequest(&hostpb.ReleaseVMRequest{Vm: args[0]}))
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is released\n", args[0])
			}
			return err
		},
	}
}

func vmRequestCommand(socket *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "request VM RESOURCE LEVEL",
		Short: "Ask for resources on a VM's behalf, now or ahead of need",
		Long: `Asks for a total allocation of one resource: now (reservation first, then the
standard path), or with --ahead as a pre-allocation that waits for the demand.`,
		Example: `  gnomon vm request db-1 cpu 2
  gnomon vm request db-1 memory 4GiB --ahead 30s --lifetime 2m`,
		Args: exactArgs("VM", "RESOURCE", "LEVEL"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return resourceNames(), cobra.ShellCompDirectiveNoFileComp
			}
			return completeVMs(socket, false)(cmd, args, typed)
		},
	}
	var ahead, lifetime time.Duration
	durationFlag(cmd.Flags(), &ahead, "ahead", 0, "pre-allocate for a demand expected in this time")
	durationFlag(cmd.Flags(), &lifetime, "lifetime", time.Minute, "how long a pre-allocation may stand, at most 10m")
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		r, err := gnomon.ParseResource(args[1])
		if err != nil {
			return usageError{err}
		}
		level, err := gnomon.ParseAmount(r, args[2])
		if err != nil {
			return usageError{err}
		}
		switch {
		case lifetime == 0 || lifetime > maxLifetime:
			return usagef("--lifetime %v: want more than 0 and at most %v", lifetime, maxLifetime)
		case ahead > lifetime:
			return usagef("--ahead %v: want 0 to --lifetime (%v)", ahead, lifetime)
		}
		verdict, got, reason, err := sendRequest(cmd, *socket, args[0], r, level, ahead, lifetime)
		if err != nil {
			return err
		}
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), map[string]any{"verdict": verdict, "got": got, "unit": r.Unit(), "reason": reason})
		} else {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s\n", verdict, gnomon.Format(r, got), reason)
		}
		if err == nil && gnomon.Verdict(verdict) == gnomon.Denied {
			return fmt.Errorf("request denied: %s", reason)
		}
		return err
	})
	return cmd
}

// maxLifetime is the longest pre-allocation that a daemon takes.
const maxLifetime = 10 * time.Minute

func sendRequest(cmd *cobra.Command, socket, vm string, r gnomon.Resource, level int64, ahead, lifetime time.Duration) (verdict string, got int64, reason string, err error) {
	client := hostClient(socket)
	if !cmd.Flags().Changed("ahead") {
		res, err := client.RequestResources(cmd.Context(), connect.NewRequest(&hostpb.RequestResourcesRequest{
			Vm: vm, Resource: r.String(), Level: level}))
		if err != nil {
			return "", 0, "", err
		}
		return res.Msg.GetVerdict(), res.Msg.GetGot(), res.Msg.GetReason(), nil
	}
	res, err := client.RequestPreallocation(cmd.Context(), connect.NewRequest(&hostpb.RequestPreallocationRequest{
		Vm: vm, Resource: r.String(), Level: level, NeedInNs: int64(ahead), LifetimeNs: int64(lifetime)}))
	if err != nil {
		return "", 0, "", err
	}
	return res.Msg.GetVerdict(), res.Msg.GetGot(), res.Msg.GetReason(), nil
}
