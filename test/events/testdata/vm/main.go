// Command vm is the init of the active VM: for each line on its port it
// computes for as many milliseconds as the line says.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon/appliance/guestinit"
)

func main() {
	fmt.Println("vm:", run())
	select {}
}

func run() error {
	setup := guestinit.Setup()
	dev, err := guestinit.FindPort("org.gnomon.test.0", 10*time.Second)
	if err != nil {
		return fmt.Errorf("%w; %w", err, setup)
	}
	fd, err := unix.Open(dev, unix.O_RDWR, 0) // blocking: see cmd/gnomon-agent
	if err != nil {
		return err
	}
	port := os.NewFile(uintptr(fd), dev)
	fmt.Fprintln(port, "ready")
	for {
		lines := bufio.NewScanner(port)
		for lines.Scan() {
			ms, err := strconv.Atoi(lines.Text())
			if err != nil {
				continue
			}
			for begun := time.Now(); time.Since(begun) < time.Duration(ms)*time.Millisecond; {
			}
			fmt.Fprintln(port, "done")
		}
	}
}
