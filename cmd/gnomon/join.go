package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/server/trust"
)

// identityFile holds a host's key and certificate, in its state directory.
const identityFile = "identity.json"

// hostJoinCommand is `gnomon host join`.
func hostJoinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join",
		Short: "Have this host taken into a fleet, with a token on standard input",
		Long: `Trades a token, made by "gnomon server token create", for a certificate of the
fleet's authority. The token is read from standard input or a file, never from
the command line, and names the authority, so that the first contact is safe
too. From then on "gnomon host" needs no flag to find its servers and be known
to them, and renews the certificate by itself. Repeating a join is safe.`,
		Example: `  ssh mgmt gnomon server token create --host node1 | gnomon host join --server https://mgmt:7070 --name node1
  gnomon host join --server https://mgmt-1:7070,https://mgmt-2:7070 --token-file /run/token`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("want no argument: a token on the command line is seen by every user; give it on standard input, or with --token-file")
			}
			return nil
		},
	}
	hostname, _ := os.Hostname()
	fl := cmd.Flags()
	server := fl.String("server", envOr("GNOMON_SERVER", ""), "addresses of the fleet's servers, with commas between (env GNOMON_SERVER)")
	name := fl.String("name", hostname, "name of this host")
	stateDir := fl.String("state-dir", defaultStateDir, "where the host's identity is kept")
	tokenFile := fl.String("token-file", "-", "file of the token; - for standard input")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		servers, err := parseServers(*server)
		if err != nil {
			return err
		}
		for _, s := range servers {
			if !strings.HasPrefix(s, "https://") {
				return usagef("--server %q: a host joins over TLS: want an address like https://mgmt:7070", s)
			}
		}
		if len(servers) == 0 {
			return usagef("--server is missing: name a server of the fleet, like https://mgmt:7070")
		}
		token, err := readJoinToken(cmd, *tokenFile)
		if err != nil {
			return err
		}
		identity, err := hostlink.Join(cmd.Context(), servers, token, *name, filepath.Join(*stateDir, identityFile))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "host %s joined; its certificate is good until %s and renewed before\n",
			identity.Host(), identity.Certificate().NotAfter.Local().Format("2006-01-02"))
		return err
	}
	return cmd
}

func readJoinToken(cmd *cobra.Command, path string) (trust.Token, error) {
	from := input(cmd)
	if fd, ok := terminal(cmd.InOrStdin()); ok && path == "-" {
		text, err := readSecret(cmd, fd, "Token: ")
		if err != nil {
			return trust.Token{}, fmt.Errorf("read token: %w", err)
		}
		from = strings.NewReader(text)
	} else if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return trust.Token{}, usagef("--token-file: %w", err)
		}
		defer f.Close()
		from = f
	}
	token, err := trust.ReadToken(from, trust.JoinKind)
	if err != nil {
		return trust.Token{}, usageError{err}
	}
	return token, nil
}

// parseServers reads a list of servers' addresses.
func parseServers(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	servers := strings.Split(list, ",")
	for i, s := range servers {
		servers[i] = strings.TrimRight(strings.TrimSpace(s), "/")
		if err := checkServer(servers[i]); err != nil {
			return nil, err
		}
	}
	return servers, nil
}

// findServers returns the servers of a host daemon: those of the flag, else
// those that the host joined, with the identity it has among them.
func findServers(list string, f *daemonFlags, named bool) (hostlink.Servers, error) {
	urls, err := parseServers(list)
	if err != nil {
		return hostlink.Servers{}, err
	}
	identity, err := trust.OpenIdentity(filepath.Join(f.stateDir, identityFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && identity.Host() == "" {
		for _, u := range urls {
			if strings.HasPrefix(u, "https://") {
				return hostlink.Servers{}, usagef("this host has not joined a fleet: see \"gnomon host join --help\" (no identity in %s)", f.stateDir)
			}
		}
		return hostlink.Servers{URLs: urls}, nil
	}
	if err != nil {
		return hostlink.Servers{}, err
	}
	if len(urls) == 0 {
		urls = identity.Servers()
	}
	if !named {
		f.name = identity.Host()
	}
	if f.name != identity.Host() {
		return hostlink.Servers{}, usagef("--name %q: this host joined as %q: leave --name out, or revoke that host and join by the new name", f.name, identity.Host())
	}
	return hostlink.Servers{URLs: urls, Identity: identity}, nil
}
