package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// auditCommand is `gnomon audit`.
func auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what and when",
		Long: `Prints the log of changes of accounts, hosts, configuration and access, the latest
first, with the values before and after. It is kept for 90 days.`,
		Args: exactArgs(),
	}
	server := serverFlag(cmd)
	var last time.Duration
	durationFlag(cmd.Flags(), &last, "last", 0, "only changes of this long, like 12h or 7d (default: all)")
	limit := cmd.Flags().Int32("limit", 50, "how many at most, 1 to 1000")
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		if *limit < 1 || *limit > 1000 {
			return usagef("--limit %d: want 1 to 1000", *limit)
		}
		req := &serverpb.ListChangesRequest{PageSize: *limit}
		if last > 0 {
			req.SinceUnixNano = time.Now().Add(-last).UnixNano()
		}
		return callAccess(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.AccessServiceClient) error {
			r, err := c.ListChanges(ctx, connect.NewRequest(req))
			if err != nil {
				return err
			}
			if asJSON {
				return printProtoList(cmd.OutOrStdout(), r.Msg.GetChanges())
			}
			for _, change := range r.Msg.GetChanges() {
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", when(change.GetAtUnixNano()), change.GetWho(), change.GetWhat())
				for _, d := range change.GetDifferences() {
					for _, line := range differences(d.GetBefore(), d.GetAfter()) {
						fmt.Fprintf(cmd.OutOrStdout(), "    %s %s\n", d.GetKey(), line)
					}
				}
			}
			return nil
		})
	})
	return cmd
}

// differences returns a line for each value in which two JSON objects differ, or
// one line for texts that are none: those that the log has cut short.
func differences(before, after string) (lines []string) {
	old, ok := flatten(before)
	now, too := flatten(after)
	if !ok || !too {
		return []string{fmt.Sprintf("%s → %s", orDash(before), orDash(after))}
	}
	all := maps.Clone(old)
	maps.Copy(all, now)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if old[name] != now[name] {
			lines = append(lines, fmt.Sprintf("%s: %s → %s", name, orDash(old[name]), orDash(now[name])))
		}
	}
	return lines
}

// flatten returns the values of a JSON object by their names with dots between.
func flatten(text string) (values map[string]string, ok bool) {
	values = map[string]string{}
	if text == "" {
		return values, true
	}
	var object map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if d.Decode(&object) != nil {
		return nil, false
	}
	var add func(prefix string, object map[string]any)
	add = func(prefix string, object map[string]any) {
		for name, v := range object {
			if inner, ok := v.(map[string]any); ok {
				add(prefix+name+".", inner)
				continue
			}
			values[prefix+name] = fmt.Sprint(v)
		}
	}
	add("", object)
	return values, true
}
