package kubelet

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// killContainers records that the containers of every running pod died with the previous process, as after a reboot
// of the machine. The stages then start them again, one restart later. Without this a pod would look ready before
// anything of this process had taken care of it.
func (k *Kubelet) killContainers(ctx context.Context) error {
	pods, err := k.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", k.Name).String(),
	})
	if err != nil {
		return fmt.Errorf("cannot list the pods of the node: %w", err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			continue
		}
		now := metav1.NewTime(time.Now())
		for j := range pod.Status.ContainerStatuses {
			stop(&pod.Status.ContainerStatuses[j], now)
		}
		for j := range pod.Status.Conditions {
			condition := &pod.Status.Conditions[j]
			if condition.Type != corev1.PodReady && condition.Type != corev1.ContainersReady {
				continue
			}
			condition.Status, condition.LastTransitionTime = corev1.ConditionFalse, now
			condition.Reason, condition.Message = "ContainersNotReady", "the simulated machine restarted"
		}
		_, err := k.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("cannot mark pod %s/%s as restarting: %w", pod.Namespace, pod.Name, err)
		}
	}
	return nil
}

// stop turns a running container into one that waits to be started again.
func stop(container *corev1.ContainerStatus, now metav1.Time) {
	if container.State.Running == nil {
		return
	}
	no := false
	container.Ready, container.Started = false, &no
	container.LastTerminationState = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 255, Reason: "Unknown", StartedAt: container.State.Running.StartedAt, FinishedAt: now,
	}}
	container.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
}
