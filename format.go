package gnomon

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// maxAmount bounds what ParseAmount accepts: the integers a float64 holds
// exactly, more than any machine has of anything.
const maxAmount = 1 << 53

type unit struct {
	suffix string
	scale  float64
}

var (
	binaryUnits  = []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
	decimalUnits = []unit{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}}
	bitUnits     = []unit{{"Gbit", 1e9 / 8}, {"Mbit", 1e6 / 8}, {"kbit", 1e3 / 8}}
)

// Format returns an amount of r for people to read, rounded: "0.62 cores",
// "256 MiB", "1.2 MB/s"; Unlimited is "unlimited". ParseAmount reads it back.
func Format(r Resource, amount int64) string {
	if amount == Unlimited {
		return "unlimited"
	}
	switch r {
	case CPU:
		cores := float64(amount) / 1000
		if amount == 1000 {
			return "1 core"
		}
		return round(cores, 3) + " cores"
	case Memory:
		return scaled(amount, binaryUnits)
	case Disk, Network:
		return scaled(amount, decimalUnits) + "/s"
	}
	return strconv.FormatInt(amount, 10)
}

func scaled(amount int64, units []unit) string {
	v := float64(amount)
	for _, u := range units {
		if math.Abs(v) >= u.scale {
			return round(v/u.scale, 2) + " " + u.suffix
		}
	}
	return strconv.FormatInt(amount, 10) + " B"
}

// round returns v with that many decimals below ten, one less from ten on and
// none from a hundred on, without trailing zeros.
func round(v float64, decimals int) string {
	switch abs := math.Abs(v); {
	case abs >= 100:
		decimals = 0
	case abs >= 1:
		decimals = min(decimals, 2)
		if abs >= 10 {
			decimals = 1
		}
	}
	s := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// ParseAmount reads an amount of r, 0 or more: for CPU "500m", "0.5" or
// "2 cores"; for memory "256MiB", "1GB" or bytes; for disk and network
// "1MB/s", "1MiB/s", for network also "100Mbit/s", or bytes per second.
// Fractions of the resource's unit are rounded.
func ParseAmount(r Resource, text string) (int64, error) {
	units := unitsOf(r)
	if units == nil {
		return 0, fmt.Errorf("unknown resource %v", r)
	}
	number, suffix := split(text)
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || number == "" {
		return 0, fmt.Errorf("%s amount %q: want a number 0 or more with an optional unit, such as %s", r, text, example(r))
	}
	for _, u := range units {
		if !strings.EqualFold(suffix, u.suffix) || u.suffix == "m" && suffix != "m" {
			continue
		}
		v *= u.scale
		if v > maxAmount {
			return 0, fmt.Errorf("%s amount %q: too large", r, text)
		}
		return int64(math.Round(v)), nil
	}
	return 0, fmt.Errorf("%s amount %q: unknown unit %q, want for example %s", r, text, suffix, example(r))
}

// split separates the leading decimal number from the unit after it.
func split(text string) (number, suffix string) {
	text = strings.TrimSpace(text)
	end := strings.IndexFunc(text, func(c rune) bool { return (c < '0' || c > '9') && c != '.' })
	if end < 0 {
		return text, ""
	}
	return text[:end], strings.TrimSpace(text[end:])
}

func unitsOf(r Resource) []unit {
	switch r {
	case CPU:
		return []unit{{"", 1000}, {"m", 1}, {"core", 1000}, {"cores", 1000}}
	case Memory:
		return append(append([]unit{{"", 1}, {"B", 1}}, binaryUnits...), decimalUnits...)
	case Disk, Network:
		units := []unit{{"", 1}, {"B/s", 1}}
		for _, u := range append(append([]unit{}, binaryUnits...), decimalUnits...) {
			units = append(units, unit{u.suffix + "/s", u.scale})
		}
		if r == Network {
			for _, u := range bitUnits {
				units = append(units, unit{u.suffix + "/s", u.scale})
			}
		}
		return units
	}
	return nil
}

func example(r Resource) string {
	switch r {
	case CPU:
		return "500m or 0.5"
	case Memory:
		return "256MiB"
	}
	return "1MB/s"
}

// FormatLabels returns labels for people to read, in order: "disk=ssd,zone=a"; or
// "none".
func FormatLabels(labels map[string]string) string {
	if len(labels) == 0 {
		return "none"
	}
	parts := make([]string, 0, len(labels))
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, key+"="+labels[key])
	}
	return strings.Join(parts, ",")
}
