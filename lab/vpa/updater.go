package main

import (
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	vpa "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender/model"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/updater/priority"
	"k8s.io/autoscaler/vertical-pod-autoscaler/pkg/utils/limitrange"
	vpautil "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/utils/vpa"
)

// updater decides by Kubernetes' own rule when a target is set: a request out
// of its bounds, a container killed soon after it started, or a pod of half a
// day whose requests are 10 % off. Pods are resized in place, so they keep their
// age.
type updater struct{ config priority.UpdateConfig }

// newPod returns the pod that a VM is, started at its first request.
func newPod(r request) *core.Pod {
	start := meta.NewTime(r.at)
	return &core.Pod{
		ObjectMeta: meta.ObjectMeta{Namespace: namespace, Name: r.vm},
		Spec:       core.PodSpec{Containers: []core.Container{{Name: container}}},
		Status: core.PodStatus{
			Phase: core.PodRunning, StartTime: &start,
			ContainerStatuses: []core.ContainerStatus{{
				Name:  container,
				State: core.ContainerState{Running: &core.ContainerStateRunning{StartedAt: start}},
			}},
		},
	}
}

// observe brings the pod up to date. A kill restarts its container.
func (updater) observe(pod *core.Pod, request model.Resources, r request) {
	pod.Spec.Containers[0].Resources.Requests = model.ResourcesAsResourceList(request, false, 1, 1)
	if !r.oom {
		return
	}
	s, killed := &pod.Status.ContainerStatuses[0], meta.NewTime(r.at)
	s.LastTerminationState.Terminated = &core.ContainerStateTerminated{
		Reason: "OOMKilled", StartedAt: s.State.Running.StartedAt, FinishedAt: killed,
	}
	s.State.Running.StartedAt = killed
}

// wants reports whether the updater would resize the pod now to what the object
// recommends.
func (u updater) wants(object *vpa.VerticalPodAutoscaler, pod *core.Pod, now time.Time) bool {
	calculator := priority.NewUpdatePriorityCalculator(object, u.config,
		vpautil.NewCappingRecommendationProcessor(limitrange.NewNoopLimitsCalculator()), priority.NewProcessor())
	calculator.AddPod(pod, now, nil)
	return len(calculator.GetSortedPods(priority.NewDefaultPodEvictionAdmission())) > 0
}
