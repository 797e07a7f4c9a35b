// Package fleet reads files that say what a fleet should be (accounts, hosts
// and configuration) and finds what has to change for it to be so.
package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/gnomon-vm/gnomon/config"
)

// File is what a fleet should be. What it does not name is left as it is.
type File struct {
	// Config is the global layer: it will have these values and no others. Nil
	// leaves the layer as it is, as it does everywhere below.
	Config   Values    `json:"config,omitempty"`
	Hosts    []Host    `json:"hosts,omitempty"`
	Accounts []Account `json:"accounts,omitempty"`
	VMs      []VM      `json:"vms,omitempty"`
}

// Host is a host that has joined.
type Host struct {
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels,omitempty"`   // these and no others; nil leaves them
	Cordoned *bool             `json:"cordoned,omitempty"` // nil leaves it
	Config   Values            `json:"config,omitempty"`
}

// Account is an account, which is created if there is none of that name.
type Account struct {
	Name       string            `json:"name"`
	Host       string            `json:"host,omitempty"`       // empty to have it chosen, or leave it
	HostLabels map[string]string `json:"hostLabels,omitempty"` // nil leaves them
	Config     Values            `json:"config,omitempty"`
}

// VM is a VM, by id or by a name that only one has.
type VM struct {
	Name   string `json:"name"`
	Config Values `json:"config,omitempty"`
}

// fields are those that there are.
const fields = "config, hosts (name, labels, cordoned, config), accounts (name, host, hostLabels, config) and vms (name, config)"

// Values are parameters by key, written as on the command line. Numbers and
// booleans need no quotes.
type Values map[string]string

// UnmarshalJSON implements json.Unmarshaler.
func (v *Values) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return fmt.Errorf("config: want parameters, each with a value: %w", err)
	}
	*v = Values{}
	for key, value := range raw {
		text := string(bytes.TrimSpace(value))
		switch {
		case text == "null":
			return fmt.Errorf("config: %s has no value: leave the line out to have the parameter unset", key)
		case text[0] == '"':
			if err := json.Unmarshal(value, &text); err != nil {
				return fmt.Errorf("config: %s: %w", key, err)
			}
		case text[0] == '{' || text[0] == '[':
			return fmt.Errorf("config: %s: want a value as on the command line, such as cpu=2,memory=1GiB", key)
		}
		(*v)[key] = text
	}
	return nil
}

// Parse reads a file, in YAML or JSON, and refuses what it does not know and
// values that are wrong by themselves. The error joins all there is to say.
func Parse(b []byte) (*File, error) {
	f := &File{}
	if err := yaml.UnmarshalStrict(b, f); err != nil {
		if _, field, ok := strings.Cut(err.Error(), "unknown field "); ok {
			return nil, fmt.Errorf("unknown field %s: want %s", field, fields)
		}
		return nil, err
	}
	errs := []error{validate(config.Global, "", f.Config)}
	names := map[string]bool{}
	check := func(scope config.Scope, i int, name string, values Values) {
		switch id := string(scope) + " " + name; {
		case name == "":
			errs = append(errs, fmt.Errorf("%ss[%d]: has no name", scope, i))
		case names[id]:
			errs = append(errs, fmt.Errorf("%s is there twice", id))
		default:
			names[id] = true
		}
		errs = append(errs, validate(scope, name, values))
	}
	for i, h := range f.Hosts {
		check(config.Host, i, h.Name, h.Config)
	}
	for i, a := range f.Accounts {
		check(config.Account, i, a.Name, a.Config)
	}
	for i, m := range f.VMs {
		check(config.VM, i, m.Name, m.Config)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return f, nil
}

// validate tells which values are wrong, and of which layer.
func validate(scope config.Scope, name string, values Values) error {
	err := config.Validate(scope, values)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	for _, e := range joined.Unwrap() {
		var p *config.Problem
		if errors.As(e, &p) {
			p.Origin = config.NamedLayer{Scope: scope, Name: name}.Origin()
		}
	}
	return err
}
