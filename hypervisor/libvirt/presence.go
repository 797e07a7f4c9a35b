package libvirt

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gnomon-vm/gnomon/hypervisor"
)

// presence finds where the kernel sees a domain. What cannot be found is left
// out: it is looked for again with the next list.
func (d *Driver) presence(dm *domain) (p hypervisor.Presence) {
	p.Process, _ = processOf(dm.Name)
	if dm.cpu != (cpuController{}) {
		threads, _ := dm.cpu.threads()
		for _, t := range threads {
			p.VCPUs = append(p.VCPUs, t.id)
		}
	}
	for _, tap := range dm.def.taps {
		p.Interfaces = append(p.Interfaces, d.shape.Queues(tap))
	}
	return p
}

// processFile is where libvirt writes which process runs the domain of that name.
func processFile(name string) string { return filepath.Join("/run/libvirt/qemu", name+".pid") }

// processOf returns the process that runs the domain of that name.
func processOf(name string) (int, error) {
	text, err := os.ReadFile(processFile(name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
