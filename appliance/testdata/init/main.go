// The init of the appliance's boot test: it does what an init of ours does and
// tells the console.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/gnomon-vm/gnomon/appliance/guestinit"
)

func main() {
	if !guestinit.IsInit() {
		fmt.Fprintln(os.Stderr, "this is an init")
		os.Exit(2)
	}
	fmt.Println("setup:", guestinit.Setup())
	port, err := guestinit.FindPort("test.port", 5*time.Second)
	fmt.Println("port:", port, err)
	seed, ok := guestinit.Parameter("gnomon.seed")
	fmt.Println("seed:", seed, ok)
	b, err := os.ReadFile("/etc/note")
	fmt.Println("note:", string(b), err)
	fmt.Println("power off:", guestinit.PowerOff())
}
