package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/fleet"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
	"github.com/spf13/cobra"
)

const fleetFileHelp = `The file names accounts, hosts, VMs and their parameters, as in:

  config:                      # global
    predictionHorizon: 10s
  hosts:
    - name: node1
      labels: {zone: a}
      config: {capacity: disk=500MB/s}
  accounts:
    - name: acme
      hostLabels: {zone: a}    # where its host is chosen; or host: node1
      config: {headroom: 30%}
  vms:
    - name: web1               # or its id
      config: {limits.floor: memory=512MiB}

What it does not name is left as it is. A "config" that is there is all that is
set at its scope; an empty one ({}) unsets everything.`

func applyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "apply -f FILE",
		Short:   "Make accounts, hosts and parameters as a file says",
		Long:    "Makes the fleet as a file says, and prints what that changed.\n\n" + fleetFileHelp,
		Example: `  gnomon apply -f fleet.yaml --comment "$(git log -1 --format=%h)"`,
		Args:    exactArgs(),
	}
	comment := cmd.Flags().String("comment", "", "why, for the history")
	fleetCommand(cmd, func(ctx context.Context, c serverpbconnect.ManagementServiceClient, p *fleet.Plan) error {
		return carryOut(ctx, c, p, *comment, cmd.OutOrStdout())
	})
	return cmd
}

func diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "diff -f FILE",
		Short:   "Show what \"gnomon apply\" would change",
		Long:    "Shows what \"gnomon apply\" would change, and changes nothing.\n\n" + fleetFileHelp,
		Example: `  gnomon diff -f fleet.yaml --exit-code`,
		Args:    exactArgs(),
	}
	exit := cmd.Flags().Bool("exit-code", false, "exit with code 1 if something differs")
	fleetCommand(cmd, func(ctx context.Context, c serverpbconnect.ManagementServiceClient, p *fleet.Plan) error {
		lines := slices.Clone(p.Lines)
		err := inParts(ctx, c, p.Layers, "", true, func(edits []*serverpb.ConfigEdit) {
			for _, e := range edits {
				lines = append(lines, fleet.Line(e))
			}
		})
		if err != nil {
			return err
		}
		for _, line := range lines {
			fmt.Fprintln(cmd.OutOrStdout(), line)
		}
		if *exit && len(lines) > 0 {
			return errDiffers
		}
		return nil
	})
	return cmd
}

var errDiffers = errors.New("the fleet is not as the file says")

// fleetCommand gives a command the flags and the work of those that read a
// file: do is called with what has to be done.
func fleetCommand(cmd *cobra.Command, do func(context.Context, serverpbconnect.ManagementServiceClient, *fleet.Plan) error) {
	server := serverFlag(cmd)
	path := cmd.Flags().StringP("file", "f", "", "the file, in YAML or JSON; - for standard input")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *path == "" {
			return usagef("-f is missing: name the file that says what the fleet should be, or - for standard input")
		}
		text, err := readFile(*path, input(cmd))
		if err != nil {
			return usagef("-f: %w", err)
		}
		file, err := fleet.Parse(text)
		if err != nil {
			return usageError{fmt.Errorf("%s: %w", *path, err)}
		}
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			state, err := readFleet(ctx, c, file)
			if err != nil {
				return err
			}
			p, err := file.Compare(state)
			if err != nil {
				return fmt.Errorf("%s: %w", *path, err)
			}
			return do(ctx, c, p)
		})
	}
}

func readFile(path string, stdin io.Reader) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(path)
}

// readFleet reads what the file is to be compared with.
func readFleet(ctx context.Context, c serverpbconnect.ManagementServiceClient, f *fleet.File) (fleet.State, error) {
	s := fleet.State{Accounts: map[string]*serverpb.Account{}, Hosts: map[string]*serverpb.Host{}}
	for _, a := range f.Accounts {
		r, err := c.GetAccount(ctx, connect.NewRequest(&serverpb.GetAccountRequest{Name: a.Name}))
		if err == nil {
			s.Accounts[a.Name] = r.Msg.GetAccount()
		} else if connect.CodeOf(err) != connect.CodeNotFound {
			return s, err
		}
	}
	for _, h := range f.Hosts {
		r, err := c.GetHost(ctx, connect.NewRequest(&serverpb.GetHostRequest{Name: h.Name}))
		if err == nil {
			s.Hosts[h.Name] = r.Msg.GetHost()
		} else if connect.CodeOf(err) != connect.CodeNotFound {
			return s, err
		}
	}
	return s, nil
}

// carryOut does what a plan says. The parameters are checked before anything is
// changed.
func carryOut(ctx context.Context, c serverpbconnect.ManagementServiceClient, p *fleet.Plan, comment string, w io.Writer) error {
	if err := inParts(ctx, c, p.Layers, comment, true, func([]*serverpb.ConfigEdit) {}); err != nil {
		return err
	}
	for _, u := range p.Hosts {
		if _, err := c.UpdateHost(ctx, connect.NewRequest(u)); err != nil {
			return err
		}
	}
	for _, r := range p.Create {
		if _, err := c.CreateAccount(ctx, connect.NewRequest(r)); err != nil {
			return err
		}
	}
	for _, u := range p.Accounts {
		if _, err := c.UpdateAccount(ctx, connect.NewRequest(u)); err != nil {
			return err
		}
	}
	for _, line := range p.Lines {
		fmt.Fprintln(w, line)
	}
	if err := inParts(ctx, c, p.NewLayers, comment, false, func([]*serverpb.ConfigEdit) {}); err != nil {
		return err
	}
	return inParts(ctx, c, p.Layers, comment, false, func(edits []*serverpb.ConfigEdit) {
		_ = printEdits(w, false, edits)
	})
}

// layersAtOnce is how many layers the server changes as one.
const layersAtOnce = 100

// inParts applies layers, as one if they are few enough.
func inParts(ctx context.Context, c serverpbconnect.ManagementServiceClient, layers []*serverpb.LayerChange, comment string, dry bool, told func([]*serverpb.ConfigEdit)) error {
	for part := range slices.Chunk(layers, layersAtOnce) {
		r, err := c.ApplyConfig(ctx, connect.NewRequest(&serverpb.ApplyConfigRequest{Layers: part, Comment: comment, ValidateOnly: dry}))
		if err != nil {
			return err
		}
		told(r.Msg.GetEdits())
	}
	return nil
}
