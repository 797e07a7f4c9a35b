// Command echo is the init of a shadow that forecasts nothing: it answers each
// usage event with an empty proposal at once, so that the time to the answer
// bounds the time to the event.
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon/appliance/guestinit"
	"github.com/gnomon-vm/gnomon/wire"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
)

func main() {
	fmt.Println("echo:", run())
	select {}
}

func run() error {
	setup := guestinit.Setup()
	dev, err := guestinit.FindPort("org.gnomon.agent.0", 10*time.Second)
	if err != nil {
		return fmt.Errorf("%w; %w", err, setup)
	}
	fd, err := unix.Open(dev, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	conn := wire.NewConn(os.NewFile(uintptr(fd), dev))
	hello := &agentpb.ToHost{Message: &agentpb.ToHost_Hello{Hello: &agentpb.Hello{Nonce: rand.Uint64(), Version: "echo"}}}
	if err := conn.WriteToHost(hello); err != nil {
		return err
	}
	for {
		m, err := conn.ReadToAgent()
		if err != nil {
			time.Sleep(10 * time.Millisecond) // the host is away
			continue
		}
		switch m := m.GetMessage().(type) {
		case *agentpb.ToAgent_Knock:
			err = conn.WriteToHost(hello)
		case *agentpb.ToAgent_Ping:
			err = conn.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_Pong{Pong: &agentpb.Pong{Id: m.Ping.GetId()}}})
		case *agentpb.ToAgent_Usage:
			err = conn.WriteToHost(&agentpb.ToHost{Message: &agentpb.ToHost_Proposal{Proposal: &agentpb.Proposal{Seq: m.Usage.GetSeq()}}})
		}
		if err != nil {
			return err
		}
	}
}
