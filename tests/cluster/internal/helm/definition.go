// Package helm brings the kind HelmChart, as k3s does.
//
// In: a client. Out: the definition in the cluster, as github.com/k3s-io/helm-controller v0.17 has it (Apache-2.0). The controller itself is
// absent: nothing makes the jobs, which could run nowhere here.
package helm

import (
	"context"
	_ "embed"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

//go:embed helmcharts.yaml
var definition []byte

// EnsureDefinition makes the definition what k3s ships.
func EnsureDefinition(ctx context.Context, client kubernetes.Interface) error {
	err := client.Discovery().RESTClient().Patch(types.ApplyPatchType).
		AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/helmcharts.helm.cattle.io").
		Param("fieldManager", "k3s").Param("force", "true").
		Body(definition).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("cannot make the definition of HelmChart: %w", err)
	}
	return nil
}
