package controlplane

import (
	"context"
	"fmt"
	"net"
	"strconv"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"holdfast/tests/cluster/internal/pki"
	"holdfast/tests/cluster/internal/settings"
)

// RunAPIServer serves the Kubernetes API until the context ends. It must be the first component started:
// it sets the feature gates that all components of the process share.
func RunAPIServer(ctx context.Context, s settings.Settings, files *pki.Files, socket string) error {
	opts := options.NewServerRunOptions()
	if err := parse("API server", opts.Flags(), apiServerFlags(s, files, socket), s.APIServerArgs); err != nil {
		return err
	}
	if err := opts.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("feature gates: %w", err)
	}
	completed, err := opts.Complete(ctx)
	if err != nil {
		return fmt.Errorf("options of the API server: %w", err)
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return fmt.Errorf("options of the API server: %w", utilerrors.NewAggregate(errs))
	}
	return app.Run(ctx, completed)
}

func apiServerFlags(s settings.Settings, files *pki.Files, socket string) []string {
	issuer := "https://kubernetes.default.svc." + s.ClusterDomain
	return []string{
		"etcd-servers=unix://" + socket,
		"bind-address=" + s.BindAddress,
		"secure-port=" + strconv.Itoa(s.Port),
		"advertise-address=" + s.Advertise,
		"external-hostname=" + net.JoinHostPort(s.BindAddress, strconv.Itoa(s.Port)),
		"tls-cert-file=" + files.ServingCert,
		"tls-private-key-file=" + files.ServingKey,
		"client-ca-file=" + files.ClientCA,
		"service-account-issuer=" + issuer,
		"service-account-key-file=" + files.ServiceAccountKey,
		"service-account-signing-key-file=" + files.ServiceAccountKey,
		"api-audiences=" + issuer + ",k3s",
		"service-cluster-ip-range=" + s.ServiceCIDR.String(),
		"service-node-port-range=" + s.ServicePorts,
		// As k3s: nobody without a certificate or token, and privileged pods are allowed.
		"anonymous-auth=false",
		"allow-privileged=true",
		"authorization-mode=RBAC",
		"profiling=false",
		// No other API server exists: no endpoint lease to renew, no identity lease to write every ten seconds.
		"endpoint-reconciler-type=none",
		"feature-gates=APIServerIdentity=false,UnknownVersionInteroperabilityProxy=false",
		// One box, a handful of clients: no flow schemas to set up and recompute.
		"enable-priority-and-fairness=false",
		// Its controller is left out, and without it every quota would refuse everything.
		"disable-admission-plugins=ResourceQuota",
	}
}
