package domainxml

import (
	"cmp"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/gnomon-vm/gnomon"
)

// maxVCPUs is more than any host has.
const maxVCPUs = 4096

// qemuNamespace is that of what libvirt hands to QEMU unread.
const qemuNamespace = "http://libvirt.org/schemas/domain/qemu/1.0"

func decoder(text string) *xml.Decoder { return xml.NewDecoder(strings.NewReader(text)) }

// reader goes through a definition once.
type reader struct {
	d   *Definition
	dec *xml.Decoder

	seen          map[string]bool
	vcpus, online int64
	memory, now   int64
}

// element is a small part of a definition that is read whole.
type element struct {
	Unit    string `xml:"unit,attr"`
	Current string `xml:"current,attr"`
	Order   string `xml:"order,attr"`
	Text    string `xml:",chardata"`
}

// at is where the decoder stands.
func (r *reader) at() int { return int(r.dec.InputOffset()) }

func (r *reader) read() error {
	r.seen = map[string]bool{}
	for {
		token, err := r.dec.Token()
		if errors.Is(err, io.EOF) {
			return problem("xml", "there is no <domain>")
		}
		if err != nil {
			return problem("xml", "%w", err)
		}
		if start, ok := token.(xml.StartElement); ok {
			if start.Name.Local != "domain" {
				return problem("xml", "it is a <%s>: want a <domain>", shorten(start.Name.Local))
			}
			if err := r.checkType(start); err != nil {
				return err
			}
			r.d.afterStart = r.at()
			if strings.HasSuffix(r.d.text[:r.d.afterStart], "/>") {
				return problem("xml", "the <domain> is empty")
			}
			return r.children(r.child)
		}
	}
}

func (r *reader) checkType(start xml.StartElement) error {
	for _, a := range start.Attr {
		if a.Name.Local == "type" && (a.Value == "kvm" || a.Value == "qemu") {
			return nil
		}
	}
	return problem("type", "want <domain type='kvm'> or <domain type='qemu'>")
}

// children calls f with each element inside the one whose start was read last.
// f has to read it to its end.
func (r *reader) children(f func(start xml.StartElement, from int) error) error {
	for {
		from := r.at()
		token, err := r.dec.Token()
		if err != nil {
			return problem("xml", "%w", err)
		}
		switch t := token.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			if err := f(t, from); err != nil {
				return err
			}
		}
	}
}

func (r *reader) child(start xml.StartElement, from int) error {
	name := start.Name.Local
	if start.Name.Space == qemuNamespace {
		return &Problem{"qemu:" + name, ErrArgument}
	}
	switch name {
	case "name", "uuid", "memory", "currentMemory", "vcpu", "metadata":
		if r.seen[name] {
			return problem(name, "it is there twice")
		}
		r.seen[name] = true
	}
	if name == "metadata" {
		return r.metadata(from)
	}
	switch name {
	case "name", "uuid", "memory", "currentMemory", "vcpu":
	default:
		return wrapXML(r.dec.Skip())
	}
	var e element
	if err := r.dec.DecodeElement(&e, &start); err != nil {
		return problem("xml", "%w", err)
	}
	return r.take(name, e, span{from, r.at()})
}

func wrapXML(err error) error {
	if err != nil {
		return problem("xml", "%w", err)
	}
	return nil
}

func (r *reader) take(name string, e element, at span) (err error) {
	text := strings.TrimSpace(e.Text)
	switch name {
	case "name":
		r.d.Name, r.d.nameAt = text, at
		if text != "" {
			err = CheckName(text)
		}
	case "uuid":
		r.d.ID, r.d.idAt = gnomon.VMID(strings.ToLower(text)), at
		if !idText.MatchString(string(r.d.ID)) {
			err = problem("uuid", "%q: want one like 4dea22b3-1d52-d8f3-2516-782e98ab3fa0", shorten(text))
		}
	case "memory":
		r.memory, err = bytes(name, text, e.Unit)
	case "currentMemory":
		r.now, err = bytes(name, text, e.Unit)
	case "vcpu":
		if r.vcpus, err = vcpus(text); err == nil && e.Current != "" {
			r.online, err = vcpus(e.Current)
		}
	}
	return err
}

// metadata finds gnomon's own elements.
func (r *reader) metadata(from int) error {
	inside := r.at()
	empty := strings.HasSuffix(r.d.text[:inside], "/>")
	err := r.children(func(start xml.StartElement, from int) error {
		if start.Name.Space != Namespace {
			return wrapXML(r.dec.Skip())
		}
		if start.Name.Local == "shadow" {
			return &Problem{"metadata", ErrShadow}
		}
		var e element
		if err := r.dec.DecodeElement(&e, &start); err != nil {
			return problem("xml", "%w", err)
		}
		r.d.ownAt = append(r.d.ownAt, span{from, r.at()})
		r.d.Account, r.d.Order = strings.TrimSpace(e.Text), e.Order
		return nil
	})
	r.d.metadataAt = span{from, r.at()}
	if !empty {
		r.d.metadataInside = inside
	}
	return err
}

// finish reads the rest and checks the sizes against each other.
func (r *reader) finish() error {
	for {
		token, err := r.dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return problem("xml", "%w", err)
		}
		if _, ok := token.(xml.StartElement); ok {
			return problem("xml", "there is more after the <domain>")
		}
	}
	if r.memory == 0 {
		return &Problem{"memory", ErrNoMemory}
	}
	now, vcpus := cmp.Or(r.now, r.memory), cmp.Or(r.vcpus, 1)
	if now > r.memory {
		return problem("currentMemory", "%s: want at most its memory, %s", gnomon.Format(gnomon.Memory, now), gnomon.Format(gnomon.Memory, r.memory))
	}
	online := cmp.Or(r.online, vcpus)
	if online > vcpus {
		return problem("vcpu", "%d current: want at most all of them, %d", online, vcpus)
	}
	r.d.Max = gnomon.Resources{gnomon.CPU: vcpus * 1000, gnomon.Memory: r.memory}
	r.d.Size = gnomon.Resources{gnomon.CPU: online * 1000, gnomon.Memory: now}
	return nil
}

func vcpus(text string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 1 || n > maxVCPUs {
		return 0, problem("vcpu", "%q: want 1 to %d", shorten(text), maxVCPUs)
	}
	return n, nil
}

// units are libvirt's: those of one letter, and of one with iB, are binary.
var units = map[string]int64{
	"b": 1, "bytes": 1, "": 1 << 10, "k": 1 << 10, "KiB": 1 << 10, "KB": 1e3,
	"M": 1 << 20, "MiB": 1 << 20, "MB": 1e6, "G": 1 << 30, "GiB": 1 << 30, "GB": 1e9,
	"T": 1 << 40, "TiB": 1 << 40, "TB": 1e12,
}

func bytes(field, text, unit string) (int64, error) {
	size, ok := units[unit]
	if !ok {
		return 0, problem(field, "unknown unit %q: want KiB, MiB, GiB or TiB", shorten(unit))
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil && n == 0 {
		return 0, &Problem{field, ErrNoMemory}
	}
	if err != nil || n < 0 || n > math.MaxInt64/size {
		return 0, problem(field, "%q: want a whole number of more than 0", shorten(text))
	}
	return n * size, nil
}

// edit puts a text in place of a part.
type edit struct {
	at   span
	with string
}

// apply makes edits that do not overlap; those at one place in the order given.
func apply(text string, edits []edit) string {
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Or(cmp.Compare(a.at.from, b.at.from), cmp.Compare(a.at.to, b.at.to)) })
	var b strings.Builder
	done := 0
	for _, e := range edits {
		b.WriteString(text[done:e.at.from])
		b.WriteString(e.with)
		done = e.at.to
	}
	b.WriteString(text[done:])
	return b.String()
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a builder takes everything
	return b.String()
}
