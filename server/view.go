package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

const (
	prefix        = "/gnomon/v1/"
	accountPrefix = prefix + "accounts/"
	hostPrefix    = prefix + "hosts/"
	onlinePrefix  = prefix + "online/"
	reportPrefix  = prefix + "reports/"
	noticePrefix  = prefix + "notices/"
	configPrefix  = prefix + "config/"
	guardKey      = configPrefix + "guard"
	globalKey     = configPrefix + "global"
	accountConfig = configPrefix + "account/"
	hostConfig    = configPrefix + "host/"
	vmConfig      = configPrefix + "vm/"
	orderPrefix   = prefix + "orders/"
	changePrefix  = prefix + "changes/" // not in the view
)

func keyOf(prefix, name string) string { return prefix + url.PathEscape(name) }

// layer is the stored form of a configuration layer.
type layer struct {
	Values map[string]string `json:"values"`
	Set    map[string]int64  `json:"set,omitempty"`  // by key, the version that set it
	Name   string            `json:"name,omitempty"` // of a VM, when it was set
}

// guard is the stored form of what every change of configuration writes.
type guard struct {
	Version int64 `json:"version"` // how many changes there were
}

// notice is what operators say of a host.
type notice struct {
	Labels   map[string]string `json:"labels,omitempty"`
	Cordoned bool              `json:"cordoned,omitempty"`
}

// online is the stored form of a host's presence.
type online struct {
	Session string `json:"session"`
	Server  string `json:"server"`
}

// view is everything in the store at one revision but the changes of the past.
type view struct {
	epoch    string
	revision int64
	guard    int64 // mod revision of the guard
	version  int64 // of the configuration

	accounts map[string]*serverpb.Account
	hosts    map[string]*serverpb.Host
	notices  map[string]notice
	online   map[string]online
	reports  map[string]*serverpb.ReportRequest

	global    layer
	byAccount map[string]layer
	byHost    map[string]layer
	byVM      map[string]layer

	orders map[string]*serverpb.OrderRecord // by id

	identities map[string]identity
	joinTokens map[string]joinToken
	tokens     map[string]accessToken

	// What follows from the above.
	designated map[string]map[string]bool // by host, its accounts
	where      map[string][]string        // by VM id, the hosts that report it, sorted
	spread     map[string]map[string]int  // by account and host, how many of its VMs are there
	pending    map[string]map[string]bool // by host, its orders that are not settled
}

func newView() *view {
	return &view{
		accounts: map[string]*serverpb.Account{}, hosts: map[string]*serverpb.Host{}, notices: map[string]notice{},
		online: map[string]online{}, reports: map[string]*serverpb.ReportRequest{},
		byAccount: map[string]layer{}, byHost: map[string]layer{}, byVM: map[string]layer{},
		identities: map[string]identity{}, joinTokens: map[string]joinToken{}, tokens: map[string]accessToken{},
		designated: map[string]map[string]bool{}, where: map[string][]string{}, spread: map[string]map[string]int{},
		orders: map[string]*serverpb.OrderRecord{}, pending: map[string]map[string]bool{},
	}
}

// loadPage is how many entries are read at a time.
const loadPage = 1000

// loadView reads everything, as of one revision.
func loadView(ctx context.Context, c *clientv3.Client, log *slog.Logger) (*view, error) {
	v := newView()
	for key := prefix; ; {
		opts := []clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(loadPage)}
		if v.revision > 0 {
			opts = append(opts, clientv3.WithRev(v.revision))
		}
		page, cancel := context.WithTimeout(ctx, requestTimeout)
		r, err := c.Get(page, key, opts...)
		cancel()
		if err != nil {
			return nil, err
		}
		if v.revision == 0 {
			v.revision, v.epoch = r.Header.Revision, epochOf(r.Header.ClusterId)
		}
		for _, kv := range r.Kvs {
			if err := v.put(kv); err != nil {
				log.Error("pass over a damaged entry of the store", "key", string(kv.Key), "err", err)
			}
		}
		if !r.More {
			return v, nil
		}
		key = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// epochOf names a store by its cluster's id.
func epochOf(cluster uint64) string { return strconv.FormatUint(cluster, 16) }

// kind is one kind of entry, by the prefix of its keys: how the view takes an
// entry in, and out again.
type kind struct {
	prefix string
	put    func(v *view, value []byte, name string) error
	drop   func(v *view, name string)
}

// kinds are all but the few entries that have a key of their own.
var kinds = []kind{
	{reportPrefix, (*view).putReport, (*view).dropReport},
	inJSON(onlinePrefix, func(v *view) map[string]online { return v.online }),
	{hostPrefix, (*view).putHost, func(v *view, name string) { delete(v.hosts, name) }},
	{accountPrefix, (*view).putAccount, (*view).dropAccount},
	inJSON(noticePrefix, func(v *view) map[string]notice { return v.notices }),
	{orderPrefix, (*view).putOrder, (*view).dropOrder},
	inJSON(accountConfig, func(v *view) map[string]layer { return v.byAccount }),
	inJSON(hostConfig, func(v *view) map[string]layer { return v.byHost }),
	inJSON(vmConfig, func(v *view) map[string]layer { return v.byVM }),
	inJSON(identityPrefix, func(v *view) map[string]identity { return v.identities }),
	inJSON(joinTokenPrefix, func(v *view) map[string]joinToken { return v.joinTokens }),
	inJSON(tokenPrefix, func(v *view) map[string]accessToken { return v.tokens }),
}

// inJSON is a kind of entry that nothing else follows from.
func inJSON[T any](prefix string, in func(*view) map[string]T) kind {
	return kind{
		prefix,
		func(v *view, value []byte, name string) error { return readJSON(value, in(v), name) },
		func(v *view, name string) { delete(in(v), name) },
	}
}

// kindOf returns of what kind an entry is, and whose it is. The kind is empty for
// keys of the past, or of a newer version.
func kindOf(key string) (k kind, name string, err error) {
	for _, k := range kinds {
		if rest, ok := strings.CutPrefix(key, k.prefix); ok {
			name, err := url.PathUnescape(rest)
			return k, name, err
		}
	}
	return kind{}, "", nil
}

// put takes one entry in.
func (v *view) put(kv *mvccpb.KeyValue) error {
	key := string(kv.Key)
	switch key {
	case guardKey:
		var g guard
		_ = json.Unmarshal(kv.Value, &g) // before there were versions it held a name
		v.guard, v.version = kv.ModRevision, g.Version
		return nil
	case globalKey:
		var l layer
		if err := json.Unmarshal(kv.Value, &l); err != nil {
			return err
		}
		v.global = l
		return nil
	}
	k, name, err := kindOf(key)
	if err != nil || k.put == nil {
		return err
	}
	return k.put(v, kv.Value, name)
}

// remove takes one entry out.
func (v *view) remove(key string) {
	switch key {
	case guardKey:
		v.guard, v.version = 0, 0
	case globalKey:
		v.global = layer{}
	default:
		if k, name, err := kindOf(key); err == nil && k.drop != nil {
			k.drop(v, name)
		}
	}
}

func (v *view) putHost(value []byte, name string) error {
	h := &serverpb.Host{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(value, h); err != nil {
		return err
	}
	v.hosts[name] = h
	return nil
}

func (v *view) putAccount(b []byte, name string) error {
	v.dropAccount(name)
	a := &serverpb.Account{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, a); err != nil {
		return err
	}
	v.takeAccount(name, a)
	return nil
}

func (v *view) takeAccount(name string, a *serverpb.Account) {
	v.accounts[name] = a
	host := a.GetHost()
	if v.designated[host] == nil {
		v.designated[host] = map[string]bool{}
	}
	v.designated[host][name] = true
}

func (v *view) dropAccount(name string) {
	host := v.accounts[name].GetHost()
	if delete(v.designated[host], name); len(v.designated[host]) == 0 {
		delete(v.designated, host)
	}
	delete(v.accounts, name)
}

func (v *view) putReport(b []byte, host string) error {
	v.dropReport(host)
	r := &serverpb.ReportRequest{}
	if err := decodeReport(b, r); err != nil {
		return err
	}
	v.takeReport(host, r)
	return nil
}

func (v *view) takeReport(host string, r *serverpb.ReportRequest) {
	v.reports[host] = r
	for _, a := range r.GetAssociations() {
		id := a.GetVm()
		if i, found := slices.BinarySearch(v.where[id], host); !found {
			v.where[id] = slices.Insert(v.where[id], i, host)
		}
		if account := a.GetAccount(); account != "" {
			if v.spread[account] == nil {
				v.spread[account] = map[string]int{}
			}
			v.spread[account][host]++
		}
	}
}

func (v *view) dropReport(host string) {
	for _, a := range v.reports[host].GetAssociations() {
		id, account := a.GetVm(), a.GetAccount()
		if i, found := slices.BinarySearch(v.where[id], host); found {
			v.where[id] = slices.Delete(v.where[id], i, i+1)
		}
		if len(v.where[id]) == 0 {
			delete(v.where, id)
		}
		if delete(v.spread[account], host); len(v.spread[account]) == 0 {
			delete(v.spread, account)
		}
	}
	delete(v.reports, host)
}

// A report is stored as protobuf: there is one for every host, with all its
// VMs. It used to be JSON, which begins as no message here does.
func decodeReport(b []byte, r *serverpb.ReportRequest) error {
	if len(b) > 0 && b[0] == '{' {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, r)
	}
	return proto.Unmarshal(b, r)
}

func putReport(key string, r *serverpb.ReportRequest) (clientv3.Op, error) {
	b, err := proto.Marshal(r)
	if err != nil {
		return clientv3.Op{}, fmt.Errorf("encode %s: %w", key, err)
	}
	return clientv3.OpPut(key, string(b)), nil
}

func readJSON[T any](b []byte, into map[string]T, name string) error {
	var t T
	if err := json.Unmarshal(b, &t); err != nil {
		return err
	}
	into[name] = t
	return nil
}

func putMessage(key string, m proto.Message, opts ...clientv3.OpOption) (clientv3.Op, error) {
	b, err := protojson.Marshal(m)
	if err != nil {
		return clientv3.Op{}, fmt.Errorf("encode %s: %w", key, err)
	}
	return clientv3.OpPut(key, string(b), opts...), nil
}

func encodeJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs of strings
	}
	return string(b)
}
