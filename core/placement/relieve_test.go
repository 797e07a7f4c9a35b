package placement

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gnomon-vm/gnomon"
)

func guest(name, on string, cpu, memory int64) Guest {
	return Guest{ID: name, Name: name, Host: on, Needs: gnomon.Resources{gnomon.CPU: cpu, gnomon.Memory: memory}, Memory: memory}
}

// of returns what hosts have by their guests: what is predicted is what is taken.
func of(hosts []Host, guests []Guest) ([]Host, map[string]gnomon.Resources) {
	peak := map[string]gnomon.Resources{}
	for _, g := range guests {
		peak[g.Host] = peak[g.Host].Add(g.Needs)
	}
	out := make([]Host, len(hosts))
	for i, h := range hosts {
		h.Taken = peak[h.Name]
		out[i] = h
	}
	return out, peak
}

// after returns the guests as the moves leave them.
func after(guests []Guest, moves []Move) []Guest {
	out := append([]Guest{}, guests...)
	for _, m := range moves {
		for i := range out {
			if out[i].ID == m.Guest.ID {
				out[i].Host = m.To
			}
		}
	}
	return out
}

func (m Move) String() string { return m.Guest.Name + ">" + m.To }

func TestRelieve(t *testing.T) {
	a, b, c := host("a"), host("b"), host("c")
	zone := map[string]string{"zone": "b"}
	zoned := func(h Host) Host { h.Labels = zone; return h }
	closed := func(h Host) Host { h.Cordoned = true; return h }
	with := func(g Guest, change func(*Guest)) Guest { change(&g); return g }
	for name, test := range map[string]struct {
		hosts    []Host
		guests   []Guest
		want     []string
		unsolved string
	}{
		"nobody is short":              {[]Host{a, b}, []Guest{guest("x", "a", 4000, gib), guest("y", "a", 3000, gib)}, nil, ""},
		"the smallest that is enough":  {[]Host{a, b}, []Guest{guest("x", "a", 5000, 4*gib), guest("y", "a", 2000, 2*gib), guest("z", "a", 900, gib)}, []string{"z>b"}, ""},
		"of equals the least to copy":  {[]Host{a, b}, []Guest{guest("x", "a", 4000, 4*gib), guest("y", "a", 4000, 2*gib)}, []string{"y>b"}, ""},
		"two, if one is not enough":    {[]Host{a, b}, []Guest{guest("w", "a", 3000, gib), guest("x", "a", 3000, gib), guest("y", "a", 3000, gib), guest("z", "a", 3000, gib)}, []string{"w>b", "x>b"}, ""},
		"where there is most room":     {[]Host{a, b, c}, []Guest{guest("x", "a", 5000, gib), guest("y", "a", 3000, gib), guest("z", "b", 3000, gib)}, []string{"y>c"}, ""},
		"memory counts like CPU":       {[]Host{a, b}, []Guest{guest("x", "a", 100, 10*gib), guest("y", "a", 3000, 5*gib)}, []string{"y>b"}, ""},
		"not where it would be short":  {[]Host{a, b}, []Guest{guest("x", "a", 8000, gib), guest("y", "b", 6000, gib)}, nil, "a is predicted to need 8 cores of its 8 cores of cpu (100%)"},
		"all of it or nothing":         {[]Host{a, b}, []Guest{guest("w", "a", 7000, gib), guest("x", "a", 7000, gib), guest("y", "b", 100, gib)}, nil, "a is predicted"},
		"not where it is cordoned":     {[]Host{a, closed(b)}, []Guest{guest("x", "a", 8000, gib)}, nil, "a is predicted"},
		"where it has its labels":      {[]Host{a, b, zoned(c)}, []Guest{with(guest("x", "a", 4000, gib), func(g *Guest) { g.Labels = zone }), with(guest("y", "a", 4000, gib), func(g *Guest) { g.Stays = "it was moved just now" })}, []string{"x>c"}, ""},
		"apart from its like":          {[]Host{a, b, c}, []Guest{with(guest("x", "a", 8000, gib), func(g *Guest) { g.Needs[gnomon.CPU] = 1000; g.Mates = map[string]int{"b": 1} }), guest("y", "a", 7000, gib), guest("z", "c", 2000, gib)}, []string{"x>c"}, ""},
		"not what has been moved":      {[]Host{a, b}, []Guest{with(guest("x", "a", 8000, gib), func(g *Guest) { g.Stays = "it was moved just now" })}, nil, "no VM of it that would help"},
		"one that is short helps none": {[]Host{a, b}, []Guest{guest("x", "a", 8000, gib), guest("y", "b", 8000, gib)}, nil, "b is predicted"},
	} {
		t.Run(name, func(t *testing.T) {
			hosts, peak := of(test.hosts, test.guests)
			got := Relieve(hosts, peak, test.guests)
			var moves []string
			for _, m := range got.Moves {
				moves = append(moves, m.String())
				if !strings.Contains(m.Why, m.Guest.Host+" is predicted to need") || !strings.Contains(m.Why, m.To+" then has") {
					t.Errorf("it says %q", m.Why)
				}
			}
			if !reflect.DeepEqual(moves, test.want) {
				t.Errorf("moves %v, want %v", moves, test.want)
			}
			if text := strings.Join(got.Unsolved, "\n"); !strings.Contains(text, test.unsolved) || (text == "") != (test.unsolved == "") {
				t.Errorf("unsolved %q, want %q", text, test.unsolved)
			}
		})
	}
}

func TestRelieveSaysWhy(t *testing.T) {
	guests := []Guest{guest("x", "a", 5000, gib), guest("y", "a", 3000, 2*gib)}
	hosts, peak := of([]Host{host("a"), host("b")}, guests)
	want := "a is predicted to need 8 cores of its 8 cores of cpu (100%), where requests begin to be denied; 5 cores of cpu of that is x's, and without it 38% are needed; b then has 62% taken"
	if got := Relieve(hosts, peak, guests); len(got.Moves) != 1 || got.Moves[0].Why != want {
		t.Errorf("got %+v", got)
	}
}

// Whatever the fleet is: nobody becomes short; a host that VMs were moved from is
// short no more; no VM moves twice, nor to where it may not be; as few move as
// could on each host of one resource; and what follows from the advice needs none
// of its own, so that nothing goes to and fro.
func TestRelieveProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "d"}[:rapid.IntRange(1, 4).Draw(t, "hosts")]
		var bare []Host
		for _, n := range names {
			h := Host{Name: n, Cordoned: rapid.IntRange(0, 4).Draw(t, "cordoned") == 0}
			h.Capacity = gnomon.Resources{gnomon.CPU: rapid.Int64Range(0, 20).Draw(t, "cpu") * 100, gnomon.Memory: rapid.Int64Range(0, 20).Draw(t, "memory") * 100}
			bare = append(bare, h)
		}
		var guests []Guest
		single := rapid.Bool().Draw(t, "of CPU alone")
		for i := range rapid.IntRange(0, 8).Draw(t, "guests") {
			g := guest(fmt.Sprint("v", i), rapid.SampledFrom(names).Draw(t, "on"), rapid.Int64Range(0, 1000).Draw(t, "needs"), 0)
			if !single {
				g.Needs[gnomon.Memory] = rapid.Int64Range(0, 1000).Draw(t, "memory")
			}
			guests = append(guests, g)
		}
		hosts, peak := of(bare, guests)
		got := Relieve(hosts, peak, guests)
		if again := Relieve(rapid.Permutation(hosts).Draw(t, "hosts permuted"), peak, rapid.Permutation(guests).Draw(t, "guests permuted")); !reflect.DeepEqual(got, again) {
			t.Fatalf("%v, and in another order %v", got, again)
		}
		seen := map[string]bool{}
		for _, m := range got.Moves {
			if seen[m.Guest.ID] || m.To == m.Guest.Host {
				t.Fatalf("%v moves", m)
			}
			seen[m.Guest.ID] = true
		}
		settled := after(guests, got.Moves)
		then, peakThen := of(bare, settled)
		for i, h := range then {
			_, before := excess(hosts[i], peak[h.Name])
			_, now := excess(h, peakThen[h.Name])
			from, to := 0, 0
			for _, m := range got.Moves {
				if m.Guest.Host == h.Name {
					from++
				}
				if m.To == h.Name {
					to++
				}
			}
			if now && (!before || from > 0 || to > 0) {
				t.Fatalf("%s is short after %v", h.Name, got.Moves)
			}
			if to > 0 && h.Cordoned {
				t.Fatalf("%s is cordoned and %v", h.Name, got.Moves)
			}
		}
		if more := Relieve(then, peakThen, settled); len(more.Moves) > 0 && len(got.Unsolved) == 0 {
			t.Fatalf("after %v it says %v", got.Moves, more.Moves)
		}
	})
}

// With room elsewhere as few VMs move as can be.
func TestRelieveMovesFewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		full, empty := host("a"), host("b")
		full.Capacity = gnomon.Resources{gnomon.CPU: 1000}
		empty.Capacity = gnomon.Resources{gnomon.CPU: 1_000_000}
		var guests []Guest
		for i, needs := range rapid.SliceOfN(rapid.Int64Range(0, 1000), 0, 8).Draw(t, "needs") {
			guests = append(guests, guest(fmt.Sprint("v", i), "a", needs, 0))
		}
		hosts, peak := of([]Host{full, empty}, guests)
		fewest := len(guests)
		for set := range 1 << len(guests) {
			left, n := peak["a"][gnomon.CPU], 0
			for i, g := range guests {
				if set>>i&1 == 1 {
					left, n = left-g.Needs[gnomon.CPU], n+1
				}
			}
			if left <= part(1000, Short) {
				fewest = min(fewest, n)
			}
		}
		if got := Relieve(hosts, peak, guests); len(got.Moves) != fewest {
			t.Fatalf("%d moves, and %d are enough: %v", len(got.Moves), fewest, got)
		}
	})
}
