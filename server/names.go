package server

import (
	"maps"
	"regexp"
	"slices"
	"unicode"
	"unicode/utf8"
)

var (
	label    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
	uuid     = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

func checkAccountName(name string) error {
	if !label.MatchString(name) {
		return refuseField("name", "account name %q: want 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends", shorten(name))
	}
	return nil
}

func checkHostName(name string) error {
	if !hostName.MatchString(name) {
		return refuseField("host", "host name %q: want 1 to 253 letters, digits, dots, hyphens and underscores, with a letter or digit at both ends", shorten(name))
	}
	return nil
}

// maxText bounds names and ids that hosts report, in bytes.
const maxText = 255

// checkText refuses what cannot be shown or stored. Field names it.
func checkText(field, s string, optional bool) error {
	ok := len(s) <= maxText && utf8.ValidString(s) && (optional || s != "")
	for _, c := range s {
		ok = ok && unicode.IsPrint(c)
	}
	if !ok {
		return refuseField(field, "%s %q: want at most %d bytes of printable text", field, shorten(s), maxText)
	}
	return nil
}

// maxLabels is how many labels a host has, or is to have, at most.
const maxLabels = 64

var labelText = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$`)

func checkLabels(field string, labels map[string]string) error {
	if len(labels) > maxLabels {
		return refuseField(field, "%s: %d labels, want at most %d", field, len(labels), maxLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		for _, text := range []string{key, labels[key]} {
			if !labelText.MatchString(text) {
				return refuseField(field, "%s: %q: want 1 to 63 letters, digits, dots, slashes, hyphens and underscores, with a letter or digit at both ends", field, shorten(text))
			}
		}
	}
	return nil
}

func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
