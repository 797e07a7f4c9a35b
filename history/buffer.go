package history

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// Buffer is a folder that holds batches of points while the engine is away: a
// file each, named by its place in the order and how many points it has. Of
// more than the limit, or more than the disk takes, the oldest are dropped.
type Buffer struct {
	dir   string
	limit int64

	mu    sync.Mutex
	files []buffered // the oldest first
	bytes int64
	next  uint64
}

// buffered is one batch in the buffer.
type buffered struct {
	seq    uint64
	points int
	bytes  int64
}

const (
	bufferName = "%020d-%d.points"
	tempSuffix = ".new"
)

func (b *Buffer) path(f buffered) string {
	return filepath.Join(b.dir, fmt.Sprintf(bufferName, f.seq, f.points))
}

// OpenBuffer opens a folder, which it creates, with what an earlier process
// left in it. Only one process may use it. The limit is in bytes.
func OpenBuffer(dir string, limit int64) (*Buffer, error) {
	if limit <= 0 {
		return nil, fmt.Errorf("open history buffer: limit %d: want more than 0 bytes", limit)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open history buffer: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open history buffer: %w", err)
	}
	b := &Buffer{dir: dir, limit: limit}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == tempSuffix {
			_ = os.Remove(filepath.Join(dir, e.Name())) // cut short by the end of its process
			continue
		}
		var f buffered
		if _, err := fmt.Sscanf(e.Name(), bufferName, &f.seq, &f.points); err != nil {
			continue // not ours
		}
		if info, err := e.Info(); err == nil {
			f.bytes = info.Size()
			b.files, b.bytes, b.next = append(b.files, f), b.bytes+f.bytes, max(b.next, f.seq+1)
		}
	}
	slices.SortFunc(b.files, func(x, y buffered) int { return cmp.Compare(x.seq, y.seq) })
	return b, nil
}

// reserve returns the next place in the order.
func (b *Buffer) reserve() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	return b.next - 1
}

// put keeps a batch at its place and returns how many points were dropped for
// it, its own if there is no room at all.
func (b *Buffer) put(seq uint64, batch []Point) (dropped int, err error) {
	raw, err := encode(sorted(batch)).Marshal()
	if err != nil {
		return len(batch), fmt.Errorf("encode points: %w", err)
	}
	text := snappy.Encode(nil, raw)
	f := buffered{seq: seq, points: len(batch), bytes: int64(len(text))}
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.files) > 0 && b.bytes+f.bytes > b.limit {
		dropped += b.dropOldest()
	}
	for err = b.write(f, text); errors.Is(err, syscall.ENOSPC) && len(b.files) > 0; err = b.write(f, text) {
		dropped += b.dropOldest()
	}
	if err != nil {
		return dropped + len(batch), fmt.Errorf("keep points in %s: %w", b.dir, err)
	}
	i, _ := slices.BinarySearchFunc(b.files, seq, func(f buffered, seq uint64) int { return cmp.Compare(f.seq, seq) })
	b.files, b.bytes = slices.Insert(b.files, i, f), b.bytes+f.bytes
	return dropped, nil
}

// write makes the file whole or not at all. It does not wait for the disk: all that
// a power cut takes are the latest points.
func (b *Buffer) write(f buffered, text []byte) error {
	temp := b.path(f) + tempSuffix
	err := os.WriteFile(temp, text, 0o600)
	if err == nil {
		err = os.Rename(temp, b.path(f))
	}
	if err != nil {
		_ = os.Remove(temp)
	}
	return err
}

func (b *Buffer) dropOldest() (points int) {
	f := b.files[0]
	b.files, b.bytes = b.files[1:], b.bytes-f.bytes
	_ = os.Remove(b.path(f))
	return f.points
}

// oldest returns the first batch as a request, and false if there is none. One
// that cannot be read is dropped, with an error.
func (b *Buffer) oldest() (f buffered, req *prompb.WriteRequest, ok bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.files) == 0 {
		return f, nil, false, nil
	}
	f = b.files[0]
	req = &prompb.WriteRequest{}
	text, err := os.ReadFile(b.path(f))
	var raw []byte
	if err == nil {
		raw, err = snappy.Decode(nil, text)
	}
	if err == nil {
		err = req.Unmarshal(raw)
	}
	if err != nil {
		b.dropOldest()
		return f, nil, true, fmt.Errorf("read kept points: %w", err)
	}
	return f, req, true, nil
}

// done forgets a batch.
func (b *Buffer) done(f buffered) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.files, func(g buffered) bool { return g.seq == f.seq })
	if i < 0 {
		return // dropped meanwhile
	}
	b.files, b.bytes = slices.Delete(b.files, i, i+1), b.bytes-f.bytes
	if err := os.Remove(b.path(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // it is sent again after a restart, which does no harm
	}
}

// size returns what is kept.
func (b *Buffer) size() (points int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.files {
		points += f.points
	}
	return points, b.bytes
}

func (b *Buffer) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.files) == 0
}
