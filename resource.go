package gnomon

import (
	"encoding/json"
	"fmt"
	"iter"
	"strings"
)

// Resource is one of the kinds of capacity that gnomon manages.
type Resource uint8

// The resources, each with the unit of its amounts.
const (
	CPU     Resource = iota // millicores: thousandths of one core
	Memory                  // bytes
	Disk                    // bytes per second, reads and writes together
	Network                 // bytes per second, both directions together

	NumResources = iota
)

var resourceTable = [NumResources]struct{ name, unit string }{
	CPU:     {"cpu", "millicores"},
	Memory:  {"memory", "bytes"},
	Disk:    {"disk", "bytes/s"},
	Network: {"network", "bytes/s"},
}

// AllResources returns every resource, in a fixed order.
func AllResources() iter.Seq[Resource] {
	return func(yield func(Resource) bool) {
		for r := range Resource(NumResources) {
			if !yield(r) {
				return
			}
		}
	}
}

// Valid reports whether r is one of the known resources.
func (r Resource) Valid() bool { return r < NumResources }

// String returns the resource's name, as used in configuration and labels.
func (r Resource) String() string {
	if !r.Valid() {
		return fmt.Sprintf("resource(%d)", uint8(r))
	}
	return resourceTable[r].name
}

// Unit returns the unit of the resource's amounts.
func (r Resource) Unit() string {
	if !r.Valid() {
		return "unknown"
	}
	return resourceTable[r].unit
}

// ParseResource returns the resource of that name.
func ParseResource(name string) (Resource, error) {
	names := make([]string, 0, NumResources)
	for r := range AllResources() {
		if r.String() == name {
			return r, nil
		}
		names = append(names, r.String())
	}
	return 0, fmt.Errorf("unknown resource %q: want one of %s", name, strings.Join(names, ", "))
}

// MarshalText encodes the resource as its name.
func (r Resource) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText decodes a resource's name.
func (r *Resource) UnmarshalText(b []byte) error {
	v, err := ParseResource(string(b))
	if err == nil {
		*r = v
	}
	return err
}

// Resources is an amount of each resource, indexed by Resource.
type Resources [NumResources]int64

// Add returns the sum of r and o, resource by resource.
func (r Resources) Add(o Resources) Resources {
	for i := range r {
		r[i] += o[i]
	}
	return r
}

// Sub returns r less o, resource by resource.
func (r Resources) Sub(o Resources) Resources {
	for i := range r {
		r[i] -= o[i]
	}
	return r
}

// MarshalJSON encodes the amounts as an object keyed by resource name.
func (r Resources) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	for i := range AllResources() {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		b.WriteByte(sep)
		fmt.Fprintf(&b, "%q:%d", i.String(), r[i])
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

// UnmarshalJSON decodes an object keyed by resource name; absent ones are 0.
func (r *Resources) UnmarshalJSON(b []byte) error {
	var m map[Resource]int64
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("decode resources: %w", err)
	}
	*r = Resources{}
	for k, v := range m {
		r[k] = v
	}
	return nil
}

// ResourceSet is a set of resources.
type ResourceSet uint8

// SetOf returns the set of the given resources.
func SetOf(rs ...Resource) ResourceSet {
	var s ResourceSet
	for _, r := range rs {
		s |= 1 << r
	}
	return s
}

// Has reports whether r is in the set.
func (s ResourceSet) Has(r Resource) bool { return r.Valid() && s&(1<<r) != 0 }

// With returns the set with r added.
func (s ResourceSet) With(r Resource) ResourceSet { return s | 1<<r }

// Without returns the set with r removed.
func (s ResourceSet) Without(r Resource) ResourceSet { return s &^ (1 << r) }
