package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gnomon-vm/gnomon/config"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// withOutput adds -o/--output and has the command do what run does, which is told
// whether JSON was asked for.
func withOutput(cmd *cobra.Command, run func(cmd *cobra.Command, args []string, asJSON bool) error) {
	output := cmd.Flags().StringP("output", "o", "table", "output format: table or json")
	completeValues(cmd, "output", "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *output != "table" && *output != "json" {
			return usagef("--output %q: want table or json", *output)
		}
		return run(cmd, args, *output == "json")
	}
}

// printTable writes rows in aligned columns below an upper-case header.
func printTable(w io.Writer, header []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ToUpper(strings.Join(header, "\t")))
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// printJSON writes v as indented JSON.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// durationFlag adds a flag that is a duration, 0 or more, written as parameters
// are: also in days and weeks.
func durationFlag(flags *pflag.FlagSet, to *time.Duration, name string, byDefault time.Duration, usage string) {
	*to = byDefault
	flags.Var((*duration)(to), name, usage)
}

type duration time.Duration

// String implements pflag.Value.
func (d *duration) String() string { return config.FormatDuration(time.Duration(*d)) }

// Type implements pflag.Value.
func (d *duration) Type() string { return "duration" }

// Set implements pflag.Value.
func (d *duration) Set(text string) error {
	v, err := config.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%w, and 0 or more", err)
	}
	*d = duration(v)
	return nil
}

// envOr returns the environment variable's value, or def where it is empty.
func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// serverFlag adds --server and returns its value.
func serverFlag(cmd *cobra.Command) *string {
	return cmd.PersistentFlags().String("server", envOr("GNOMON_SERVER", localServer()),
		"address of the management server: http://, https:// or unix:// (env GNOMON_SERVER)")
}

// socketFlag adds --socket and returns its value.
func socketFlag(cmd *cobra.Command) *string {
	return cmd.PersistentFlags().String("socket", envOr("GNOMON_SOCKET", "/run/gnomon/host.sock"),
		"Unix socket of the host daemon (env GNOMON_SOCKET)")
}

var protoJSON = protojson.MarshalOptions{Multiline: true, Indent: "  ", UseProtoNames: true, EmitUnpopulated: true}

// printProto writes a message as JSON with the schema's field names.
func printProto(w io.Writer, m proto.Message) error {
	b, err := protoJSON.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	_, err = fmt.Fprintln(w, string(b))
	return err
}

// printProtoList writes messages as one JSON array.
func printProtoList[M proto.Message](w io.Writer, list []M) error {
	raw := make([]json.RawMessage, 0, len(list))
	for _, m := range list {
		b, err := protoJSON.Marshal(m)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		raw = append(raw, b)
	}
	return printJSON(w, raw)
}
