package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// joinTokenCommand is `gnomon server token`.
func joinTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Tokens for hosts to join the fleet with: create, list, remove",
		Long: `A host joins the fleet with a token: "gnomon host join" on the host. It is good
for one host and a short time.`,
	}
	server := serverFlag(cmd)
	cmd.AddCommand(joinTokenCreateCommand(server), joinTokenListCommand(server), joinTokenRemoveCommand(server))
	return cmd
}

func joinTokenCreateCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "create",
		Short:   "Print a token that one host may join with",
		Example: `  gnomon server token create --host node1 --ttl 10m`,
		Args:    exactArgs(),
	}
	host := cmd.Flags().String("host", "", "the only name it is good for (default: any that is free)")
	var ttl time.Duration
	durationFlag(cmd.Flags(), &ttl, "ttl", time.Hour, "for how long it is good, at most a week")
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		if ttl < time.Second {
			return usagef("--ttl %v: want at least 1s", ttl)
		}
		return callAccess(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
			r, err := c.CreateJoinToken(ctx, connect.NewRequest(&serverpb.CreateJoinTokenRequest{Host: *host, LifetimeSeconds: int64(ttl / time.Second)}))
			if err != nil {
				return err
			}
			return printSecret(cmd.OutOrStdout(), r.Msg, asJSON)
		})
	})
	return cmd
}

// printSecret prints a token that was made, by itself unless as JSON.
func printSecret(w io.Writer, m interface {
	proto.Message
	GetToken() string
}, asJSON bool) error {
	if asJSON {
		return printProto(w, m)
	}
	_, err := fmt.Fprintln(w, m.GetToken())
	return err
}

func joinTokenListCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List the tokens, without their secrets", Args: exactArgs()}
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		return callAccess(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
			r, err := c.ListJoinTokens(ctx, connect.NewRequest(&serverpb.ListJoinTokensRequest{}))
			if err != nil {
				return err
			}
			if asJSON {
				return printProtoList(cmd.OutOrStdout(), r.Msg.GetTokens())
			}
			var rows [][]string
			for _, t := range r.Msg.GetTokens() {
				state := "open"
				switch {
				case t.GetUsedBy() != "":
					state = "used by " + t.GetUsedBy()
				case time.Now().UnixNano() > t.GetExpiresUnixNano():
					state = "expired"
				}
				rows = append(rows, []string{t.GetId(), orDash(t.GetHost()), state, when(t.GetExpiresUnixNano()), t.GetCreatedBy()})
			}
			return printTable(cmd.OutOrStdout(), []string{"id", "host", "state", "expires", "created by"}, rows)
		})
	})
	return cmd
}

func joinTokenRemoveCommand(server *string) *cobra.Command {
	return &cobra.Command{
		Use: "rm ID", Aliases: []string{"remove"}, Short: "Remove a token, so that no host can join with it", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return callAccess(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
				if _, err := c.DeleteJoinToken(ctx, connect.NewRequest(&serverpb.DeleteJoinTokenRequest{Id: args[0]})); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "token %s removed\n", args[0])
				return err
			})
		},
	}
}

// hostRevokeCommand is `gnomon host revoke`.
func hostRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "End what a host's certificate is good for, at once",
		Long: `Has the servers take a host's certificate no more and end its stream. The host goes
on with the configuration it knows until it joins again, with a new token.`,
		Args: exactArgs("NAME"),
	}
	server := serverFlag(cmd)
	cmd.ValidArgsFunction = serverNames(server, hostNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return callAccess(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
			if _, err := c.RevokeHost(ctx, connect.NewRequest(&serverpb.RevokeHostRequest{Name: args[0]})); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "certificate of host %s revoked\n", args[0])
			return err
		})
	}
	return cmd
}

// accessCommand is `gnomon access`.
func accessCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Who may use the server: tokens of people and programs",
		Long: `A token says who calls and what they may: a viewer looks, an operator changes
accounts, hosts and configuration, an admin says who may do so and reads the
log of changes. A token for one account sees that account alone. Put it in a
file that only you can read, and name that in GNOMON_TOKEN_FILE (default
~/.config/gnomon/token).`,
	}
	server := serverFlag(cmd)
	cmd.AddCommand(accessCreateCommand(server), accessListCommand(server), accessRemoveCommand(server), whoAmICommand(server), accessFleetCommand(server))
	return cmd
}

func accessCreateCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Print a token for a person or a program",
		Example: `  gnomon access create alice --role operator > alice.token
  gnomon access create grafana --role viewer --ttl 365d
  gnomon access create acme-portal --account acme`,
		Args: exactArgs("NAME"),
	}
	role := cmd.Flags().String("role", "viewer", "viewer, operator or admin")
	account := cmd.Flags().String("account", "", "the only account it sees (default: all)")
	var ttl time.Duration
	durationFlag(cmd.Flags(), &ttl, "ttl", 0, "for how long it is good; 0 for no end")
	completeValues(cmd, "role", "viewer", "operator", "admin")
	_ = cmd.RegisterFlagCompletionFunc("account", serverNames(server, accountNames))
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		if ttl > 0 && ttl < time.Second {
			return usagef("--ttl %v: want 0, or at least 1s", ttl)
		}
		return callAccess(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
			r, err := c.CreateToken(ctx, connect.NewRequest(&serverpb.CreateTokenRequest{
				Name: args[0], Role: *role, Account: *account, LifetimeSeconds: int64(ttl / time.Second)}))
			if err != nil {
				return err
			}
			return printSecret(cmd.OutOrStdout(), r.Msg, asJSON)
		})
	})
	return cmd
}

func accessListCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List the tokens, without their secrets", Args: exactArgs()}
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		return callAccess(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
			r, err := c.ListTokens(ctx, connect.NewRequest(&serverpb.ListTokensRequest{}))
			if err != nil {
				return err
			}
			if asJSON {
				return printProtoList(cmd.OutOrStdout(), r.Msg.GetTokens())
			}
			var rows [][]string
			for _, t := range r.Msg.GetTokens() {
				rows = append(rows, []string{t.GetId(), t.GetName(), t.GetRole(), orDash(t.GetAccount()), when(t.GetExpiresUnixNano()), t.GetCreatedBy()})
			}
			return printTable(cmd.OutOrStdout(), []string{"id", "name", "role", "account", "expires", "created by"}, rows)
		})
	})
	return cmd
}

func accessRemoveCommand(server *string) *cobra.Command {
	return &cobra.Command{
		Use: "rm ID", Aliases: []string{"remove"}, Short: "Remove a token, at once", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return callAccess(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
				if _, err := c.DeleteToken(ctx, connect.NewRequest(&serverpb.DeleteTokenRequest{Id: args[0]})); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "token %s removed\n", args[0])
				return err
			})
		},
	}
}

func whoAmICommand(server *string) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show as whom the server sees you", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return callAccess(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
				r, err := c.WhoAmI(ctx, connect.NewRequest(&serverpb.WhoAmIRequest{}))
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), whoLine(r.Msg))
				return err
			})
		},
	}
}

func whoLine(m *serverpb.WhoAmIResponse) string {
	line := m.GetName() + ", " + m.GetRole()
	if a := m.GetAccount(); a != "" {
		line += " of account " + a
	}
	return line
}

func accessFleetCommand(server *string) *cobra.Command {
	return &cobra.Command{
		Use: "fleet", Short: "Print the fleet's fingerprint, for people to log in by (gnomon login)", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return callAccess(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
				r, err := c.DescribeLogin(ctx, connect.NewRequest(&serverpb.DescribeLoginRequest{}))
				if err != nil {
					return err
				}
				if r.Msg.GetFleet() == "" {
					return usagef("the server has no authority, since it serves without TLS: start it with --tls, or with a --listen address that others can reach")
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), r.Msg.GetFleet())
				return err
			})
		},
	}
}

// when prints a time; 0 is never.
func when(unixNano int64) string {
	if unixNano == 0 {
		return "never"
	}
	return time.Unix(0, unixNano).Format(time.DateTime)
}
