package main

import (
	"context"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const namespace = "default"

// template is a pod template of one container with the label app=name.
func template(name, image string, annotations map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}, Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
	}
}

func selector(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

// deploy makes a Deployment of one replica.
func (c *cluster) deploy(ctx context.Context, name, image string, annotations map[string]string) {
	c.t.Helper()
	_, err := c.client.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DeploymentSpec{Selector: selector(name), Template: template(name, image, annotations)},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

// available awaits the one replica of a Deployment.
func (c *cluster) available(ctx context.Context, name string) {
	c.t.Helper()
	c.await(ctx, "deployment "+name, func() (bool, error) {
		d, err := c.client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		return err == nil && d.Status.AvailableReplicas == 1, err
	})
}

// container awaits a state of the only container of a Deployment's pod.
func (c *cluster) container(ctx context.Context, name, what string, holds func(corev1.ContainerStatus) bool) corev1.ContainerStatus {
	c.t.Helper()
	var status corev1.ContainerStatus
	c.await(ctx, name+" "+what, func() (bool, error) {
		pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil || len(pods.Items) != 1 || len(pods.Items[0].Status.ContainerStatuses) != 1 {
			return false, err
		}
		status = pods.Items[0].Status.ContainerStatuses[0]
		return holds(status), nil
	})
	return status
}

func TestWorkloadsOfEveryKindBecomeReady(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, "box-1")
	c.start(ctx)
	c.deploy(ctx, "web", "example/web:1", nil)
	storage := corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}
	db := template("db", "example/db:1", nil)
	db.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	_, err := c.client.AppsV1().StatefulSets(namespace).Create(ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{Selector: selector("db"), Template: db, ServiceName: "db",
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: storage}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.client.AppsV1().DaemonSets(namespace).Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec:       appsv1.DaemonSetSpec{Selector: selector("agent"), Template: template("agent", "example/agent:1", nil)},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	none := int32(0)
	for name, annotations := range map[string]map[string]string{"good": nil, "bad": {"testcluster.holdfast/crash": "boom"}} {
		job := template(name, "example/job:1", annotations)
		job.Spec.RestartPolicy = corev1.RestartPolicyNever
		_, err = c.client.BatchV1().Jobs(namespace).Create(ctx, &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: batchv1.JobSpec{Template: job, BackoffLimit: &none},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.client.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}

	c.available(ctx, "web")
	c.await(ctx, "stateful set", func() (bool, error) {
		s, err := c.client.AppsV1().StatefulSets(namespace).Get(ctx, "db", metav1.GetOptions{})
		return err == nil && s.Status.ReadyReplicas == 1, err
	})
	c.await(ctx, "daemon set", func() (bool, error) {
		s, err := c.client.AppsV1().DaemonSets(namespace).Get(ctx, "agent", metav1.GetOptions{})
		return err == nil && s.Status.NumberReady == 1, err
	})
	c.await(ctx, "claim", func() (bool, error) {
		claim, err := c.client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, "data-db-0", metav1.GetOptions{})
		return err == nil && claim.Status.Phase == corev1.ClaimBound, err
	})
	for name, condition := range map[string]batchv1.JobConditionType{"good": batchv1.JobComplete, "bad": batchv1.JobFailed} {
		c.await(ctx, "job "+name, func() (bool, error) {
			job, err := c.client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			for _, have := range job.Status.Conditions {
				if have.Type == condition && have.Status == corev1.ConditionTrue {
					return true, nil
				}
			}
			return false, nil
		})
	}
	c.await(ctx, "endpoints", func() (bool, error) {
		slices, err := c.client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
		return err == nil && len(slices.Items) == 1 && len(slices.Items[0].Endpoints) == 1, err
	})
	if code, took := c.stop(); code != 0 || took > 5*time.Second {
		t.Errorf("SIGTERM should end it in order: code %d after %s", code, took)
	}
}

func TestFailuresLookAsThoseOfARealKubelet(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, "box-2")
	c.start(ctx)
	c.deploy(ctx, "noimage", "registry.invalid/web:1", nil)
	c.deploy(ctx, "crash", "example/web:1", map[string]string{"testcluster.holdfast/crash": "no configuration"})
	c.deploy(ctx, "unready", "example/web:1", map[string]string{"testcluster.holdfast/unready": "true"})

	pull := c.container(ctx, "noimage", "cannot pull", func(s corev1.ContainerStatus) bool {
		return s.State.Waiting != nil && s.State.Waiting.Reason == "ImagePullBackOff"
	})
	if !strings.HasPrefix(pull.State.Waiting.Message, `Back-off pulling image "registry.invalid/web:1"`) {
		t.Errorf("message: %s", pull.State.Waiting.Message)
	}
	crash := c.container(ctx, "crash", "crashes", func(s corev1.ContainerStatus) bool {
		return s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff"
	})
	if last := crash.LastTerminationState.Terminated; last == nil || last.ExitCode != 1 || last.Message != "no configuration" || crash.RestartCount == 0 {
		t.Errorf("last state: %+v", crash)
	}
	c.container(ctx, "unready", "is unready", func(s corev1.ContainerStatus) bool { return s.State.Running != nil && !s.Ready })

	d, err := c.client.AppsV1().Deployments(namespace).Get(ctx, "noimage", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.Spec.Template.Spec.Containers[0].Image = "example/web:2"
	if _, err := c.client.AppsV1().Deployments(namespace).Update(ctx, d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.available(ctx, "noimage")
}

func TestDataSurvivesAPowerCutAndPodsComeBack(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, "box-3")
	c.start(ctx)
	other := newCluster(t, "box-4")
	other.start(ctx)
	c.deploy(ctx, "web", "example/web:1", nil)
	c.available(ctx, "web")
	before := c.container(ctx, "web", "runs", func(s corev1.ContainerStatus) bool { return s.Ready })
	c.kill()
	c.start(ctx)
	c.container(ctx, "web", "runs again", func(s corev1.ContainerStatus) bool {
		return s.Ready && s.RestartCount == before.RestartCount+1
	})
	c.available(ctx, "web")
	c.await(ctx, "node", func() (bool, error) {
		node, err := c.client.CoreV1().Nodes().Get(ctx, "box-3", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				return condition.Status == corev1.ConditionTrue, nil
			}
		}
		return false, nil
	})
	if _, err := other.client.AppsV1().Deployments(namespace).Get(ctx, "web", metav1.GetOptions{}); err == nil {
		t.Error("two clusters side by side share their data")
	}
}
