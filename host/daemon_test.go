package host

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/broker"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
	"github.com/gnomon-vm/gnomon/wire/hostpb"
	"github.com/gnomon-vm/gnomon/wire/recording"
)

// bursty demands 800 millicores for two of every six seconds.
func bursty(since time.Duration) int64 {
	if since%(6*time.Second) < 2*time.Second {
		return 800
	}
	return 50
}

func web(id gnomon.VMID) simulated.Spec {
	return simulated.Spec{
		ID: id, Name: string(id) + "-name", Account: "acme",
		Demand: [gnomon.NumResources]simulated.Demand{
			gnomon.CPU: bursty, gnomon.Memory: simulated.Constant(300 << 20),
			gnomon.Disk: simulated.Constant(1_000_000), gnomon.Network: simulated.Constant(1_000_000),
		},
	}
}

func (r *rig) attached(id gnomon.VMID) func() bool {
	return func() bool {
		st, ok := r.daemon.broker.View(id)
		return ok && st.Attached
	}
}

func TestVMGetsAShadowWhoseForecastsCount(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	r.start()
	id := r.add(web("vm1"))
	r.eventually("the agent is attached", r.attached(id))
	r.eventually("forecasts of all resources", func() bool {
		v := r.daemon.vms[id]
		for res := range gnomon.AllResources() {
			if v.wants[res].Model == "" {
				return false
			}
		}
		return true
	})
	r.eventually("a request was answered", func() bool {
		st, _ := r.daemon.broker.View(id)
		return st.Resources[gnomon.CPU].Requested > 0
	})
	res, err := r.api.ExplainVM(t.Context(), connect.NewRequest(&hostpb.ExplainVMRequest{Vm: "vm1-name"}))
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(res.Msg.GetSummary(), "\n"); !strings.Contains(text, "cpu: it uses") || !strings.Contains(text, "Foreseen over 1s") {
		t.Errorf("explanation tells too little:\n%s", text)
	}
}

func TestDeadAgentIsReplacedAndItsVMNotDisturbed(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	r.start()
	id := r.add(web("vm1"))
	r.eventually("the agent is attached", r.attached(id))
	var first gnomon.VMID
	r.do(func() { first = r.daemon.vms[id].shadow.id })
	r.agents.kill(first)
	r.eventually("another shadow is attached", func() bool {
		v := r.daemon.vms[id]
		return v.shadow != nil && v.shadow.attached && v.shadow.id != "" && v.restarts == 1
	})
	if _, started := r.agents.count(); started != 2 {
		t.Errorf("%d shadows were started, want 2", started)
	}
}

func TestHostileAgentLosesItsShadowAndNothingElse(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	garbage := make([]byte, 1<<20)
	r.agents.behave = func(c net.Conn) {
		for i := 0; i < 64; i++ {
			if _, err := c.Write(garbage); err != nil {
				break
			}
		}
	}
	r.start()
	id := r.add(web("vm1"))
	r.eventually("the hostile shadow was replaced", func() bool {
		v := r.daemon.vms[id]
		return v != nil && v.restarts > 0
	})
	r.agents.mu.Lock()
	r.agents.behave = nil
	r.agents.mu.Unlock()
	r.eventually("an honest agent is attached", r.attached(id))
	r.eventually("the VM has what it demands", func() bool {
		return r.daemon.vms[id].last.Allocation[gnomon.Memory] >= 300<<20
	})
}

func TestStopRestoresOrKeepsLimits(t *testing.T) {
	for _, test := range []struct {
		onExit  string
		want    int64 // CPU limit afterwards; 0 for any limit
		shadows int
	}{{"restore", hypervisor.Unlimited, 0}, {"keep", 0, 1}} {
		t.Run(test.onExit, func(t *testing.T) {
			r := newRig(t)
			r.configure(map[string]string{"onExit": test.onExit})
			r.start()
			spec := web("vm1")
			spec.Demand[gnomon.CPU] = simulated.Constant(50)
			id := r.add(spec)
			r.eventually("the agent is attached", r.attached(id))
			r.eventually("the CPU limit was lowered", func() bool { return r.limit(id, gnomon.CPU) == 100 })
			r.stop()
			got := r.limit(id, gnomon.CPU)
			if test.want != 0 && got != test.want || test.want == 0 && got == hypervisor.Unlimited {
				t.Errorf("CPU limit after the stop: %d, want %d", got, test.want)
			}
			if running, _ := r.agents.count(); running != test.shadows {
				t.Errorf("%d shadows still run, want %d", running, test.shadows)
			}
		})
	}
}

func TestRestartGoesOnWithWhatItFinds(t *testing.T) {
	r := newRig(t)
	r.configure(map[string]string{"onExit": "keep"})
	r.start()
	spec := web("vm1")
	spec.Demand[gnomon.CPU] = simulated.Constant(50)
	id := r.add(spec)
	r.eventually("the agent is attached", r.attached(id))
	r.eventually("the CPU limit was lowered", func() bool { return r.limit(id, gnomon.CPU) == 100 })
	r.stop()

	r.start()
	r.eventually("the same shadow is attached again", r.attached(id))
	if _, started := r.agents.count(); started != 1 {
		t.Errorf("%d shadows were started, want 1", started)
	}
	r.configure(map[string]string{"onExit": "restore"})
	r.eventually("the new configuration is known", func() bool { return !r.daemon.keepsLimits() })
	r.stop()
	if got := r.limit(id, gnomon.CPU); got != hypervisor.Unlimited {
		t.Errorf("CPU limit after the second stop: %d, want none: the limits from before the first start", got)
	}
}

func TestReleaseAndEnroll(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	r.start()
	id := r.add(web("vm1"))
	r.eventually("the agent is attached", r.attached(id))
	if _, err := r.api.ReleaseVM(t.Context(), connect.NewRequest(&hostpb.ReleaseVMRequest{Vm: "vm1-name"})); err != nil {
		t.Fatal(err)
	}
	r.eventually("limits and shadow are gone", func() bool {
		running, _ := r.agents.count()
		return r.limit(id, gnomon.CPU) == hypervisor.Unlimited && running == 0 && len(r.daemon.state.data.Originals) == 0
	})
	if _, err := r.api.EnrollVM(t.Context(), connect.NewRequest(&hostpb.EnrollVMRequest{Vm: string(id)})); err != nil {
		t.Fatal(err)
	}
	r.eventually("the agent is attached again", r.attached(id))
}

func TestVMEndTerminatesOrSuspendsItsShadow(t *testing.T) {
	for _, how := range []string{"terminate", "suspend"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t)
			r.configure(map[string]string{"onTermination": how})
			r.start()
			id := r.add(web("vm1"))
			r.eventually("the agent is attached", r.attached(id))
			if err := r.sim.RemoveVM(id); err != nil {
				t.Fatal(err)
			}
			if how == "terminate" {
				r.eventually("no shadow is left", func() bool { n, _ := r.agents.count(); return n == 0 && len(r.daemon.shadows) == 0 })
				return
			}
			r.eventually("the shadow is suspended", func() bool {
				for _, s := range r.daemon.shadows {
					return s.state == shadowSuspended
				}
				return false
			})
			r.add(web("vm1"))
			r.eventually("the same shadow is attached again", r.attached(id))
			if _, started := r.agents.count(); started != 1 {
				t.Errorf("%d shadows were started, want 1", started)
			}
		})
	}
}

func TestAccountGetsAWarmShadowForItsFirstVM(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	r.start()
	r.do(func() {
		want := r.daemon.desired
		want.Accounts = []string{"acme"}
		r.daemon.instructed(want)
	})
	r.eventually("a warm shadow waits", func() bool {
		for _, s := range r.daemon.shadows {
			return s.vm == "" && s.account == "acme" && s.warmState() == "warm"
		}
		return false
	})
	id := r.add(web("vm1"))
	r.eventually("the agent is attached", r.attached(id))
	if _, started := r.agents.count(); started != 1 {
		t.Errorf("%d shadows were started, want the warm one only", started)
	}
}

func TestConfigurationTakesEffectWhileRunning(t *testing.T) {
	r := newRig(t)
	r.configure(map[string]string{"monitoringInterval": "1s"})
	r.start()
	id := r.add(web("vm1"))
	r.eventually("the agent is attached", r.attached(id))
	r.configure(map[string]string{"monitoringInterval": "200ms", "limits.floor": "cpu=700m"})
	r.eventually("the new floor is in force", func() bool { return r.limit(id, gnomon.CPU) >= 700 })
	r.eventually("the new interval is in force", func() bool {
		s := r.daemon.vms[id].last
		return s.Interval > 0 && s.Interval < 400*time.Millisecond
	})
}

func TestAPIRequests(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	r.start()
	id := r.add(web("vm1"))
	r.eventually("the VM is taken in", func() bool { return r.daemon.vms[id] != nil })
	ahead, err := r.api.RequestPreallocation(t.Context(), connect.NewRequest(&hostpb.RequestPreallocationRequest{
		Vm: "vm1-name", Resource: "disk", Level: 15_000_000, NeedInNs: int64(30 * time.Second), LifetimeNs: int64(time.Minute)}))
	if err != nil {
		t.Fatal(err)
	}
	if ahead.Msg.GetVerdict() != string(gnomon.Granted) {
		t.Errorf("pre-allocation: %v", ahead.Msg)
	}
	now, err := r.api.RequestResources(t.Context(), connect.NewRequest(&hostpb.RequestResourcesRequest{
		Vm: "vm1-name", Resource: "disk", Level: 12_000_000}))
	if err != nil {
		t.Fatal(err)
	}
	if now.Msg.GetVerdict() != string(gnomon.Granted) {
		t.Errorf("request: %v", now.Msg)
	}
	for _, test := range []struct {
		name string
		req  *hostpb.RequestResourcesRequest
		code connect.Code
		word string
	}{
		{"unknown VM", &hostpb.RequestResourcesRequest{Vm: "nope", Resource: "cpu", Level: 1}, connect.CodeNotFound, "nope"},
		{"unknown resource", &hostpb.RequestResourcesRequest{Vm: "vm1", Resource: "gpu", Level: 1}, connect.CodeInvalidArgument, "gpu"},
		{"no level", &hostpb.RequestResourcesRequest{Vm: "vm1", Resource: "cpu"}, connect.CodeInvalidArgument, "level 0"},
	} {
		_, err := r.api.RequestResources(t.Context(), connect.NewRequest(test.req))
		if connect.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.word) {
			t.Errorf("%s: %v, want code %v and %q", test.name, err, test.code, test.word)
		}
	}
}

// TestRecordingReplays runs a daemon for a while and folds what it recorded
// again: the decisions are the same.
func TestRecordingReplays(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	rec, err := recording.Create(r.dir+"/rec", recording.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.opt.Recorder = rec
	r.start()
	id := r.add(web("vm1"))
	r.eventually("enough was decided", func() bool {
		v := r.daemon.vms[id]
		return v != nil && v.decisions.count > 20
	})
	var want []gnomon.Decision
	r.do(func() { want = r.daemon.vms[id].decisions.latest(0) })
	r.stop()
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	got := replayDir(t, r.dir+"/rec")
	if len(got) < len(want) {
		t.Fatalf("%d decisions replayed, %d lived", len(got), len(want))
	}
	got = slices.DeleteFunc(got, func(d gnomon.Decision) bool { return d.Amount == 0 })
	for i, dec := range want {
		dec.At = dec.At.Round(0).UTC() // without the monotonic reading, which is not recorded
		got[i].At = got[i].At.UTC()
		if got[i] != dec {
			t.Fatalf("decision %d: replayed %+v, lived %+v", i, got[i], dec)
		}
	}
}

// A recording is worth most after a daemon that did not end it.
func TestRecordingOfADaemonThatRuns(t *testing.T) {
	r := newRig(t)
	r.configure(nil)
	dir := r.dir + "/rec"
	rec, err := recording.Create(dir, recording.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	r.opt.Recorder = rec
	r.start()
	r.add(web("vm1"))
	r.eventually("a decision can be replayed", func() bool { return len(replayDir(t, dir)) > 0 })
}

func replayDir(t *testing.T, dir string) (decisions []gnomon.Decision) {
	t.Helper()
	files, err := recording.Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := broker.New(broker.Options{})
	for _, path := range files {
		for e, err := range readFile(t, path) {
			if err != nil {
				t.Fatal(err)
			}
			decisions = append(decisions, b.Step(e).Decisions...)
		}
	}
	return decisions
}
