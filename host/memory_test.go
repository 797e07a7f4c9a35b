package host

import (
	"bytes"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

// logged keeps what a daemon logs.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func TestReplacedAgentResumes(t *testing.T) {
	r := newRig(t)
	log := &logged{}
	r.opt.Log = slog.New(slog.NewTextHandler(log, nil))
	r.configure(nil)
	r.start()
	id := r.add(web("vm1"))
	file := r.daemon.states.file(id)
	r.eventually("a state is kept", func() bool { _, err := os.Stat(file); return err == nil })
	for name, want := range map[string]fs.FileMode{file: 0o600, filepath.Dir(file): fs.ModeDir | 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v (%v), want %v", name, info.Mode(), err, want)
		}
	}
	if n := log.count("resumed with"); n != 0 {
		t.Errorf("an agent that nothing is known to resumed %d times", n)
	}
	var first gnomon.VMID
	r.do(func() { first = r.daemon.vms[id].shadow.id })
	r.agents.kill(first)
	r.eventually("another agent resumes", func() bool { return log.count("resumed with") == 1 })
	// It ends soon, as it would of a bad state: the third is not given it.
	var second gnomon.VMID
	r.do(func() { second = r.daemon.vms[id].shadow.id })
	r.agents.kill(second)
	r.eventually("a third agent begins anew", func() bool { return log.count("agent begins anew") == 1 && r.attached(id)() })
	if n := log.count("resumed with"); n != 1 {
		t.Errorf("%d agents resumed, want only the second", n)
	}
	// Shadows end with the daemon; those of the next one resume too.
	r.stop()
	r.start()
	r.eventually("the next daemon's agent resumes", func() bool { return log.count("resumed with") == 2 })
}

// mimic is an agent that sends one state, asks for it until there is one, and
// then sends many others.
func mimic(c net.Conn, got func(vm string, state []byte)) {
	conn := wire.NewConn(c)
	write := func(m *agentpb.ToHost) { _ = conn.WriteToHost(m) }
	send := func(id uint64, text string) {
		parts, _ := wire.StateTo(id, bytes.Repeat([]byte(text), 20_000))
		for _, p := range parts {
			write(&agentpb.ToHost{Message: &agentpb.ToHost_State{State: p}})
		}
	}
	ask := func() {
		time.Sleep(recallGap + recallGap/10)
		write(&agentpb.ToHost{Message: &agentpb.ToHost_StateRequest{StateRequest: &agentpb.StateRequest{Id: 1}}})
	}
	vm := ""
	var parts wire.StateParts
	write(&agentpb.ToHost{Message: &agentpb.ToHost_Hello{Hello: &agentpb.Hello{Nonce: 1}}})
	for {
		m, err := conn.ReadToAgent()
		if err != nil {
			return
		}
		switch {
		case m.GetWelcome().GetVm() != "" && vm == "":
			vm = m.GetWelcome().GetVm()
			send(1, vm)
			ask()
		case m.GetPing() != nil:
			write(&agentpb.ToHost{Message: &agentpb.ToHost_Pong{Pong: &agentpb.Pong{Id: m.GetPing().GetId()}}})
		case m.GetState() != nil:
			state, whole := parts.Add(m.GetState())
			if !whole && m.GetState().GetParts() > 0 {
				continue
			}
			got(vm, state)
			if len(state) == 0 {
				ask()
				continue
			}
			for id := range uint64(20) {
				send(2+id, "another")
			}
		}
	}
}

func TestStatesGoBackToTheirOwnVMOnly(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	var mu sync.Mutex
	states := map[string][]byte{}
	r.agents.behave = func(c net.Conn) {
		mimic(c, func(vm string, state []byte) {
			mu.Lock()
			defer mu.Unlock()
			states[vm] = state
		})
	}
	r.start()
	ids := []gnomon.VMID{r.add(web("vm1")), r.add(web("vm2"))}
	r.eventually("each got a state", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(states["vm1"]) > 0 && len(states["vm2"]) > 0
	})
	mu.Lock()
	defer mu.Unlock()
	for _, id := range ids {
		want := bytes.Repeat([]byte(id), 20_000)
		if !bytes.Equal(states[string(id)], want) {
			t.Errorf("%s was given %d bytes, %.20q", id, len(states[string(id)]), states[string(id)])
		}
		// The many that came right after the first are not kept.
		if b, err := r.daemon.states.recall(id); err != nil || !bytes.Equal(b, want) {
			t.Errorf("of %s %.20q is kept (%v)", id, b, err)
		}
	}
}

func TestStatesStayInTheirFolder(t *testing.T) {
	root := t.TempDir()
	a := agentStates{filepath.Join(root, "a", "agents")}
	ids := []gnomon.VMID{"", ".", "..", "../../evil", "/etc/passwd", "a/b", "a%2Fb", "näme", "plain"}
	if b, err := a.recall("plain"); b != nil || err != nil {
		t.Errorf("before anything is kept: %q, %v", b, err)
	}
	for _, id := range ids {
		if err := a.keep(id, []byte(id+"!")); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if b, err := a.recall(id); err != nil || string(b) != string(id)+"!" {
			t.Errorf("%q: kept is %q (%v)", id, b, err)
		}
	}
	entries, err := os.ReadDir(a.dir)
	if err != nil || len(entries) != len(ids) {
		t.Errorf("%d files in the folder (%v), want %d", len(entries), err, len(ids))
	}
	if got, _ := filepath.Glob(filepath.Join(root, "*")); len(got) != 1 {
		t.Errorf("outside there are %v", got)
	}
}

func TestSweepRemovesStatesOfVMsThatAreGone(t *testing.T) {
	a := agentStates{t.TempDir()}
	if err := (agentStates{filepath.Join(a.dir, "none")}).sweep(nil, time.Now()); err != nil {
		t.Errorf("of a folder that is not there: %v", err)
	}
	old := time.Now().Add(-2 * forgetAfter)
	for _, id := range []gnomon.VMID{"runs", "a/b runs", "gone", "just gone"} {
		if err := a.keep(id, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if id != "just gone" {
			if err := os.Chtimes(a.file(id), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := filepath.Join(a.dir, "vm-runs.state.123") // of a write that was cut short
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	if err := a.sweep(map[gnomon.VMID]bool{"runs": true, "a/b runs": true}, time.Now().Add(-forgetAfter)); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, _ := os.ReadDir(a.dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"vm-a%2Fb%20runs.state", "vm-just%20gone.state", "vm-runs.state"}; !slices.Equal(names, want) {
		t.Errorf("left are %q, want %q", names, want)
	}
}

// A file that is too large for a state, which no daemon wrote, is not sent.
func TestStateFileThatIsTooLarge(t *testing.T) {
	a := agentStates{t.TempDir()}
	if err := a.keep("vm", make([]byte, 3*wire.MaxState)); err != nil {
		t.Fatal(err)
	}
	b, err := a.recall("vm")
	if err != nil || len(b) != wire.MaxState+1 {
		t.Errorf("%d bytes were read (%v), want no more than tells that it is too large", len(b), err)
	}
	if _, err := wire.StateTo(1, b); err == nil {
		t.Error("it would be sent")
	}
}
