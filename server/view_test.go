package server

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protojson"
	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
)

// However changes of configuration follow on each other, those accepted leave
// every combination of layers fitting together.
func TestAcceptedChangesAlwaysFit(t *testing.T) {
	values := map[string][]string{
		"monitoringInterval": {"", "100ms", "1s", "7s", "20s"}, "predictionHorizon": {"", "500ms", "5s", "10s", "90s"},
		"limits.floor": {"", "cpu=1", "cpu=3,memory=1GiB"}, "limits.ceiling": {"", "cpu=2", "memory=512MiB"},
	}
	keys := []string{"monitoringInterval", "predictionHorizon", "limits.floor", "limits.ceiling"}
	scopes := []scope{{kind: config.Global}, {kind: config.Account, name: "a"}, {kind: config.Account, name: "b"},
		{kind: config.Host, name: "h"}, {kind: config.Host, name: "g"}, {kind: config.VM, name: "v"}, {kind: config.VM, name: "w"}}
	rapid.Check(t, func(t *rapid.T) {
		v := newView()
		r, err := putReport(keyOf(reportPrefix, "h"), &serverpb.ReportRequest{Associations: []*serverpb.Association{{Vm: "v", Account: "a"}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.put(&mvccpb.KeyValue{Key: r.KeyBytes(), Value: r.ValueBytes()}); err != nil {
			t.Fatal(err)
		}
		accepted := 0
		for range rapid.IntRange(1, 15).Draw(t, "changes") {
			c := rapid.SampledFrom(scopes).Draw(t, "scope")
			set := map[string]string{}
			for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 3, rapid.ID).Draw(t, "keys") {
				set[k] = rapid.SampledFrom(values[k]).Draw(t, k)
			}
			l, err := change(c, v.stored(c), set)
			if err != nil {
				t.Fatal(err)
			}
			if newProblems(v, v.with(c, l), c) == nil {
				v = v.with(c, l)
				accepted++
			}
		}
		for _, a := range []string{"", "a", "b"} {
			for _, h := range []string{"", "g", "h"} {
				ls := v.addAccountAndHost([]config.NamedLayer{{Scope: config.Global, Values: v.global.Values}}, a, h)
				if _, _, err := config.Merge(ls...); err != nil {
					t.Fatalf("account %q on host %q: %v", a, h, err)
				}
			}
		}
		for _, id := range []string{"v", "w"} {
			if _, _, err := config.Merge(v.layers(scope{kind: config.VM, name: id})...); err != nil {
				t.Fatalf("vm %s: %v", id, err)
			}
		}
	})
}

// Following changes one by one gives the same as loading everything.
func TestViewFollows(t *testing.T) {
	report := func(vms ...string) string {
		r := &serverpb.ReportRequest{}
		for _, vm := range vms {
			r.Associations = append(r.Associations, &serverpb.Association{Vm: vm})
		}
		b, err := protojson.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	choices := map[string][]string{
		globalKey:                   {`{"values":{"hold":"1s"}}`, `{"values":{"headroom":"1%"}}`},
		keyOf(accountPrefix, "a"):   {`{"name":"a","host":"h"}`},
		keyOf(hostPrefix, "h"):      {`{"name":"h"}`, `{"name":"h","version":"2"}`},
		keyOf(onlinePrefix, "h"):    {`{"session":"1"}`},
		keyOf(orderPrefix, "o"):     {`{"host":"h","order":{"id":"o"}}`, `{"host":"h","order":{"id":"o"},"outcome":{}}`, `{"host":"g","order":{"id":"o"}}`},
		keyOf(reportPrefix, "h"):    {report(), report("x"), report("x", "y")},
		keyOf(reportPrefix, "g"):    {report("x"), report("z")},
		keyOf(accountConfig, "a"):   {`{"values":{"hold":"2s"}}`},
		keyOf(hostConfig, "h"):      {`{"values":{"hold":"3s"}}`},
		keyOf(vmConfig, "x/ y%"):    {`{"values":{"hold":"4s"},"name":"n"}`},
		prefix + "of/a/newer/thing": {"?"},
		guardKey:                    {"s"},
	}
	var keys []string
	for k := range choices {
		keys = append(keys, k)
	}
	rapid.Check(t, func(t *rapid.T) {
		followed, store := newView(), map[string]*mvccpb.KeyValue{}
		for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
			key := rapid.SampledFrom(keys).Draw(t, "key")
			if rapid.Bool().Draw(t, "remove") {
				delete(store, key)
				followed.remove(key)
				continue
			}
			kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte(rapid.SampledFrom(choices[key]).Draw(t, "value")), ModRevision: int64(i + 1)}
			store[key] = kv
			if err := followed.put(kv); err != nil {
				t.Fatal(err)
			}
		}
		loaded := newView()
		for kv := range maps.Values(store) {
			if err := loaded.put(kv); err != nil {
				t.Fatal(err)
			}
		}
		for _, host := range []string{"h", "g", "other"} {
			if a, b := followed.desired(host), loaded.desired(host); !sameState(a, b) {
				t.Fatalf("%s: %v\n%v", host, a, b)
			}
		}
		if followed.guard != loaded.guard || !reflect.DeepEqual(followed.where, loaded.where) ||
			!reflect.DeepEqual(followed.designated, loaded.designated) || !reflect.DeepEqual(followed.spread, loaded.spread) || !reflect.DeepEqual(followed.pending, loaded.pending) || !maps.Equal(followed.online, loaded.online) {
			t.Fatalf("%+v\n%+v", followed, loaded)
		}
	})
}

// Damaged entries are passed over, whatever they are.
func FuzzPut(f *testing.F) {
	f.Add(uint8(0), `{"name":"a"}`)
	f.Add(uint8(4), `{"values":{"hold":1}}`)
	f.Add(uint8(7), `{"host":"n","order":{"id":"n","deploy":{"account":"n","needs":{"cpu":"1"}}}}`)
	prefixes := []string{accountPrefix, hostPrefix, onlinePrefix, reportPrefix, accountConfig, hostConfig, vmConfig, orderPrefix}
	s := &Server{}
	f.Fuzz(func(t *testing.T, i uint8, value string) {
		v := newView()
		key := prefixes[int(i)%len(prefixes)] + "n"
		_ = v.put(&mvccpb.KeyValue{Key: []byte(key), Value: []byte(value)})
		if d := v.desired("n"); d == nil {
			t.Fatal(errors.New(fmt.Sprint("no state after ", value)))
		}
		_ = s.candidates(v, "n")
		_ = s.taken(v, "n")
		v.remove(key)
	})
}

// A change of the global layer is checked against every account and host.
func BenchmarkGlobalChange(b *testing.B) {
	v := newView()
	for i := range 1000 {
		v.byAccount[fmt.Sprint("a", i)] = layer{Values: map[string]string{"predictionHorizon": fmt.Sprintf("%ds", 5+i%20)}}
	}
	for i := range 100 {
		v.byHost[fmt.Sprint("h", i)] = layer{Values: map[string]string{"monitoringInterval": fmt.Sprintf("%dms", 500+i%10)}}
	}
	for i := range 5000 {
		v.byVM[fmt.Sprint("v", i)] = layer{Values: map[string]string{"limits.floor": "cpu=1"}}
	}
	c := scope{kind: config.Global}
	l, err := change(c, v.stored(c), map[string]string{"hold": "20s"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := newProblems(v, v.with(c, l), c); err != nil {
			b.Fatal(err)
		}
	}
}
