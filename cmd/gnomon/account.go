package main

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
	"github.com/spf13/cobra"
)

func accountCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "account",
		Short: "Customer accounts: create, list, show, remove",
		Long: `An account is a customer. Creating one has a warm shadow VM provisioned on its
designated host, so that the customer's first VM there has its shadow at once.
VMs name their account in the metadata of their libvirt domain. What they may
have ahead of demand, and whose forecasts come first, is configuration:
gnomon config set quota=… priority=… --account NAME.`,
	}
	server := serverFlag(cmd)
	cmd.AddCommand(accountCreateCommand(server), accountListCommand(server),
		accountShowCommand(server), accountRemoveCommand(server))
	return cmd
}

// accountView is an account as scripts see it.
type accountView struct {
	Name    string    `json:"name"`
	Host    string    `json:"host"`
	Shadow  string    `json:"shadow"`
	Created time.Time `json:"created"`

	HostLabels map[string]string `json:"host_labels"` // that its host must have
	Quota      string            `json:"quota"`       // on each host, "" for none
	Priority   string            `json:"priority"`
}

func viewAccount(a *serverpb.Account) accountView {
	v := accountView{a.GetName(), a.GetHost(), a.GetShadow(), time.Unix(0, a.GetCreatedUnixNano()).UTC(), a.GetHostLabels(), a.GetQuota(), a.GetPriority()}
	if v.HostLabels == nil {
		v.HostLabels = map[string]string{}
	}
	return v
}

func accountCreateCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create an account, and a warm shadow on its host",
		Example: `  gnomon account create acme --host node1
  gnomon account create acme --host-label zone=a`,
		Args: exactArgs("NAME"),
	}
	host := cmd.Flags().String("host", "", "designated host (default: the best that is connected)")
	labels := cmd.Flags().StringToString("host-label", nil, "label that a host must have to be chosen")
	request := cmd.Flags().String("request-id", "", "repeating the command with the same one does no harm")
	_ = cmd.RegisterFlagCompletionFunc("host", serverNames(server, hostNames))
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			r, err := c.CreateAccount(ctx, connect.NewRequest(&serverpb.CreateAccountRequest{
				Name: args[0], Host: *host, HostLabels: *labels, RequestId: *request}))
			if err != nil {
				return err
			}
			a := viewAccount(r.Msg.GetAccount())
			if asJSON {
				return printJSON(cmd.OutOrStdout(), a)
			}
			why := r.Msg.GetWhyHost()
			if why != "" {
				why = " (" + why + ")"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "account %s created; its shadow is provisioned on %s%s\n", a.Name, a.Host, why)
			return err
		})
	})
	return cmd
}

func accountListCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the accounts and their warm shadows",
		Args:    exactArgs(),
	}
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			views, rows := []accountView{}, [][]string{}
			for a, err := range allAccounts(ctx, c) {
				if err != nil {
					return err
				}
				v := viewAccount(a)
				views = append(views, v)
				rows = append(rows, []string{v.Name, v.Host, v.Shadow, orDash(v.Quota), orDash(v.Priority), v.Created.Local().Format(time.DateTime)})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), views)
			}
			return printTable(cmd.OutOrStdout(), []string{"name", "host", "shadow", "quota", "priority", "created"}, rows)
		})
	})
	return cmd
}

func accountShowCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show an account, what its VMs may have ahead of demand, and where they run",
		Args:              exactArgs("NAME"),
		ValidArgsFunction: serverNames(server, accountNames),
	}
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			r, err := c.GetAccount(ctx, connect.NewRequest(&serverpb.GetAccountRequest{Name: args[0]}))
			if err != nil {
				return err
			}
			a, w := viewAccount(r.Msg.GetAccount()), cmd.OutOrStdout()
			if asJSON {
				return printJSON(w, a)
			}
			fmt.Fprintf(w, "Name:     %s\nHost:     %s\nShadow:   %s\nQuota:    %s\nPriority: %s\nCreated:  %s\n\n",
				a.Name, a.Host, a.Shadow, orDash(a.Quota), orDash(a.Priority), a.Created.Local().Format(time.DateTime))
			var rows [][]string
			for vm, err := range associationsOf(ctx, c, a.Name) {
				if err != nil {
					return err
				}
				rows = append(rows, []string{vm.GetVmName(), vm.GetHost(), orDash(vm.GetShadow()), orDash(vm.GetShadowState())})
			}
			return printTable(w, []string{"vm", "host", "shadow", "state"}, rows)
		})
	})
	return cmd
}

func accountRemoveCommand(server *string) *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME",
		Aliases:           []string{"remove"},
		Short:             "Remove an account that has no VMs, with its configuration",
		Args:              exactArgs("NAME"),
		ValidArgsFunction: serverNames(server, accountNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
				if _, err := c.DeleteAccount(ctx, connect.NewRequest(&serverpb.DeleteAccountRequest{Name: args[0]})); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "account %s removed\n", args[0])
				return err
			})
		},
	}
}
