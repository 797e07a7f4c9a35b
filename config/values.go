package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gnomon-vm/gnomon"
)

// maxValueLength bounds the length of a value, in bytes.
const maxValueLength = 512

// copier copies one parameter.
func copier[T any](field func(*Parameters) *T) func(from, to *Parameters) {
	return func(from, to *Parameters) { *field(to) = *field(from) }
}

func boolean(field func(*Parameters) *bool) codec {
	return codec{
		copy: copier(field),
		read: func(text string, p *Parameters) error {
			if text != "true" && text != "false" {
				return errors.New("want true or false")
			}
			*field(p) = text == "true"
			return nil
		},
		write: func(p *Parameters) string { return strconv.FormatBool(*field(p)) },
	}
}

func choice[S ~string](field func(*Parameters) *S, choices ...S) codec {
	return codec{
		copy: copier(field),
		read: func(text string, p *Parameters) error {
			for _, c := range choices {
				if text == string(c) {
					*field(p) = c
					return nil
				}
			}
			return errors.New("want " + orList(choices))
		},
		write: func(p *Parameters) string { return string(*field(p)) },
	}
}

// orList joins names as "a, b or c".
func orList[S ~string](names []S) string {
	var b strings.Builder
	for i, n := range names {
		switch {
		case i == 0:
		case i == len(names)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(n))
	}
	return b.String()
}

func number(lo, hi float64, field func(*Parameters) *float64) codec {
	return codec{
		copy: copier(field),
		read: func(text string, p *Parameters) error {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || !(v >= lo && v <= hi) {
				return fmt.Errorf("want a number from %v to %v", lo, hi)
			}
			*field(p) = v
			return nil
		},
		write: func(p *Parameters) string { return strconv.FormatFloat(*field(p), 'g', -1, 64) },
	}
}

func integer(lo, hi int64, field func(*Parameters) *int64) codec {
	return codec{
		copy: copier(field),
		read: func(text string, p *Parameters) error {
			v, err := strconv.ParseInt(text, 10, 64)
			if err != nil || v < lo || v > hi {
				return fmt.Errorf("want a whole number from %d to %d", lo, hi)
			}
			*field(p) = v
			return nil
		},
		write: func(p *Parameters) string { return strconv.FormatInt(*field(p), 10) },
	}
}

// bytes is a number of bytes within bounds, or 0.
func bytes(lo, hi int64, field func(*Parameters) *int64) codec {
	return codec{
		copy: copier(field),
		read: func(text string, p *Parameters) error {
			v, err := gnomon.ParseAmount(gnomon.Memory, text)
			if err != nil || v != 0 && (v < lo || v > hi) {
				return fmt.Errorf("want 0, or bytes from %s to %s", exact(gnomon.Memory, lo), exact(gnomon.Memory, hi))
			}
			*field(p) = v
			return nil
		},
		write: func(p *Parameters) string { return exact(gnomon.Memory, *field(p)) },
	}
}

func duration(lo, hi time.Duration, field func(*Parameters) *time.Duration) codec {
	return codec{
		copy: copier(field),
		read: func(text string, p *Parameters) error {
			d, err := ParseDuration(text)
			if err != nil {
				return fmt.Errorf("%w, from %s to %s", err, FormatDuration(lo), FormatDuration(hi))
			}
			if d < lo || d > hi {
				return fmt.Errorf("want a duration from %s to %s", FormatDuration(lo), FormatDuration(hi))
			}
			*field(p) = d
			return nil
		},
		write: func(p *Parameters) string { return FormatDuration(*field(p)) },
	}
}

// ParseDuration reads a duration, 0 or more, as time.ParseDuration does, and
// before it weeks and days: "500ms", "1h30m", "15d", "2w", "1d12h".
func ParseDuration(text string) (time.Duration, error) {
	wrong := errors.New("want a duration with a unit, such as 500ms, 10s, 1h30m, 15d or 2w")
	var total time.Duration
	rest, found := text, false
	for _, u := range []struct {
		suffix string
		length time.Duration
	}{{"w", 7 * day}, {"d", day}} {
		digits, after, ok := strings.Cut(rest, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || n > uint64((math.MaxInt64-int64(total))/int64(u.length)) {
			return 0, wrong
		}
		total += time.Duration(n) * u.length
		rest, found = after, true
	}
	if rest == "" && found {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || total > math.MaxInt64-d || strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
		return 0, wrong
	}
	return total + d, nil
}

// FormatDuration writes a duration, 0 or more, in the shortest form that
// ParseDuration reads back to exactly the same.
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	var b strings.Builder
	if d >= day {
		fmt.Fprintf(&b, "%dd", d/day)
		d %= day
	}
	if d > 0 {
		s := d.String()
		if strings.HasSuffix(s, "m0s") {
			s = strings.TrimSuffix(s, "0s")
		}
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
		b.WriteString(s)
	}
	return b.String()
}

func percent(lo, hi int64, field func(*Parameters) *int64) codec {
	return codec{
		copy: copier(field),
		read: func(text string, p *Parameters) error {
			v, err := parsePercent(text, lo, hi)
			if err != nil {
				return err
			}
			*field(p) = v
			return nil
		},
		write: func(p *Parameters) string { return strconv.FormatInt(*field(p), 10) + "%" },
	}
}

func parsePercent(text string, lo, hi int64) (int64, error) {
	digits, ok := strings.CutSuffix(text, "%")
	v, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if !ok || err != nil || v < lo || v > hi {
		return 0, fmt.Errorf("want whole percents from %d%% to %d%%", lo, hi)
	}
	return v, nil
}

// assignments calls set for each part of "cpu=…,memory=…". An empty text has
// none.
func assignments(text, example string, set func(r gnomon.Resource, value string) error) error {
	var seen gnomon.ResourceSet
	for part := range strings.SplitSeq(text, ",") {
		if text == "" {
			return nil
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return fmt.Errorf("want RESOURCE=AMOUNT joined by commas, such as %s", example)
		}
		r, err := gnomon.ParseResource(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		if seen.Has(r) {
			return fmt.Errorf("%s is given twice", r)
		}
		seen = seen.With(r)
		if err := set(r, strings.TrimSpace(value)); err != nil {
			return err
		}
	}
	return nil
}

// amounts is a value for some of the resources. Sparse ones are 0 where nothing
// is said, and are written without those.
func amounts(sparse bool, field func(*Parameters) *gnomon.Resources) codec {
	return codec{
		copy: copier(field),
		read: func(text string, p *Parameters) error {
			v := *field(p)
			err := assignments(text, "cpu=500m,memory=256MiB,disk=10MB/s,network=10MB/s", func(r gnomon.Resource, s string) (err error) {
				v[r], err = gnomon.ParseAmount(r, s)
				return err
			})
			if err == nil {
				*field(p) = v
			}
			return err
		},
		write: func(p *Parameters) string {
			return join(*field(p), sparse, exact)
		},
	}
}

// aboveNothing refuses amounts of 0, where that would read as nothing at all and
// mean no bound.
func aboveNothing(of codec) codec {
	read := of.read
	of.read = func(text string, p *Parameters) error {
		err := assignments(text, "cpu=8,memory=32GiB", func(r gnomon.Resource, s string) error {
			if v, err := gnomon.ParseAmount(r, s); err == nil && v == 0 {
				return fmt.Errorf("%s: want an amount above 0; leave it out for no bound", r)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return read(text, p)
	}
	return of
}

func percents(lo, hi int64, field func(*Parameters) *gnomon.Resources) codec {
	return codec{
		copy: copier(field),
		read: func(text string, p *Parameters) error {
			v := *field(p)
			err := assignments(text, "cpu=200%,memory=100%", func(r gnomon.Resource, s string) (err error) {
				v[r], err = parsePercent(s, lo, hi)
				if err != nil {
					return fmt.Errorf("%s: %w", r, err)
				}
				return nil
			})
			if err == nil {
				*field(p) = v
			}
			return err
		},
		write: func(p *Parameters) string {
			return join(*field(p), false, func(_ gnomon.Resource, v int64) string { return strconv.FormatInt(v, 10) + "%" })
		},
	}
}

// join writes amounts as "cpu=…,memory=…", sparse ones without those that are 0.
func join(v gnomon.Resources, sparse bool, format func(gnomon.Resource, int64) string) string {
	var parts []string
	for r := range gnomon.AllResources() {
		if v[r] != 0 || !sparse {
			parts = append(parts, r.String()+"="+format(r, v[r]))
		}
	}
	return strings.Join(parts, ",")
}

// The bounds of a shadow VM's size: below, its kernel does not boot or the
// agent starves.
const (
	minShadowCPU, maxShadowCPU       = 10, 16_000
	minShadowMemory, maxShadowMemory = 80 << 20, 16 << 30
)

func size(field func(*Parameters) *Size) codec {
	return codec{
		copy: copier(field),
		read: func(text string, p *Parameters) error {
			v := *field(p)
			err := assignments(text, "cpu=100m,memory=96MiB", func(r gnomon.Resource, s string) error {
				return v.set(r, s)
			})
			if err == nil {
				*field(p) = v
			}
			return err
		},
		write: func(p *Parameters) string {
			v := *field(p)
			return "cpu=" + exact(gnomon.CPU, v.CPU) + ",memory=" + exact(gnomon.Memory, v.Memory)
		},
	}
}

func (z *Size) set(r gnomon.Resource, text string) error {
	if r != gnomon.CPU && r != gnomon.Memory {
		return fmt.Errorf("a shadow has no %s: want cpu and memory only", r)
	}
	v, err := gnomon.ParseAmount(r, text)
	if err != nil {
		return err
	}
	if r == gnomon.CPU {
		if v < minShadowCPU || v > maxShadowCPU {
			return errors.New("want cpu from 10m to 16 cores")
		}
		z.CPU = v
		return nil
	}
	if v < minShadowMemory || v > maxShadowMemory {
		return errors.New("want memory from 80MiB to 16GiB")
	}
	z.Memory = v
	return nil
}

// exact writes an amount without rounding, in the largest unit that divides it.
func exact(r gnomon.Resource, v int64) string {
	type unit struct {
		suffix string
		scale  int64
	}
	var units []unit
	switch r {
	case gnomon.CPU:
		if v%1000 == 0 {
			return strconv.FormatInt(v/1000, 10)
		}
		return strconv.FormatInt(v, 10) + "m"
	case gnomon.Memory:
		units = []unit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
	case gnomon.Disk, gnomon.Network:
		units = []unit{{"GB/s", 1e9}, {"MB/s", 1e6}, {"kB/s", 1e3}}
	}
	for _, u := range units {
		if v != 0 && v%u.scale == 0 {
			return strconv.FormatInt(v/u.scale, 10) + u.suffix
		}
	}
	return strconv.FormatInt(v, 10)
}
