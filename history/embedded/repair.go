package embedded

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
)

// setAsideBlocks moves the blocks of dir that cannot be opened to a directory
// beside it.
func setAsideBlocks(dir string, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list blocks: %w", err)
	}
	aside := asideName(dir)
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		block, err := tsdb.OpenBlock(log, path, nil, nil)
		if err == nil {
			if err := block.Close(); err != nil {
				return fmt.Errorf("close block %s: %w", e.Name(), err)
			}
			continue
		}
		if err := os.MkdirAll(aside, 0o750); err != nil {
			return fmt.Errorf("set aside block: %w", err)
		}
		if err := os.Rename(path, filepath.Join(aside, e.Name())); err != nil {
			return fmt.Errorf("set aside block: %w", err)
		}
		log.Warn("set aside a damaged block of the history", "block", e.Name(), "to", aside, "err", err)
	}
	return nil
}

// setAside moves the whole directory out of the way.
func setAside(dir string, log *slog.Logger) error {
	aside := asideName(dir)
	if err := os.Rename(dir, aside); err != nil {
		return fmt.Errorf("set aside history: %w", err)
	}
	log.Warn("set aside the damaged history", "to", aside)
	return nil
}

func asideName(dir string) string {
	base := dir + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
	name := base
	for i := 2; ; i++ {
		if _, err := os.Lstat(name); os.IsNotExist(err) {
			return name
		}
		name = fmt.Sprintf("%s-%d", base, i)
	}
}
