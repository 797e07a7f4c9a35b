//go:build linux

// Package qmp speaks QEMU's machine protocol, as much of it as freezing, cloning
// and pausing a guest takes. It passes open files, which the public clients do
// not.
package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Client is a connection to one QEMU. It is not safe for concurrent use.
type Client struct {
	conn      *net.UnixConn
	in        *json.Decoder
	stop      func() bool
	migration string // the newest status of one
}

// message is what QEMU sends: a greeting, an answer or an event.
type message struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// Dial connects to QEMU's socket. The connection works until ctx ends.
func Dial(ctx context.Context, socket string) (*Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to QEMU: %w", err)
	}
	c := &Client{conn: conn.(*net.UnixConn), in: json.NewDecoder(conn)}
	c.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	var greeting message
	if err := c.in.Decode(&greeting); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to QEMU: %w", err)
	}
	if err := c.Run("qmp_capabilities", nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection, and leaves QEMU as it is.
func (c *Client) Close() {
	c.stop()
	c.conn.Close()
}

// Args are a command's arguments, by name.
type Args map[string]any

// Run has QEMU run a command and waits for its answer.
func (c *Client) Run(command string, args Args) error { return c.run(command, args, nil) }

// Give hands QEMU an open file, which commands then name as fd:name.
func (c *Client) Give(name string, f *os.File) error {
	return c.run("getfd", Args{"fdname": name}, unix.UnixRights(int(f.Fd())))
}

func (c *Client) run(command string, args Args, rights []byte) error {
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	b, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("QEMU %s: %w", command, err)
	}
	if _, _, err := c.conn.WriteMsgUnix(b, rights, nil); err != nil {
		return fmt.Errorf("QEMU %s: %w", command, err)
	}
	for {
		m, err := c.next()
		switch {
		case err != nil:
			return fmt.Errorf("QEMU %s: %w", command, err)
		case m.Error != nil:
			return fmt.Errorf("QEMU %s: %s", command, m.Error.Desc)
		case m.Return != nil:
			return nil
		}
	}
}

// next returns the next message. An event may come before the answer to the
// command that caused it.
func (c *Client) next() (message, error) {
	var m message
	if err := c.in.Decode(&m); err != nil {
		return m, err
	}
	if m.Event == "MIGRATION" {
		var data struct {
			Status string `json:"status"`
		}
		if err := json.Unmarshal(m.Data, &data); err != nil {
			return m, err
		}
		c.migration = data.Status
	}
	return m, nil
}

// ErrFailed is returned where a migration did not succeed.
var ErrFailed = errors.New("QEMU migration failed")

// Migrated waits until a migration, of either direction, has ended. The
// capability "events" must be set.
func (c *Client) Migrated() error {
	for {
		switch c.migration {
		case "completed":
			return nil
		case "failed", "cancelled":
			return ErrFailed
		}
		if _, err := c.next(); err != nil {
			return fmt.Errorf("QEMU migration: %w", err)
		}
	}
}
