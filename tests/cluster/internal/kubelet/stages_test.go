package kubelet

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/utils/lifecycle"
)

// pod makes a pod of one container in a phase; the changes are applied to it.
func pod(phase corev1.PodPhase, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "c", Image: "example/web:1"}}},
		Status:     corev1.PodStatus{Phase: phase},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func annotated(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{Prefix + name: "why"} }
}

func image(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Image = name }
}

func ready(status corev1.ConditionStatus) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	}
}

func waiting(reason string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
	}
}

func ofJob(p *corev1.Pod) {
	p.OwnerReferences = []metav1.OwnerReference{{Kind: "Job"}}
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
}

func deleted(p *corev1.Pod) {
	now := metav1.Now()
	p.DeletionTimestamp = &now
}

func badInit(p *corev1.Pod) {
	p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "registry.invalid/init:1"}}
}

func TestEachStateOfAPodHasAtMostOneNextStage(t *testing.T) {
	grouped, err := loadStages()
	if err != nil {
		t.Fatal(err)
	}
	stages, err := lifecycle.NewLifecycle(grouped[internalversion.StageResourceRef{APIGroup: "v1", Kind: "Pod"}])
	if err != nil {
		t.Fatal(err)
	}
	const pending, running = corev1.PodPending, corev1.PodRunning
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		next string
	}{
		"new":                            {pod(pending), "pod-start"},
		"new, crashes":                   {pod(pending, annotated("crash")), "pod-start"},
		"new, image of registry.invalid": {pod(pending, image("registry.invalid/a/b:1")), "pod-image-pull-back-off"},
		"new, image of invalid":          {pod(pending, image("invalid/b:1")), "pod-image-pull-back-off"},
		"new, image of invalid.example":  {pod(pending, image("invalid.example:5000/b@sha256:00")), "pod-image-pull-back-off"},
		"new, host with a port":          {pod(pending, image("a.invalid:5000/b")), "pod-image-pull-back-off"},
		"new, only the name is invalid":  {pod(pending, image("example/invalid:1")), "pod-start"},
		"new, host that looks like it":   {pod(pending, image("notinvalid/b:1")), "pod-start"},
		"new, bad init image":            {pod(pending, badInit), "pod-image-pull-back-off"},
		"pull was reported":              {pod(pending, image("registry.invalid/a"), waiting("ImagePullBackOff")), ""},
		"pull reported, image mended":    {pod(pending, waiting("ImagePullBackOff")), "pod-start"},
		"runs":                           {pod(running, ready("True")), ""},
		"runs, crash annotated":          {pod(running, ready("True"), annotated("crash")), "pod-crash"},
		"crash was reported":             {pod(running, waiting("CrashLoopBackOff"), annotated("crash")), ""},
		"crash annotation gone":          {pod(running, waiting("CrashLoopBackOff")), "pod-recover"},
		"restarted with the machine":     {pod(running, waiting("ContainerCreating")), "pod-recover"},
		"restarted, crashes":             {pod(running, waiting("ContainerCreating"), annotated("crash")), "pod-crash"},
		"restarted, unready":             {pod(running, waiting("ContainerCreating"), annotated("unready")), "pod-unready"},
		"runs, unready annotated":        {pod(running, ready("True"), annotated("unready")), "pod-unready"},
		"unready was reported":           {pod(running, ready("False"), annotated("unready")), ""},
		"unready annotation gone":        {pod(running, ready("False")), "pod-recover"},
		"job runs":                       {pod(running, ready("True"), ofJob), "pod-complete"},
		"job crashes":                    {pod(running, ready("False"), ofJob, annotated("crash")), "pod-fail"},
		"job hangs":                      {pod(running, ready("False"), ofJob, annotated("unready")), ""},
		"job done":                       {pod(corev1.PodSucceeded, ofJob), ""},
		"job failed":                     {pod(corev1.PodFailed, ofJob, annotated("crash")), ""},
		"being deleted":                  {pod(running, ready("True"), deleted), "pod-delete"},
		"new and deleted":                {pod(pending, deleted), "pod-delete"},
		"failed and deleted":             {pod(corev1.PodFailed, ofJob, deleted), "pod-delete"},
	} {
		event := &lifecycle.Event{Labels: c.pod.Labels, Annotations: c.pod.Annotations, Data: c.pod}
		possible, err := stages.ListAllPossible(context.Background(), event)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var names []string
		for _, stage := range possible {
			names = append(names, stage.Name())
		}
		if c.next == "" && len(names) != 0 || c.next != "" && (len(names) != 1 || names[0] != c.next) {
			t.Errorf("%s: next stage should be %q, is %v", name, c.next, names)
		}
	}
}
