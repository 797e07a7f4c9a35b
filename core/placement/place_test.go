package placement

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
)

const gib = 1 << 30

func host(name string, taken ...int64) Host {
	h := Host{Name: name, Capacity: gnomon.Resources{gnomon.CPU: 8000, gnomon.Memory: 16 * gib}}
	copy(h.Taken[:], taken)
	return h
}

func TestPlace(t *testing.T) {
	needs := gnomon.Resources{gnomon.CPU: 2000, gnomon.Memory: 4 * gib}
	waits, mate, far, cordoned := host("warm", 4000), host("mate"), host("far"), host("closed")
	waits.Waits, mate.Mates, cordoned.Cordoned = true, 1, true
	far.Labels = map[string]string{"zone": "b"}
	for name, c := range map[string]struct {
		hosts []Host
		r     Request
		want  string
		why   string
		err   error
	}{
		"the one with the most left": {[]Host{host("a", 1000), host("b", 500)}, Request{Needs: needs}, "b", "31% of it will be in use or predicted to be, the least of 2 hosts", nil},
		"memory counts like CPU":     {[]Host{host("a", 0, 8*gib), host("b", 3000)}, Request{Needs: needs}, "b", "the least of 2 hosts", nil},
		"where the shadow waits":     {[]Host{host("a"), waits}, Request{Needs: needs}, "warm", "the account's warm shadow waits there", nil},
		"apart from its like":        {[]Host{mate, host("z", 3000)}, Request{Needs: needs}, "z", "the fewest VMs of the account of 2 hosts (0)", nil},
		"by name, if all is equal":   {[]Host{host("b"), host("a")}, Request{}, "a", "0% of it is in use", nil},
		"by its labels":              {[]Host{host("a"), far}, Request{Needs: needs, Labels: map[string]string{"zone": "b"}}, "far", "no other host may have it; ", nil},
		"not where it is cordoned":   {[]Host{cordoned, host("z", 5000)}, Request{Needs: needs}, "z", "", nil},
		"unless that is asked for":   {[]Host{cordoned, host("z")}, Request{Needs: needs, Host: "closed"}, "closed", "", nil},
		"no room":                    {[]Host{host("a", 7000), host("b", 0, 14*gib)}, Request{Needs: needs}, "", "a has 1 core of cpu left and 2 cores is asked for; b has 2 GiB of memory left", ErrOverCapacity},
		"no room on the one":         {[]Host{host("a", 9000), host("b")}, Request{Needs: needs, Host: "a"}, "", "a has 0 cores of cpu left", ErrOverCapacity},
		"no such label":              {[]Host{host("a")}, Request{Labels: map[string]string{"zone": "b", "disk": "fast"}}, "", "has the labels disk=fast,zone=b", ErrNoHost},
		"none":                       {nil, Request{}, "", "none is connected", ErrNoHost},
		"the one is away":            {[]Host{host("a")}, Request{Host: "b"}, "", `host "b" is not connected`, ErrNoHost},
	} {
		t.Run(name, func(t *testing.T) {
			got, why, err := Place(c.hosts, c.r)
			if got.Name != c.want || !errors.Is(err, c.err) {
				t.Errorf("Place = %q, %v; want %q, %v", got.Name, err, c.want, c.err)
			}
			if err != nil {
				why = err.Error()
			}
			if !strings.Contains(why, c.why) {
				t.Errorf("it says %q, without %q", why, c.why)
			}
		})
	}
}

// Whatever the hosts are, the one chosen has the room, and the order in which
// they are told does not matter.
func TestPlaceProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.Int64Range(0, 10)
		hosts := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Host {
			h := Host{Name: rapid.StringMatching(`[a-f]`).Draw(t, "name"), Cordoned: rapid.Bool().Draw(t, "cordoned"),
				Mates: rapid.IntRange(0, 2).Draw(t, "mates"), Waits: rapid.Bool().Draw(t, "waits")}
			for r := range gnomon.AllResources() {
				h.Capacity[r], h.Taken[r] = amount.Draw(t, "capacity"), amount.Draw(t, "taken")
			}
			return h
		}), 0, 6, func(h Host) string { return h.Name }).Draw(t, "hosts")
		var r Request
		for res := range gnomon.AllResources() {
			r.Needs[res] = amount.Draw(t, "needs")
		}
		got, why, err := Place(hosts, r)
		again, _, _ := Place(rapid.Permutation(hosts).Draw(t, "permuted"), r)
		if got.Name != again.Name {
			t.Fatalf("%s, and in another order %s", got.Name, again.Name)
		}
		if err != nil {
			for _, h := range hosts {
				if _, _, short := h.lacks(r.Needs); !short && !h.Cordoned {
					t.Fatalf("%v, and %s has the room", err, h.Name)
				}
			}
			return
		}
		if why == "" || got.Cordoned {
			t.Fatalf("chose %+v for %q", got, why)
		}
		for res := range gnomon.AllResources() {
			if got.Capacity[res] > 0 && r.Needs[res] > 0 && got.Taken[res]+r.Needs[res] > got.Capacity[res] {
				t.Fatalf("%s is short of %s", got.Name, res)
			}
		}
	})
}
