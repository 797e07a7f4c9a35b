package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/gnomon-vm/gnomon/appliance"
	"github.com/gnomon-vm/gnomon/demo"
	"github.com/gnomon-vm/gnomon/shadow"
)

func applianceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "appliance",
		Short: "Build the guest images that shadows and demo VMs boot",
	}
	cmd.AddCommand(applianceBuildCommand())
	return cmd
}

func applianceBuildCommand() *cobra.Command {
	var o appliance.Options
	var kernels, device string
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build a kernel and initramfs around one static program",
		Long: `Builds a bootable pair: Debian's cloud kernel, taken apart and never installed,
and an initramfs with one static program as init and the kernel modules it
needs. Does nothing where the result is there and its inputs are unchanged.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.Init == "":
				return usagef("--init is missing: name the static program that becomes the guest's init")
			case o.Out == "":
				return usagef("--out is missing: name the directory for the result")
			}
			switch device {
			case "shadow":
				o.Modules = shadow.Modules
			case "guest":
				o.Modules = demo.GuestModules
			default:
				return usagef("--for %q: want shadow or guest", device)
			}
			tree, err := appliance.FetchKernel(cmd.Context(), kernels, os.Stderr)
			if err != nil {
				return err
			}
			o.KernelTree = tree
			image, err := appliance.Build(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: kernel %s, %.12s\n", image.Dir, image.Kernel, image.Hash)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Init, "init", "", "static program that becomes init")
	f.StringVar(&o.Out, "out", "", "directory for the result")
	f.StringVar(&device, "for", "shadow", "what boots it: shadow (channel, balloon) or guest (disk and interface too)")
	completeValues(cmd, "for", "shadow", "guest")
	f.StringVar(&kernels, "kernels", "build/kernel", "directory that keeps the kernel package once it was fetched")
	return cmd
}
