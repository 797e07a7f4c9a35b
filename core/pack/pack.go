// Package pack turns what was learned into bytes and back, exactly and in few
// bytes, with a magic word, a version and a checksum around them. It believes
// nothing it reads: lengths and values are bounded by the caller, and memory by
// the bytes that are there.
package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
)

const (
	magicSize  = 4
	headerSize = magicSize + 1 + 4 // magic, version, CRC-32C of the rest
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errShort = errors.New("ends too early")

// Codec writes values to bytes or reads them from there, so that one function
// which hands its fields to a Codec in order describes both. The first error of
// reading stays, and nothing is changed by it or after it.
type Codec struct {
	b       []byte
	reading bool
	err     error
}

// NewWriter returns a Codec that writes.
func NewWriter() *Codec { return &Codec{} }

// NewReader returns a Codec that reads b, as written and without a header.
func NewReader(b []byte) *Codec { return &Codec{b: b, reading: true} }

// Open returns a Codec that reads what Seal returned for the same magic, of four
// bytes, and version. The error says which of them, or the checksum, is another.
func Open(magic string, version byte, b []byte) (*Codec, error) {
	if len(b) < headerSize || string(b[:magicSize]) != magic {
		return nil, fmt.Errorf("%d bytes that do not begin as %q does", len(b), magic)
	}
	if got := b[magicSize]; got != version {
		return nil, fmt.Errorf("version %d: want %d", got, version)
	}
	body := b[headerSize:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[magicSize+1:]) {
		return nil, errors.New("damaged: the checksum is another")
	}
	return NewReader(body), nil
}

// Seal returns what was written behind a header of magic, of four bytes, version
// and checksum.
func (c *Codec) Seal(magic string, version byte) []byte {
	out := make([]byte, 0, headerSize+len(c.b))
	out = append(out, magic[:magicSize]...)
	out = append(out, version)
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(c.b, castagnoli))
	return append(out, c.b...)
}

// Written returns what was written, without a header.
func (c *Codec) Written() []byte { return c.b }

// Reading reports whether values are read.
func (c *Codec) Reading() bool { return c.reading }

// Err returns the first error of reading.
func (c *Codec) Err() error { return c.err }

// Fail makes err the error, if there is none yet.
func (c *Codec) Fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// End returns the error of reading, of which bytes that are left are one.
func (c *Codec) End() error {
	if len(c.b) > 0 {
		c.Fail(fmt.Errorf("%d bytes too many", len(c.b)))
	}
	return c.err
}

// Int exchanges an integer; it is an error to read one outside [lo, hi].
func (c *Codec) Int(v *int, lo, hi int) {
	if !c.reading {
		c.b = binary.AppendVarint(c.b, int64(*v))
		return
	}
	x, n := binary.Varint(c.b)
	if !c.advance(n) {
		return
	}
	if x < int64(lo) || x > int64(hi) {
		c.Fail(fmt.Errorf("%d: want %d to %d", x, lo, hi))
		return
	}
	*v = int(x)
}

// Int64 is Int for 64 bits.
func (c *Codec) Int64(v *int64, lo, hi int64) {
	x := int(*v)
	c.Int(&x, int(lo), int(hi))
	*v = int64(x)
}

// Float exchanges a number exactly; it is an error to read NaN or one outside
// [lo, hi].
func (c *Codec) Float(v *float64, lo, hi float64) {
	if x, ok := c.float(*v); ok {
		if !(x >= lo && x <= hi) {
			c.Fail(fmt.Errorf("%v: want %v to %v", x, lo, hi))
			return
		}
		*v = x
	}
}

// FloatOrNaN is Float for a number that may be missing.
func (c *Codec) FloatOrNaN(v *float64, lo, hi float64) {
	if x, ok := c.float(*v); ok {
		if x < lo || x > hi {
			c.Fail(fmt.Errorf("%v: want %v to %v or NaN", x, lo, hi))
			return
		}
		*v = x
	}
}

// float writes v, or reads a number and reports whether there was one. Most
// numbers are short in binary: their last bytes are zero, so that reversed they
// are small (as package encoding/gob has it).
func (c *Codec) float(v float64) (float64, bool) {
	if !c.reading {
		if math.IsNaN(v) {
			v = math.Float64frombits(0x7FF8 << 48) // one of many
		}
		c.b = binary.AppendUvarint(c.b, bits.ReverseBytes64(math.Float64bits(v)))
		return 0, false
	}
	x, n := binary.Uvarint(c.b)
	if !c.advance(n) {
		return 0, false
	}
	return math.Float64frombits(bits.ReverseBytes64(x)), true
}

// advance drops n bytes that were read, where n is as of binary.Varint.
func (c *Codec) advance(n int) bool {
	if c.err != nil {
		return false
	}
	if n <= 0 {
		c.Fail(errShort)
		return false
	}
	c.b = c.b[n:]
	return true
}

// Floats exchanges a list of up to most numbers, each as by FloatOrNaN.
func (c *Codec) Floats(v *[]float64, most int, lo, hi float64) {
	n := len(*v)
	c.Int(&n, 0, most)
	if c.reading {
		if n > len(c.b) { // each takes at least one byte
			c.Fail(errShort)
		}
		if c.err != nil {
			return
		}
		*v = make([]float64, n)
	}
	for i := range *v {
		c.FloatOrNaN(&(*v)[i], lo, hi)
	}
}

// Bytes exchanges up to most bytes. Those read are part of what is read from.
func (c *Codec) Bytes(v *[]byte, most int) {
	n := len(*v)
	c.Int(&n, 0, most)
	switch {
	case !c.reading:
		c.b = append(c.b, *v...)
	case c.err != nil:
	case n > len(c.b):
		c.Fail(errShort)
	default:
		*v, c.b = c.b[:n:n], c.b[n:]
	}
}

// Text exchanges up to most bytes of text.
func (c *Codec) Text(v *string, most int) {
	b := []byte(*v)
	c.Bytes(&b, most)
	*v = string(b)
}
