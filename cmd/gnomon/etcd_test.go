package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// authority signs certificates into a folder.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue(name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes NAME.crt and NAME.key.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.must(err)
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	a.must(err)
	cert, err := x509.ParseCertificate(der)
	a.must(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	a.must(err)
	a.must(os.WriteFile(a.file(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	a.must(os.WriteFile(a.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

const etcdPassword = "correct horse battery"

// startSecureEtcd runs an etcd that wants a certificate of the authority and a
// password, with a user who may touch nothing but what is gnomon's.
func startSecureEtcd(t *testing.T, a *authority) (endpoint string) {
	t.Helper()
	a.issue("etcd", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	a.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	a.must(err)
	client := url.URL{Scheme: "https", Host: l.Addr().String()}
	l.Close()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = t.TempDir(), "error"
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = a.file("etcd.crt"), a.file("etcd.key")
	cfg.ClientTLSInfo.TrustedCAFile, cfg.ClientTLSInfo.ClientCertAuth = a.file("ca.crt"), true
	e, err := embed.StartEtcd(cfg)
	a.must(err)
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()

	pair, err := tls.LoadX509KeyPair(a.file("client.crt"), a.file("client.key"))
	a.must(err)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{client.String()}, Logger: zap.NewNop(),
		TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}})
	a.must(err)
	defer c.Close()
	ctx := t.Context()
	_, err = c.UserAdd(ctx, "root", "root")
	a.must(err)
	_, err = c.UserGrantRole(ctx, "root", "root")
	a.must(err)
	_, err = c.RoleAdd(ctx, "gnomon")
	a.must(err)
	_, err = c.RoleGrantPermission(ctx, "gnomon", "/gnomon/", clientv3.GetPrefixRangeEnd("/gnomon/"), clientv3.PermissionType(clientv3.PermReadWrite))
	a.must(err)
	_, err = c.UserAdd(ctx, "gnomon", etcdPassword)
	a.must(err)
	_, err = c.UserGrantRole(ctx, "gnomon", "gnomon")
	a.must(err)
	_, err = c.AuthEnable(ctx)
	a.must(err)
	return client.String()
}

func TestSecuredEtcd(t *testing.T) {
	ca := newAuthority(t, "ca")
	endpoint := startSecureEtcd(t, ca)
	ca.must(os.WriteFile(ca.file("password"), []byte(etcdPassword+"\n"), 0o600))
	ca.must(os.WriteFile(ca.file("wrong"), []byte("incorrect donkey\n"), 0o600))
	other := newAuthority(t, "ca")
	other.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	right := etcdFlags{
		endpoints: []string{endpoint}, caCert: ca.file("ca.crt"), cert: ca.file("client.crt"), key: ca.file("client.key"),
		username: "gnomon", passwordFile: ca.file("password"),
	}

	var log safeBuffer
	_, address, _ := startCentral(t, &centralFlags{dataDir: t.TempDir(), etcd: right}, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	reportVMs(t, address, "node1")
	if err := callServer(t.Context(), address, func(ctx context.Context, c serverpbconnect.ManagementServiceClient) error {
		_, err := c.SetConfig(ctx, connect.NewRequest(&serverpb.SetConfigRequest{Values: map[string]string{"hold": "3s"}}))
		return err
	}); err != nil {
		t.Errorf("with the right flags: %v", err)
	}
	if strings.Contains(log.String(), etcdPassword) {
		t.Error("the password is in the log")
	}

	for name, c := range map[string]struct {
		change func(*etcdFlags)
		want   string
	}{
		"wrong password":    {func(f *etcdFlags) { f.passwordFile = ca.file("wrong") }, "invalid user ID or password"},
		"no password":       {func(f *etcdFlags) { f.username, f.passwordFile = "", "" }, "permission to read and write all keys from /gnomon/"},
		"another authority": {func(f *etcdFlags) { f.caCert = other.file("ca.crt") }, "signed by unknown authority"},
		"no certificate":    {func(f *etcdFlags) { f.cert, f.key = "", "" }, "tls: certificate required"},
		"one of another":    {func(f *etcdFlags) { f.cert, f.key = other.file("client.crt"), other.file("client.key") }, "remote error: tls"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &centralFlags{listen: "127.0.0.1:0", dataDir: t.TempDir(), etcd: right}
			c.change(&f.etcd)
			listener, err := listenCentral(f)
			if err != nil {
				t.Fatal(err)
			}
			var log safeBuffer
			central, err := openCentral(f, listener, slog.New(slog.NewTextHandler(&log, nil)))
			if err == nil {
				central.close()
				t.Fatal("it opened")
			}
			t.Log(err)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q", c.want)
			}
			if all := err.Error() + log.String(); strings.Contains(all, "horse") || strings.Contains(all, "donkey") {
				t.Errorf("the password is shown: %s", all)
			}
		})
	}
}

func TestEtcdFlags(t *testing.T) {
	ca := newAuthority(t, "ca")
	for name, content := range map[string]string{"empty": "\n", "lines": "one\ntwo\n", "garbage": "x", "password": "secret"} {
		ca.must(os.WriteFile(ca.file(name), []byte(content), 0o600))
	}
	const at = "--etcd-endpoints https://127.0.0.1:1 "
	for line, want := range map[string]string{
		"--etcd-cacert x":                                        "--etcd-cacert is for an existing cluster: name its addresses with --etcd-endpoints",
		"--etcd-username x":                                      "--etcd-username is for an existing cluster",
		at + "--etcd-cert x":                                     "--etcd-cert needs --etcd-key",
		at + "--etcd-key x":                                      "--etcd-key needs --etcd-cert",
		at + "--etcd-username x":                                 "--etcd-username needs --etcd-password-file",
		at + "--etcd-password-file x":                            "--etcd-password-file needs --etcd-username",
		"--etcd-endpoints etcd:2379":                             `"etcd:2379": want an address like https://etcd-1:2379`,
		at + "--etcd-endpoints http://b:1":                       "want all http:// or all https://",
		"--etcd-endpoints http://b:1 --etcd-cert x --etcd-key y": "give --etcd-endpoints as https://",
		at + "--etcd-cacert DIR/none":                            "no such file",
		at + "--etcd-cacert DIR/garbage":                         "want certificates in PEM, found none",
		at + "--etcd-cert DIR/none --etcd-key DIR/ca.key":        "no such file",
		at + "--etcd-cert DIR/garbage --etcd-key DIR/ca.key":     "failed to find any PEM data",
		at + "--etcd-username x --etcd-password-file DIR/none":   "no such file",
		at + "--etcd-username x --etcd-password-file DIR/empty":  "is empty",
		at + "--etcd-username x --etcd-password-file DIR/lines":  "on one line",
		at + "--etcd-username x --etcd-password secret":          "unknown flag: --etcd-password",
	} {
		data := filepath.Join(t.TempDir(), "data")
		args := append([]string{"server", "--listen", "127.0.0.1:0", "--data-dir", data}, strings.Fields(strings.ReplaceAll(line, "DIR", ca.dir))...)
		_, err := gnomonCommand(args...)
		if err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("gnomon server %s: %v, want %q and exit %d", line, err, want, exitUsage)
		}
		if _, err := os.Stat(data); err == nil {
			t.Errorf("gnomon server %s created its folder", line)
		}
	}
}
