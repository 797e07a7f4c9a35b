package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
	"github.com/gnomon-vm/gnomon/wire/hostpb/hostpbconnect"
	"github.com/spf13/cobra"
)

// hostClient returns a client of the host daemon behind a Unix socket.
func hostClient(socket string) hostpbconnect.HostServiceClient {
	client := unixClient(socket, func(err error) error { return dialError(socket, err) })
	return hostpbconnect.NewHostServiceClient(client, "http://host")
}

// dialError says what to do about a socket that cannot be reached.
func dialError(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no host daemon at %s: start it with \"gnomon up\" or \"gnomon host\", or name its socket with --socket", socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to use %s: run as root, or as a member of the socket's group", socket)
	}
	return fmt.Errorf("reach the host daemon at %s: %w", socket, err)
}

// completeVMs completes the names of VMs.
func completeVMs(socket *string, all bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		res, err := hostClient(*socket).ListVMs(ctx, connect.NewRequest(&hostpb.ListVMsRequest{All: all}))
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, v := range res.Msg.GetVms() {
			names = append(names, v.GetName())
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
