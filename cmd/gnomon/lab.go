package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// labCommand plays policies against recorded traces.
func labCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Play gnomon and its peers against recorded traces, and compare them",
		Long: `Plays policies that size VMs against traces of what real machines used, in
virtual time: gnomon's own code, other autoscalers, simple rules, and an oracle
that knows the future. Needs neither a hypervisor nor a daemon.`,
	}
	cmd.AddCommand(labRunCommand(), labCompareCommand(), labPoliciesCommand())
	// --output was called --format here.
	cmd.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "format" {
			name = "output"
		}
		return pflag.NormalizedName(name)
	})
	return cmd
}
