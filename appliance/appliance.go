// Package appliance builds the bootable pair that gnomon's own guests run from:
// a Debian cloud kernel taken apart (never installed on the host) and an
// initramfs that holds one static Go program as init and the kernel modules it
// needs, in load order. Package guestinit is its counterpart inside the guest.
package appliance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The names of the files that Build leaves in Options.Out.
const (
	KernelFile   = "vmlinuz"
	InitrdFile   = "initramfs.cpio.gz"
	InitFile     = "init"
	ManifestFile = "appliance.json"
)

// format is part of every hash, so that a change of the layout rebuilds.
const format = "3"

// Options says what to build.
type Options struct {
	// KernelTree is a kernel package taken apart, as FetchKernel returns it:
	// boot/vmlinuz-VERSION and lib/modules/VERSION below it.
	KernelTree string

	// Init is the static program that becomes /init.
	Init string

	// Modules are the names of kernel modules to load. What they depend on is
	// found and loaded before them.
	Modules []string

	// Files are further files: path in the guest to path on the host. Their
	// permission bits are kept.
	Files map[string]string

	// Out is the directory for the result. It is created if it is missing and
	// must be reachable for the user that QEMU runs as.
	Out string
}

// Image is a built appliance.
type Image struct {
	Dir     string   `json:"-"`
	Kernel  string   `json:"kernel"`  // kernel version
	Hash    string   `json:"hash"`    // SHA-256 of everything it was built from, in hex
	Modules []string `json:"modules"` // in load order
}

// KernelPath returns the path of the kernel image.
func (i Image) KernelPath() string { return filepath.Join(i.Dir, KernelFile) }

// InitrdPath returns the path of the initramfs.
func (i Image) InitrdPath() string { return filepath.Join(i.Dir, InitrdFile) }

// InitPath returns the path of the program that is the guest's init.
func (i Image) InitPath() string { return filepath.Join(i.Dir, InitFile) }

// Open returns the appliance that an earlier Build left in dir.
func Open(dir string) (Image, error) {
	b, err := os.ReadFile(filepath.Join(dir, ManifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Image{}, fmt.Errorf("open appliance: none in %s: build it with \"make appliance\", or name its folder with --appliance", dir)
	}
	if err != nil {
		return Image{}, fmt.Errorf("open appliance: %w", err)
	}
	img := Image{Dir: dir}
	if err := json.Unmarshal(b, &img); err != nil {
		return Image{}, fmt.Errorf("open appliance %s: %w", dir, err)
	}
	for _, p := range []string{img.KernelPath(), img.InitrdPath()} {
		if _, err := os.Stat(p); err != nil {
			return Image{}, fmt.Errorf("open appliance: %w", err)
		}
	}
	return img, nil
}

// Build makes the appliance in o.Out. It does nothing if what is there was
// built from the same inputs. Every file is replaced atomically, the manifest
// last, so that an interrupted build is repeated, not trusted.
func Build(ctx context.Context, o Options) (Image, error) {
	img, err := build(ctx, o)
	if err != nil {
		return Image{}, fmt.Errorf("build appliance: %w", err)
	}
	return img, nil
}

func build(ctx context.Context, o Options) (Image, error) {
	version, kernel, err := findKernel(o.KernelTree)
	if err != nil {
		return Image{}, err
	}
	mods, err := resolveModules(filepath.Join(o.KernelTree, "lib/modules", version), o.Modules)
	if err != nil {
		return Image{}, err
	}
	hash, err := hashInputs(kernel, o, mods)
	if err != nil {
		return Image{}, err
	}
	if old, err := Open(o.Out); err == nil && old.Hash == hash {
		return old, nil
	}
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	img := Image{Dir: o.Out, Kernel: version, Hash: hash}
	for _, m := range mods {
		img.Modules = append(img.Modules, m.name)
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return Image{}, err
	}
	if err := os.Remove(filepath.Join(o.Out, ManifestFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Image{}, err
	}
	if err := replace(img.KernelPath(), func(w io.Writer) error { return copyFrom(w, kernel) }); err != nil {
		return Image{}, err
	}
	if err := replace(img.InitrdPath(), func(w io.Writer) error { return writeInitrd(w, o, mods) }); err != nil {
		return Image{}, err
	}
	if err := replace(img.InitPath(), func(w io.Writer) error { return copyFrom(w, o.Init) }); err != nil {
		return Image{}, err
	}
	if err := os.Chmod(img.InitPath(), 0o755); err != nil {
		return Image{}, err
	}
	return img, replace(filepath.Join(o.Out, ManifestFile), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(img)
	})
}

// findKernel returns the version and image of the one kernel in the tree.
func findKernel(tree string) (version, path string, err error) {
	found, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil {
		return "", "", fmt.Errorf("find kernel: %w", err)
	}
	if len(found) != 1 {
		return "", "", fmt.Errorf("find kernel: want one boot/vmlinuz-* in %s, found %d", tree, len(found))
	}
	return strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), found[0], nil
}

// hashInputs hashes everything that the result depends on.
func hashInputs(kernel string, o Options, mods []module) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, format)
	files := [][2]string{{"kernel", kernel}, {"init", o.Init}}
	for _, m := range mods {
		files = append(files, [2]string{"module " + m.name, m.path})
	}
	for _, guest := range sortedKeys(o.Files) {
		files = append(files, [2]string{"file " + guest, o.Files[guest]})
	}
	for _, f := range files {
		sum := sha256.New()
		if err := copyFrom(sum, f[1]); err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %x\n", f[0], sum.Sum(nil))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func copyFrom(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// replace writes a file next to path, readable for all, and renames it there.
func replace(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
