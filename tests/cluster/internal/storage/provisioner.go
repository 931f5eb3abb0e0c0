package storage

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// Annotations by which the binder and the scheduler ask a provisioner for a volume.
const (
	askedProvisioner = "volume.kubernetes.io/storage-provisioner"
	selectedNode     = "volume.kubernetes.io/selected-node"
	provisionedBy    = "pv.kubernetes.io/provisioned-by"
)

// Provisioner makes and deletes the volumes of the local-path class.
type Provisioner struct {
	Client kubernetes.Interface
	// Folder is the path under which the volumes claim to be.
	Folder string
}

// Start makes the storage class and serves claims until the context ends.
func (p *Provisioner) Start(ctx context.Context) error {
	if err := ensureClass(ctx, p.Client); err != nil {
		return err
	}
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 30*time.Second)
	queue := workqueue.NewTypedRateLimitingQueue(limiter)
	factory := informers.NewSharedInformerFactory(p.Client, 0)
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	volumes := factory.Core().V1().PersistentVolumes().Informer()
	for prefix, informer := range map[string]cache.SharedIndexInformer{"claim": claims, "volume": volumes} {
		add := func(object any) {
			if key, err := cache.MetaNamespaceKeyFunc(object); err == nil {
				queue.Add(prefix + " " + key)
			}
		}
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: add, UpdateFunc: func(_, object any) { add(object) },
		})
		if err != nil {
			return fmt.Errorf("cannot watch for storage claims: %w", err)
		}
	}
	factory.Start(ctx.Done())
	go func() {
		<-ctx.Done()
		queue.ShutDown()
	}()
	go p.work(ctx, queue, claims.GetStore(), volumes.GetStore())
	return nil
}

// work takes keys of changed claims and volumes until the queue is shut down; a failure is tried again later.
func (p *Provisioner) work(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string], claims, volumes cache.Store) {
	for {
		key, ended := queue.Get()
		if ended {
			return
		}
		if err := p.handle(ctx, key, claims, volumes); err != nil {
			klog.ErrorS(err, "Storage of a claim has to wait", "key", key)
			queue.AddRateLimited(key)
		} else {
			queue.Forget(key)
		}
		queue.Done(key)
	}
}

func (p *Provisioner) handle(ctx context.Context, key string, claims, volumes cache.Store) error {
	if name, isClaim := strings.CutPrefix(key, "claim "); isClaim {
		if object, exists, _ := claims.GetByKey(name); exists {
			return p.provision(ctx, object.(*corev1.PersistentVolumeClaim))
		}
	} else if name, isVolume := strings.CutPrefix(key, "volume "); isVolume {
		if object, exists, _ := volumes.GetByKey(name); exists {
			return p.reclaim(ctx, object.(*corev1.PersistentVolume))
		}
	}
	return nil
}

// provision makes the volume a placed claim waits for; its name makes a second attempt harmless.
func (p *Provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	node := claim.Annotations[selectedNode]
	if claim.Annotations[askedProvisioner] != provisionerName || node == "" || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil {
		return nil
	}
	name := "pvc-" + string(claim.UID)
	kind := corev1.HostPathDirectoryOrCreate
	_, err := p.Client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisionerName}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName:              className,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{
				Path: filepath.Join(p.Folder, name+"_"+claim.Namespace+"_"+claim.Name), Type: &kind,
			}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
				}},
			}}}},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// reclaim deletes a volume of this provisioner whose claim is gone.
func (p *Provisioner) reclaim(ctx context.Context, volume *corev1.PersistentVolume) error {
	if volume.Annotations[provisionedBy] != provisionerName || volume.Status.Phase != corev1.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || volume.DeletionTimestamp != nil {
		return nil
	}
	err := p.Client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
