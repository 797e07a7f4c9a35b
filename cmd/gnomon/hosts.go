package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
	"github.com/spf13/cobra"
)

// hostView is a host as scripts see it. Amounts are by resource, in its unit.
type hostView struct {
	Name      string           `json:"name"`
	Connected bool             `json:"connected"`
	LastSeen  time.Time        `json:"last_seen"`
	Version   string           `json:"version"`
	Accel     string           `json:"accel"`
	VMs       int32            `json:"vms"`
	Shadows   int32            `json:"shadows"`
	Capacity  map[string]int64 `json:"capacity"`
	Free      map[string]int64 `json:"free"`
	Predicted map[string]int64 `json:"predicted"`

	Labels   map[string]string `json:"labels"`
	Cordoned bool              `json:"cordoned"`
}

// hostListCommand is `gnomon host ls`.
func hostListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the hosts that the management server knows",
		Args:    exactArgs(),
	}
	server := serverFlag(cmd)
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			views, rows := []hostView{}, [][]string{}
			for h, err := range allHosts(ctx, c) {
				if err != nil {
					return err
				}
				views = append(views, viewHost(h))
				rows = append(rows, hostRow(h))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), views)
			}
			return printTable(cmd.OutOrStdout(), []string{"name", "state", "version", "accel", "vms", "shadows", "cpu free", "memory free"}, rows)
		})
	})
	return cmd
}

// hostRemoveCommand is `gnomon host rm`.
func hostRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rm NAME",
		Aliases: []string{"remove"},
		Short:   "Forget a host that is gone for good, with its configuration",
		Long: `Has the management server forget a host, with its configuration and what it last
reported. It is refused while the host is connected, or while accounts are
designated to it. A daemon that comes back by that name is a new host.`,
		Args: exactArgs("NAME"),
	}
	server := serverFlag(cmd)
	cmd.ValidArgsFunction = serverNames(server, hostNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			if _, err := c.DeleteHost(ctx, connect.NewRequest(&serverpb.DeleteHostRequest{Name: args[0]})); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "host %s removed\n", args[0])
			return err
		})
	}
	return cmd
}

func viewHost(h *serverpb.Host) hostView {
	v := hostView{
		Name: h.GetName(), Connected: h.GetConnected(), LastSeen: time.Unix(0, h.GetLastSeenUnixNano()).UTC(),
		Version: h.GetVersion(), Accel: h.GetAccel(), VMs: h.GetVms(), Shadows: h.GetShadows(),
		Capacity: map[string]int64{}, Free: map[string]int64{}, Predicted: map[string]int64{},
		Labels: map[string]string{}, Cordoned: h.GetCordoned(),
	}
	maps.Copy(v.Capacity, h.GetCapacity())
	maps.Copy(v.Free, h.GetFree())
	maps.Copy(v.Predicted, h.GetPredicted())
	maps.Copy(v.Labels, h.GetLabels())
	return v
}

func hostRow(h *serverpb.Host) []string {
	state := "connected"
	if !h.GetConnected() {
		state = "away since " + time.Unix(0, h.GetLastSeenUnixNano()).Format(time.DateTime)
	}
	if h.GetCordoned() {
		state += ", cordoned"
	}
	row := []string{h.GetName(), state, orDash(h.GetVersion()), orDash(h.GetAccel()), fmt.Sprint(h.GetVms()), fmt.Sprint(h.GetShadows())}
	for _, r := range []gnomon.Resource{gnomon.CPU, gnomon.Memory} {
		free, known := h.GetFree()[r.String()]
		cell := "-"
		if known {
			cell = gnomon.Format(r, free) + " of " + gnomon.Format(r, h.GetCapacity()[r.String()])
		}
		row = append(row, cell)
	}
	return row
}

// hostLabelCommand is `gnomon host label`.
func hostLabelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "label NAME KEY=VALUE... [KEY-...]",
		Short: "Give a host labels, for accounts to be placed by, or take them (KEY-)",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("want NAME and at least one KEY=VALUE or KEY-")
			}
			return nil
		},
	}
	server := serverFlag(cmd)
	cmd.ValidArgsFunction = serverNames(server, hostNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			r, err := c.GetHost(ctx, connect.NewRequest(&serverpb.GetHostRequest{Name: args[0]}))
			if err != nil {
				return err
			}
			labels := map[string]string{}
			maps.Copy(labels, r.Msg.GetHost().GetLabels())
			for _, arg := range args[1:] {
				key, value, set := strings.Cut(arg, "=")
				taken, take := strings.CutSuffix(arg, "-")
				switch {
				case set:
					labels[key] = value
				case take:
					delete(labels, taken)
				default:
					return usagef("%q: want KEY=VALUE or KEY-", arg)
				}
			}
			return updateHost(ctx, c, &serverpb.Host{Name: args[0], Labels: labels}, "labels")
		})
	}
	return cmd
}

// hostCordonCommand is `gnomon host cordon`, or uncordon.
func hostCordonCommand(use, short string, cordoned bool) *cobra.Command {
	cmd := &cobra.Command{Use: use + " NAME", Short: short, Args: exactArgs("NAME")}
	server := serverFlag(cmd)
	cmd.ValidArgsFunction = serverNames(server, hostNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			return updateHost(ctx, c, &serverpb.Host{Name: args[0], Cordoned: cordoned}, "cordoned")
		})
	}
	return cmd
}

func updateHost(ctx context.Context, c serverpbconnect.ManagementServiceClient, h *serverpb.Host, field string) error {
	_, err := c.UpdateHost(ctx, connect.NewRequest(&serverpb.UpdateHostRequest{Host: h, UpdateMask: maskOf([]string{field})}))
	return err
}
