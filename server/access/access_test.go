package access

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// Every method of the server's API has a rule, and every rule a method.
func TestEveryMethodHasARule(t *testing.T) {
	left := map[string]bool{}
	for procedure := range rules {
		left[procedure] = true
	}
	pkg := serverpb.File_gnomon_server_v1_server_proto.Package()
	protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				procedure := "/" + string(service.FullName()) + "/" + string(service.Methods().Get(j).Name())
				if _, ok := RuleOf(procedure); !ok {
					t.Errorf("%s has no rule: say in rules.go who may call it", procedure)
				}
				delete(left, procedure)
			}
		}
		return true
	})
	for procedure := range left {
		t.Errorf("the rule for %s is of no method", procedure)
	}
}

func TestCheck(t *testing.T) {
	viewer, operator, admin := Caller{Name: "v", Role: Viewer}, Caller{Name: "o", Role: Operator}, Caller{Name: "a", Role: Admin}
	customer, host := Caller{Name: "c", Role: Viewer, Account: "acme"}, Caller{Name: "h", Host: "node1"}
	for name, c := range map[string]struct {
		rule Rule
		may  []Caller
	}{
		"look":       {Rule{Role: Viewer}, []Caller{viewer, operator, admin}},
		"look alike": {Rule{Role: Viewer, Accounts: true}, []Caller{viewer, operator, admin, customer}},
		"change":     {Rule{Role: Operator}, []Caller{operator, admin}},
		"rule":       {Rule{Role: Admin}, []Caller{admin}},
		"link":       {Rule{Role: Admin, Hosts: true}, []Caller{admin, host}},
		"renew":      {Rule{Hosts: true}, []Caller{host}},
		"join":       {Rule{Anyone: true}, []Caller{{}, viewer, operator, admin, customer, host}},
		"none":       {Rule{}, nil},
	} {
		may := map[Caller]bool{}
		for _, caller := range c.may {
			may[caller] = true
		}
		for _, caller := range []Caller{{}, viewer, operator, admin, customer, host} {
			err := c.rule.Check(caller)
			if (err == nil) != may[caller] {
				t.Errorf("%s by %+v: %v", name, caller, err)
			}
			var denied ErrDenied
			if err != nil && !errors.As(err, &denied) && (caller != Caller{} || !errors.Is(err, ErrUnknown)) {
				t.Errorf("%s by %+v: %v of type %T", name, caller, err, err)
			}
		}
	}
}

func TestSpeaksFor(t *testing.T) {
	for _, c := range []struct {
		caller Caller
		want   bool
	}{
		{Caller{Host: "node1"}, true}, {Caller{Host: "node2"}, false}, {Caller{Role: Admin}, true},
		{Caller{Role: Operator}, false}, {Caller{}, false}, {Caller{Role: Admin, Host: "node2"}, false},
	} {
		if got := c.caller.SpeaksFor("node1"); got != c.want {
			t.Errorf("%+v speaks for node1: %v", c.caller, got)
		}
	}
}

func TestRoles(t *testing.T) {
	for _, r := range []Role{Viewer, Operator, Admin} {
		if got, err := ParseRole(r.String()); got != r || err != nil {
			t.Errorf("%v: %v, %v", r, got, err)
		}
	}
	for _, s := range []string{"", "root", "Admin"} {
		if r, err := ParseRole(s); err == nil {
			t.Errorf("%q is the role %v", s, r)
		}
	}
}
