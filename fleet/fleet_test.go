package fleet

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

const example = `
config:
  predictionHorizon: 10s
hosts:
  - name: node1
    labels: {zone: a}
    cordoned: false
    config: {capacity: disk=500MB/s}
accounts:
  - name: acme
    host: node1
    config: {headroom: 30%, shadow.enabled: true, shortagePrice: 200}
  - name: beta
    hostLabels: {zone: a}
    config: {}
vms:
  - name: web1
    config: {hold: 20s}
`

func TestPlan(t *testing.T) {
	f, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Compare(State{
		Hosts:    map[string]*serverpb.Host{"node1": {Name: "node1", Cordoned: true}},
		Accounts: map[string]*serverpb.Account{"beta": {Name: "beta", Host: "node2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `~ host node1: labels: none -> zone=a
~ host node1: cordoned: true -> false
+ account acme on node1
+ account acme: headroom: 30%
+ account acme: shadow.enabled: true
+ account acme: shortagePrice: 200
~ account beta: hostLabels: none -> zone=a`
	if got := strings.Join(p.Lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if len(p.Hosts) != 1 || len(p.Create) != 1 || len(p.Accounts) != 1 || len(p.NewLayers) != 1 || len(p.Layers) != 4 {
		t.Errorf("got %+v", p)
	}
	for _, l := range append(p.Layers, p.NewLayers...) {
		if !l.GetReplace() {
			t.Errorf("%v keeps what the file does not say", l)
		}
	}
	p, err = f.Compare(State{
		Hosts: map[string]*serverpb.Host{"node1": {Labels: map[string]string{"zone": "a"}}},
		Accounts: map[string]*serverpb.Account{
			"acme": {Host: "node1"}, "beta": {Host: "node2", HostLabels: map[string]string{"zone": "a"}}},
	})
	if err != nil || len(p.Lines)+len(p.Hosts)+len(p.Create)+len(p.Accounts)+len(p.NewLayers) != 0 || len(p.Layers) != 5 {
		t.Errorf("nothing differs, but %+v, %v", p, err)
	}
	if _, err := f.Compare(State{}); err == nil || !strings.Contains(err.Error(), `host "node1" is not known`) {
		t.Errorf("an unknown host: %v", err)
	}
}

func TestBadFiles(t *testing.T) {
	for text, want := range map[string]string{
		"acounts: []":                                      "acounts",
		"accounts: [{host: x}]":                            "accounts[0]: has no name",
		"accounts: [{name: a}, {name: a}]":                 "account a is there twice",
		"config: {hold: }":                                 "hold has no value",
		"config: {limits.floor: {cpu: 1}}":                 "want a value as on the command line",
		"config: {holt: 1s}":                               `did you mean "hold"`,
		"accounts: [{name: a, config: {capacity: cpu=1}}]": "account a: capacity",
		"config: [1]":                                      "want parameters",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestLines(t *testing.T) {
	for want, e := range map[string]*serverpb.ConfigEdit{
		"+ global: hold: 1s":       {Key: "hold", After: "1s"},
		"- account a: hold: 1s":    {Scope: &serverpb.Scope{Account: "a"}, Key: "hold", Before: "1s"},
		"~ host h: hold: 1s -> 2s": {Scope: &serverpb.Scope{Host: "h"}, Key: "hold", Before: "1s", After: "2s"},
		"~ vm web: hold: 1s -> 2s": {Scope: &serverpb.Scope{Vm: "id"}, Name: "web", Key: "hold", Before: "1s", After: "2s"},
		"~ vm id: hold: 1s -> 2s":  {Scope: &serverpb.Scope{Vm: "id"}, Key: "hold", Before: "1s", After: "2s"},
	} {
		if got := Line(e); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestUnknownFields(t *testing.T) {
	for text, field := range map[string]string{"foo: 1": "foo", "accounts: [{nam: acme}]": "nam", "hosts: [{name: node1, zone: a}]": "zone"} {
		if _, err := Parse([]byte(text)); err == nil || err.Error() != `unknown field "`+field+`": want `+fields {
			t.Errorf("%s: %v", text, err)
		}
	}
	named := func(v any) (all []string) {
		for f := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			all = append(all, name)
		}
		return all
	}
	want := fmt.Sprintf("config, hosts (%s), accounts (%s) and vms (%s)",
		strings.Join(named(Host{}), ", "), strings.Join(named(Account{}), ", "), strings.Join(named(VM{}), ", "))
	if fields != want {
		t.Errorf("told are %s, there are %s", fields, want)
	}
}
