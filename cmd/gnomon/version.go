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
	output := addOutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asJSON, err := wantJSON(*output)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]string{"version": version, "go": runtime.Version()})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "gnomon %s (%s)\n", version, runtime.Version())
		return err
	}
	return cmd
}
