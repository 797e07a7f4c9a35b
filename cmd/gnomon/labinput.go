package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/gnomon-vm/gnomon/lab"
	"github.com/gnomon-vm/gnomon/trace"
)

// readInputs finds and reads the traces that the flags ask for. Those of which
// there is nothing to play are left out, and counted on log.
func readInputs(f *labFlags, log io.Writer) ([]lab.Input, error) {
	if st, err := os.Stat(f.traces); err == nil && !st.IsDir() {
		return nil, usagef("--traces %s is a file: want the folder of the traces", f.traces)
	}
	files, err := trace.FindFiles(f.traces)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFoundf("--traces: there is no folder %s", f.traces)
	}
	if err != nil {
		return nil, usageError{err}
	}
	picked, err := f.pick(files)
	if err != nil {
		return nil, err
	}
	sizes, err := readManifests(f.traces, picked)
	if err != nil {
		return nil, usageError{err}
	}
	var inputs []lab.Input
	var silent error // why the last trace that is left out is
	for _, p := range picked {
		t, err := trace.ReadFile(p.path)
		if err != nil {
			return nil, usageError{err}
		}
		size := sizes[p.path]
		in := lab.Input{Dataset: p.dataset, Trace: t, Cores: size.cores, Memory: size.memory}
		switch err := in.Check(f.resources); {
		case errors.Is(err, lab.ErrNothing):
			silent = fmt.Errorf("%s: %w", p.path, err)
		case err != nil:
			return nil, usagef("play trace %s: %w", p.path, err)
		default:
			inputs = append(inputs, in)
		}
	}
	switch {
	case len(inputs) == 0:
		return nil, usagef("--traces %s: %w", f.traces, silent)
	case silent != nil:
		fmt.Fprintf(log, "%d of %d traces are left out, such as %v\n", len(picked)-len(inputs), len(picked), silent)
	}
	return inputs, nil
}

// foundTrace is a file with the data set it belongs to.
type foundTrace struct{ path, dataset string }

// datasetOf returns the folder of a file below the root, or the root's own name
// for a file in it.
func datasetOf(root, path string) string {
	rel, err := filepath.Rel(root, filepath.Dir(path))
	if err != nil || rel == "." {
		if abs, err := filepath.Abs(root); err == nil {
			return filepath.Base(abs)
		}
		return filepath.Base(root)
	}
	return filepath.ToSlash(rel)
}

// pick returns the files of the data sets, VMs and half that are asked for.
func (f *labFlags) pick(files []string) ([]foundTrace, error) {
	sets := map[string][]string{}
	var names []string
	for _, path := range files {
		name := datasetOf(f.traces, path)
		if sets[name] == nil {
			names = append(names, name)
		}
		sets[name] = append(sets[name], path)
	}
	slices.Sort(names)
	for _, name := range f.datasets {
		if !slices.Contains(names, name) {
			return nil, usagef("--datasets: there is no data set %q below %s: want one of %s", name, f.traces, strings.Join(names, ", "))
		}
	}
	var out []foundTrace
	for _, name := range names {
		if len(f.datasets) > 0 && !slices.Contains(f.datasets, name) {
			continue
		}
		vms, taken := map[string]string{}, 0
		for i, path := range sets[name] {
			vm := trace.Base(path)
			if other, twice := vms[vm]; twice {
				return nil, usagef("--traces: %s and %s are of the same VM: want one of them", other, path)
			}
			vms[vm] = path
			if f.half == "choose" && i%2 != 0 || f.half == "report" && i%2 != 1 || f.vms > 0 && taken == f.vms {
				continue
			}
			taken++
			out = append(out, foundTrace{path, name})
		}
	}
	if len(out) == 0 {
		return nil, usagef("--half %s: every data set has one VM only, which is in the other half", f.half)
	}
	return out, nil
}

// size is what a machine has; 0 where it is not known.
type size struct{ cores, memory float64 }

// readManifests returns the sizes that the manifests tell of the files: those
// beside them and that of the root.
func readManifests(root string, files []foundTrace) (map[string]size, error) {
	sizes := map[string]size{}
	dirs := []string{filepath.Clean(root)}
	for _, f := range files {
		if dir := filepath.Dir(f.path); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		if err := readManifest(dir, sizes); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

// readManifest adds what one manifest tells; none is no error. Its column file
// holds paths below its folder; ncpu and mem_total_bytes may be absent or empty.
func readManifest(dir string, sizes map[string]size) error {
	path := filepath.Join(dir, manifestName)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	defer file.Close()
	return parseManifest(file, dir, path, sizes)
}

func parseManifest(r io.Reader, dir, path string, sizes map[string]size) error {
	records, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", path, err)
	}
	if len(records) == 0 {
		return fmt.Errorf("read manifest %s: empty file: want columns file, ncpu, mem_total_bytes", path)
	}
	name := slices.Index(records[0], "file")
	if name < 0 {
		return fmt.Errorf("read manifest %s:1: no column called file: want the traces' paths below %s", path, dir)
	}
	for i, record := range records[1:] {
		var s size
		for column, field := range map[string]*float64{"ncpu": &s.cores, "mem_total_bytes": &s.memory} {
			j := slices.Index(records[0], column)
			if j < 0 || strings.TrimSpace(record[j]) == "" {
				continue
			}
			v, err := strconv.ParseFloat(strings.TrimSpace(record[j]), 64)
			if err != nil || !(v > 0 && v < 1e18) {
				return fmt.Errorf("read manifest %s:%d: %s is %q: want a number above 0, or nothing", path, i+2, column, record[j])
			}
			*field = v
		}
		sizes[filepath.Join(dir, filepath.FromSlash(record[name]))] = s
	}
	return nil
}

// machineLine describes this machine, without its name.
func machineLine() string {
	model := ""
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, line := range strings.Split(string(text), "\n") {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = " (" + strings.TrimSpace(value) + ")"
				break
			}
		}
	}
	return fmt.Sprintf("%d cores%s, %s/%s, gnomon %s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, version)
}
