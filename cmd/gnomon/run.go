package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// errInterrupted is why a command ended that was told to stop before its end.
var errInterrupted = errors.New("interrupted")

// runCommand runs a command line. It failed, too, if what it printed was not
// written.
func runCommand(ctx context.Context, root *cobra.Command) error {
	out := &output{Writer: root.OutOrStdout()}
	root.SetOut(out)
	err := root.ExecuteContext(ctx)
	if interrupted(ctx, err) {
		return fmt.Errorf("%w: %s", errInterrupted, explain(err))
	}
	if err == nil {
		err = out.err
	}
	return err
}

// output keeps the first error of what is written.
type output struct {
	io.Writer
	err error
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// interrupted tells whether err is that ctx ended.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || connect.CodeOf(err) == connect.CodeCanceled)
}

// input is the standard input of a command. A read that waits for it ends when
// the command is told to stop.
func input(cmd *cobra.Command) io.Reader {
	return interruptible{cmd.Context(), cmd.InOrStdin()}
}

type interruptible struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (i interruptible) Read(p []byte) (int, error) {
	buf := make([]byte, len(p)) // of its own: a read that was given up may yet fill it
	n, err := unlessDone(i.ctx, func() (int, error) { return i.r.Read(buf) })
	return copy(p, buf[:n]), err
}

// terminal returns the file descriptor of a terminal, and false for what is none.
func terminal(r io.Reader) (fd int, ok bool) {
	f, ok := r.(*os.File)
	if !ok {
		return 0, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// readSecret asks for a line at a terminal, which does not show it.
func readSecret(cmd *cobra.Command, fd int, prompt string) (string, error) {
	shown, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	defer term.Restore(fd, shown) //nolint:errcheck // it is as it was unless the command was told to stop
	fmt.Fprint(cmd.ErrOrStderr(), prompt)
	defer fmt.Fprintln(cmd.ErrOrStderr())
	text, err := unlessDone(cmd.Context(), func() ([]byte, error) { return term.ReadPassword(fd) })
	return string(text), err
}

// unlessDone returns what f returns, or nothing once ctx ends, and lets f go on
// by itself then.
func unlessDone[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
