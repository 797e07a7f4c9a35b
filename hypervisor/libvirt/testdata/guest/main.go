// Command guest is the init of the machines that the driver's tests run. It
// keeps a vCPU, the disk and the network busy, as far as it has them.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon/appliance/guestinit"
)

func main() {
	if err := guestinit.Setup(); err != nil {
		fmt.Println("guest: set up:", err)
	}
	runtime.GOMAXPROCS(4)
	if _, refuses := guestinit.Parameter("guest.refuses"); !refuses {
		go func() { fmt.Println("guest: no vCPU is brought online:", guestinit.BringOnline()) }()
	}
	if _, idle := guestinit.Parameter("guest.idle"); !idle {
		var busy sync.WaitGroup
		busy.Add(2)
		go writeDisk("/dev/vda", sync.OnceFunc(busy.Done))
		go sendFrames("eth0", sync.OnceFunc(busy.Done))
		busy.Wait()
		_, solid := guestinit.Parameter("guest.solid")
		go spin(solid)
	}
	fmt.Println("guest: ready")
	for { // with nothing else to do, Go would take a select for a deadlock
		time.Sleep(time.Hour)
	}
}

// spin wants about two thirds of a vCPU, at the lowest priority; or all of one,
// always the same.
func spin(solid bool) {
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19)
	for solid {
	}
	for {
		for begin := time.Now(); time.Since(begin) < 20*time.Millisecond; {
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// writeDisk writes past the page cache, about 10 MB/s.
func writeDisk(dev string, started func()) {
	defer started()
	f, err := os.OpenFile(dev, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		fmt.Println("guest: no disk:", err)
		return
	}
	const size = 64 << 10
	raw := make([]byte, size+4096)
	skip := 4096 - int(uintptr(unsafe.Pointer(&raw[0]))%4096)
	for i := int64(0); ; i++ {
		if _, err := f.WriteAt(raw[skip:skip+size], i%64*size); err != nil {
			fmt.Println("guest: write disk:", err)
			return
		}
		started()
		time.Sleep(5 * time.Millisecond)
	}
}

// sendFrames sends broadcast frames, about 3 MB/s.
func sendFrames(dev string, started func()) {
	defer started()
	nic, err := net.InterfaceByName(dev)
	if err != nil {
		fmt.Println("guest: no network:", err)
		return
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		fmt.Println("guest: open socket:", err)
		return
	}
	req, _ := unix.NewIfreq(dev)
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		fmt.Println("guest: bring up:", err)
	}
	frame := make([]byte, 1500)
	for i := range 6 {
		frame[i] = 0xff
	}
	copy(frame[6:], nic.HardwareAddr)
	frame[12], frame[13] = 0x88, 0xb5 // local experimental EtherType
	to := &unix.SockaddrLinklayer{Ifindex: nic.Index, Halen: 6}
	for {
		for range 20 {
			_ = unix.Sendto(fd, frame, 0, to) // dropped when the queue is full
		}
		started()
		time.Sleep(10 * time.Millisecond)
	}
}
