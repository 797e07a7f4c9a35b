package server

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/gnomon-vm/gnomon/server/access"
)

// peer is the user at the other end of a local connection.
type peer struct{ uid uint32 }

type peerKey struct{}

// peerOf returns who is at the other end of a request's connection, if that is
// within this machine.
func peerOf(ctx context.Context) (peer, bool) {
	find, ok := ctx.Value(peerKey{}).(func() (peer, bool))
	if !ok {
		return peer{}, false
	}
	return find()
}

func (p peer) caller() access.Caller {
	id := strconv.FormatUint(uint64(p.uid), 10)
	name := "local uid " + id
	if u, err := user.LookupId(id); err == nil {
		name = "local " + u.Username
	}
	return access.Caller{Name: name, Role: access.Admin}
}

// withPeer has peerOf find who is at the other end of a connection, when its
// first request wants to know: meanwhile others can connect.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, sync.OnceValues(func() (peer, bool) { return findPeer(c) }))
}

// findPeer returns who is at the other end of a connection within this machine.
// Whoever can open the server's Unix socket may use it: that is what its file's
// permissions are for. Over the loopback interface it is root and the server's
// own user.
func findPeer(c net.Conn) (peer, bool) {
	var uid uint32
	var ok bool
	switch c := c.(type) {
	case *net.UnixConn:
		uid, ok = socketPeer(c)
	case *net.TCPConn:
		uid, ok = loopbackPeer(c)
		ok = ok && (uid == 0 || int(uid) == os.Geteuid())
	}
	return peer{uid}, ok
}

func socketPeer(c *net.UnixConn) (uid uint32, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || failed != nil {
		return 0, false
	}
	return cred.Uid, true
}

// loopbackPeer asks the kernel whose the other end is.
func loopbackPeer(c *net.TCPConn) (uid uint32, ok bool) {
	local, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok || !local.IP.IsLoopback() {
		return 0, false
	}
	remote, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return 0, false
	}
	return ownerOf(remote, local)
}

// established is the state of a TCP connection that both sides hold. One that
// its owner has closed counts as root's, without an inode.
const established = 1

// diagnosis is a request for one socket: the kernel's inet_diag_req_v2.
type diagnosis [56]byte

// Len implements nl.NetlinkRequestData.
func (d *diagnosis) Len() int { return len(d) }

// Serialize implements nl.NetlinkRequestData.
func (d *diagnosis) Serialize() []byte { return d[:] }

// ownerOf returns the user whose socket a TCP connection's end is, by the
// kernel's socket diagnosis.
func ownerOf(end, other *net.TCPAddr) (uid uint32, ok bool) {
	var d diagnosis
	d[0], d[1] = unix.AF_INET6, unix.IPPROTO_TCP
	src, dst := end.IP.To16(), other.IP.To16()
	if end.IP.To4() != nil && other.IP.To4() != nil {
		d[0], src, dst = unix.AF_INET, end.IP.To4(), other.IP.To4()
	}
	binary.NativeEndian.PutUint32(d[4:], ^uint32(0)) // any state
	binary.BigEndian.PutUint16(d[8:], uint16(end.Port))
	binary.BigEndian.PutUint16(d[10:], uint16(other.Port))
	copy(d[12:28], src)
	copy(d[28:44], dst)
	binary.NativeEndian.PutUint64(d[48:], ^uint64(0)) // no cookie
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	request.AddData(&d)
	answers, err := request.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err != nil || len(answers) != 1 || len(answers[0]) < 72 {
		return 0, false
	}
	m := answers[0] // the kernel's inet_diag_msg
	if m[1] != established || binary.NativeEndian.Uint32(m[68:]) == 0 {
		return 0, false
	}
	return binary.NativeEndian.Uint32(m[64:]), true
}
