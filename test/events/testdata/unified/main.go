// Command unified is the init of a guest whose control groups are those of
// cgroup v2: it runs the tests in /tests and tells how they ended.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

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
	tests, err := filepath.Glob("/tests/*")
	for _, path := range tests {
		test := exec.Command(path, "-test.v", "-test.skip", "TestDisk|TestOpen")
		test.Env = []string{"GNOMON_TEST_VM=1", "PATH=/usr/bin:/bin"}
		test.Stdout, test.Stderr = os.Stdout, os.Stdout
		err = errors.Join(err, test.Run())
	}
	return err
}
