// Package domainxml reads what a libvirt definition of a VM asks for, and writes
// into it whose VM it is. What a host can run, that host's libvirt tells.
package domainxml

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/gnomon-vm/gnomon"
)

// Namespace is the XML namespace of gnomon's element in a definition's metadata:
// either
//
//	<gnomon:shadow for="UUID" account="NAME"/>
//
// on a shadow VM, where for="warm" is one that waits for its VM, or
//
//	<gnomon:account order="ID">NAME</gnomon:account>
//
// on an active VM; the order is there if it was deployed. libvirt keeps one
// element of a namespace only.
const Namespace = "https://gnomon.dev/xmlns/domain/1.0"

// OwnNamespace is that of the element in a running VM's metadata that tells which
// limits are its own, while gnomon has set others:
//
//	<own:limits cpu="2000" memory="1073741824" disk="unlimited" network="unlimited" vcpus="2">DETAIL</own:limits>
//
// CPU is in millicores, memory in bytes, the others are in bytes per second; the
// detail is the driver's. It is where the limits are, in the live definition, and
// goes with them.
const OwnNamespace = "https://gnomon.dev/xmlns/own/1.0"

// MaxBytes bounds a definition.
const MaxBytes = 256 << 10

// Definition is a definition that was read. It is never changed.
type Definition struct {
	Name string
	ID   gnomon.VMID // empty if libvirt is to choose one

	// Size is what the VM is given at its start, and Max what it may have: CPU
	// all its vCPUs, memory what it boots with and its maximum, in bytes.
	Size, Max gnomon.Resources

	// Account is whose VM it is, and Order what it was deployed by, where the
	// definition tells.
	Account, Order string

	text                       string
	nameAt, idAt, metadataAt   span
	ownAt                      []span // gnomon's elements in the metadata
	afterStart, metadataInside int
}

// span is where an element is in the text, its tags included.
type span struct{ from, to int }

func (s span) there() bool { return s.to > 0 }

// Problem is what is wrong with one part of a definition.
type Problem struct {
	Field string // such as "name" or "memory"
	Err   error
}

// Error implements error.
func (p *Problem) Error() string { return "definition: " + p.Field + ": " + p.Err.Error() }

// Unwrap returns what is wrong, without where.
func (p *Problem) Unwrap() error { return p.Err }

func problem(field, format string, args ...any) error {
	return &Problem{field, fmt.Errorf(format, args...)}
}

// The problems that callers tell apart.
var (
	ErrNoName   = errors.New("there is none: add <name>, or give the VM one")
	ErrNoMemory = errors.New("there is none: add <memory unit='MiB'>1024</memory>")
	ErrShadow   = errors.New("it is that of a shadow VM, which gnomon alone starts")
	ErrArgument = errors.New("arguments for QEMU (qemu:commandline) reach past libvirt, which a deployment may not")
)

var (
	nameText = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$`)
	idText   = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// CheckName returns an error for what no VM may be named.
func CheckName(name string) error {
	if name == "" {
		return &Problem{"name", ErrNoName}
	}
	if !nameText.MatchString(name) {
		return problem("name", "%q: want 1 to 63 letters, digits, dots, hyphens, underscores and plus signs, beginning with a letter or digit", shorten(name))
	}
	return nil
}

// Parse reads a definition. A name may be missing: CheckName tells whether one
// will do. The error is a Problem.
func Parse(text string) (*Definition, error) {
	if len(text) > MaxBytes {
		return nil, problem("size", "%d bytes: want at most %d", len(text), MaxBytes)
	}
	d := &Definition{text: text}
	r := reader{d: d, dec: decoder(text)}
	if err := r.read(); err != nil {
		return nil, err
	}
	return d, r.finish()
}

// Stamp is what a deployment writes into a definition.
type Stamp struct {
	Name    string
	ID      gnomon.VMID
	Account string // as the server knows it
	Order   string // names the deployment, so that repeating it is harmless
}

// Stamped returns the definition with the stamp in place of what it says of
// that. All else is as it was, to the byte.
func (d *Definition) Stamped(s Stamp) string {
	own := fmt.Sprintf(`<gnomon:account xmlns:gnomon="%s" order="%s">%s</gnomon:account>`, Namespace, escape(s.Order), escape(s.Account))
	var edits []edit
	replace := func(at span, with string) {
		if !at.there() {
			at = span{d.afterStart, d.afterStart}
		}
		edits = append(edits, edit{at, with})
	}
	replace(d.nameAt, "<name>"+escape(s.Name)+"</name>")
	replace(d.idAt, "<uuid>"+escape(string(s.ID))+"</uuid>")
	for _, at := range d.ownAt {
		replace(at, "")
	}
	if d.metadataInside > 0 {
		replace(span{d.metadataInside, d.metadataInside}, own)
	} else {
		replace(d.metadataAt, "<metadata>"+own+"</metadata>")
	}
	return apply(d.text, edits)
}

func shorten(s string) string {
	const enough = 80
	if len(s) > enough {
		return strings.ToValidUTF8(s[:enough], "") + "…"
	}
	return s
}
