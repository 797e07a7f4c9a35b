// Command unified is the init of a guest whose control groups are those of
// cgroup v2: it runs the tests in /tests and tells how they ended.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon/appliance/guestinit"
)

const groups = "/sys/fs/cgroup"

func main() {
	fmt.Println("tests ended:", run())
	fmt.Println(guestinit.PowerOff())
}

func run() error {
	err := errors.Join(guestinit.Setup(), unix.Mount("cgroup2", groups, "cgroup2", 0, ""),
		os.WriteFile(groups+"/cgroup.subtree_control", []byte("+cpu"), 0))
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"/tests/cell"},
		{"/tests/pressure", "-test.skip", "TestDisk|TestOpen"},
		{"/tests/shadow", "-test.run", "^TestShadowProcess$"}, // there is no QEMU
	} {
		test := exec.Command(args[0], append(args[1:], "-test.v")...)
		test.Env = []string{"GNOMON_TEST_VM=1", "GNOMON_TEST_APPLIANCE=/appliance", "PATH=/usr/bin:/bin"}
		test.Stdout, test.Stderr = os.Stdout, os.Stdout
		err = errors.Join(err, test.Run())
	}
	return err
}
