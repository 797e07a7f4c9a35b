package main

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// waiting is an input that never comes. It tells when somebody waits for it.
type waiting struct{ began chan<- struct{} }

func (w waiting) Read([]byte) (int, error) {
	w.began <- struct{}{}
	select {}
}

// A command that waits for its standard input is ended by Ctrl-C.
func TestInterruptedWhileReading(t *testing.T) {
	for _, line := range []string{
		"forecast",
		"apply -f -",
		"diff -f -",
		"vm deploy -f -",
		"host join --server https://127.0.0.1:1",
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		began := make(chan struct{}, 1)
		root := rootCommand()
		root.SetArgs(strings.Fields(line))
		root.SetIn(waiting{began})
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		go func() {
			<-began
			interrupt()
		}()
		if err := runCommand(ctx, root); exitCode(err) != exitInterrupted {
			t.Errorf("gnomon %s: exit %d (%v), want %d", line, exitCode(err), err, exitInterrupted)
		}
		interrupt()
	}
}

// Work that was interrupted leaves nothing, and is told from work that failed.
func TestInterruptedAtWork(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	root := rootCommand()
	out := filepath.Join(t.TempDir(), "out.csv")
	root.SetArgs([]string{"forecast", "--output", out})
	root.SetIn(strings.NewReader(strings.Repeat("1\n2\n", 100)))
	root.SetErr(io.Discard)
	if err := runCommand(ctx, root); exitCode(err) != exitInterrupted {
		t.Errorf("exit %d (%v), want %d", exitCode(err), err, exitInterrupted)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}
