package appliance

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// FetchKernel downloads Debian's cloud kernel package with apt-get and takes it
// apart under dir; nothing is installed. It returns the tree for
// Options.KernelTree and does nothing if dir has one already. One line per step
// goes to progress, which may be nil. It needs apt's package lists.
func FetchKernel(ctx context.Context, dir string, progress io.Writer) (string, error) {
	if progress == nil {
		progress = io.Discard
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("fetch kernel: %w", err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return "", fmt.Errorf("fetch kernel: %w", err)
	}
	defer unlock()
	tree := filepath.Join(dir, "tree")
	if v, _, err := findKernel(tree); err == nil {
		fmt.Fprintf(progress, "kernel %s is there\n", v)
		return tree, nil
	}
	if err := fetch(ctx, dir, tree, progress); err != nil {
		return "", fmt.Errorf("fetch kernel: %w", err)
	}
	return tree, nil
}

func fetch(ctx context.Context, dir, tree string, progress io.Writer) error {
	pkg, err := kernelPackage(ctx)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "fetch-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(progress, "downloading %s\n", pkg)
	if err := run(ctx, tmp, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", pkg); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages, want 1", pkg, len(debs))
	}
	fmt.Fprintf(progress, "taking %s apart\n", filepath.Base(debs[0]))
	part := filepath.Join(tmp, "tree")
	if err := run(ctx, tmp, "dpkg", "-x", debs[0], part); err != nil {
		return err
	}
	version, _, err := findKernel(part)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	if err := os.Rename(part, tree); err != nil {
		return err
	}
	fmt.Fprintf(progress, "kernel %s is there\n", version)
	return nil
}

// lock makes dir and keeps others from fetching into it meanwhile.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, ".lock"))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// kernelPackage returns the package that the meta-package stands for today.
func kernelPackage(ctx context.Context) (string, error) {
	meta := "linux-image-cloud-" + runtime.GOARCH
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", meta).Output()
	if err != nil {
		return "", fmt.Errorf("look up %s (are apt's lists there? try apt-get update): %w", meta, err)
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("look up %s: apt knows no package it depends on; try apt-get update", meta)
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
