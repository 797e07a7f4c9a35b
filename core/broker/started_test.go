package broker_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/core/broker"
)

// TestStartedForgetsAllBefore folds the recording of a daemon that was
// restarted: its second run decides as if it were the first.
func TestStartedForgetsAllBefore(t *testing.T) {
	at := time.Unix(1_000_000, 0).UTC()
	run := func(demand int64) (events []gnomon.Event) {
		add := func(e gnomon.Event) {
			at = at.Add(time.Second)
			e.At = at
			events = append(events, e)
		}
		limits := gnomon.SetOf(gnomon.CPU)
		add(gnomon.Event{Started: &gnomon.Started{}})
		add(gnomon.Event{Capacity: &gnomon.Capacity{Total: gnomon.Resources{gnomon.CPU: 4000}}})
		add(gnomon.Event{Found: &gnomon.Found{
			VM:         gnomon.VM{ID: "web", Floor: gnomon.Resources{gnomon.CPU: 100}, Ceiling: gnomon.Resources{gnomon.CPU: 2000}, Limits: limits},
			Policy:     gnomon.Policy{HeadroomPercent: 20, Hold: time.Second},
			Allocation: gnomon.Resources{gnomon.CPU: 500},
		}})
		for range 5 {
			add(gnomon.Event{Sampled: &gnomon.Sample{
				VM: "web", At: at, Interval: time.Second, Known: limits,
				Usage: gnomon.Resources{gnomon.CPU: 500}, Demand: gnomon.Resources{gnomon.CPU: demand}, Allocation: gnomon.Resources{gnomon.CPU: 500},
			}})
		}
		return events
	}
	first, second := run(1500), run(900)

	restarted, fresh := broker.New(broker.Options{}), broker.New(broker.Options{})
	for _, e := range first {
		restarted.Step(e)
	}
	actions := 0
	for i, e := range second {
		got, want := restarted.Step(e), fresh.Step(e)
		actions += len(want.Actions)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("event %d after the restart: %+v, want %+v", i, got, want)
		}
	}
	if actions == 0 {
		t.Fatal("the second run decided nothing: the test shows nothing")
	}
}
