package pack

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const magic = "test"

// values is one of everything.
type values struct {
	i    int
	l    int64
	f, g float64
	list []float64
	raw  []byte
	text string
}

func (v *values) exchange(c *Codec) {
	c.Int(&v.i, -1000, 1000)
	c.Int64(&v.l, math.MinInt64, math.MaxInt64)
	c.Float(&v.f, -1e300, 1e300)
	c.FloatOrNaN(&v.g, 0, 1)
	c.Floats(&v.list, 50, -10, 1e18)
	c.Bytes(&v.raw, 100)
	c.Text(&v.text, 100)
}

func (v *values) sealed() []byte {
	c := NewWriter()
	v.exchange(c)
	return c.Seal(magic, 3)
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

func TestValuesComeBackExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.OneOf(rapid.Float64Range(-10, 1e18), rapid.Just(math.NaN()), rapid.Just(0.1))
		in := values{
			i: rapid.IntRange(-1000, 1000).Draw(t, "i"), l: rapid.Int64().Draw(t, "l"),
			f:    rapid.Float64Range(-1e300, 1e300).Draw(t, "f"),
			g:    rapid.OneOf(rapid.Float64Range(0, 1), rapid.Just(math.NaN())).Draw(t, "g"),
			list: rapid.SliceOfN(number, 0, 50).Draw(t, "list"),
			raw:  rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "raw"),
			text: rapid.StringN(0, 20, 100).Draw(t, "text"),
		}
		c, err := Open(magic, 3, in.sealed())
		if err != nil {
			t.Fatal(err)
		}
		var out values
		out.exchange(c)
		if err := c.End(); err != nil {
			t.Fatal(err)
		}
		if out.i != in.i || out.l != in.l || out.f != in.f || !same(out.g, in.g) || out.text != in.text ||
			!bytes.Equal(out.raw, in.raw) || !slices.EqualFunc(out.list, in.list, same) {
			t.Fatalf("got %+v, want %+v", out, in)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	good := (&values{text: "abc"}).sealed()
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for name, tc := range map[string]struct {
		magic   string
		version byte
		b       []byte
		want    string
	}{
		"nothing":       {magic, 3, nil, "0 bytes"},
		"only a header": {magic, 3, good[:headerSize-1], "bytes that do not begin"},
		"another magic": {"else", 3, good, "do not begin"},
		"newer":         {magic, 4, good, "version 3: want 4"},
		"cut":           {magic, 3, good[:len(good)-1], "checksum"},
		"damaged":       {magic, 3, flipped, "checksum"},
	} {
		if _, err := Open(tc.magic, tc.version, tc.b); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestReadingRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		write, read func(*Codec)
		want        string
	}{
		"an integer too large": {
			func(c *Codec) { v := 5; c.Int(&v, 0, 9) }, func(c *Codec) { v := 0; c.Int(&v, 0, 4) }, "5: want 0 to 4"},
		"a number too small": {
			func(c *Codec) { v := -1.5; c.Float(&v, -9, 9) }, func(c *Codec) { v := 0.0; c.Float(&v, 0, 4) }, "-1.5: want 0 to 4"},
		"no number": {
			func(c *Codec) { v := math.NaN(); c.FloatOrNaN(&v, 0, 1) }, func(c *Codec) { v := 0.0; c.Float(&v, 0, 1) }, "NaN"},
		"an infinite number": {
			func(c *Codec) { v := math.Inf(1); c.FloatOrNaN(&v, 0, 1) }, func(c *Codec) { v := 0.0; c.FloatOrNaN(&v, 0, 1) }, "+Inf"},
		"a list too long": {
			func(c *Codec) { v := make([]float64, 4); c.Floats(&v, 9, 0, 1) },
			func(c *Codec) { var v []float64; c.Floats(&v, 3, 0, 1) }, "4: want 0 to 3"},
		"a list that is not there": {
			func(c *Codec) { v := 1 << 40; c.Int(&v, 0, 1<<40) },
			func(c *Codec) { var v []float64; c.Floats(&v, 1<<41, 0, 1) }, "too early"},
		"bytes that are not there": {
			func(c *Codec) { v := 1 << 40; c.Int(&v, 0, 1<<40) }, func(c *Codec) { var v []byte; c.Bytes(&v, 1<<41) }, "too early"},
		"nothing": {
			func(*Codec) {}, func(c *Codec) { v := 0; c.Int(&v, 0, 1) }, "too early"},
		"more than was asked for": {
			func(c *Codec) { v := 1; c.Int(&v, 0, 1) }, func(*Codec) {}, "1 bytes too many"},
	} {
		w := NewWriter()
		tc.write(w)
		r := NewReader(w.Written())
		tc.read(r)
		if err := r.End(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

// After an error nothing changes any more.
func TestTheFirstErrorStays(t *testing.T) {
	w := NewWriter()
	one := 1
	w.Int(&one, 0, 1)
	w.Int(&one, 0, 1)
	r := NewReader(w.Written())
	a, b := 7, 7
	r.Int(&a, 5, 9)
	first := r.Err()
	r.Int(&b, 0, 9)
	if a != 7 || b != 7 || first == nil || !errors.Is(r.End(), first) {
		t.Errorf("values %d and %d, errors %v and %v", a, b, first, r.Err())
	}
}

func FuzzReading(f *testing.F) {
	c := NewWriter()
	(&values{i: 5, f: 0.1, list: []float64{1, 2, math.NaN()}, raw: []byte("x"), text: "y"}).exchange(c)
	f.Add(c.Written())
	f.Add([]byte{1, 2, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		var v values
		v.exchange(r)
		if r.End() != nil {
			return
		}
		w := NewWriter()
		v.exchange(w)
		var again values
		again.exchange(NewReader(w.Written()))
		if again.i != v.i || again.f != v.f || !slices.EqualFunc(again.list, v.list, same) || again.text != v.text {
			t.Fatalf("%+v came back as %+v", v, again)
		}
	})
}
