package server

import (
	"encoding/base64"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

const (
	defaultPage = 1000
	maxPage     = 10_000
)

// pageSize reads the size of a page.
func pageSize(asked int32, byDefault int) (int, error) {
	switch {
	case asked < 0 || asked > maxPage:
		return 0, refuseField("page_size", "page_size %d: want 0 to %d", asked, maxPage)
	case asked == 0:
		return byDefault, nil
	}
	return int(asked), nil
}

// pageOf returns the names of one page, of all in order, and the token of the
// next.
func pageOf(names []string, size int32, token string) (page []string, next string, err error) {
	n, err := pageSize(size, defaultPage)
	if err != nil {
		return nil, "", err
	}
	after, err := lastOf(token)
	if err != nil {
		return nil, "", err
	}
	i, found := slices.BinarySearch(names, after)
	if found {
		i++
	}
	page = names[i:]
	if len(page) > n {
		page = page[:n]
		next = tokenOf(page[n-1])
	}
	return page, next, nil
}

// tokenOf makes the token of the page after a name: it holds, whatever comes
// and goes.
func tokenOf(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }

func lastOf(token string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", refuseField("page_token", "page_token %q: want one that a list returned", shorten(token))
	}
	return string(b), nil
}

// checkMask refuses a mask with paths that a message does not have.
func checkMask(field string, m proto.Message, mask *fieldmaskpb.FieldMask) error {
	fields := m.ProtoReflect().Descriptor().Fields()
	for _, path := range mask.GetPaths() {
		if path != "*" && fields.ByName(protoreflect.Name(path)) == nil {
			return refuseField(field, "%s: %s has no field %q", field, m.ProtoReflect().Descriptor().Name(), shorten(path))
		}
	}
	return nil
}

// masked clears what is not in the mask but the key. Without paths it clears
// nothing.
func masked(m proto.Message, mask *fieldmaskpb.FieldMask, keys ...string) {
	paths := mask.GetPaths()
	if len(paths) == 0 || slices.Contains(paths, "*") {
		return
	}
	r := m.ProtoReflect()
	r.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if name := string(f.Name()); !slices.Contains(paths, name) && !slices.Contains(keys, name) {
			r.Clear(f)
		}
		return true
	})
}
