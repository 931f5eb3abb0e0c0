package controlplane

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"

	"holdfast/tests/cluster/internal/pki"
	"holdfast/tests/cluster/internal/settings"
)

// controllers are those whose work a user of one node can see. Left out are cloud, certificate signing, bootstrap
// token, node address, attach and resize, device, autoscaling and quota controllers.
var controllers = []string{
	names.ServiceAccountTokenController,
	names.ServiceAccountController,
	names.RootCACertificatePublisherController,
	names.NamespaceController,
	names.GarbageCollectorController,
	names.DeploymentController,
	names.ReplicaSetController,
	names.ReplicationControllerController,
	names.StatefulSetController,
	names.DaemonSetController,
	names.JobController,
	names.CronJobController,
	names.TTLAfterFinishedController,
	names.DisruptionController,
	names.EndpointsController,
	names.EndpointSliceController,
	names.PodGarbageCollectorController,
	names.NodeLifecycleController,
	names.TaintEvictionController,
	names.PersistentVolumeBinderController,
	names.PersistentVolumeProtectionController,
	names.PersistentVolumeClaimProtectionController,
	names.EphemeralVolumeController,
	names.ClusterRoleAggregationController,
	names.ServiceCIDRController,
	names.ValidatingAdmissionPolicyStatusController,
}

// RunControllerManager runs the controllers until the context ends.
func RunControllerManager(ctx context.Context, s settings.Settings, files *pki.Files, kubeconfig string) error {
	opts, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		return fmt.Errorf("options of the controller manager: %w", err)
	}
	known, off, aliases := app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()
	flags := []string{
		"kubeconfig=" + kubeconfig,
		"controllers=" + strings.Join(controllers, ","),
		"service-account-private-key-file=" + files.ServiceAccountKey,
		"root-ca-file=" + files.ServerCA,
		"leader-elect=false",
		"secure-port=0",
		"profiling=false",
		// All controllers share one client here: without a higher limit a test waits for the rate limiter.
		"kube-api-qps=200",
		"kube-api-burst=400",
	}
	if err := parse("controller manager", opts.Flags(known, off, aliases), flags, s.ControllerArgs); err != nil {
		return err
	}
	config, err := opts.Config(ctx, known, off, aliases)
	if err != nil {
		return fmt.Errorf("options of the controller manager: %w", err)
	}
	return app.Run(ctx, config.Complete())
}
