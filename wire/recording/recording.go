// Package recording is the flight recorder: the stream of events that a host's
// broker was told, one JSON object per line, compressed or not. Replayed, it
// gives the same decisions.
package recording

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/gnomon-vm/gnomon"
)

// maxLine bounds one event's line, in bytes.
const maxLine = 1 << 20

// Read returns the events of a recording, plain or gzip, in their order. A last
// line that was cut short by a crash ends the recording without an error; any
// other bad line ends it with one.
func Read(r io.Reader) iter.Seq2[gnomon.Event, error] {
	return func(yield func(gnomon.Event, error) bool) {
		lines, err := open(r)
		if err != nil {
			yield(gnomon.Event{}, err)
			return
		}
		for n := 1; ; n++ {
			line, err := readLine(lines)
			if len(line) > 0 && (err == nil || wasCut(err)) {
				e, decodeErr := decode(line)
				switch {
				case decodeErr == nil:
					if !yield(e, nil) {
						return
					}
				case err == nil:
					yield(gnomon.Event{}, fmt.Errorf("read recording: line %d: %w", n, decodeErr))
					return
				}
			}
			if wasCut(err) {
				return
			}
			if err != nil {
				yield(gnomon.Event{}, fmt.Errorf("read recording: line %d: %w", n, err))
				return
			}
		}
	}
}

// open looks whether r is compressed.
func open(r io.Reader) (*bufio.Reader, error) {
	br := bufio.NewReader(r)
	head, err := br.Peek(2)
	if err != nil || !bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return br, nil
	}
	zr, err := gzip.NewReader(br)
	if wasCut(err) {
		return bufio.NewReader(bytes.NewReader(nil)), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	return bufio.NewReader(zr), nil
}

// wasCut reports whether an error is the stream's end, proper or not.
func wasCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// readLine returns the next line without its end.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("a line of more than %d bytes", maxLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimSuffix(line, []byte{'\n'}), err
		}
	}
}

func decode(line []byte) (gnomon.Event, error) {
	var e gnomon.Event
	err := json.Unmarshal(line, &e)
	return e, err
}
