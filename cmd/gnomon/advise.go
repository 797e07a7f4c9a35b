package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
	"github.com/spf13/cobra"
)

// moveTimeout is for how long an operator waits for a VM to be moved.
const moveTimeout = time.Hour

// moveView is a move, advised or made, as scripts see it.
type moveView struct {
	VM   string  `json:"vm"`
	ID   string  `json:"id"`
	From string  `json:"from"`
	To   string  `json:"to"`
	Why  string  `json:"why"`
	Done bool    `json:"done"`
	Ms   float64 `json:"move_ms"` // what it took; 0 if it was not made
}

// adviceView is advice as scripts see it.
type adviceView struct {
	Moves    []moveView `json:"moves"`
	Unsolved []string   `json:"unsolved"`
}

func vmMoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "move VM --to HOST",
		Short: "Move a VM to another host while it runs, with what its shadow learned",
		Long: `Has the host of a VM move it to another by libvirt's live migration. Its account,
its own limits and what its shadow learned go with it. The disks that it uses have
to be on both hosts, and the other host's daemon has to say where its libvirt is
reached (--migration-uri). A host has part in one move at a time.`,
		Example: "  gnomon vm move web-1 --to node2",
		Args:    exactArgs("VM"),
	}
	server := serverFlag(cmd)
	to := cmd.Flags().String("to", "", "the host to move it to")
	request := cmd.Flags().String("request-id", "", "repeating the command with the same one does no harm")
	cmd.ValidArgsFunction = serverNames(server, vmNames)
	_ = cmd.RegisterFlagCompletionFunc("to", serverNames(server, hostNames))
	_ = cmd.RegisterFlagCompletionFunc("request-id", cobra.NoFileCompletions)
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		if *to == "" {
			return usagef("--to is missing: name the host to move the VM to")
		}
		return callServerFor(cmd.Context(), moveTimeout, *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			v, err := makeMove(ctx, c, &serverpb.MoveVMRequest{Vm: args[0], Host: *to, RequestId: *request})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), v)
			}
			return printMoved(cmd.OutOrStdout(), v)
		})
	})
	return cmd
}

func makeMove(ctx context.Context, c serverpbconnect.ManagementServiceClient, m *serverpb.MoveVMRequest) (moveView, error) {
	r, err := c.MoveVM(ctx, connect.NewRequest(m))
	if err != nil {
		return moveView{}, err
	}
	return moveView{
		VM: r.Msg.GetVmName(), ID: r.Msg.GetVm(), From: r.Msg.GetFromHost(), To: r.Msg.GetToHost(), Done: true,
		Ms: float64(r.Msg.GetMoveNs()/int64(time.Microsecond)) / 1000,
	}, nil
}

func printMoved(w io.Writer, v moveView) error {
	_, err := fmt.Fprintf(w, "%s moved from %s to %s in %.1f s; back: gnomon vm move %s --to %s\n", v.VM, v.From, v.To, v.Ms/1000, v.VM, v.From)
	return err
}

func adviseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "advise",
		Short: "Tell which VMs to move before a host is short, and why; --apply moves them",
		Long: `The management server knows what each host's VMs are predicted to need. Where that
is more than 90% of what a host may promise, requests for reservations are about to
be denied: advise says which VMs to move where, the fewest that are enough. No host
that takes a VM has more than 80% of it taken then, and a VM that was moved stays
for 10 minutes, so that nothing goes to and fro.

With --apply the moves are made, one after the other, each with the way back; the
first that fails ends it. With --undo the moves of the latest advice that was
followed are taken back.`,
		Example: `  gnomon advise
  gnomon advise --apply
  gnomon advise --undo --apply`,
		Args: exactArgs(),
	}
	server := serverFlag(cmd)
	apply := cmd.Flags().Bool("apply", false, "make the moves")
	undo := cmd.Flags().Bool("undo", false, "tell how to take the latest advice back that was followed")
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		return callServerFor(cmd.Context(), moveTimeout, *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			r, err := c.Advise(ctx, connect.NewRequest(&serverpb.AdviseRequest{Undo: *undo}))
			if err != nil {
				return err
			}
			v := viewAdvice(r.Msg)
			if !asJSON {
				if err := printAdvice(cmd.OutOrStdout(), v); err != nil {
					return err
				}
			}
			if *apply {
				err = followAdvice(ctx, c, r.Msg.GetId(), v, func(m moveView) error {
					if asJSON {
						return nil
					}
					return printMoved(cmd.OutOrStdout(), m)
				})
			}
			if asJSON {
				if printed := printJSON(cmd.OutOrStdout(), v); err == nil {
					err = printed
				}
			}
			return err
		})
	})
	return cmd
}

func viewAdvice(r *serverpb.AdviseResponse) adviceView {
	v := adviceView{Moves: []moveView{}, Unsolved: append([]string{}, r.GetUnsolved()...)}
	for _, m := range r.GetMoves() {
		v.Moves = append(v.Moves, moveView{VM: m.GetVmName(), ID: m.GetVm(), From: m.GetFromHost(), To: m.GetToHost(), Why: m.GetWhy()})
	}
	return v
}

func printAdvice(w io.Writer, v adviceView) error {
	for _, m := range v.Moves {
		if _, err := fmt.Fprintf(w, "move %s from %s to %s: %s\n", m.VM, m.From, m.To, m.Why); err != nil {
			return err
		}
	}
	for _, u := range v.Unsolved {
		if _, err := fmt.Fprintf(w, "unsolved: %s\n", u); err != nil {
			return err
		}
	}
	if len(v.Moves)+len(v.Unsolved) > 0 {
		return nil
	}
	_, err := fmt.Fprintln(w, "nothing to move")
	return err
}

// followAdvice makes the moves in their order and notes in the view those made.
func followAdvice(ctx context.Context, c serverpbconnect.ManagementServiceClient, id string, v adviceView, made func(moveView) error) error {
	for i, m := range v.Moves {
		done, err := makeMove(ctx, c, &serverpb.MoveVMRequest{Vm: m.ID, Host: m.To, Advice: id})
		if err != nil {
			return err
		}
		v.Moves[i].Done, v.Moves[i].Ms = true, done.Ms
		if err := made(done); err != nil {
			return err
		}
	}
	return nil
}
