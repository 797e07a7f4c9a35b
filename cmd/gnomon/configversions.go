package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/fleet"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
	"github.com/spf13/cobra"
)

// scopeOrNil is the scope that the flags name, nil if they name none: all.
func scopeOrNil(s *serverpb.Scope) *serverpb.Scope {
	if s.GetAccount()+s.GetHost()+s.GetVm() == "" {
		return nil
	}
	return s
}

func readVersion(arg string) (int64, error) {
	v, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || v < 0 {
		return 0, usagef("version %q: want a number as \"gnomon config history\" lists them", arg)
	}
	return v, nil
}

// editView is one value that changed as scripts see it.
type editView struct {
	Account string `json:"account,omitempty"`
	Host    string `json:"host,omitempty"`
	VM      string `json:"vm,omitempty"` // id
	VMName  string `json:"vm_name,omitempty"`
	Key     string `json:"key"`
	Before  string `json:"before"`
	After   string `json:"after"`
}

func viewEdits(edits []*serverpb.ConfigEdit) []editView {
	views := []editView{}
	for _, e := range edits {
		s := e.GetScope()
		views = append(views, editView{s.GetAccount(), s.GetHost(), s.GetVm(), e.GetName(), e.GetKey(), e.GetBefore(), e.GetAfter()})
	}
	return views
}

func printEdits(w io.Writer, asJSON bool, edits []*serverpb.ConfigEdit) error {
	if asJSON {
		return printJSON(w, viewEdits(edits))
	}
	for _, e := range edits {
		if _, err := fmt.Fprintln(w, fleet.Line(e)); err != nil {
			return err
		}
	}
	return nil
}

// configChangeView is one change of the configuration as scripts see it.
type configChangeView struct {
	Version int64      `json:"version"`
	At      time.Time  `json:"at"`
	By      string     `json:"by"`
	Comment string     `json:"comment"`
	Edits   []editView `json:"edits"`
}

func configHistoryCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List the changes of parameters: what, when, by whom and why",
		Example: `  gnomon config history
  gnomon config history --account acme --last 5`,
		Args: exactArgs(),
	}
	scope := addScopeFlags(cmd, server)
	last := cmd.Flags().Int32("last", 20, "how many changes, the latest first; at most 10000")
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		err := checkScope(cmd, scope)
		if err == nil && *last <= 0 {
			err = usagef("--last %d: want 1 or more", *last)
		}
		if err != nil {
			return err
		}
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			r, err := c.ListConfigChanges(ctx, connect.NewRequest(&serverpb.ListConfigChangesRequest{Scope: scopeOrNil(scope), PageSize: *last}))
			if err != nil {
				return err
			}
			return printConfigChanges(cmd.OutOrStdout(), asJSON, r.Msg.GetChanges())
		})
	})
	return cmd
}

func printConfigChanges(w io.Writer, asJSON bool, changes []*serverpb.ConfigChange) error {
	views := []configChangeView{}
	for _, c := range changes {
		v := configChangeView{c.GetVersion(), time.Unix(0, c.GetAtUnixNano()).UTC(), c.GetBy(), c.GetComment(), viewEdits(c.GetEdits())}
		views = append(views, v)
		if asJSON {
			continue
		}
		comment := v.Comment
		if comment != "" {
			comment = "  (" + comment + ")"
		}
		if _, err := fmt.Fprintf(w, "version %d  %s  by %s%s\n", v.Version, v.At.Local().Format(time.DateTime), orDash(v.By), comment); err != nil {
			return err
		}
		for _, e := range c.GetEdits() {
			if _, err := fmt.Fprintln(w, "  "+fleet.Line(e)); err != nil {
				return err
			}
		}
	}
	if asJSON {
		return printJSON(w, views)
	}
	return nil
}

func configDiffCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "diff FROM [TO]",
		Short:   "Show what differs between two versions, the latest unless named",
		Example: `  gnomon config diff 41`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("want FROM and perhaps TO, got %d arguments", len(args))
			}
			return nil
		},
	}
	scope := addScopeFlags(cmd, server)
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		err := checkScope(cmd, scope)
		req := &serverpb.CompareConfigRequest{Scope: scopeOrNil(scope)}
		if err == nil {
			req.FromVersion, err = readVersion(args[0])
		}
		if err == nil && len(args) == 2 {
			req.ToVersion, err = readVersion(args[1])
		}
		if err != nil {
			return err
		}
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			r, err := c.CompareConfig(ctx, connect.NewRequest(req))
			if err != nil {
				return err
			}
			return printEdits(cmd.OutOrStdout(), asJSON, r.Msg.GetEdits())
		})
	})
	return cmd
}

func configRollbackCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollback VERSION",
		Short: "Set everything, or one scope, as it was at a version",
		Long: `Sets all parameters as they were at a version, or with --account, --host or --vm
those of that scope. It is a change like any other: checked before it is made,
and with a version of its own, so that it can be taken back. 0 is before the
first change. What was set for accounts and hosts that are gone stays gone.`,
		Example: `  gnomon config rollback 41 --dry-run
  gnomon config rollback 41 --account acme --comment "too much headroom"`,
		Args: exactArgs("VERSION"),
	}
	scope := addScopeFlags(cmd, server)
	comment := cmd.Flags().String("comment", "", "why, for the history")
	dry := cmd.Flags().Bool("dry-run", false, "check it, show what would change, and change nothing")
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		err := checkScope(cmd, scope)
		version, verr := readVersion(args[0])
		if err == nil {
			err = verr
		}
		if err != nil {
			return err
		}
		if *comment == "" {
			*comment = "back to version " + args[0]
		}
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			r, err := c.RollbackConfig(ctx, connect.NewRequest(&serverpb.RollbackConfigRequest{
				Version: version, Scope: scopeOrNil(scope), Comment: *comment, ValidateOnly: *dry}))
			if err != nil {
				return err
			}
			return printEdits(cmd.OutOrStdout(), asJSON, r.Msg.GetEdits())
		})
	})
	return cmd
}

// settingView is one layer's value for a parameter as scripts see it.
type settingView struct {
	Origin  string    `json:"origin"`
	Value   string    `json:"value"`
	Version int64     `json:"version"`
	At      time.Time `json:"at,omitzero"`
	By      string    `json:"by"`
}

// explanationView is one parameter as scripts see it.
type explanationView struct {
	parameterView
	Settings []settingView `json:"settings"`
}

func configExplainCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain [VM]",
		Short: "Show each value in effect, every layer that sets it, and who set it when",
		Example: `  gnomon config explain web1
  gnomon config explain --account acme`,
		Args:              atMostOne("VM"),
		ValidArgsFunction: serverNames(server, vmNames),
	}
	scope := addScopeFlags(cmd, server)
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		err := checkScope(cmd, scope)
		if err == nil && len(args) == 1 {
			if scopeOrNil(scope) != nil {
				err = usagef("want a VM or one of --account, --host and --vm, not both")
			}
			scope.Vm = args[0]
		}
		if err != nil {
			return err
		}
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			r, err := c.ExplainConfig(ctx, connect.NewRequest(&serverpb.ExplainConfigRequest{Scope: scope}))
			if err != nil {
				return err
			}
			return printExplanations(cmd.OutOrStdout(), asJSON, r.Msg.GetParameters())
		})
	})
	return cmd
}

func printExplanations(w io.Writer, asJSON bool, parameters []*serverpb.Explanation) error {
	views, rows := []explanationView{}, [][]string{}
	for _, x := range parameters {
		p := x.GetParameter()
		v := explanationView{parameterView{p.GetKey(), p.GetValue(), p.GetOrigin()}, []settingView{}}
		rows = append(rows, []string{p.GetKey(), orDash(p.GetValue()), p.GetOrigin(), ""})
		for _, s := range x.GetSettings() {
			set := settingView{Origin: s.GetOrigin(), Value: s.GetValue(), Version: s.GetVersion(), By: s.GetBy()}
			when := ""
			if s.GetAtUnixNano() != 0 {
				set.At = time.Unix(0, s.GetAtUnixNano()).UTC()
				when = fmt.Sprintf("version %d, %s, by %s", set.Version, set.At.Local().Format(time.DateTime), orDash(set.By))
			}
			v.Settings = append(v.Settings, set)
			if s.GetOrigin() == p.GetOrigin() {
				rows[len(rows)-1][3] = when
			}
		}
		for _, s := range v.Settings {
			if s.Origin != p.GetOrigin() {
				rows = append(rows, []string{"", s.Value, "(" + s.Origin + ")", "overridden"})
			}
		}
		views = append(views, v)
	}
	if asJSON {
		return printJSON(w, views)
	}
	return printTable(w, []string{"key", "value", "origin", "set"}, rows)
}
