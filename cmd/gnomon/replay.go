package main

import (
	"fmt"
	"io"
	"os"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/broker"
	"github.com/gnomon-vm/gnomon/wire/recording"
	"github.com/spf13/cobra"
)

func replayCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay PATH...",
		Short: "Replay recorded events to the decisions they led to",
		Long: `Feeds the events that "gnomon up --record DIR" kept to the broker again, in the
order of the files or folders given, and prints its decisions: always the same
ones. A recording keeps the latest 16 files of 64 MiB; of an older VM's beginning
nothing is known then, and it is left out.`,
		Args: atLeastOne("folder or file of a recording"),

		ValidArgsFunction: completeFiles,
	}
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		var decisions []gnomon.Decision
		b := broker.New(broker.Options{})
		for _, path := range args {
			var err error
			if decisions, err = replayPath(b, path, decisions); err != nil {
				return err
			}
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), decisions)
		}
		return printDecisions(cmd.OutOrStdout(), decisions)
	})
	return cmd
}

// replayPath replays a file, or all of a recording's folder in their order.
func replayPath(b *broker.Broker, path string, decisions []gnomon.Decision) ([]gnomon.Decision, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	files := []string{path}
	if st.IsDir() {
		if files, err = recording.Files(path); err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("open recording: no recording in %s", path)
		}
	}
	for _, f := range files {
		if decisions, err = replayFile(b, f, decisions); err != nil {
			return nil, err
		}
	}
	return decisions, nil
}

func replayFile(b *broker.Broker, path string, decisions []gnomon.Decision) ([]gnomon.Decision, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	defer f.Close()
	for e, err := range recording.Read(f) {
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		decisions = append(decisions, b.Step(e).Decisions...)
	}
	return decisions, nil
}

func printDecisions(w io.Writer, decisions []gnomon.Decision) error {
	rows := make([][]string, 0, len(decisions))
	for _, dec := range decisions {
		rows = append(rows, []string{
			dec.At.Format("15:04:05.000"), string(dec.VM), dec.Resource.String(), string(dec.Kind),
			gnomon.Format(dec.Resource, dec.Amount), dec.Reason,
		})
	}
	return printTable(w, []string{"time", "vm", "resource", "what", "amount", "why"}, rows)
}
