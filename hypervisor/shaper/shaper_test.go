package shaper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// guest is a tap whose guest end is held by the test.
type guest struct {
	dev  string
	link netlink.Link
	fd   *os.File
	host net.IP // the host's address on the tap
	self net.IP // the guest's
	mac  net.HardwareAddr
}

func newGuest(t *testing.T, n byte) *guest {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making taps needs root")
	}
	dev := fmt.Sprintf("gnh-s%d-%d", n, os.Getpid()%10000)
	tap := &netlink.Tuntap{
		LinkAttrs:  netlink.LinkAttrs{Name: dev},
		Mode:       netlink.TUNTAP_MODE_TAP,
		Flags:      netlink.TUNTAP_NO_PI,
		NonPersist: true,
		Queues:     1,
	}
	if err := netlink.LinkAdd(tap); err != nil {
		t.Fatalf("make tap: %v", err)
	}
	g := &guest{
		dev: dev, link: tap, fd: tap.Fds[0],
		host: net.IPv4(10, 231, n, 1), self: net.IPv4(10, 231, n, 2),
		mac: net.HardwareAddr{2, 0, 0, 0x67, 0x6e, n},
	}
	t.Cleanup(func() {
		g.fd.Close()
		if s, err := New(); err == nil {
			s.Sweep()
			s.Close()
		}
	})
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: g.host, Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(tap, addr); err != nil {
		t.Fatalf("add address: %v", err)
	}
	if err := netlink.LinkSetUp(tap); err != nil {
		t.Fatalf("bring up: %v", err)
	}
	neigh := &netlink.Neigh{LinkIndex: tap.Attrs().Index, State: netlink.NUD_PERMANENT, IP: g.self, HardwareAddr: g.mac}
	if err := netlink.NeighSet(neigh); err != nil {
		t.Fatalf("set neighbour: %v", err)
	}
	link, err := netlink.LinkByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	g.link = link
	return g
}

func newShaper(t *testing.T) *Shaper {
	t.Helper()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// receive measures how long the guest takes to receive size bytes that the
// host sends as fast as it can.
func (g *guest) receive(t *testing.T, size int) time.Duration {
	t.Helper()
	conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: g.self, Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		payload := make([]byte, 1400)
		for {
			if _, err := conn.Write(payload); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
		}
	}()
	start, got, buf := time.Now(), 0, make([]byte, 2048)
	for got < size {
		n, err := g.fd.Read(buf)
		if err != nil {
			t.Fatalf("read tap: %v", err)
		}
		got += n
	}
	took := time.Since(start)
	conn.Close()
	<-done
	return took
}

// send measures how long the host takes to receive size bytes that the guest
// sends as fast as it can.
func (g *guest) send(t *testing.T, size int) time.Duration {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: g.host})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	frame := g.frame(conn.LocalAddr().(*net.UDPAddr).Port, 1400)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := g.fd.Write(frame); err != nil {
					return
				}
			}
		}
	}()
	start, got, buf := time.Now(), 0, make([]byte, 2048)
	for got < size {
		conn.SetReadDeadline(start.Add(20 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("receive: %v", err)
		}
		got += n + 42
	}
	took := time.Since(start)
	close(stop)
	<-done
	return took
}

// frame is an Ethernet frame with a UDP datagram to the host.
func (g *guest) frame(port, size int) []byte {
	f := make([]byte, 42+size)
	copy(f, g.link.Attrs().HardwareAddr)
	copy(f[6:], g.mac)
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	ip := f[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(28+size))
	copy(ip[12:], g.self.To4())
	copy(ip[16:], g.host.To4())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	udp := ip[20:]
	binary.BigEndian.PutUint16(udp, 9)
	binary.BigEndian.PutUint16(udp[2:], uint16(port))
	binary.BigEndian.PutUint16(udp[4:], uint16(8+size))
	return f
}

func TestLimitsBothDirections(t *testing.T) {
	g, s := newGuest(t, 1), newShaper(t)
	const rate, size = 2_000_000, 1_000_000
	if got, err := s.Set(g.dev, rate); err != nil || got != rate {
		t.Fatalf("Set = %d, %v; want %d", got, err, rate)
	}
	// The bucket starts full, so up to minBurst passes at once.
	least := time.Duration(float64(size-minBurst-3000) / rate * float64(time.Second))
	for name, run := range map[string]func(*testing.T, int) time.Duration{"receive": g.receive, "send": g.send} {
		if took := run(t, size); took < least*95/100 || took > 2*least {
			t.Errorf("%s %d bytes at %d B/s took %v, want about %v", name, size, rate, took, least)
		}
	}
	st, err := s.Stats(g.dev)
	if err != nil {
		t.Fatal(err)
	}
	got := st[g.dev]
	if got.Rate != rate || got.Received < size || got.Passed < size || got.Drops == 0 {
		t.Errorf("stats = %+v, want rate %d, %d bytes each way and drops", got, rate, size)
	}
	if got.Passed > 2*size || got.Sent < 2*got.Passed {
		t.Errorf("stats = %+v: what was dropped counts as passed", got)
	}
}

func TestChangeAndRemove(t *testing.T) {
	g, s := newGuest(t, 2), newShaper(t)
	for _, rate := range []int64{5_000_000, 64_000, 20_000_000_000, 10} {
		want := max(rate, MinRate)
		if got, err := s.Set(g.dev, rate); err != nil || got != want {
			t.Fatalf("Set(%d) = %d, %v; want %d", rate, got, err, want)
		}
	}
	if err := s.Check(g.dev); err != nil {
		t.Errorf("Check of an interface shaped by ourselves: %v", err)
	}
	if got, err := s.Set(g.dev, Unlimited); err != nil || got != Unlimited {
		t.Fatalf("Set(Unlimited) = %d, %v", got, err)
	}
	if _, err := netlink.LinkByName(ifbName(g.link)); err == nil {
		t.Error("the ifb device stays after removal")
	}
	qs, err := netlink.QdiscList(g.link)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range qs {
		if isOurs(q) || q.Type() == "ingress" {
			t.Errorf("queue %v stays after removal", q)
		}
	}
	if got, err := s.Set(g.dev, Unlimited); err != nil || got != Unlimited {
		t.Errorf("removing twice = %d, %v", got, err)
	}
	if took := g.receive(t, 1_000_000); took > 200*time.Millisecond {
		t.Errorf("unlimited receive took %v", took)
	}
}

func TestNoQueueComesBack(t *testing.T) {
	g, s := newGuest(t, 5), newShaper(t)
	if err := netlink.QdiscReplace(noqueue(g.link)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds our own queue
		if got, err := s.Set(g.dev, 1_000_000); err != nil || got != 1_000_000 {
			t.Fatalf("Set = %d, %v", got, err)
		}
	}
	if _, err := s.Set(g.dev, Unlimited); err != nil {
		t.Fatal(err)
	}
	qs, err := netlink.QdiscList(g.link)
	if err != nil {
		t.Fatal(err)
	}
	if len(qs) != 1 || qs[0].Type() != "noqueue" {
		t.Errorf("queues after removal = %v, want noqueue alone", qs)
	}
}

func TestForeignQueueIsLeftAlone(t *testing.T) {
	g, s := newGuest(t, 3), newShaper(t)
	htb := netlink.NewHtb(netlink.QdiscAttrs{
		LinkIndex: g.link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
	})
	if err := netlink.QdiscAdd(htb); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(g.dev); !errors.Is(err, ErrForeign) {
		t.Errorf("Check = %v, want ErrForeign", err)
	}
	if _, err := s.Set(g.dev, 1_000_000); !errors.Is(err, ErrForeign) {
		t.Errorf("Set = %v, want ErrForeign", err)
	}
	if _, err := s.Set(g.dev, Unlimited); err != nil {
		t.Errorf("Set(Unlimited) = %v", err)
	}
	qs, _ := netlink.QdiscList(g.link)
	if len(qs) != 1 || qs[0].Type() != "htb" {
		t.Errorf("queues = %v, want the foreign htb alone", qs)
	}
}

func TestSweepDeletesStaleDevicesOnly(t *testing.T) {
	g, s := newGuest(t, 4), newShaper(t)
	if _, err := s.Set(g.dev, 1_000_000); err != nil {
		t.Fatal(err)
	}
	name := ifbName(g.link)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName(name); err != nil {
		t.Fatalf("device of a live tap: %v", err)
	}
	g.fd.Close()
	if err := netlink.LinkDel(g.link); err != nil && !strings.Contains(err.Error(), "no such device") {
		t.Fatal(err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName(name); err == nil {
		t.Error("the device of a tap that is gone stays")
	}
	if st, err := s.Stats(g.dev); err != nil || len(st) != 0 {
		t.Errorf("stats of a tap that is gone = %v, %v", st, err)
	}
}

func TestOnlyTaps(t *testing.T) {
	s := newShaper(t)
	if err := s.Check("lo"); err == nil || !strings.Contains(err.Error(), "not a tap") {
		t.Errorf("Check(lo) = %v", err)
	}
	if err := s.Check("gnh-none"); err == nil {
		t.Error("Check of an interface that does not exist succeeds")
	}
}
