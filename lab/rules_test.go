package lab

import (
	"math"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
)

func script1(interval time.Duration) *script {
	return &script{interval: interval, known: gnomon.SetOf(gnomon.CPU), ceiling: [gnomon.NumResources]float64{gnomon.CPU: 4000},
		demand: [gnomon.NumResources][]float64{gnomon.CPU: {1, 2, 3, math.NaN(), 4, 5, 6, 7, 8, 9, 10}}, steps: 11}
}

// TestRules holds each rule to cases worked out by hand.
func TestRules(t *testing.T) {
	use := func(v ...float64) (out []observation) {
		for _, u := range v {
			out = append(out, observation{interval: 1, usage: u, demand: u, allocation: 1000, ceiling: 4000})
		}
		return out
	}
	second := script1(time.Second)
	for _, c := range []struct {
		name string
		rule rule
		seen []observation
		want []float64
	}{
		{"static", newFixed(0.5, gnomon.CPU, second), use(3, 7), []float64{15, 15}},
		{"last", last{0.2}, use(100, 50), []float64{120, 60}},
		{"window-max", &windowMax{window{values: make([]float64, 2)}, 0.5}, use(100, 40, 20), []float64{150, 150, 60}},
		// Deviations: 10; mean 100+1, variance 0.9×0.1×100 = 9.
		{"ewma", &ewma{sigmas: 2}, use(100, 110), []float64{100, 101 + 2*3}},
		{"reactive", &reactive{window{values: make([]float64, 2)}, 0.1}, use(100, 50, 50), []float64{110, 110, 55}},
		// Used and a fifth of the balloon, but not below 95 % of it, is 950.
		{"mom shrinks by a step", &mom{free: 0.2, step: 0.05, mean: 10}, use(100), []float64{950}},
		{"mom grows at once", &mom{free: 0.2, step: 0.05, mean: 10}, use(900), []float64{1100}},
		{"mom grows by a step", &mom{free: 0.2, step: 0.05, mean: 10}, use(801), []float64{1050}},
		{"mom: mean of use", &mom{free: 0.2, step: 0.5, mean: 2}, use(500, 600), []float64{700, 750}},
		{"mom: too little", &mom{free: 0.2, step: 0.05, mean: 1}, use(799), []float64{leave}},
		{"proxmox up", &proxmox{target: 0.8, step: 100}, use(1000), []float64{1100}},
		{"proxmox to target", &proxmox{target: 0.8, step: 100}, use(840), []float64{1050}},
		{"proxmox down", &proxmox{target: 0.8, step: 100}, use(100), []float64{900}},
		{"proxmox: too little", &proxmox{target: 0.8, step: 100}, use(801), []float64{leave}},
		{"paced", &paced{every: 3, rule: last{}}, use(1, 2, 6, 1), []float64{leave, leave, 3, leave}},
		{"paced memory", &paced{every: 2, memory: true, rule: last{}}, use(1, 2), []float64{leave, 2}},
		// Bins of 10: 100 in bin 10 and 3000 in bin 300; of the load, 97 % is the latter's.
		{"autopilot-fast", newAutopilotFast(0.1, gnomon.CPU, second), use(100, 3000), []float64{110, 3300}},
		// No prediction was made before: the last use; then 2000 is the under-estimate,
		// weighted 5 of 15, on top of the state's middle.
		{"cloudscale", newCloudscale(1), use(100), []float64{100}},
	} {
		for i, o := range c.seen {
			got := c.rule.next(o)
			if math.IsNaN(got) != math.IsNaN(c.want[i]) || math.Abs(got-c.want[i]) > 1e-6*math.Abs(c.want[i]) {
				t.Errorf("%s: after %d: %v, want %v", c.name, i+1, got, c.want[i])
			}
		}
	}
}

func TestCloudscaleCorrectsAndPads(t *testing.T) {
	c := newCloudscale(1)
	c.next(observation{usage: 100, allocation: 4000, ceiling: 4000})
	got := c.next(observation{usage: 400, allocation: 4000, ceiling: 4000})
	// It had expected 100; the padding is 300 × 5/15. No transition from 400's state is known.
	near(t, "after an under-estimate", got, 400+100)
	// At 95 % of the limit the factor is 1.5.
	near(t, "nearly full", c.next(observation{usage: 950, allocation: 1000, ceiling: 4000}), 1500)
}

func TestCloudscaleFindsASignature(t *testing.T) {
	c := newCloudscale(0)
	value := func(k int) float64 { return 1000 + 500*math.Sin(2*math.Pi*float64(k)/20) }
	for k := range 2 * cloudWindow {
		got := c.next(observation{usage: value(k), allocation: 4000, ceiling: 4000})
		if k >= cloudWindow && math.Abs(got-value(k+1)) > 1 {
			t.Fatalf("step %d: %v foreseen, %v comes", k, got, value(k+1))
		}
	}
}

func TestNeonsGoal(t *testing.T) {
	const gib = float64(1 << 30)
	s := &script{interval: 5 * time.Second, known: cpuAndMemory}
	s.ceiling[gnomon.CPU], s.ceiling[gnomon.Memory] = 4000, 16*gib
	c, err := playNeon(neonSettings)(1)
	if err != nil {
		t.Fatal(err)
	}
	n := c.(*independent).make(s)
	observe := func(cpu, used, cpus, memory float64) [gnomon.NumResources]float64 {
		return n.next(&[gnomon.NumResources]observation{
			gnomon.CPU:    {interval: 5, demand: cpu, usage: cpu, allocation: cpus, ceiling: 4000},
			gnomon.Memory: {interval: 5, demand: used, usage: used, allocation: memory, ceiling: 16 * gib},
		}, cpuAndMemory)
	}
	// Load 2 needs 2/0.9/0.25 = 8.9 units, 2 GiB and 100 MiB in use need 2.8.
	to := observe(1800, 2*gib, 4000, 16*gib)
	near(t, "one unit down: cores", to[gnomon.CPU], 3750)
	near(t, "one unit down: memory", to[gnomon.Memory]/gib, 15)
	to = observe(1800, 2*gib, 1000, 4*gib)
	near(t, "up: cores", to[gnomon.CPU], 9*250)
	near(t, "up: memory", to[gnomon.Memory]/gib, 9)
	// A step of load to 4 shows by 1 - exp(-5/60) = 8 %: 2.16 needs 9.6 units.
	to = observe(4000, 2*gib, 2250, 9*gib)
	near(t, "after a step: cores", to[gnomon.CPU], 10*250)
	// 85 % of memory in use asks for one unit more.
	to = observe(4000, 12*gib, 3000, 12*gib)
	if to[gnomon.Memory] < 13*gib {
		t.Errorf("memory in use is at its limit, and %v GiB are set", to[gnomon.Memory]/gib)
	}
}
