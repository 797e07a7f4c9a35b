package appliance

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// module is one kernel module file.
type module struct {
	name string // with underscores, as the kernel names it
	path string
}

// read returns the module as the guest gets it: decompressed, so that it needs no
// decompressor, and without its signature, whose verification takes longer than
// the rest of the loading. The initramfs vouches for its modules.
func (m module) read() ([]byte, error) {
	b, err := m.decompress()
	if err != nil {
		return nil, err
	}
	return unsigned(b), nil
}

// signatureMark ends a signed module. A struct module_signature of 12 bytes
// comes before it, the last four the big-endian size of the signature, which
// comes before that.
var signatureMark = []byte("~Module signature appended~\n")

func unsigned(b []byte) []byte {
	const header = 12
	rest, signed := bytes.CutSuffix(b, signatureMark)
	if !signed || len(rest) < header {
		return b
	}
	size := int64(binary.BigEndian.Uint32(rest[len(rest)-4:]))
	if size > int64(len(rest)-header) {
		return b
	}
	return rest[:int64(len(rest)-header)-size]
}

func (m module) decompress() ([]byte, error) {
	switch filepath.Ext(m.path) {
	case ".xz":
		out, err := exec.Command("xz", "-dc", m.path).Output() //nolint:noctx // a few MB: done before anyone could cancel it
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %w", m.path, err)
		}
		return out, nil
	case ".zst":
		b, err := os.ReadFile(m.path)
		if err != nil {
			return nil, err
		}
		d, err := zstd.NewReader(nil)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		out, err := d.DecodeAll(b, nil)
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %w", m.path, err)
		}
		return out, nil
	default:
		return os.ReadFile(m.path)
	}
}

// depends returns the modules that this one names in its .modinfo section. The
// package as shipped has no modules.dep; that is made when it is installed.
func (m module) depends() ([]string, error) {
	b, err := m.read()
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", m.path, err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("read module %s: no .modinfo section", m.path)
	}
	info, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", m.path, err)
	}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}

// resolveModules returns the named modules and all they depend on, each after
// its dependencies. Names that are built into the kernel are left out.
func resolveModules(dir string, names []string) ([]module, error) {
	files, err := listModules(dir)
	if err != nil {
		return nil, err
	}
	builtin, err := listBuiltin(dir)
	if err != nil {
		return nil, err
	}
	r := resolver{files: files, builtin: builtin, state: map[string]int{}}
	for _, n := range names {
		if err := r.visit(n, "the list of modules"); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

type resolver struct {
	files   map[string]string
	builtin map[string]bool
	state   map[string]int // 1 while being visited, 2 when in order
	order   []module
}

func (r *resolver) visit(name, wanted string) error {
	name = moduleName(name)
	if r.builtin[name] || r.state[name] == 2 {
		return nil
	}
	if r.state[name] == 1 {
		return fmt.Errorf("resolve modules: %s depends on itself", name)
	}
	path, ok := r.files[name]
	if !ok {
		return fmt.Errorf("resolve modules: the kernel has no module %q, named by %s", name, wanted)
	}
	r.state[name] = 1
	m := module{name: name, path: path}
	deps, err := m.depends()
	if err != nil {
		return err
	}
	for _, d := range deps {
		if err := r.visit(d, name); err != nil {
			return err
		}
	}
	r.state[name] = 2
	r.order = append(r.order, m)
	return nil
}

// listModules returns the path of every module file below dir by name.
func listModules(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		base, _, ok := strings.Cut(d.Name(), ".ko")
		if ok {
			files[moduleName(base)] = path
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	return files, nil
}

// listBuiltin returns the modules that are part of the kernel image.
func listBuiltin(dir string) (map[string]bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("list built-in modules: %w", err)
	}
	set := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		base, _, _ := strings.Cut(filepath.Base(strings.TrimSpace(line)), ".ko")
		set[moduleName(base)] = true
	}
	return set, nil
}

func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }
