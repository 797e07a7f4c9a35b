package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// typed finds a command of ours in what the pages show and in the examples of
// --help: at the beginning, or after a pipe, a variable, ssh or sudo.
var typed = regexp.MustCompile("(?m)(?:^ *|`|\\| *|\\w=\\S+ |ssh \\S+ |sudo )(gnomon(?: +[^`|>\n]+))")

// The commands that pages and examples show exist, with the flags they show.
func TestShownCommandsExist(t *testing.T) {
	shown := map[string]string{} // command line → where it is shown
	note := func(where, text string) {
		text = strings.ReplaceAll(text, "\\\n", " ")
		for _, m := range typed.FindAllStringSubmatch(text, -1) {
			line, _, _ := strings.Cut(m[1], " #")
			shown[strings.Join(strings.Fields(line), " ")] = where
		}
	}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" || strings.Contains(path, "lab/vpa") {
			return err
		}
		text, err := os.ReadFile(path)
		note(path, codeOf(string(text)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	root := rootCommand()
	var examples func(*cobra.Command)
	examples = func(c *cobra.Command) {
		note(c.CommandPath()+" --help", c.Example)
		for _, sub := range c.Commands() {
			examples(sub)
		}
	}
	examples(root)
	if len(shown) < 100 {
		t.Errorf("%d commands are shown, want at least 100: are they still found?", len(shown))
	}
	for line, where := range shown {
		if err := understood(line); err != "" {
			t.Errorf("%s shows %q: %s", where, line, err)
		}
	}
}

// codeOf returns what of a page is code: fences, what is indented, and spans.
func codeOf(page string) string {
	var code strings.Builder
	fenced := false
	for line := range strings.Lines(page) {
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case fenced, strings.HasPrefix(line, "    "):
			code.WriteString(line)
		default:
			for i, part := range strings.Split(line, "`") {
				if i%2 == 1 {
					code.WriteString(part + "\n")
				}
			}
		}
	}
	return code.String()
}

var word = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)

// understood returns what is wrong with a command line, as far as that can be
// told without running it.
func understood(line string) string {
	words := word.FindAllString(strings.TrimRight(line, ".,:;)"), -1)[1:]
	for i, w := range words {
		words[i] = strings.Trim(w, `'"`)
	}
	root := rootCommand()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err.Error()
	}
	cmd.InitDefaultHelpFlag()
	// Prose names a flag without its value.
	if err := cmd.ParseFlags(rest); err != nil && !strings.HasPrefix(err.Error(), "flag needs an argument") {
		return err.Error()
	}
	if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 {
		return "there is no command " + args[0]
	}
	return ""
}
