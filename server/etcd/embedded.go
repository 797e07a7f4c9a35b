package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"golang.org/x/sys/unix"
)

// What the embedded server needs and keeps.
const (
	quotaBytes    = 2 << 30   // of state, also that of the last 10 minutes; a host with 100 VMs takes some 11 kB
	freshBytes    = 192 << 20 // free disk to start with: etcd preallocates its log
	existingBytes = 32 << 20  // free disk to go on with

	startTimeout = 60 * time.Second
	stopTimeout  = 3 * time.Second
)

func openEmbedded(ctx context.Context, o Options) (*Store, error) {
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, fmt.Errorf("find data directory: %w", err)
	}
	if err := checkSpace(dir); err != nil {
		return nil, err
	}
	lock, err := claim(dir)
	if err != nil {
		return nil, err
	}
	hook := newFatalHook()
	e, err := start(ctx, dir, o, hook)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("start etcd in %s: %w", dir, err)
	}
	client := v3client.New(e.Server)
	return &Store{Client: client, Failed: hook.failed, close: func() error {
		defer lock.Close()
		return stop(client.Close, e)
	}}, nil
}

func start(ctx context.Context, dir string, o Options, hook *fatalHook) (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	cfg.Name = "gnomon"
	cfg.Dir = dir
	// No listener: the only client is in this process.
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil
	cfg.ListenPeerUrls = nil
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"} // a name; nothing listens there
	cfg.AdvertisePeerUrls = []url.URL{peer}
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	// A fresh directory is a new cluster with an id of its own, so that hosts
	// can tell that revisions began anew.
	cfg.InitialClusterToken = rand.Text()
	cfg.QuotaBackendBytes = quotaBytes
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	cfg.BootstrapDefragThresholdMegabytes = 16
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(o.Logger, hook))

	e, err := launch(cfg, hook)
	if err != nil {
		return nil, err
	}
	select {
	case <-e.Server.ReadyNotify():
		return e, nil
	case err = <-hook.failed:
	case <-time.After(startTimeout):
		err = errSlow
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = stop(func() error { return nil }, e)
	return nil, err
}

var errSlow = errors.New("not ready within a minute; is the disk well?")

// launch is embed.StartEtcd for a directory that etcd may not make sense of:
// it then panics, or logs a fatal error in some goroutine of its own.
func launch(cfg *embed.Config, hook *fatalHook) (*embed.Etcd, error) {
	type result struct {
		e   *embed.Etcd
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- result{err: damaged(fmt.Errorf("%v", r))}
			}
		}()
		e, err := embed.StartEtcd(cfg)
		done <- result{e, err}
	}()
	select {
	case r := <-done:
		return r.e, r.err
	case err := <-hook.failed:
		return nil, damaged(err)
	case <-time.After(startTimeout):
		return nil, errSlow
	}
}

func damaged(err error) error {
	return fmt.Errorf("%w; if the directory is damaged, restore it from a backup, or move it away to begin anew", err)
}

// stop waits a while only: an etcd that failed may never end.
func stop(closeClient func() error, e *embed.Etcd) error {
	done := make(chan error, 1)
	go func() {
		err := closeClient()
		e.Close()
		done <- err
	}()
	select {
	case err := <-done:
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		return err
	case <-time.After(stopTimeout):
		return errors.New("stop etcd: it does not end")
	}
}

// checkSpace refuses to start on a disk so full that etcd would fail.
func checkSpace(dir string) error {
	need := int64(freshBytes)
	if _, err := os.Stat(filepath.Join(dir, "member")); err == nil {
		need = existingBytes
	}
	at := dir
	for {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil || st.Blocks == 0 {
		return nil // not a disk: creating the directory will tell
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("the disk of %s is nearly full: %d MiB free, want %d MiB; free some space or choose another directory with --data-dir",
			dir, free>>20, need>>20)
	}
	return nil
}

// claim makes the directory and holds it for this process until the file
// returned is closed.
func claim(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w; run as a user who may, or choose another with --data-dir", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write to data directory: %w; run as a user who may, or choose another with --data-dir", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		return nil, fmt.Errorf("data directory %s is in use%s: stop that process, or choose another with --data-dir", dir, holder(f))
	}
	// An etcd of its own locks the database only.
	if db, err := os.OpenFile(filepath.Join(dir, "member", "snap", "db"), os.O_RDWR, 0); err == nil {
		defer db.Close()
		if err := unix.Flock(int(db.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, fmt.Errorf("data directory %s is in use by another etcd: stop it, or choose another with --data-dir", dir)
		}
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}

func holder(f *os.File) string {
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	if pid := strings.TrimSpace(string(b[:n])); pid != "" {
		return " by process " + pid
	}
	return " by another process"
}
