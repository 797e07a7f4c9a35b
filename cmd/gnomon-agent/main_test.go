package main

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/gnomon-vm/gnomon/wire"
)

func TestRunOnSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- runOn(socket) }()
	// It says hello to each host in turn.
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		m, err := wire.NewConn(c).ReadToHost()
		if err != nil || m.GetHello().GetNonce() == 0 || m.GetHello().GetKernel() == "unknown" {
			t.Errorf("got %v, %v, want a hello", m, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	if err := <-done; err == nil {
		t.Error("it went on without its socket")
	}
	if err := runOn(socket); err == nil {
		t.Error("it ran on a channel that is not there")
	}
}

func TestCostIsThisPrograms(t *testing.T) {
	heap, cpu := cost()
	if heap <= 0 || cpu < 0 || cpu > cpuTime() {
		t.Errorf("heap %d, CPU %v", heap, cpu)
	}
}
