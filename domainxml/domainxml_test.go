package domainxml

import (
	"errors"
	"strings"
	"testing"

	"github.com/gnomon-vm/gnomon"
)

const mib = 1 << 20

const full = `<?xml version="1.0"?>
<!-- a web server -->
<domain type='kvm' id="3">
  <name>web-1</name> <uuid>4DEA22B3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  <metadata>
    <app:x xmlns:app="urn:x"><app:account>no</app:account></app:x>
    <gnomon:account xmlns:gnomon="https://gnomon.dev/xmlns/domain/1.0" order="o1"> acme </gnomon:account>
  </metadata>
  <memory unit='GiB'>2</memory><currentMemory unit="MB">512</currentMemory>
  <vcpu placement="static" current="2">4</vcpu>
  <devices><disk><name>not this</name></disk></devices>
</domain>
`

func TestParse(t *testing.T) {
	d, err := Parse(full)
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "web-1" || d.ID != "4dea22b3-1d52-d8f3-2516-782e98ab3fa0" || d.Account != "acme" || d.Order != "o1" {
		t.Errorf("got %+v", d)
	}
	if want := (gnomon.Resources{gnomon.CPU: 2000, gnomon.Memory: 512_000_000}); d.Size != want {
		t.Errorf("size %v, want %v", d.Size, want)
	}
	if want := (gnomon.Resources{gnomon.CPU: 4000, gnomon.Memory: 2048 * mib}); d.Max != want {
		t.Errorf("maximum %v, want %v", d.Max, want)
	}
	small, err := Parse(`<domain type="qemu"><memory>1024</memory></domain>`)
	if err != nil || small.Name != "" || small.Size != (gnomon.Resources{gnomon.CPU: 1000, gnomon.Memory: mib}) {
		t.Errorf("got %+v, %v", small, err)
	}
}

func TestParseRefuses(t *testing.T) {
	with := func(inside string) string {
		return `<domain type="kvm"><name>a</name><memory>1024</memory>` + inside + `</domain>`
	}
	for name, c := range map[string]struct {
		text, field string
		err         error
		says        string
	}{
		"nothing":             {"", "xml", nil, "no <domain>"},
		"no XML":              {"memory: 4G", "xml", nil, "no <domain>"},
		"another document":    {"<network/>", "xml", nil, "<network>: want a <domain>"},
		"cut off":             {`<domain type="kvm"><name>a`, "xml", nil, "EOF"},
		"empty":               {`<domain type="kvm"/>`, "xml", nil, "empty"},
		"two":                 {with("") + with(""), "xml", nil, "more after"},
		"another hypervisor":  {`<domain type="xen"><memory>1</memory></domain>`, "type", nil, "want <domain type='kvm'>"},
		"no hypervisor":       {`<domain><memory>1</memory></domain>`, "type", nil, "kvm"},
		"no memory":           {`<domain type="kvm"><name>a</name></domain>`, "memory", ErrNoMemory, "add <memory"},
		"none at all":         {`<domain type="kvm"><memory>0</memory></domain>`, "memory", ErrNoMemory, "add <memory"},
		"a word":              {`<domain type="kvm"><memory>much</memory></domain>`, "memory", nil, `"much"`},
		"more than there are": {`<domain type="kvm"><memory unit="TiB">9999999999</memory></domain>`, "memory", nil, "whole number"},
		"an unknown unit":     {`<domain type="kvm"><memory unit="PB">1</memory></domain>`, "memory", nil, `"PB"`},
		"more than its most":  {with(`<currentMemory unit="MiB">2</currentMemory>`), "currentMemory", nil, "want at most its memory, 1 MiB"},
		"a name of two words": {`<domain type="kvm"><name>a b</name><memory>1</memory></domain>`, "name", nil, `"a b"`},
		"two names":           {with("<name>b</name>"), "name", nil, "twice"},
		"a bad id":            {with("<uuid>7</uuid>"), "uuid", nil, `"7"`},
		"no vCPU":             {with("<vcpu>0</vcpu>"), "vcpu", nil, "want 1 to"},
		"too many current":    {with(`<vcpu current="3">2</vcpu>`), "vcpu", nil, "3 current"},
		"a shadow":            {with(`<metadata><s:shadow xmlns:s="` + Namespace + `" for="warm"/></metadata>`), "metadata", ErrShadow, "shadow"},
		"arguments for QEMU":  {with(`<q:commandline xmlns:q="` + qemuNamespace + `"><q:arg value="-s"/></q:commandline>`), "qemu:commandline", ErrArgument, "past libvirt"},
		"too much":            {with("<!--" + strings.Repeat(" ", MaxBytes) + "-->"), "size", nil, "want at most"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(c.text)
			var p *Problem
			if !errors.As(err, &p) || p.Field != c.field || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want one of %s with %q", err, c.field, c.says)
			}
		})
	}
	if err := CheckName(""); !errors.Is(err, ErrNoName) {
		t.Errorf("no name: %v", err)
	}
}

var stamp = Stamp{Name: "db-<2>", ID: "00000000-1111-2222-3333-444444444444", Account: "be&ta", Order: `o"2`}

func TestStamped(t *testing.T) {
	d, err := Parse(full)
	if err != nil {
		t.Fatal(err)
	}
	own := `<gnomon:account xmlns:gnomon="https://gnomon.dev/xmlns/domain/1.0" order="o&#34;2">be&amp;ta</gnomon:account>`
	want := strings.NewReplacer(
		`<name>web-1</name>`, `<name>db-&lt;2&gt;</name>`,
		`<uuid>4DEA22B3-1d52-d8f3-2516-782e98ab3fa0</uuid>`, `<uuid>00000000-1111-2222-3333-444444444444</uuid>`,
		`<gnomon:account xmlns:gnomon="https://gnomon.dev/xmlns/domain/1.0" order="o1"> acme </gnomon:account>`, ``,
		"<metadata>\n", "<metadata>"+own+"\n",
	).Replace(full)
	if got := d.Stamped(stamp); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever can be read can be stamped, and then says what was stamped and is
// otherwise as large as it was.
func FuzzStamped(f *testing.F) {
	for _, text := range []string{full, `<domain type="qemu"><memory>1024</memory></domain>`,
		`<domain type="kvm"><memory>1024</memory><metadata/></domain>`, `<domain type="kvm"><memory>1024</memory><metadata></metadata><name/></domain>`,
		`<domain type="kvm"><!-- <name>x</name> --><memory>1024</memory><uuid>00000000-1111-2222-3333-444444444444</uuid></domain>`} {
		f.Add(text)
	}
	s := stamp
	s.Name = "db-2"
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(d.Stamped(s))
		if err != nil && strings.Contains(err.Error(), "size") {
			return
		}
		if err != nil {
			t.Fatalf("%v in %s", err, d.Stamped(s))
		}
		if got := (Stamp{again.Name, again.ID, again.Account, again.Order}); got != s {
			t.Fatalf("it says %+v, want %+v", got, s)
		}
		if again.Size != d.Size || again.Max != d.Max {
			t.Fatalf("sizes %v %v, then %v %v", d.Size, d.Max, again.Size, again.Max)
		}
	})
}
