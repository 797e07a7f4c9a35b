package appliance

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// ModuleDir is where the guest finds its modules: files named NN-name.ko, to be
// loaded in the order of their names.
const ModuleDir = "/modules"

// writeInitrd writes the compressed initramfs: the same inputs give the same
// bytes.
func writeInitrd(w io.Writer, o Options, mods []module) error {
	zw, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	records, err := initrdRecords(o, mods)
	if err != nil {
		return err
	}
	cpio.MakeAllReproducible(records)
	cw := cpio.Newc.Writer(zw)
	if err := cpio.WriteRecords(cw, records); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	if err := cpio.WriteTrailer(cw); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return zw.Close()
}

func initrdRecords(o Options, mods []module) ([]cpio.Record, error) {
	init, err := os.ReadFile(o.Init)
	if err != nil {
		return nil, err
	}
	dirs := []string{"dev", "proc", "sys", "tmp", strings.TrimPrefix(ModuleDir, "/")}
	files := []cpio.Record{
		// The kernel opens it for init before anything is mounted.
		cpio.CharDev("dev/console", 0o600, 5, 1),
		file("init", init, 0o755),
	}
	for i, m := range mods {
		b, err := m.read()
		if err != nil {
			return nil, err
		}
		files = append(files, file(fmt.Sprintf("%s/%02d-%s.ko", ModuleDir[1:], i, m.name), b, 0o644))
	}
	for _, guest := range sortedKeys(o.Files) {
		name := strings.TrimPrefix(path.Clean("/"+guest), "/")
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			dirs = append(dirs, d)
		}
		b, err := os.ReadFile(o.Files[guest])
		if err != nil {
			return nil, err
		}
		st, err := os.Stat(o.Files[guest])
		if err != nil {
			return nil, err
		}
		files = append(files, file(name, b, uint64(st.Mode().Perm())))
	}
	return append(directories(dirs), files...), nil
}

// directories returns a record for each, parents first, each once.
func directories(names []string) []cpio.Record {
	set := make(map[string]string, len(names))
	for _, n := range names {
		set[n] = ""
	}
	var rs []cpio.Record
	for _, n := range sortedKeys(set) {
		rs = append(rs, cpio.Directory(n, 0o755))
	}
	return rs
}

func file(name string, content []byte, perm uint64) cpio.Record {
	return cpio.Record{
		ReaderAt: bytes.NewReader(content),
		Info:     cpio.Info{Name: name, Mode: cpio.S_IFREG | perm, FileSize: uint64(len(content))},
	}
}
