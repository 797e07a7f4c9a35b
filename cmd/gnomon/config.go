package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
	"github.com/spf13/cobra"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Parameters: get, set, explain, roll back, and what there are",
		Long: `Parameters are set globally, or for one account, host or VM; the narrowest wins
(global < account < host < vm). A change takes effect within two intervals. Every
change has a version; what it changed, when, by whom and why is kept.`,
	}
	server := serverFlag(cmd)
	cmd.AddCommand(configGetCommand(server), configSetCommand(server), configUnsetCommand(server),
		configExplainCommand(server), configHistoryCommand(server), configDiffCommand(server), configRollbackCommand(server), configSchemaCommand())
	return cmd
}

func addScopeFlags(cmd *cobra.Command, server *string) *serverpb.Scope {
	s := &serverpb.Scope{}
	cmd.Flags().StringVar(&s.Account, "account", "", "for one account")
	cmd.Flags().StringVar(&s.Host, "host", "", "for one host")
	cmd.Flags().StringVar(&s.Vm, "vm", "", "for one VM, by name or id")
	for flag, list := range map[string]func(context.Context, serverpbconnect.ManagementServiceClient) ([]string, error){
		"account": accountNames, "host": hostNames, "vm": vmNames,
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, serverNames(server, list))
	}
	return s
}

// checkScope refuses several scopes, and a scope flag that is given and empty:
// it would mean everything.
func checkScope(cmd *cobra.Command, s *serverpb.Scope) error {
	given := 0
	for flag, value := range map[string]string{"account": s.GetAccount(), "host": s.GetHost(), "vm": s.GetVm()} {
		if !cmd.Flags().Changed(flag) {
			continue
		}
		if value == "" {
			return usagef("--%s is empty: name one, or leave the flag out to mean all", flag)
		}
		given++
	}
	if given > 1 {
		return usagef("want one of --account, --host and --vm, not several")
	}
	return nil
}

func completeKeys(suffix string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		var keys []string
		for _, k := range config.Schema() {
			keys = append(keys, cobra.CompletionWithDesc(k.Name+suffix, k.Range))
		}
		if suffix != "" {
			return keys, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
		return keys, cobra.ShellCompDirectiveNoFileComp
	}
}

// parameterView is a parameter as scripts see it.
type parameterView struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

func configGetCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get [KEY]",
		Short: "Show the parameters in effect, and where each comes from",
		Example: `  gnomon config get --vm web1
  gnomon config get predictionHorizon --account acme`,
		Args:              atMostOne("KEY"),
		ValidArgsFunction: completeKeys(""),
	}
	scope := addScopeFlags(cmd, server)
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		err := checkScope(cmd, scope)
		if err == nil && len(args) == 1 {
			err = checkKey(args[0])
		}
		if err != nil {
			return err
		}
		return callServer(cmd.Context(), *server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
			r, err := c.GetConfig(ctx, connect.NewRequest(&serverpb.GetConfigRequest{Scope: scope}))
			if err != nil {
				return err
			}
			return printParameters(cmd.OutOrStdout(), asJSON, r.Msg.GetParameters(), args)
		})
	})
	return cmd
}

func checkKey(key string) error {
	if _, ok := config.Lookup(key); ok {
		return nil
	}
	return usageError{config.Validate(config.Global, map[string]string{key: ""})}
}

// printParameters prints all parameters, or the value of the only one asked
// for.
func printParameters(w io.Writer, asJSON bool, parameters []*serverpb.Parameter, only []string) error {
	views, rows := []parameterView{}, [][]string{}
	for _, p := range parameters {
		if len(only) > 0 && p.GetKey() != only[0] {
			continue
		}
		views = append(views, parameterView{p.GetKey(), p.GetValue(), p.GetOrigin()})
		rows = append(rows, []string{p.GetKey(), orDash(p.GetValue()), p.GetOrigin()})
	}
	switch {
	case asJSON && len(only) > 0 && len(views) == 1:
		return printJSON(w, views[0])
	case asJSON:
		return printJSON(w, views)
	case len(only) > 0 && len(views) == 1:
		_, err := fmt.Fprintln(w, views[0].Value)
		return err
	}
	return printTable(w, []string{"key", "value", "origin"}, rows)
}

func configSetCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set KEY=VALUE...",
		Short: "Set parameters; all are checked together before any is stored",
		Example: `  gnomon config set predictionHorizon=10s headroom=30%
  gnomon config set limits.floor=memory=512MiB --vm web1`,
		Args:              atLeastOne("KEY=VALUE"),
		ValidArgsFunction: completeKeys("="),
	}
	scope := addScopeFlags(cmd, server)
	comment := cmd.Flags().String("comment", "", "why, for the history")
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		values := map[string]string{}
		for _, arg := range args {
			key, value, ok := strings.Cut(arg, "=")
			switch _, twice := values[key]; {
			case !ok || key == "":
				return usagef("%q: want KEY=VALUE", arg)
			case strings.TrimSpace(value) == "":
				return usagef("%q has no value; to take a parameter back use \"gnomon config unset %s\"", arg, key)
			case twice:
				return usagef("%s is given twice", key)
			}
			values[key] = value
		}
		return setConfig(cmd, *server, &serverpb.SetConfigRequest{Scope: scope, Values: values, Comment: *comment}, asJSON)
	})
	return cmd
}

func configUnsetCommand(server *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "unset KEY...",
		Short:             "Take parameters back, so that the wider scope holds again",
		Args:              atLeastOne("KEY"),
		ValidArgsFunction: completeKeys(""),
	}
	scope := addScopeFlags(cmd, server)
	comment := cmd.Flags().String("comment", "", "why, for the history")
	withOutput(cmd, func(cmd *cobra.Command, args []string, asJSON bool) error {
		values := map[string]string{}
		for _, key := range args {
			values[key] = ""
		}
		return setConfig(cmd, *server, &serverpb.SetConfigRequest{Scope: scope, Values: values, Comment: *comment}, asJSON)
	})
	return cmd
}

func setConfig(cmd *cobra.Command, server string, req *serverpb.SetConfigRequest, asJSON bool) error {
	if err := checkScope(cmd, req.GetScope()); err != nil {
		return err
	}
	return callServer(cmd.Context(), server, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
		r, err := c.SetConfig(ctx, connect.NewRequest(req))
		if err != nil || !asJSON {
			return err
		}
		return printJSON(cmd.OutOrStdout(), struct {
			Revision int64 `json:"revision"`
			Version  int64 `json:"version"`
		}{r.Msg.GetRevision(), r.Msg.GetVersion()})
	})
}

// keyView is a parameter's description as scripts see it.
type keyView struct {
	Key     string         `json:"key"`
	Doc     string         `json:"doc"`
	Type    string         `json:"type"`
	Default string         `json:"default"`
	Allowed string         `json:"allowed"`
	Scopes  []config.Scope `json:"scopes"`
	Example string         `json:"example"`
}

func configSchemaCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "List all parameters: default, what is allowed, and where each can be set",
		Args:  exactArgs(),
	}
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		views, rows := []keyView{}, [][]string{}
		for _, k := range config.Schema() {
			views = append(views, keyView{k.Name, k.Doc, k.Type, k.Default, k.Range, k.Scopes, k.Example})
			where := "everywhere"
			if len(k.Scopes) < len(config.Scopes()) {
				names := make([]string, len(k.Scopes))
				for i, s := range k.Scopes {
					names[i] = string(s)
				}
				where = strings.Join(names, ", ")
			}
			rows = append(rows, []string{k.Name, orDash(k.Default), k.Range, where})
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), views)
		}
		return printTable(cmd.OutOrStdout(), []string{"key", "default", "allowed", "set at"}, rows)
	})
	return cmd
}
