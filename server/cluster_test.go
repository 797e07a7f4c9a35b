package server

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/gnomon-vm/gnomon/server/hostlink"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// joinMembers has an etcd process be one of several: NAME=PEER-URL,...
func joinMembers(cfg *embed.Config, name, members string) {
	cfg.Name, cfg.InitialCluster, cfg.InitialClusterToken = name, members, "gnomon-test"
	for member := range strings.SplitSeq(members, ",") {
		if n, address, _ := strings.Cut(member, "="); n == name {
			u, err := url.Parse(address)
			if err != nil {
				panic(err)
			}
			cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*u}, []url.URL{*u}
		}
	}
}

// member is one etcd of three, in a process of its own.
type member struct {
	*etcdProcess
}

func (m *member) start(t *testing.T) {
	t.Helper()
	m.cmd = exec.Command(os.Args[0])
	m.cmd.Env = append(os.Environ(), m.env...)
	var err error
	if m.stdin, err = m.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	m.cmd.Stderr = t.Output()
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// startCluster starts three members and waits until they serve.
func startCluster(t *testing.T) (members []*member, client *clientv3.Client) {
	t.Helper()
	var peers, endpoints []string
	for i := range 3 {
		peers = append(peers, fmt.Sprintf("m%d=http://%s", i, freeAddress(t)))
	}
	for i := range 3 {
		m := &member{etcdProcess: &etcdProcess{t: t, dir: filepath.Join(t.TempDir(), "etcd"), address: "http://" + freeAddress(t)}}
		m.env = []string{"GNOMON_TEST_ETCD_DIR=" + m.dir, "GNOMON_TEST_ETCD_URL=" + m.address,
			fmt.Sprintf("GNOMON_TEST_ETCD_NAME=m%d", i), "GNOMON_TEST_ETCD_MEMBERS=" + strings.Join(peers, ",")}
		members, endpoints = append(members, m), append(endpoints, m.address)
		m.start(t)
		t.Cleanup(m.kill)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 2 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	eventually(t, "three members to serve", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		l, err := client.MemberList(ctx)
		return err == nil && len(l.Members) == 3
	})
	return members, client
}

// leader returns which member leads.
func leader(t *testing.T, members []*member, client *clientv3.Client) int {
	t.Helper()
	found := -1
	eventually(t, "a leader", func() bool {
		for i, m := range members {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			s, err := client.Status(ctx, m.address)
			cancel()
			if err == nil && s.Leader == s.Header.MemberId {
				found = i
				return true
			}
		}
		return false
	})
	return found
}

// Any member of etcd and any server may go: nothing is lost, and hosts are
// told what changes.
func TestAnyMemberOrServerMayGo(t *testing.T) {
	t.Parallel()
	members, client := startCluster(t)
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, m.address)
	}
	a, b := serve(t, Options{EtcdEndpoints: endpoints}), serve(t, Options{EtcdEndpoints: endpoints})
	h := connectBy(t, hostlink.Servers{URLs: []string{a.url, b.url}}, "node1")
	if _, err := a.account("acme", "node1"); err != nil {
		t.Fatal(err)
	}
	change := func(s *running, hold string) time.Duration {
		t.Helper()
		began := time.Now()
		eventually(t, "a change to be taken", func() bool {
			_, err := s.set(nil, map[string]string{"hold": hold})
			return err == nil
		})
		h.until("the change", func(d *serverpb.DesiredState) bool {
			return d.GetGlobal()["hold"] == hold && len(d.GetAccounts()) == 1
		})
		return time.Since(began)
	}
	change(a, "1s")

	first := leader(t, members, client)
	for i := range 3 { // the leader first, then the others, one at a time
		m := members[(first+i)%3]
		m.kill()
		t.Logf("member %d away: a change took %v", (first+i)%3, change([]*running{a, b}[i%2], fmt.Sprintf("%ds", 2+i)))
		m.start(t)
		eventually(t, "the member to be back", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			s, err := client.Status(ctx, m.address)
			return err == nil && s.Leader != 0 && len(s.Errors) == 0
		})
	}

	with, other := a, b
	if b.streamsOf("node1") > 0 {
		with, other = b, a
	}
	began := time.Now()
	with.stop()
	eventually(t, "the host to be with the other server", func() bool { return other.streamsOf("node1") > 0 })
	t.Logf("with another server after %v", time.Since(began))
	change(other, "9s")
	if !other.host(t, "node1").GetConnected() {
		t.Error("the host is not connected")
	}
}

// streamsOf is how many streams of a host the server holds.
func (r *running) streamsOf(host string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.links[host]; l != nil {
		return l.streams
	}
	return 0
}
