// Command gnomon-lab-vpa lets Kubernetes' Vertical Pod Autoscaler take part in
// the laboratory as itself: it imports the recommender's and the updater's own
// code, and asks them in virtual time what they would give each VM. One JSON
// object a line comes in for every step of a VM, one goes out; README.md says
// what they hold.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// maxLine bounds a request, in bytes: one that is longer is no request.
const maxLine = 64 << 10

// Exit codes: misuse is told apart from a pipe that broke.
const (
	exitOK    = 0
	exitIO    = 1
	exitUsage = 2
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program: it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "gnomon-lab-vpa: %v\n", err)
		return exitUsage
	}
	err = serve(newAutoscaler(s), stdin, stdout)
	var bad *protocolError
	switch {
	case errors.As(err, &bad):
		fmt.Fprintf(stderr, "gnomon-lab-vpa: %v\n", bad)
		return exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "gnomon-lab-vpa: %v\n", err)
		return exitIO
	}
	return exitOK
}

// serve answers every line of in with one on out, until in ends. The error is a
// *protocolError where a line is not what it has to be; answers to the lines
// before it are written all the same.
func serve(a *autoscaler, in io.Reader, out io.Writer) error {
	r, w := bufio.NewReaderSize(in, maxLine), bufio.NewWriter(out)
	err := converse(a, r, w)
	if flushed := w.Flush(); err == nil && flushed != nil {
		return fmt.Errorf("write answers: %w", flushed)
	}
	return err
}

func converse(a *autoscaler, r *bufio.Reader, w *bufio.Writer) error {
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return &protocolError{n, fmt.Errorf("it is longer than %d bytes", maxLine)}
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("read requests: %w", err)
		}
		req, err := decode(line)
		if err != nil {
			return &protocolError{n, err}
		}
		ans, err := a.step(req)
		if err != nil {
			return &protocolError{n, err}
		}
		if err := encode(w, ans); err != nil {
			return fmt.Errorf("write answers: %w", err)
		}
		// A caller that waits for this answer has sent nothing more yet.
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return fmt.Errorf("write answers: %w", err)
			}
		}
	}
}
