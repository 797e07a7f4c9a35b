package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/gnomon-vm/gnomon/history"
	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/spf13/cobra"
)

func upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run server and host daemon in one process, with nothing else to install",
		Long: `Runs the whole system of one host in one process: the management server with
an embedded etcd, the history with an embedded time-series database, and the
host daemon. Ctrl-C stops it and gives the VMs their own limits back.`,
		Example: `  gnomon up
  gnomon up --vms 'web-*' --etcd-endpoints http://etcd-1:2379 --history-url http://mimir:9009/prometheus`,
		Args: exactArgs(),
	}
	flags := addDaemonFlags(cmd)
	srv := addCentralFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := newLogger(flags.logLevel, flags.logFormat)
		if err != nil {
			return err
		}
		return runUp(cmd.Context(), flags, srv, log)
	}
	return cmd
}

func runUp(ctx context.Context, flags *daemonFlags, srv *centralFlags, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if srv.history != "" { // before anything is created
		if _, err := openHistory(srv.history); err != nil {
			return err
		}
	}
	parts, err := connectHost(ctx, flags)
	if err != nil {
		return err
	}
	defer parts.close()
	listener, err := listenCentral(srv)
	if err != nil {
		return err
	}
	if err := parts.prepare(flags, log); err != nil {
		listener.Close()
		return err
	}
	c, err := openCentral(srv, listener, log)
	if err != nil {
		return err
	}
	defer c.close()
	failed := make(chan error, 1)
	go func() {
		failed <- c.run(ctx)
		cancel()
	}()
	deps := daemonDeps{
		servers: hostlink.Servers{URLs: []string{unixScheme + c.socket.Addr().String()}}, log: log, registry: c.registry,
		history: c.history, historyURL: c.historyURL,
	}
	if err = deps.openWriter(flags); err == nil {
		err = runDaemon(ctx, flags, parts, deps)
		closeWriter(deps.writer, log)
	}
	cancel()
	return errors.Join(err, <-failed)
}

func closeWriter(w *history.Writer, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), historyCloseTimeout)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		log.Warn("history incomplete", "err", err)
	}
}
