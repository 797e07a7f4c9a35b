package main

import (
	"testing"
	"time"

	vpa "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/logic"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/model"
)

// resources of a test are as many cores as GiB.
func resources(n float64) model.Resources {
	return model.Resources{model.ResourceCPU: model.CPUAmountFromCores(n), model.ResourceMemory: model.MemoryAmountFromBytes(n * gib)}
}

func TestUpdaterRule(t *testing.T) {
	minutes := func(n ...int) []int { return n }
	for _, c := range []struct {
		name    string
		request float64 // beside a target of 5 within 2 and 10
		kills   []int   // minutes
		now     int     // minutes
		want    bool
	}{
		{"young and within bounds", 4, nil, 719, false},
		{"half a day old and 20 % off", 4, nil, 720, true},
		{"half a day old and 4 % off on both", 4.8, nil, 720, false},
		{"half a day old and 6 % off on both, 12 % in all", 4.7, nil, 720, true},
		{"below the lower bound", 1.9, nil, 0, true},
		{"at the lower bound", 2, nil, 0, false},
		{"above the upper bound", 10.1, nil, 0, true},
		{"killed soon after its start", 4, minutes(5), 6, true},
		{"killed soon after its start, with nothing to change", 5, minutes(5), 6, false},
		{"killed soon after its start, long ago", 4, minutes(5), 15, false},
		{"killed late", 4, minutes(11), 12, false},
		{"killed late, and soon again", 4, minutes(11, 14), 15, true},
	} {
		s := defaults()
		object := &vpa.VerticalPodAutoscaler{}
		object.Status.Recommendation = logic.MapToListOfRecommendedContainerResources(logic.RecommendedPodResources{
			container: {Target: resources(5), LowerBound: resources(2), UpperBound: resources(10)},
		}, s.format)
		u, start := updater{s.update}, time.Unix(1e9, 0)
		after := func(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }
		pod := newPod(request{at: start})
		u.observe(pod, resources(c.request), request{at: start})
		for _, k := range c.kills {
			u.observe(pod, resources(c.request), request{at: after(k), oom: true})
		}
		if got := u.wants(object, pod, after(c.now)); got != c.want {
			t.Errorf("%s: applied is %t, want %t", c.name, got, c.want)
		}
	}
}
