package report

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// The files of a report's folder.
const (
	resultsFile  = "results.csv"
	summaryFile  = "summary.csv"
	outcomesFile = "outcomes.csv.gz"
	pageFile     = "report.html"
)

var files = []string{outcomesFile, pageFile, resultsFile, summaryFile}

// CheckFolder returns an error if a report cannot be written to the folder: if
// it is there and holds anything but an earlier report, which Write replaces.
func CheckFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into the folder for the report: %w", err)
	}
	for _, e := range entries {
		if !slices.Contains(files, e.Name()) {
			return fmt.Errorf("replace the report in %s: it holds %s too, which is no part of one: choose another folder", dir, e.Name())
		}
	}
	return nil
}

// Write writes results.csv, summary.csv, outcomes.csv.gz and report.html into
// the folder, all of them or none: they are written into a folder beside it that
// takes its name at the end. An earlier report is replaced.
func (r *Report) Write(dir string) (err error) {
	dir = filepath.Clean(dir)
	if err := CheckFolder(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make folder for the report: %w", err)
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
	if err != nil {
		return fmt.Errorf("make folder for the report: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	fresh, old := filepath.Join(scratch, "new"), filepath.Join(scratch, "old")
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return fmt.Errorf("make folder for the report: %w", err)
	}
	for name, write := range map[string]func(io.Writer) error{
		resultsFile: r.writeResults, summaryFile: r.writeSummary, outcomesFile: r.writeOutcomes, pageFile: r.writePage,
	} {
		if err := writeFile(filepath.Join(fresh, name), write); err != nil {
			return err
		}
	}
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace report: %w", err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return errors.Join(fmt.Errorf("publish report: %w", err), restore(old, dir))
	}
	return nil
}

// restore gives an earlier report its name back.
func restore(old, dir string) error {
	if err := os.Rename(old, dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore report: %w", err)
	}
	return nil
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	w := bufio.NewWriter(f)
	if err := cmp.Or(write(w), w.Flush(), f.Close()); err != nil { // the first: it is the writer's and the file's too
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
