package main

import (
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/gnomon-vm/gnomon/history"
)

func historyRulesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Print the rules by which an external database keeps means and maxima",
		Long: `Prints recording rules for Prometheus, or for what evaluates such rules beside
another database (vmalert, Mimir's ruler): means and maxima of 5 minutes and of an
hour, which long plots and training then read. The server's own database makes them
without.`,
		Example: `  gnomon history rules > rules.yml`,
		Args:    exactArgs(),
	}
	withOutput(cmd, func(cmd *cobra.Command, _ []string, asJSON bool) error {
		rules := recordingRules()
		if asJSON {
			return printJSON(cmd.OutOrStdout(), rules)
		}
		text, err := yaml.Marshal(rules)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	})
	return cmd
}

// ruleFile is Prometheus' file of rules.
type ruleFile struct {
	Groups []ruleGroup `json:"groups"`
}

type ruleGroup struct {
	Name     string          `json:"name"`
	Interval string          `json:"interval"`
	Rules    []recordingRule `json:"rules"`
}

type recordingRule struct {
	Record string `json:"record"`
	Expr   string `json:"expr"`
}

func recordingRules() (f ruleFile) {
	for _, l := range history.Levels {
		g := ruleGroup{Name: "gnomon " + l.Name, Interval: model.Duration(l.Span).String()}
		for _, r := range l.Rules() {
			g.Rules = append(g.Rules, recordingRule{r.Metric, r.Expr})
		}
		f.Groups = append(f.Groups, g)
	}
	return f
}
