// Package storage stands in for k3s's local-path provisioner.
//
// In: claims of the class `local-path` that the scheduler has placed. Out: volumes that the upstream controllers
// bind, and that are deleted after their claim. Guarantee: no folder is ever made; only the objects exist.
package storage

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Names of k3s's packaged provisioner.
const (
	className       = "local-path"
	provisionerName = "rancher.io/local-path"
)

// ensureClass makes the default storage class as k3s ships it.
func ensureClass(ctx context.Context, client kubernetes.Interface) error {
	reclaim, binding := corev1.PersistentVolumeReclaimDelete, storagev1.VolumeBindingWaitForFirstConsumer
	_, err := client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        className,
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner:       provisionerName,
		ReclaimPolicy:     &reclaim,
		VolumeBindingMode: &binding,
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("cannot make the storage class %s: %w", className, err)
	}
	return nil
}
