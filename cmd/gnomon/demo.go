package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gnomon-vm/gnomon/demo"
)

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a VM with a shadow beside one without, and compare them",
		Long: `Boots two VMs of one definition with the same bursty workload: one under gnomon
with its shadow, the other resized by the standard path alone. Shows both live,
and at the end what each was short of, how long its work took and what it held.

Everything it starts is gone afterwards. The summary, the plots and the daemon's
log are in the output folder. It takes in no VM but its own.`,
		Example: `  gnomon demo                  # until Ctrl-C
  gnomon demo --seconds 180    # or DEMO_SECONDS=180 gnomon demo`,
		Args: exactArgs(),
	}
	f := cmd.Flags()
	seconds := f.String("seconds", envOr("DEMO_SECONDS", "0"), "how long to measure, 0 until Ctrl-C (env DEMO_SECONDS)")
	o := demo.Options{}
	durationFlag(f, &o.Warmup, "warmup", 0, "how long the workload runs before it is measured")
	f.Uint64Var(&o.Seed, "seed", 1, "decides the workload")
	f.StringVar(&o.Accel, "accel", "auto", "acceleration: auto (tried by booting a guest), kvm or tcg")
	f.StringVar(&o.Out, "out", "demo-out", "folder for the results")
	f.StringVar(&o.LibvirtSocket, "libvirt-socket", demo.DefaultLibvirtSocket, "Unix socket of libvirtd")
	f.StringVar(&o.Shadow, "appliance", defaultAppliance(), "folder of the shadow's kernel and initramfs")
	f.StringVar(&o.Guest, "guest", defaultGuest(), "folder of the demo guest's kernel and initramfs")
	completeValues(cmd, "accel", "auto", "kvm", "tcg")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		n, err := strconv.ParseFloat(*seconds, 64)
		if err != nil || n < 0 || n > 1e6 {
			return usagef("--seconds %q: want a number of seconds, 0 until Ctrl-C", *seconds)
		}
		o.Window = time.Duration(n * float64(time.Second))
		if o.Executable, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		o.Output, o.Terminal = cmd.OutOrStdout(), term.IsTerminal(int(os.Stdout.Fd()))
		return demo.Run(cmd.Context(), o)
	}
	return cmd
}

// defaultGuest is where `make appliance` leaves the demo guest's image.
func defaultGuest() string {
	return filepath.Join(filepath.Dir(defaultAppliance()), "guest")
}
