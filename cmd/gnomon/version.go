package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  exactArgs(),
	}
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		if asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]string{"version": version, "go": runtime.Version()})
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "gnomon %s (%s)\n", version, runtime.Version())
		return err
	})
	return cmd
}
