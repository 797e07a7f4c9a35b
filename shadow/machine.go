package shadow

import (
	"fmt"
	"os"

	"github.com/gnomon-vm/gnomon/appliance"
	"golang.org/x/sys/unix"
)

const (
	qemu = "/usr/bin/qemu-system-x86_64"

	// channelName is the virtio-serial port that the agent looks for.
	channelName = "org.gnomon.agent.0"

	// guestMemory is the guest's, in bytes: the least that it boots in. Of that a
	// clone takes only what it changes.
	guestMemory = 80 << 20

	// bootCache and cloneCache bound QEMU's cache of translated code, in MiB,
	// under TCG. A boot runs much code once. A clone takes of its cache what it
	// uses; with too little it translates the same code again and again: with 8 it
	// takes half as much CPU again as with 16.
	bootCache  = 32
	cloneCache = 16

	// cmdline keeps the guest quiet, small and quick to boot. With
	// overcommit_memory the Go runtime's reservations fit a small guest; panic=-1
	// turns a dead agent into a dead VM, which the daemon replaces. To zero pages
	// when they are taken would make a clone's copies of them. A clock that needs no
	// watchdog, no proactive compaction, hardly any statistics and no idle governor
	// leave a guest asleep that waits for an event. The initcalls left out take
	// seconds under TCG, for certificates, self-tests and tracing that nothing here
	// uses, as do pressure statistics, memory groups and security modules. An agent
	// with one goroutine at work need not be preempted, nor count its CPUs.
	cmdline = "console=ttyS0 quiet loglevel=3 panic=-1 sysctl.vm.overcommit_memory=1 " +
		"transparent_hugepage=never init_on_alloc=0 nowatchdog no_timer_check noreplace-smp " +
		"tsc=reliable cpuidle.off=1 sysctl.vm.compaction_proactiveness=0 sysctl.vm.stat_interval=3600 " +
		"audit=0 mitigations=off psi=0 cgroup_disable=memory lsm= random.trust_cpu=on 8250.nr_uarts=1 " +
		"cryptomgr.notests ipv6.disable=1 initcall_blacklist=load_system_certificate_list," +
		"crypto_kdf108_init,init_kprobe_trace,trace_eval_init,init_ima,i8042_init," +
		"init_encrypted,tracer_init_tracefs " +
		"GODEBUG=asyncpreemptoff=1,updatemaxprocs=0"
)

// The files that QEMU is handed, by their numbers: it opens none by a path of
// ours, so its user needs no access to any.
const (
	fdAgent = 3 + iota // listening socket of the agent's channel
	fdQMP              // listening socket of QEMU's monitor
	fdMemory
	fdState  // of a template, for a clone
	fdKernel = fdState
	fdInitrd = fdKernel + 1

	// fdProgram is the agent's own, where that is the process.
	fdProgram = fdMemory
)

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// bootArgs are QEMU's arguments to boot a guest. Its memory can become a
// template's.
func bootArgs(name, accel string) []string {
	return append(machineArgs(name, accel, bootCache, "on"),
		"-kernel", fdPath(fdKernel), "-initrd", fdPath(fdInitrd), "-append", cmdline)
}

// cloneArgs are QEMU's arguments to take over a template's state. What a clone
// writes to its memory is its own. It needs no kernel: that is in the memory.
func cloneArgs(name, accel string) []string {
	return append(machineArgs(name, accel, cloneCache, "off"), "-S", "-incoming", "defer")
}

// machineArgs describe the machine. A template and its clones must agree on it.
//
// There is no balloon: QEMU gives a page back by punching a hole into the file
// behind it, which for a clone is the template's (seen in QEMU 7.2).
func machineArgs(name, accel string, cache int, share string) []string {
	if accel == "tcg" {
		accel = fmt.Sprintf("tcg,tb-size=%d", cache)
	}
	return []string{
		"-name", name,
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-M", "q35,usb=off,sata=off,smbus=off,vmport=off,hpet=off,smm=off,memory-backend=ram",
		"-accel", accel, "-m", fmt.Sprint(guestMemory >> 20),
		"-object", fmt.Sprintf("memory-backend-file,id=ram,size=%d,mem-path=%s,share=%s", guestMemory, fdPath(fdMemory), share),
		"-device", "virtio-serial-pci",
		"-chardev", fmt.Sprintf("socket,id=agent,server=on,wait=off,fd=%d", fdAgent),
		"-device", "virtserialport,chardev=agent,name=" + channelName,
		"-device", "virtio-rng-pci",
		"-device", "vmgenid,guid=auto",
		"-chardev", fmt.Sprintf("socket,id=monitor,server=on,wait=off,fd=%d", fdQMP),
		"-mon", "chardev=monitor,mode=control",
		"-serial", "stdio",
	}
}

// newMemory returns a file in memory of the given size.
func newMemory(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("make memory: %w", err)
	}
	return f, nil
}

// seal makes a file in memory what it is for good, for everybody.
func seal(f *os.File) error {
	const all = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, all); err != nil {
		return fmt.Errorf("seal memory: %w", err)
	}
	return nil
}

// reopen opens a file in memory anew, to be read from its beginning.
func reopen(f *os.File) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

// kernelFiles opens what a boot needs.
func kernelFiles(img appliance.Image) (kernel, initrd *os.File, err error) {
	if kernel, err = os.Open(img.KernelPath()); err != nil {
		return nil, nil, err
	}
	if initrd, err = os.Open(img.InitrdPath()); err != nil {
		kernel.Close()
		return nil, nil, err
	}
	return kernel, initrd, nil
}
