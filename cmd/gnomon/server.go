package main

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
	"github.com/spf13/cobra"
)

func serverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the central management server, with the history of all hosts",
		Long: `Runs the central management server: accounts, hosts, which shadow belongs to
which VM, and configuration. Its state is in etcd, embedded or a cluster of
yours; several servers may share a cluster, and then a copy of fleet.key in the
data directory of the first. It also serves the history, as a Prometheus HTTP
API, under /history.

On an address that other machines reach it serves TLS, by an authority of its
own, and answers hosts that joined (gnomon server token create), people with a
token (gnomon access create), and whoever may open its Unix socket. On a
loopback address it serves without TLS, to root and its own user.`,
		Example: `  gnomon server --listen 10.0.0.1:7070
  gnomon server --etcd-endpoints http://etcd-1:2379,http://etcd-2:2379 --history-url http://mimir:9009/prometheus
  gnomon server --etcd-endpoints https://etcd-1:2379 --etcd-cacert ca.pem --etcd-cert gnomon.pem --etcd-key gnomon.key \
    --etcd-username gnomon --etcd-password-file /etc/gnomon/etcd-password`,
	}
	flags := addCentralFlags(cmd)
	var level, format string
	addLogFlags(cmd, &level, &format)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := newLogger(level, format)
		if err != nil {
			return err
		}
		listener, err := listenCentral(flags)
		if err != nil {
			return err
		}
		c, err := openCentral(flags, listener, log)
		if err != nil {
			return err
		}
		defer c.close()
		return c.run(cmd.Context())
	}
	cmd.AddCommand(joinTokenCommand())
	return cmd
}

// apiTimeout bounds what an operator waits for one answer.
const apiTimeout = 15 * time.Second

// callServer calls the management server at an address.
func callServer(ctx context.Context, address string, f func(context.Context, serverpbconnect.ManagementServiceClient) error) error {
	return callServerFor(ctx, apiTimeout, address, f)
}

// callServerFor is callServer for what takes longer.
func callServerFor(ctx context.Context, limit time.Duration, address string, f func(context.Context, serverpbconnect.ManagementServiceClient) error) error {
	return call(ctx, limit, address, serverpbconnect.NewManagementServiceClient, f)
}

// callAccess is callServer for who may use the server.
func callAccess(ctx context.Context, address string, f func(context.Context, serverpbconnect.AccessServiceClient) error) error {
	return call(ctx, apiTimeout, address, serverpbconnect.NewAccessServiceClient, f)
}

func call[C any](ctx context.Context, limit time.Duration, address string, service func(connect.HTTPClient, string, ...connect.ClientOption) C, f func(context.Context, C) error) error {
	client, base, err := reach(address)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return unreached(address, f(ctx, service(client, base)))
}

// serverNames completes names that the management server knows.
func serverNames(server *string, list func(context.Context, serverpbconnect.ManagementServiceClient) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		var names []string
		err := callServer(ctx, *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) (err error) {
			names, err = list(ctx, c)
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func accountNames(ctx context.Context, c serverpbconnect.ManagementServiceClient) (names []string, err error) {
	for a, err := range allAccounts(ctx, c, "name") {
		if err != nil {
			return nil, err
		}
		names = append(names, a.GetName())
	}
	return names, nil
}

func hostNames(ctx context.Context, c serverpbconnect.ManagementServiceClient) (names []string, err error) {
	for h, err := range allHosts(ctx, c, "name") {
		if err != nil {
			return nil, err
		}
		names = append(names, h.GetName())
	}
	return names, nil
}

func vmNames(ctx context.Context, c serverpbconnect.ManagementServiceClient) (names []string, err error) {
	for a, err := range allAssociations(ctx, c, "vm_name") {
		if err != nil {
			return nil, err
		}
		names = append(names, a.GetVmName())
	}
	return names, nil
}
