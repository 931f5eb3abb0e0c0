package kubelet

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
)

// registerNode makes the Node object, or brings the kept one up to the settings, and marks it not ready:
// the simulated kubelet turns it ready, so readiness tells that this process simulates it.
func (k *Kubelet) registerNode(ctx context.Context) error {
	nodes := k.client.CoreV1().Nodes()
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := nodes.Get(ctx, k.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.Name}}
			node.Spec.Taints = k.Taints
			k.describe(node)
			node, err = nodes.Create(ctx, node, metav1.CreateOptions{})
		}
		if err != nil {
			return fmt.Errorf("cannot register the node: %w", err)
		}
		before := node.DeepCopy()
		k.describe(node)
		if !equality.Semantic.DeepEqual(before, node) {
			if node, err = nodes.Update(ctx, node, metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
		k.status(node)
		_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
}

// dropLease removes the lease of the previous process. kwok makes a lease that its cache does not know yet; finding an
// old one instead, it would wait for a whole renewal before it takes the node.
func (k *Kubelet) dropLease(ctx context.Context) error {
	err := k.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Delete(ctx, k.Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("cannot remove the node's old lease: %w", err)
	}
	return nil
}

// awaitReady returns when the simulation has turned the node ready.
func (k *Kubelet) awaitReady(ctx context.Context) error {
	return wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		node, err := k.client.CoreV1().Nodes().Get(ctx, k.Name, metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("cannot read the node: %w", err)
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				return condition.Status == corev1.ConditionTrue, nil
			}
		}
		return false, nil
	})
}

// describe sets what k3s sets on its node.
func (k *Kubelet) describe(node *corev1.Node) {
	labels := map[string]string{
		"beta.kubernetes.io/arch":               runtime.GOARCH,
		"beta.kubernetes.io/instance-type":      "k3s",
		"beta.kubernetes.io/os":                 "linux",
		"kubernetes.io/arch":                    runtime.GOARCH,
		"kubernetes.io/hostname":                k.Name,
		"kubernetes.io/os":                      "linux",
		"node-role.kubernetes.io/control-plane": "true",
		"node.kubernetes.io/instance-type":      "k3s",
	}
	for name, value := range k.Labels {
		labels[name] = value
	}
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	for name, value := range labels {
		node.Labels[name] = value
	}
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	node.Annotations[Prefix+"simulated"] = "true"
	node.Spec.ProviderID = "k3s://" + k.Name
	if node.Spec.PodCIDR == "" {
		node.Spec.PodCIDR = podNetwork(k.ClusterCIDR)
		node.Spec.PodCIDRs = []string{node.Spec.PodCIDR}
	}
}

// podNetwork is the first /24 (or /64) of the cluster's network, or all of it when that is smaller.
func podNetwork(cluster netip.Prefix) string {
	bits := 24
	if cluster.Addr().Is6() {
		bits = 64
	}
	return netip.PrefixFrom(cluster.Masked().Addr(), max(bits, cluster.Bits())).String()
}

func (k *Kubelet) status(node *corev1.Node) {
	room := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("4"),
		corev1.ResourceMemory:           resource.MustParse("8Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("64Gi"),
		corev1.ResourcePods:             resource.MustParse("110"),
	}
	// Conditions count whole seconds, and the node becomes ready within this one: being unready must look older,
	// or the node controller takes both for the same report and goes on to believe the first.
	now := metav1.NewTime(time.Now().Add(-2 * time.Second))
	node.Status.Capacity, node.Status.Allocatable = room, room
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: k.IP},
		{Type: corev1.NodeHostName, Address: k.Name},
	}
	node.Status.NodeInfo = corev1.NodeSystemInfo{
		Architecture:            runtime.GOARCH,
		BootID:                  string(uuid.NewUUID()),
		ContainerRuntimeVersion: "containerd://0.0.0-simulated",
		KernelVersion:           "0.0.0-simulated",
		KubeProxyVersion:        k.Version,
		KubeletVersion:          k.Version,
		MachineID:               "simulated",
		OperatingSystem:         "linux",
		OSImage:                 "simulated by holdfast-testcluster",
		SystemUUID:              "simulated",
	}
	node.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady",
		Message: "the simulated kubelet is starting", LastHeartbeatTime: now, LastTransitionTime: now,
	}}
}
