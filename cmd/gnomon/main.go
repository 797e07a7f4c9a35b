// Command gnomon is the whole system in one program: the host daemon, the
// central management server, and what an operator types.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/hypervisor/libvirt"
	"github.com/spf13/cobra"
)

// version is set at link time.
var version = "dev"

// The exit codes, for scripts.
const (
	exitFailure     = 1   // it was tried and failed
	exitUsage       = 2   // the command line or a value is wrong; nothing was tried
	exitNotFound    = 3   // what was named does not exist
	exitUnavailable = 4   // the daemon, the server or the hypervisor cannot be reached
	exitDenied      = 5   // the server does not know the caller, or they may not
	exitInterrupted = 130 // it was told to stop before its end, as by Ctrl-C
)

// stopSignals are the signals that stop whatever runs, cleanly. A terminal that
// is closed sends SIGHUP, unless nohup has it ignored.
func stopSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	err := runCommand(ctx, rootCommand())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gnomon: "+explain(err))
		os.Exit(exitCode(err))
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "gnomon",
		Short: "Shadow VMs that foresee what your VMs need, and have it ready",
		Long: `gnomon gives every virtual machine of a KVM host a shadow: a tiny VM beside it
that is pushed its usage, forecasts its demand seconds ahead, and has CPU,
memory, disk and network bandwidth ready before it asks.

Start with "gnomon up" on a host that runs libvirt.

The exit code is 0, or
  1    if it was tried and failed,
  2    if the command line or a value is wrong, and nothing was tried,
  3    if what was named does not exist,
  4    if the daemon, the server or the hypervisor cannot be reached,
  5    if the server does not know you, or you may not,
  130  if it was told to stop before its end, as by Ctrl-C.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{
			HiddenDefaultCmd: false,
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %q", err, cmd.CommandPath()+" --help")}
	})
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run it:"},
		&cobra.Group{ID: "use", Title: "Look and steer:"},
		&cobra.Group{ID: "more", Title: "More:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", upCommand(), hostCommand(), serverCommand(), demoCommand())
	add("use", topCommand(), vmCommand(), shadowCommand(), accountCommand(), configCommand(), applyCommand(), diffCommand(), adviseCommand(), historyCommand(), loginCommand(), logoutCommand(), accessCommand(), auditCommand())
	add("more", applianceCommand(), forecastCommand(), labCommand(), recordCommand(), replayCommand(), versionCommand())
	root.AddCommand(guardCommand())
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	refuseUnknown(root)
	completeNothing(root)
	return root
}

// refuseUnknown has the commands that hold others refuse arguments, which are
// misspelt commands, and those that only hold others print their help; help
// refuses misspelt commands too.
func refuseUnknown(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	for _, sub := range cmd.Commands() {
		refuseUnknown(sub)
	}
	if cmd.Name() == "help" {
		cmd.Run, cmd.RunE = nil, func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = unknownCommand(about, rest)
			}
			if err != nil {
				return err
			}
			return about.Help()
		}
	}
	if cmd.HasSubCommands() {
		cmd.Args = unknownCommand
	}
	if !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
}

// unknownCommand returns an error that names the first argument, if there is one,
// and the commands that it may have been meant to be.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		hint = ", did you mean " + strings.Join(like, " or ") + "?"
	}
	return usagef("unknown command %q%s; see %q", args[0], hint, cmd.CommandPath()+" --help")
}

// usageError marks an error of the command line itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usagef returns an error that ends the program with exitUsage.
func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func exitCode(err error) int {
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	switch {
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.Is(err, libvirt.ErrUnavailable):
		return exitUnavailable
	}
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition:
		return exitUsage
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return exitDenied
	case connect.CodeNotFound:
		return exitNotFound
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
		return exitUnavailable
	}
	return exitFailure
}

// explain returns err as one message for people, without the codes of RPC.
func explain(err error) string {
	var rpc *connect.Error
	if errors.As(err, &rpc) {
		return strings.Replace(err.Error(), rpc.Error(), rpc.Message(), 1)
	}
	return err.Error()
}

// exactArgs is cobra.ExactArgs with a message that names what is missing.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(names) == 0 {
			return usagef("argument %q is not wanted; see %q", args[0], cmd.CommandPath()+" --help")
		}
		return usagef("want %s, got %s; see %q", strings.Join(names, " "), counted(len(args), "argument"), cmd.CommandPath()+" --help")
	}
}

// counted is a number of things in words.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// atLeastOne and atMostOne say how many arguments of a kind are wanted.
func atLeastOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("want at least one %s; see %q", what, cmd.CommandPath()+" --help")
		}
		return nil
	}
}

func atMostOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("want at most one %s, got %s; see %q", what, counted(len(args), "argument"), cmd.CommandPath()+" --help")
		}
		return nil
	}
}
