package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gnomon-vm/gnomon/lab"
	"github.com/gnomon-vm/gnomon/lab/report"
)

// defaultVPA is where `make lab-vpa` leaves the program, if it is there.
func defaultVPA() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	path := filepath.Join(filepath.Dir(exe), "gnomon-lab-vpa")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// vpaPolicies are Kubernetes' Vertical Pod Autoscaler as itself, which the
// program plays: none where there is no program.
func vpaPolicies(program string) []lab.External {
	if program == "" {
		return nil
	}
	info := lab.PolicyInfo{
		Name: "vpa", Title: "Kubernetes' Vertical Pod Autoscaler, its own code", Faithful: report.Faithful,
		Knob: "percentile of usage that the target covers", Sweep: []float64{0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1},
		Source: "k8s.io/autoscaler/vertical-pod-autoscaler 1.8.1, imported (lab/vpa)",
	}
	fast := info
	fast.Name, fast.Title, fast.Faithful = "vpa-fast", "The same code with all its durations a 60th", report.Approximate
	return []lab.External{{PolicyInfo: info, Open: openVPA(program)}, {PolicyInfo: fast, Open: openVPA(program, "--fast")}}
}

// isVPA tells the policies that the program plays.
func isVPA(policy string) bool { return policy == "vpa" || policy == "vpa-fast" }

func openVPA(program string, args ...string) func(float64, time.Duration) (io.ReadWriteCloser, error) {
	return func(knob float64, interval time.Duration) (io.ReadWriteCloser, error) {
		return startProgram(program, append([]string{
			"--percentile", strconv.FormatFloat(knob, 'g', -1, 64), "--step", interval.String(),
		}, args...)...)
	}
}

// program is a process that is written to and read from.
type program struct {
	io.Reader
	io.WriteCloser
	cmd *exec.Cmd
}

func startProgram(path string, args ...string) (*program, error) {
	cmd := exec.Command(path, args...) //nolint:noctx // it ends when its input does
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return &program{out, in, cmd}, nil
}

// Close ends the program's input and waits for it.
func (p *program) Close() error {
	err := p.WriteCloser.Close()
	if waited := p.cmd.Wait(); waited != nil {
		err = errors.Join(err, fmt.Errorf("run %s: %w", p.cmd.Path, waited))
	}
	return err
}
