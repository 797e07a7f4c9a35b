// Package wire carries messages between a shadow VM's agent and the host
// daemon: frames on a byte stream that may be cut and spliced, generated
// messages in them, and their conversion to and from gnomon's own types, where
// everything an agent sends is checked. Package recording keeps event streams.
//
// A frame, integers little-endian:
//
//	0        4         8            12              16
//	| "gnm1" | length  | CRC-32C of | CRC-32C of    | payload … |
//	|        | (bytes) | payload    | bytes 0 to 11 |           |
//
// The header's own checksum tells a frame from a magic number that occurs by
// chance before its length is trusted.
package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// MaxPayload is the size of the largest payload, in bytes.
const MaxPayload = 64 << 10

const headerSize = 16

var (
	magic      = []byte("gnm1")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// ErrTooLarge is returned for a frame above MaxPayload.
var ErrTooLarge = errors.New("frame exceeds 64 KiB")

// ErrGarbage is returned when more bytes than allowed belong to no frame.
var ErrGarbage = errors.New("bytes that are no frame")

// ErrMalformed is returned for a frame that holds no valid message.
var ErrMalformed = errors.New("malformed message")

// Conn frames messages on a byte stream. One goroutine may read while others
// write.
type Conn struct {
	rw      io.ReadWriteCloser
	r       *bufio.Reader
	consume int // bytes of the frame returned last, still in r's buffer
	skipped int64
	maxSkip int64 // of skipped; negative for no bound

	mu  sync.Mutex // guards buf and keeps frames whole
	buf []byte
}

// NewConn returns a Conn over rw, which it closes when it is closed.
func NewConn(rw io.ReadWriteCloser) *Conn {
	return &Conn{rw: rw, r: bufio.NewReaderSize(rw, headerSize+MaxPayload), maxSkip: -1}
}

// AllowSkip bounds the bytes that may be skipped from now on; there is no bound
// before the first call. Only the reading goroutine may call it.
func (c *Conn) AllowSkip(n int64) { c.maxSkip = c.skipped + n }

// ReadFrame returns the next frame's payload, valid until the next call. Bytes
// that belong to no frame are skipped and counted; see AllowSkip. At the end of the stream it
// returns io.EOF, or io.ErrUnexpectedEOF within a frame; a later call reads on,
// for devices that come back.
func (c *Conn) ReadFrame() ([]byte, error) {
	c.discard(c.consume)
	c.consume = 0
	for {
		if c.maxSkip >= 0 && c.skipped > c.maxSkip {
			return nil, ErrGarbage
		}
		head, err := c.r.Peek(headerSize)
		if err != nil {
			return nil, c.cut(len(head), err)
		}
		if !validHeader(head) {
			c.skip(head)
			continue
		}
		n := int(binary.LittleEndian.Uint32(head[4:]))
		if uint32(n) > MaxPayload || n < 0 {
			c.drop(len(magic))
			return nil, fmt.Errorf("read frame of %d bytes: %w", uint32(n), ErrTooLarge)
		}
		sum := binary.LittleEndian.Uint32(head[8:])
		frame, err := c.r.Peek(headerSize + n)
		if err != nil {
			return nil, c.cut(len(frame), err)
		}
		payload := frame[headerSize:]
		if crc32.Checksum(payload, castagnoli) != sum {
			// A frame cut short: what follows in the buffer may be whole ones.
			c.drop(len(magic))
			continue
		}
		c.consume = headerSize + n
		return payload, nil
	}
}

func validHeader(h []byte) bool {
	return bytes.Equal(h[:4], magic) && crc32.Checksum(h[:12], castagnoli) == binary.LittleEndian.Uint32(h[12:])
}

// skip drops bytes up to where the next magic may begin.
func (c *Conn) skip(head []byte) {
	n := bytes.IndexByte(head[1:], magic[0])
	if n < 0 {
		n = len(head) - 1
	}
	c.drop(n + 1)
}

// cut forgets the rest of a stream that ended with n bytes pending.
func (c *Conn) cut(n int, err error) error {
	c.drop(n)
	if errors.Is(err, io.EOF) && n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (c *Conn) drop(n int) {
	c.discard(n)
	c.skipped += int64(n)
}

// discard drops bytes known to be in the buffer.
func (c *Conn) discard(n int) { _, _ = c.r.Discard(n) }

// Skipped returns how many bytes belonged to no frame so far. Only the reading
// goroutine may call it.
func (c *Conn) Skipped() int64 { return c.skipped }

// WriteFrame writes one frame in a single call to Write.
func (c *Conn) WriteFrame(payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("write frame of %d bytes: %w", len(payload), ErrTooLarge)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = AppendFrame(c.buf[:0], payload)
	if _, err := c.rw.Write(c.buf); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// AppendFrame appends payload, of at most MaxPayload bytes, as a frame to b.
func AppendFrame(b, payload []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:start+12], castagnoli))
	return append(b, payload...)
}

// Close closes the stream underneath.
func (c *Conn) Close() error { return c.rw.Close() }
