package host

import (
	"fmt"
	"path"
	"strings"
)

// Selection chooses VMs by name.
type Selection struct {
	patterns []string // none selects nothing
}

// ParseSelection reads "all", "none" or a comma-separated list of name
// patterns as in path.Match.
func ParseSelection(s string) (Selection, error) {
	switch s {
	case "all":
		return Selection{patterns: []string{"*"}}, nil
	case "none":
		return Selection{}, nil
	}
	var sel Selection
	for p := range strings.SplitSeq(s, ",") {
		p = strings.TrimSpace(p)
		if p == "" {
			return Selection{}, fmt.Errorf("selection %q has an empty pattern: want all, none, or name patterns like web-*,db-1", s)
		}
		if _, err := path.Match(p, ""); err != nil {
			return Selection{}, fmt.Errorf("selection pattern %q: %w", p, err)
		}
		sel.patterns = append(sel.patterns, p)
	}
	return sel, nil
}

// Matches reports whether a VM of that name is selected.
func (s Selection) Matches(name string) bool {
	for _, p := range s.patterns {
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return false
}
