package config

import (
	"slices"
	"strings"
)

// Scope is where a parameter can be set.
type Scope string

// The scopes, from the widest to the narrowest.
const (
	Global  Scope = "global"
	Account Scope = "account"
	Host    Scope = "host"
	VM      Scope = "vm"
)

// Scopes returns every scope, from the widest to the narrowest.
func Scopes() []Scope { return []Scope{Global, Account, Host, VM} }

func (s Scope) rank() int { return slices.Index(Scopes(), s) }

// Key describes one parameter.
type Key struct {
	Name    string  // as written in files and on the command line
	Doc     string  // one or two sentences
	Type    string  // duration, percent, amounts, size, boolean, number or choice
	Default string  // "" for none
	Range   string  // what is allowed
	Scopes  []Scope // where it may be set
	Example string  // a valid value other than the default

	codec codec
}

// codec reads a value into the parameters, leaving what the value does not
// name, and writes it back without rounding.
type codec struct {
	copy  func(from, to *Parameters)
	read  func(text string, p *Parameters) error
	write func(p *Parameters) string
}

// AllowedAt reports whether the parameter may be set at the scope.
func (k Key) AllowedAt(s Scope) bool { return slices.Contains(k.Scopes, s) }

// Schema returns every parameter, in the order of the documentation.
func Schema() []Key { return slices.Clone(schema) }

// Lookup returns the parameter of that name.
func Lookup(name string) (Key, bool) {
	i, ok := schemaIndex[name]
	if !ok {
		return Key{}, false
	}
	return schema[i], true
}

var (
	schemaIndex = indexSchema()
	defaults    = readDefaults()
)

func indexSchema() map[string]int {
	m := make(map[string]int, len(schema))
	for i, k := range schema {
		m[k.Name] = i
	}
	return m
}

// Defaults returns the parameters that hold where nothing is set.
func Defaults() Parameters { return defaults }

func readDefaults() Parameters {
	var p Parameters
	for _, k := range schema {
		if err := k.codec.read(k.Default, &p); err != nil {
			panic("default of " + k.Name + ": " + err.Error()) // a mistake in the table
		}
	}
	return p
}

// Values returns the parameters as text, by key, in a form that Merge reads
// back to exactly the same.
func (p Parameters) Values() map[string]string {
	m := make(map[string]string, len(schema))
	for _, k := range schema {
		m[k.Name] = k.codec.write(&p)
	}
	return m
}

// suggest returns the known key nearest to name, or "" if none is near.
func suggest(name string) string {
	name = strings.ToLower(name)
	if len(name) > 64 {
		return ""
	}
	best, bestDistance := "", max(2, len(name)/3)+1
	for _, k := range schema {
		known := strings.ToLower(k.Name)
		d := distance(name, known)
		if _, last, dotted := strings.Cut(known, "."); dotted {
			d = min(d, distance(name, last)+1)
		}
		if d < bestDistance {
			best, bestDistance = k.Name, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short strings.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
