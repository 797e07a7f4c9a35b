package main

import (
	"fmt"
	"math"
	"time"

	autoscaling "k8s.io/api/autoscaling/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	vpa "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/logic"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/model"
)

// What a VM is in Kubernetes' words: a pod with one container, under a VPA
// object of its own.
const (
	namespace = "lab"
	container = "vm"
)

// autoscaler is the recommender and the updater over a cluster of pods, one for
// each VM. The recommender's aggregation settings are global in its package: a
// process runs one autoscaler at a time.
type autoscaler struct {
	settings
	cluster   model.ClusterState
	recommend logic.PodResourceRecommender
	updater   updater
	guests    map[string]*guest
}

// guest is one VM.
type guest struct {
	id      model.ContainerID
	object  *vpa.VerticalPodAutoscaler // as the API server would hold it
	vpa     *model.Vpa                 // as the recommender does
	pod     *core.Pod
	last    time.Time // of the latest request
	loop    time.Time // when the next loop is due
	cpuSum  float64   // of the steps since the last loop, cores
	steps   int       // how many they are
	ooms    []oom     // among them
	current answer
}

// oom is a kill for want of memory, as the recommender is told of it.
type oom struct {
	at      time.Time
	request model.ResourceAmount
}

func newAutoscaler(s settings) *autoscaler {
	model.InitializeAggregationsConfig(s.aggregation)
	return &autoscaler{
		settings:  s,
		cluster:   model.NewClusterState(24 * time.Hour),
		recommend: logic.CreatePodResourceRecommender(s.recommend),
		updater:   updater{config: s.update},
		guests:    map[string]*guest{},
	}
}

// step takes in what a VM used and returns what it should have. Between two
// loops the recommendation stays what it was. It fails where the request is not
// after the VM's previous one.
func (a *autoscaler) step(r request) (answer, error) {
	g, ok := a.guests[r.vm]
	if !ok {
		var err error
		if g, err = a.admit(r); err != nil {
			return answer{}, err
		}
	} else if !r.at.After(g.last) {
		return answer{}, fmt.Errorf("t is %s, not after %s, the VM's t before; want it to rise",
			seconds(r.at), seconds(g.last))
	}
	request := model.Resources{
		model.ResourceCPU:    model.CPUAmountFromCores(r.cpuRequest),
		model.ResourceMemory: model.MemoryAmountFromBytes(r.memRequest),
	}
	if err := a.cluster.AddOrUpdateContainer(g.id, request); err != nil {
		return answer{}, fmt.Errorf("set request: %w", err)
	}
	a.updater.observe(g.pod, request, r)
	g.cpuSum += r.cpu
	g.steps++
	if r.oom {
		g.ooms = append(g.ooms, oom{r.at, request[model.ResourceMemory]})
	}
	previous := g.last
	g.last = r.at
	g.current.Apply = false
	// The step nearest to the loop's time runs it.
	late := r.at.Add(a.settings.step / 2).Sub(g.loop)
	if late < 0 {
		return g.current, nil
	}
	g.loop = g.loop.Add(a.loop * (1 + late/a.loop))
	if err := a.feed(g, r, previous); err != nil {
		return answer{}, err
	}
	a.run(g, r.at)
	return g.current, nil
}

func seconds(t time.Time) string { return fmt.Sprintf("%g", float64(t.UnixNano())/1e9) }

// admit makes a VM known: its pod starts now, and its first loop is due.
func (a *autoscaler) admit(r request) (*guest, error) {
	object := &vpa.VerticalPodAutoscaler{
		ObjectMeta: meta.ObjectMeta{Namespace: namespace, Name: r.vm, CreationTimestamp: meta.NewTime(r.at)},
		Spec: vpa.VerticalPodAutoscalerSpec{
			TargetRef:    &autoscaling.CrossVersionObjectReference{Kind: "Deployment", Name: r.vm, APIVersion: "apps/v1"},
			UpdatePolicy: &vpa.PodUpdatePolicy{UpdateMode: new(vpa.UpdateModeInPlaceOrRecreate)},
		},
	}
	set := labels.Set{"vm": r.vm}
	if err := a.cluster.AddOrUpdateVpa(object, labels.SelectorFromSet(set)); err != nil {
		return nil, fmt.Errorf("add VPA object: %w", err)
	}
	pod := model.PodID{Namespace: namespace, PodName: r.vm}
	a.cluster.AddOrUpdatePod(pod, set, core.PodRunning)
	g := &guest{
		id:      model.ContainerID{PodID: pod, ContainerName: container},
		object:  object,
		vpa:     a.cluster.VPAs()[model.VpaID{Namespace: namespace, VpaName: r.vm}],
		pod:     newPod(r),
		last:    r.at.Add(-a.settings.step),
		loop:    r.at,
		current: answer{VM: r.vm},
	}
	a.guests[r.vm] = g
	return g, nil
}

// feed gives the recommender what a scrape of the metrics would: the mean CPU
// since the last one, and the memory in use now. A step longer than a minute
// counts as the scrapes of each minute that it stands for, since the bounds
// trust a history by its number of samples, taken to be one a minute.
func (a *autoscaler) feed(g *guest, r request, previous time.Time) error {
	samples := []model.ContainerUsageSample{
		{Resource: model.ResourceCPU, Usage: model.CPUAmountFromCores(g.cpuSum / float64(g.steps))},
		{Resource: model.ResourceMemory, Usage: model.MemoryAmountFromBytes(r.mem)},
	}
	scrapes := math.Round(a.settings.step.Minutes())
	scrapes = max(1, min(scrapes, math.Floor(r.at.Sub(previous).Minutes())))
	for i := int(scrapes) - 1; i >= 0; i-- {
		for _, s := range samples {
			s.MeasureStart = r.at.Add(-time.Duration(i) * time.Minute)
			keyed := model.ContainerUsageSampleWithKey{ContainerUsageSample: s, Container: g.id}
			if err := a.cluster.AddSample(&keyed); err != nil {
				return fmt.Errorf("add %s sample: %w", s.Resource, err)
			}
		}
	}
	for _, o := range g.ooms {
		if err := a.cluster.RecordOOM(g.id, o.at, o.request); err != nil {
			return fmt.Errorf("record oom: %w", err)
		}
	}
	g.cpuSum, g.steps, g.ooms = 0, 0, g.ooms[:0]
	return nil
}

// run is one loop of the recommender (its processVPAUpdate) and of the updater.
func (a *autoscaler) run(g *guest, now time.Time) {
	resources := a.recommend.GetRecommendedPodResources(g.vpa.AggregateStateByContainerName())
	recommendation := logic.MapToListOfRecommendedContainerResources(resources, a.format)
	g.vpa.UpdateRecommendation(recommendation)
	g.object.Status.Recommendation = recommendation

	r := recommendation.ContainerRecommendations[0]
	g.current = answer{
		VM:  g.id.PodName,
		CPU: cores(r.Target), Mem: bytesOf(r.Target),
		CPULow: cores(r.LowerBound), CPUHigh: cores(r.UpperBound),
		MemLow: bytesOf(r.LowerBound), MemHigh: bytesOf(r.UpperBound),
		Apply: a.always || a.updater.wants(g.object, g.pod, now),
	}
}

func cores(l core.ResourceList) float64   { return float64(l.Cpu().MilliValue()) / 1000 }
func bytesOf(l core.ResourceList) float64 { return float64(l.Memory().Value()) }
