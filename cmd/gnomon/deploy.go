package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/domainxml"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
	"github.com/spf13/cobra"
)

// deployTimeout is for how long an operator waits for a VM to be deployed.
const deployTimeout = 150 * time.Second

// deployView is a deployed VM as scripts see it.
type deployView struct {
	Name        string  `json:"name"`
	ID          string  `json:"id"`
	Account     string  `json:"account"`
	Host        string  `json:"host"`
	WhyHost     string  `json:"why_host"`
	Shadow      string  `json:"shadow"` // empty for none
	Warm        bool    `json:"warm"`
	StartMs     float64 `json:"start_ms"`
	AssociateMs float64 `json:"associate_ms"`
	DryRun      bool    `json:"dry_run"`
}

func vmDeployCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deploy -f FILE --account ACCOUNT",
		Short: "Start a VM from a libvirt definition on the best host, with its account's shadow",
		Long: `Has the management server choose a host for a VM, and that host define and start
it and associate its shadow. The definition is libvirt's XML of a domain; it stays
as it is but for the name, the uuid and the account, which is written into its
metadata. Disks and networks that it names have to be on the host.

The host is the one named, or of those that are connected, not cordoned, have the
labels asked for and room by forecast: the one where the account's warm shadow
waits, else with the fewest VMs of the account, else with the most room.

All is checked before anything is changed, and a VM that does not start leaves
nothing behind.`,
		Example: `  gnomon vm deploy -f web.xml --account acme
  gnomon vm deploy -f web.xml --account acme --name web-2 --host node1
  virsh dumpxml --inactive web | gnomon vm deploy -f - --account acme --name web-3 --dry-run`,
		Args: exactArgs(),
	}
	server := serverFlag(cmd)
	file := cmd.Flags().StringP("file", "f", "", "libvirt definition of the VM; - for standard input")
	account := cmd.Flags().String("account", "", "whose VM it is (default: the account that the definition names)")
	host := cmd.Flags().String("host", "", "the only host it may be on (default: the best)")
	labels := cmd.Flags().StringToString("host-label", nil, "label that a host must have to be chosen, besides those of the account")
	name := cmd.Flags().String("name", "", "in place of the definition's; the VM then has a uuid of its own, too")
	dryRun := cmd.Flags().Bool("dry-run", false, "check everything, on the host too, and change nothing")
	request := cmd.Flags().String("request-id", "", "repeating the command with the same one does no harm")
	_ = cmd.MarkFlagFilename("file", "xml")
	_ = cmd.RegisterFlagCompletionFunc("account", serverNames(server, accountNames))
	_ = cmd.RegisterFlagCompletionFunc("host", serverNames(server, hostNames))
	for _, flag := range []string{"name", "request-id", "host-label"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		definition, err := readDefinition(input(cmd), *file)
		if err != nil {
			return err
		}
		return callServerFor(cmd.Context(), deployTimeout, *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			r, err := c.DeployVM(ctx, connect.NewRequest(&serverpb.DeployVMRequest{
				Definition: definition, Account: *account, Host: *host, HostLabels: *labels, Name: *name,
				RequestId: *request, ValidateOnly: *dryRun}))
			if err != nil {
				return err
			}
			return printDeployed(cmd.OutOrStdout(), viewDeployed(r.Msg, *dryRun), asJSON)
		})
	})
	return cmd
}

// readDefinition reads a definition from a file, or from standard input for "-".
func readDefinition(stdin io.Reader, path string) (string, error) {
	in := stdin
	switch path {
	case "":
		return "", usagef("-f is missing: name the file with the VM's libvirt definition, or - for standard input")
	case "-":
	default:
		f, err := os.Open(path)
		if err != nil {
			return "", usagef("-f: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, domainxml.MaxBytes+1))
	if err != nil {
		return "", usagef("-f: %w", err)
	}
	return string(text), nil
}

func viewDeployed(r *serverpb.DeployVMResponse, dryRun bool) deployView {
	ms := func(ns int64) float64 { return float64(ns/int64(time.Microsecond)) / 1000 }
	return deployView{r.GetVmName(), r.GetVm(), r.GetAccount(), r.GetHost(), r.GetWhyHost(), r.GetShadow(), r.GetWarm(),
		ms(r.GetStartNs()), ms(r.GetAssociateNs()), dryRun}
}

func printDeployed(w io.Writer, v deployView, asJSON bool) error {
	if asJSON {
		return printJSON(w, v)
	}
	if v.DryRun {
		_, err := fmt.Fprintf(w, "%s would run on %s (%s); nothing was changed\n", v.Name, v.Host, v.WhyHost)
		return err
	}
	shadow := "it has no shadow yet"
	switch {
	case v.Shadow != "" && v.Warm:
		shadow = fmt.Sprintf("the account's shadow %s was its own %.0f ms after its start", v.Shadow, v.AssociateMs)
	case v.Shadow != "":
		shadow = fmt.Sprintf("a shadow of its own, %s, was started within %.0f ms", v.Shadow, v.AssociateMs)
	}
	_, err := fmt.Fprintf(w, "%s runs on %s (%s); %s\n", v.Name, v.Host, v.WhyHost, shadow)
	return err
}
