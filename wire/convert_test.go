package wire

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/wire/agentpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func drawTime(t *rapid.T) time.Time {
	return time.Unix(0, rapid.Int64Range(1, math.MaxInt64).Draw(t, "time")).UTC()
}

func drawAmount(t *rapid.T, name string) int64 { return rapid.Int64Range(0, MaxAmount).Draw(t, name) }

func TestProposalComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := gnomon.Proposal{VM: "vm", Session: 3, Seq: rapid.Uint64().Draw(t, "seq"), At: drawTime(t)}
		for _, r := range rapid.SliceOfNDistinct(rapid.IntRange(0, gnomon.NumResources-1), 0, gnomon.NumResources, rapid.ID).Draw(t, "resources") {
			q := []int64{drawAmount(t, "q1"), drawAmount(t, "q2"), drawAmount(t, "q3")}
			slices.Sort(q)
			want.Wants = append(want.Wants, gnomon.Want{
				Resource: gnomon.Resource(r), Low: q[0], Median: q[1], High: q[2], Level: drawAmount(t, "level"), Enough: drawAmount(t, "enough"),
				NeedIn:   time.Duration(rapid.Int64Range(0, int64(MaxAhead)).Draw(t, "need")),
				Lifetime: time.Duration(rapid.Int64Range(0, int64(MaxAhead)).Draw(t, "life")),
				Model:    rapid.StringMatching(`[a-z0-9-]{0,32}`).Draw(t, "model"),
			})
		}
		got, err := ProposalFrom(want.VM, want.Session, want.At, transfer(t, ProposalTo(want)))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
		}
	})
}

// transfer encodes and decodes a message.
func transfer[M proto.Message](t interface{ Fatal(...any) }, m M) M {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := m.ProtoReflect().New().Interface().(M)
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUsageComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Usage{Seq: rapid.Uint64().Draw(t, "seq")}
		want.Sample = gnomon.Sample{VM: "vm", At: drawTime(t), Interval: time.Second, Urgent: rapid.Bool().Draw(t, "urgent")}
		for r := range gnomon.AllResources() {
			if rapid.Bool().Draw(t, "known") {
				want.Sample.Known = want.Sample.Known.With(r)
				want.Sample.Usage[r], want.Sample.Demand[r] = drawAmount(t, "usage"), drawAmount(t, "demand")
				want.Sample.Allocation[r], want.Ceiling[r] = drawAmount(t, "allocation"), drawAmount(t, "ceiling")
				want.Sample.Starved[r] = time.Duration(drawAmount(t, "starved"))
			}
		}
		got, err := UsageFrom("vm", transfer(t, UsageTo(want)))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
		}
	})
}

func TestAnswerAndSettingsComeBack(t *testing.T) {
	answer := gnomon.Answer{Seq: 9, Grants: []gnomon.Grant{
		{Resource: gnomon.CPU, Asked: 5, Got: 3, Verdict: gnomon.Partial, Reason: "little is free", Expires: time.Unix(7, 0).UTC()},
		{Resource: gnomon.Network, Asked: 5, Verdict: gnomon.Denied, Reason: "nothing is free"},
	}}
	if got, err := AnswerFrom(transfer(t, AnswerTo(answer))); err != nil || !reflect.DeepEqual(got, answer) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, answer)
	}
	settings := Settings{
		MonitoringInterval: time.Second, PredictionHorizon: 5 * time.Second,
		Thresholds: gnomon.Resources{1, 2, 3, 4}, Model: "auto", Price: 100, Season: time.Minute,
	}
	if got, err := SettingsFrom(transfer(t, SettingsTo(settings))); err != nil || got != settings {
		t.Errorf("got %+v, %v\nwant %+v", got, err, settings)
	}
	for name, spoil := range map[string]func(*Settings){
		"no interval":   func(s *Settings) { s.MonitoringInterval = 0 },
		"short horizon": func(s *Settings) { s.PredictionHorizon = time.Millisecond },
		"price 0":       func(s *Settings) { s.Price = 0 },
		"price NaN":     func(s *Settings) { s.Price = math.NaN() },
		"price endless": func(s *Settings) { s.Price = math.Inf(1) },
	} {
		bad := settings
		spoil(&bad)
		if _, err := SettingsFrom(SettingsTo(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestHostileMessagesAreRefused(t *testing.T) {
	want := func(w *agentpb.Want) *agentpb.ToHost {
		return &agentpb.ToHost{Message: &agentpb.ToHost_Proposal{Proposal: &agentpb.Proposal{Wants: []*agentpb.Want{w}}}}
	}
	history := func(r agentpb.Resource, span, step time.Duration) *agentpb.ToHost {
		return &agentpb.ToHost{Message: &agentpb.ToHost_History{History: &agentpb.HistoryRequest{Resource: r, RangeNs: int64(span), StepNs: int64(step)}}}
	}
	const cpu = agentpb.Resource_RESOURCE_CPU
	many := &agentpb.Proposal{}
	for range MaxWants + 1 {
		many.Wants = append(many.Wants, &agentpb.Want{Resource: cpu})
	}
	for name, tc := range map[string]struct {
		m    *agentpb.ToHost
		want string
	}{
		"empty":             {&agentpb.ToHost{}, "unknown kind"},
		"no resource":       {want(&agentpb.Want{}), "unknown resource 0"},
		"unknown resource":  {want(&agentpb.Want{Resource: 9}), "unknown resource 9"},
		"negative resource": {want(&agentpb.Want{Resource: -1}), "unknown resource -1"},
		"negative level":    {want(&agentpb.Want{Resource: cpu, Level: -1}), "level of -1"},
		"huge level":        {want(&agentpb.Want{Resource: cpu, Level: math.MaxInt64}), "level of"},
		"huge quantile":     {want(&agentpb.Want{Resource: cpu, High: MaxAmount + 1}), "high of"},
		"crossed quantiles": {want(&agentpb.Want{Resource: cpu, Low: 3, Median: 2, High: 4}), "in order"},
		"negative need":     {want(&agentpb.Want{Resource: cpu, NeedInNs: -1}), "need_in"},
		"endless lifetime":  {want(&agentpb.Want{Resource: cpu, LifetimeNs: math.MaxInt64}), "lifetime"},
		"long model":        {want(&agentpb.Want{Resource: cpu, Model: strings.Repeat("x", MaxName+1)}), "model"},
		"too many wants":    {&agentpb.ToHost{Message: &agentpb.ToHost_Proposal{Proposal: many}}, "9 wants"},
		"resource twice":    {&agentpb.ToHost{Message: &agentpb.ToHost_Proposal{Proposal: &agentpb.Proposal{Wants: many.Wants[:2]}}}, "cpu twice"},
		"long log":          {&agentpb.ToHost{Message: &agentpb.ToHost_Log{Log: &agentpb.Log{Text: strings.Repeat("x", MaxLog+1)}}}, "log text"},
		"long version":      {&agentpb.ToHost{Message: &agentpb.ToHost_Hello{Hello: &agentpb.Hello{Version: strings.Repeat("x", MaxName+1)}}}, "version"},
		"negative pong":     {&agentpb.ToHost{Message: &agentpb.ToHost_Pong{Pong: &agentpb.Pong{HeapBytes: -1}}}, "pong"},
		"history of what":   {history(0, time.Hour, time.Minute), "unknown resource"},
		"history forever":   {history(cpu, math.MaxInt64, time.Hour), "range"},
		"history too fine":  {history(cpu, time.Hour, time.Millisecond), "points"},
		"history no step":   {history(cpu, time.Hour, 0), "step"},
	} {
		t.Run(name, func(t *testing.T) {
			s := new(stream)
			if err := NewConn(s).WriteToHost(tc.m); err != nil {
				t.Fatal(err)
			}
			_, err := NewConn(s).ReadToHost()
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want a malformed message with %q", err, tc.want)
			}
		})
	}
}

func FuzzReadToHost(f *testing.F) {
	for _, m := range []*agentpb.ToHost{
		{Message: &agentpb.ToHost_Hello{Hello: &agentpb.Hello{Nonce: 7}}},
		{Message: &agentpb.ToHost_Proposal{Proposal: &agentpb.Proposal{Seq: 1, Wants: []*agentpb.Want{{Resource: 1, High: 5, Level: 6}}}}},
		{Message: &agentpb.ToHost_History{History: &agentpb.HistoryRequest{Resource: 2, RangeNs: 1e9, StepNs: 1e8}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxPayload {
			return
		}
		m, err := connOf(AppendFrame(nil, b)).ReadToHost()
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v", err)
			}
			return
		}
		if p := m.GetProposal(); p != nil {
			q, err := ProposalFrom("vm", 1, time.Unix(1, 0), p)
			if err != nil {
				t.Fatalf("a checked proposal does not convert: %v", err)
			}
			for _, w := range q.Wants {
				if !w.Resource.Valid() || w.Level < 0 || w.Level > MaxAmount || w.Lifetime > MaxAhead || w.Lifetime < 0 {
					t.Fatalf("let through %+v", w)
				}
			}
		}
	})
}

func TestModelNamesArePlain(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "seasonal-2": "seasonal-2", "\x1b[2J": "", "Holt": "", strings.Repeat("x", maxModel): strings.Repeat("x", maxModel),
		strings.Repeat("x", maxModel+1): "",
	} {
		if got := modelFrom(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
