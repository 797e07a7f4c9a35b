package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// server is the real program in a process of its own.
type server struct {
	o       options
	dir     string
	address string
	url     string
	cmd     *exec.Cmd
	ended   time.Duration // CPU time of the processes before
}

func newServer(o options) (*server, error) {
	dir, err := os.MkdirTemp(o.dir, "gnomon-scale-")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return &server{o: o, dir: dir, address: l.Addr().String(), url: "http://" + l.Addr().String()}, nil
}

// readyPatience is how long a server may take to load what it has.
const readyPatience = 2 * time.Minute

// start starts it and waits until it is ready.
func (s *server) start(ctx context.Context) error {
	if err := s.launch(); err != nil {
		return err
	}
	deadline := time.Now().Add(readyPatience)
	for ctx.Err() == nil && time.Now().Before(deadline) {
		if _, err := s.get(ctx, "/readyz"); err == nil {
			return nil
		}
		pause(ctx, 20*time.Millisecond)
	}
	return fmt.Errorf("the server is not ready after %v; see its log with -v", readyPatience)
}

func (s *server) launch() error {
	// It lives until it is killed: the end of the measurement kills it too.
	s.cmd = exec.Command(s.o.binary, "server", "--listen", s.address, "--data-dir", s.dir, "--log-level", "warn") //nolint:noctx // see above
	if s.o.verbose {
		s.cmd.Stderr = os.Stderr
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	return nil
}

func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.ended += s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()
	s.cmd = nil
}

func (s *server) remove() {
	s.kill()
	_ = os.RemoveAll(s.dir)
}

// get asks on a connection of its own, and not for long: among those of a whole
// fleet that comes back it may be dropped.
func (s *server) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, res.Status)
	}
	return b, err
}

// revision is how often etcd has been written to; 0 if that is not known.
func (s *server) revision(ctx context.Context) int64 {
	b, _ := s.get(ctx, "/metrics")
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "gnomon_server_store_revision "); ok {
			v, _ := strconv.ParseFloat(text, 64)
			return int64(v)
		}
	}
	return 0
}

// cpu is the time that all its processes have taken.
func (s *server) cpu() time.Duration {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), "stat"))
	if err != nil {
		return s.ended
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest) // from the third on
	const tick = 10 * time.Millisecond
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return s.ended + time.Duration(user+system)*tick
}

// rss is its resident memory in bytes.
func (s *server) rss() int64 {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), "statm"))
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
