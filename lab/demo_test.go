package lab

import (
	"reflect"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/config"
	"github.com/gnomon-vm/gnomon/core/plan"
	"github.com/gnomon-vm/gnomon/demo/workload"
	"github.com/gnomon-vm/gnomon/hypervisor/simulated"
)

// demands returns the demo guest's demand as functions of time.
func demands(seed uint64, length time.Duration) [gnomon.NumResources]simulated.Demand {
	var bursts [gnomon.NumResources][]workload.Burst
	for r := range gnomon.AllResources() {
		for b := range workload.Bursts(seed, r) {
			if b.Start > length {
				break
			}
			bursts[r] = append(bursts[r], b)
		}
	}
	during := func(r gnomon.Resource, at time.Duration) (workload.Burst, bool) {
		for _, b := range bursts[r] {
			if at >= b.Start && at < b.End() {
				return b, true
			}
		}
		return workload.Burst{}, false
	}
	const usedAtRest = 110 << 20
	return [gnomon.NumResources]simulated.Demand{
		gnomon.CPU: func(at time.Duration) int64 {
			if _, ok := during(gnomon.CPU, at); ok {
				return 1000 * int64(workload.ItemWork) / int64(workload.ItemSpacing)
			}
			return 1000 * int64(workload.ItemWork) / int64(workload.IdleSpacing)
		},
		gnomon.Memory: func(at time.Duration) int64 {
			b, ok := during(gnomon.Memory, at)
			if !ok {
				return usedAtRest
			}
			steps := int64((at-b.Start)*workload.MemorySteps/workload.MemoryGrow) + 1
			return usedAtRest + min(steps, workload.MemorySteps)*workload.MemoryBytes/workload.MemorySteps
		},
		gnomon.Disk:    rate(during, gnomon.Disk, workload.DiskRate),
		gnomon.Network: rate(during, gnomon.Network, workload.NetworkRate),
	}
}

func rate(during func(gnomon.Resource, time.Duration) (workload.Burst, bool), r gnomon.Resource, bytes int64) simulated.Demand {
	return func(at time.Duration) int64 {
		if _, ok := during(r, at); ok {
			return bytes
		}
		return 0
	}
}

// comparison is the demo in virtual time: the same VM with a shadow and by the
// standard path alone.
func comparison(seed uint64, length time.Duration, price float64, hold time.Duration) Scenario {
	floor := gnomon.Resources{gnomon.CPU: 150, gnomon.Memory: 160 << 20, gnomon.Disk: 2_000_000, gnomon.Network: 1_000_000}
	ceiling := gnomon.Resources{gnomon.CPU: 700, gnomon.Memory: 448 << 20, gnomon.Disk: 20_000_000, gnomon.Network: 20_000_000}
	s := Scenario{
		Capacity: gnomon.Resources{2000, 8 << 30, 1 << 50, 1 << 50},
		Host:     simulated.Options{Total: gnomon.Resources{2000, 8 << 30}},
		Interval: time.Second, Length: length, Warmup: 20 * time.Second,
	}
	for _, shadow := range []bool{true, false} {
		name := map[bool]string{true: "shadowed", false: "reactive"}[shadow]
		s.VMs = append(s.VMs, VM{
			Spec:  simulated.Spec{ID: gnomon.VMID(name), Name: name, Memory: 512 << 20, Demand: demands(seed, length+time.Minute)},
			Floor: floor, Ceiling: ceiling,
			Policy: gnomon.Policy{Shadow: shadow, HeadroomPercent: 20, Hold: hold, Release: shadow},
			Plan: plan.Settings{Interval: time.Second, Horizon: 5 * time.Second, Model: "auto", Price: price,
				Threshold: gnomon.Resources{50, 16 << 20, 1_000_000, 1_000_000}},
		})
	}
	return s
}

// TestShadowBeatsTheStandardPath holds the demo's promise in virtual time: on
// the demo's load, at the defaults but for Hold, the VM with a shadow is starved
// for at most half of what the other is, for at most 1.15 times the allocation.
func TestShadowBeatsTheStandardPath(t *testing.T) {
	const seeds = 5
	defaults := config.Defaults()
	var starved, mean [2]gnomon.Resources
	for seed := range uint64(seeds) {
		res, err := Run(t.Context(), comparison(seed+1, 180*time.Second, defaults.ShortagePrice, 5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range res {
			for r := range gnomon.AllResources() {
				starved[i][r] += x.Starved[r].Milliseconds()
				mean[i][r] += int64(x.Mean[r])
			}
		}
	}
	for r := range gnomon.AllResources() {
		t.Logf("%-8s starved %6.1f s against %6.1f s, mean allocation %s against %s", r,
			float64(starved[0][r])/1000/seeds, float64(starved[1][r])/1000/seeds,
			gnomon.Format(r, mean[0][r]/seeds), gnomon.Format(r, mean[1][r]/seeds))
		if starved[0][r]*2 > starved[1][r] {
			t.Errorf("%s: starved for %d ms with a shadow, %d ms without", r, starved[0][r], starved[1][r])
		}
		if mean[0][r]*100 > mean[1][r]*115 {
			t.Errorf("%s: mean allocation %d with a shadow, %d without", r, mean[0][r], mean[1][r])
		}
	}
}

func TestRunsAreDeterministic(t *testing.T) {
	s := comparison(7, 60*time.Second, config.Defaults().ShortagePrice, 5*time.Second)
	a, err := Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("two runs differ:\n%+v\n%+v", a, b)
	}
}
