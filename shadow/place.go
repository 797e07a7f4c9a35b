package shadow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/shadow/cell"
)

// place is a shadow's directory: its sockets, its console and its record. Only
// the daemon's user can enter it; the shadow is handed what it needs open.
type place struct {
	name string
	dir  string
	kvm  []uint32 // groups that may open /dev/kvm, if the shadow is to

	bound bool // what runs here ends with this daemon
}

func (l *Launcher) at(name string) place {
	return place{name: name, dir: filepath.Join(l.opts.RunDir, name), kvm: l.kvm}
}

// place makes the directory, empty.
func (l *Launcher) place(name string) (place, error) {
	p := l.at(name)
	p.remove()
	return p, os.Mkdir(p.dir, 0o700)
}

func (p place) remove() { _ = os.RemoveAll(p.dir) }

func (p place) socket() string  { return filepath.Join(p.dir, "agent.sock") }
func (p place) monitor() string { return filepath.Join(p.dir, "qmp.sock") }
func (p place) console() string { return filepath.Join(p.dir, "console.log") }
func (p place) record() string  { return filepath.Join(p.dir, "shadow.json") }

func (p place) occupant() string { return filepath.Join(p.dir, "cell") }

// occupy notes which cell runs here, for whoever finds the place when this daemon
// is no more.
func (p place) occupy(c cell.Cell) error { return os.WriteFile(p.occupant(), []byte(c), 0o600) }

// vacate ends the cell that occupies the place, if one does.
func (p place) vacate(ctx context.Context) error {
	b, err := os.ReadFile(p.occupant())
	if errors.Is(err, os.ErrNotExist) || err == nil && len(b) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if err := cell.Cell(b).Kill(ctx); err != nil {
		return err
	}
	p.remove()
	return nil
}

// record is what a daemon that restarts must know of a shadow.
type record struct {
	Name    string         `json:"name"`
	ID      gnomon.VMID    `json:"id"`
	For     gnomon.VMID    `json:"for"`
	Account string         `json:"account"`
	Runtime config.Runtime `json:"runtime"`
	Paused  bool           `json:"paused"`
}

func (r record) cell() cell.Cell { return cell.Cell(r.ID) }

func (p place) write(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	next := p.record() + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, p.record())
}

func (p place) read() (record, error) {
	var r record
	b, err := os.ReadFile(p.record())
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

// start runs a program in a cell with the agent's socket as the first of its
// files, QEMU's as the second, and more after.
func (p place) start(c cell.Cell, path string, args []string, limits cell.Limits, more ...*os.File) error {
	console, err := os.OpenFile(p.console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	var files []*os.File
	for _, path := range []string{p.socket(), p.monitor()} {
		f, err := listen(path)
		if err != nil {
			return err
		}
		defer f.Close()
		files = append(files, f)
	}
	return c.Start(cell.Command{
		Path: path, Args: args, Files: append(files, more...), Output: console, Groups: p.kvm, Bound: p.bound,
	}, limits)
}

// listen makes a listening socket for somebody else to accept on: who connects
// waits from now on.
func listen(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	return l.File()
}

// lastWords returns the end of the console, to be put after an error.
func (p place) lastWords() string {
	const most = 400
	b, err := os.ReadFile(p.console())
	text := strings.TrimSpace(string(b))
	if err != nil || text == "" {
		return ""
	}
	return fmt.Sprintf(" (console: %q)", text[max(0, len(text)-most):])
}

// kvmGroups returns the group that opens /dev/kvm.
func kvmGroups() ([]uint32, error) {
	g, err := user.LookupGroup("kvm")
	if err != nil {
		return nil, fmt.Errorf("find who may open %s: %w", kvmDevice, err)
	}
	id, err := strconv.ParseUint(g.Gid, 10, 32)
	return []uint32{uint32(id)}, err
}
