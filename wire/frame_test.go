package wire

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// stream is one direction of a channel in memory.
type stream struct{ bytes.Buffer }

func (*stream) Close() error { return nil }

func connOf(b []byte) *Conn {
	s := new(stream)
	s.Write(b)
	return NewConn(s)
}

// readAll returns every frame up to the end of the stream, past frames that are
// too large.
func readAll(c *Conn) (frames [][]byte, tooLarge int, err error) {
	for {
		f, err := c.ReadFrame()
		switch {
		case errors.Is(err, ErrTooLarge):
			tooLarge++
		case err != nil:
			return frames, tooLarge, err
		default:
			frames = append(frames, bytes.Clone(f))
		}
	}
}

func TestFramesComeBackThroughGarbage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in []byte
		var want [][]byte
		garbage := int64(0)
		for range rapid.IntRange(0, 6).Draw(t, "frames") {
			// Pieces of magic make the scan's life hard.
			g := rapid.SliceOfN(rapid.SampledFrom([]byte("gnm1x")), 0, 40).Draw(t, "garbage")
			in = append(in, g...)
			garbage += int64(len(g))
			p := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload")
			in = AppendFrame(in, p)
			want = append(want, p)
		}
		c := connOf(in)
		got, _, err := readAll(c)
		if !errors.Is(err, io.EOF) {
			t.Fatalf("got error %v, want EOF", err)
		}
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("got %q, want %q", got, want)
		}
		if c.Skipped() != garbage {
			t.Fatalf("skipped %d bytes, want %d", c.Skipped(), garbage)
		}
	})
}

func TestResyncAfterCutFrame(t *testing.T) {
	whole := AppendFrame(nil, bytes.Repeat([]byte("a"), 100))
	for cut := 1; cut < len(whole); cut++ {
		in := bytes.Clone(whole[:cut])
		// The cut frame swallows what follows until its length is reached.
		for range 8 {
			in = AppendFrame(in, []byte("next"))
		}
		got, _, err := readAll(connOf(in))
		if !slices.ContainsFunc(got, func(f []byte) bool { return string(f) == "next" }) {
			t.Fatalf("cut at %d: no frame came through (%v)", cut, err)
		}
		if slices.ContainsFunc(got, func(f []byte) bool { return string(f) != "next" }) {
			t.Fatalf("cut at %d: got %q", cut, got)
		}
	}
}

func TestEndWithinFrame(t *testing.T) {
	whole := AppendFrame(nil, []byte("abc"))
	for cut := 1; cut < len(whole); cut++ {
		if _, err := connOf(whole[:cut]).ReadFrame(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: got %v, want unexpected EOF", cut, err)
		}
	}
}

func TestOversizedFrame(t *testing.T) {
	if err := NewConn(new(stream)).WriteFrame(make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("write: got %v", err)
	}
	in := AppendFrame(nil, make([]byte, MaxPayload+1))
	if _, err := connOf(in).ReadFrame(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("read: got %v", err)
	}
	in = AppendFrame(nil, make([]byte, MaxPayload))
	if f, err := connOf(in).ReadFrame(); err != nil || len(f) != MaxPayload {
		t.Errorf("read of the largest: %d bytes, %v", len(f), err)
	}
}

func TestGarbageIsBounded(t *testing.T) {
	in := append(bytes.Repeat([]byte("g"), 100), AppendFrame(nil, []byte("abc"))...)
	for allowed, want := range map[int64]error{99: ErrGarbage, 100: nil} {
		c := connOf(in)
		c.AllowSkip(allowed)
		if _, err := c.ReadFrame(); !errors.Is(err, want) {
			t.Errorf("%d bytes allowed: got %v, want %v", allowed, err, want)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("gnm1"), []byte("x"))
	f.Add(AppendFrame(nil, []byte("payload")), []byte{})
	f.Add(AppendFrame(nil, make([]byte, MaxPayload+1))[:40], []byte("abc"))
	f.Fuzz(func(t *testing.T, noise, payload []byte) {
		if len(payload) > MaxPayload {
			payload = payload[:MaxPayload]
		}
		// Whatever comes first, frames that follow get through once a cut frame
		// in the noise has been filled up.
		in := bytes.Clone(noise)
		for len(in) < len(noise)+MaxPayload+2*headerSize {
			in = AppendFrame(in, payload)
		}
		c := connOf(AppendFrame(in, payload))
		got, _, err := readAll(c)
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("got error %v", err)
		}
		if !slices.ContainsFunc(got, func(f []byte) bool { return bytes.Equal(f, payload) }) {
			t.Fatal("no frame came through")
		}
		total := c.Skipped()
		for _, f := range got {
			total += int64(headerSize + len(f))
		}
		if want := int64(len(in) + headerSize + len(payload)); total != want {
			t.Fatalf("frames and skipped bytes make %d, the stream had %d", total, want)
		}
	})
}
