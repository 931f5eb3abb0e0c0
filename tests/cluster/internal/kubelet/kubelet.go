// Package kubelet simulates the one node: kwok's controller turns pods ready, failing or complete by stages.
//
// In: the node's name and properties, an API client. Out: a Ready Node and pods whose status moves as a real
// kubelet would move it. Guarantee: nothing is ever run; every status is made by a stage file of this package.
package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/kwok/pkg/kwok/controllers"
	kwoklog "sigs.k8s.io/kwok/pkg/log"
	"sigs.k8s.io/kwok/pkg/utils/client"
)

// Prefix is the domain of the annotations that steer the simulation.
const Prefix = "testcluster.holdfast/"

// Heartbeat lease as a real kubelet's: 40 s long, renewed every 10 s.
const leaseSeconds = 40

// Kubelet describes the simulated node.
type Kubelet struct {
	Name        string
	IP          string
	Version     string
	Labels      map[string]string
	Taints      []corev1.Taint
	ClusterCIDR netip.Prefix
	// Kubeconfig is the path of an admin kubeconfig.
	Kubeconfig string

	client kubernetes.Interface
}

// Start registers the node and begins the simulation, which lasts until the context ends. The API must be ready.
// It returns when the node is Ready.
func (k *Kubelet) Start(ctx context.Context) error {
	clients, err := client.NewClientset("", k.Kubeconfig)
	if err != nil {
		return fmt.Errorf("client of the simulated kubelet: %w", err)
	}
	config, err := clients.ToRESTConfig()
	if err != nil {
		return fmt.Errorf("client of the simulated kubelet: %w", err)
	}
	config.UserAgent = "simulated-kubelet"
	if k.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("client of the simulated kubelet: %w", err)
	}
	if err := k.killContainers(ctx); err != nil {
		return err
	}
	if err := k.registerNode(ctx); err != nil {
		return err
	}
	if err := k.dropLease(ctx); err != nil {
		return err
	}
	if err := k.simulate(ctx, clients, config); err != nil {
		return err
	}
	return k.awaitReady(ctx)
}

// simulate starts kwok's controller for this node only.
func (k *Kubelet) simulate(ctx context.Context, clients client.Clientset, config *rest.Config) error {
	stages, err := loadStages()
	if err != nil {
		return err
	}
	dynamic, err := clients.ToDynamicClient()
	if err != nil {
		return fmt.Errorf("client of the simulated kubelet: %w", err)
	}
	mapper, err := clients.ToRESTMapper()
	if err != nil {
		return fmt.Errorf("client of the simulated kubelet: %w", err)
	}
	restClient, err := rest.RESTClientFor(config)
	if err != nil {
		return fmt.Errorf("client of the simulated kubelet: %w", err)
	}
	controller, err := controllers.NewController(controllers.Config{
		Clock:                      clock.RealClock{},
		DynamicClient:              dynamic,
		RESTClient:                 restClient,
		RESTMapper:                 mapper,
		ImpersonatingDynamicClient: clients.ToImpersonatingDynamicClient(),
		ImpersonatingTypedClient:   clients.ToImpersonatingTypedClient(),
		TypedClient:                k.client,
		ManageSingleNode:           k.Name,
		CIDR:                       podNetwork(k.ClusterCIDR),
		NodeIP:                     k.IP,
		NodeName:                   k.Name,
		LocalStages:                stages,
		PodPlayStageParallelism:    4,
		NodePlayStageParallelism:   1,
		NodeLeaseParallelism:       1,
		NodeLeaseDurationSeconds:   leaseSeconds,
		PodsOnNodeSyncParallelism:  1,
		// The holder of a real kubelet's lease is its node: a restarted one takes its own lease at once.
		ID: k.Name,
	})
	if err != nil {
		return fmt.Errorf("simulated kubelet: %w", err)
	}
	logger := kwoklog.NewLogger(os.Stderr, slog.LevelWarn)
	if err := controller.Start(kwoklog.NewContext(ctx, logger)); err != nil {
		return fmt.Errorf("simulated kubelet: %w", err)
	}
	return nil
}
