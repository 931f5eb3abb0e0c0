//! Names of the problems that the node's decisions find. Each is a heading in `docs/troubleshooting.md`; those that the hub
//! knows too are in [`holdfast_protocol::codes`].

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*

        /// Every name above, for the check that each is documented.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

codes! {
    /// An object of the document cannot be used; the message says where it is and why.
    OBJECT_INVALID = "object-invalid";
    /// Two apps, or one app twice, name the same object.
    OBJECT_DUPLICATE = "object-duplicate";
    /// A blob of manifests is not a JSON array of Kubernetes objects.
    MANIFESTS_MALFORMED = "manifests-malformed";
    /// The API server refuses an object for good: it is invalid or may not be changed so.
    OBJECT_REFUSED = "object-refused";
    /// The API server does not know the kind of an object (yet).
    KIND_UNKNOWN = "kind-unknown";
    /// The API server or something on its way to an answer is not able to take an object now.
    APPLY_FAILED = "apply-failed";
    /// Kubernetes does not answer.
    KUBERNETES_UNREACHABLE = "kubernetes-unreachable";
    /// The apps of the document were not ready within its deadline.
    NOT_READY_IN_TIME = "not-ready-in-time";
    /// An object is missing from the cluster.
    OBJECT_MISSING = "object-missing";
    /// An object is being deleted by someone.
    OBJECT_TERMINATING = "object-terminating";
    /// A container image cannot be pulled.
    IMAGE_PULL_FAILED = "image-pull-failed";
    /// A container ends with an error, again and again.
    CONTAINER_CRASHES = "container-crashes";
    /// A container cannot be made: a missing config map, secret or volume, or a wrong setting.
    CONTAINER_CONFIG_INVALID = "container-config-invalid";
    /// A container runs but its readiness or startup probe fails.
    CONTAINER_NOT_READY = "container-not-ready";
    /// A container was killed because it used more memory than its limit.
    OUT_OF_MEMORY = "out-of-memory";
    /// No node has room for a pod, or none fits its rules.
    POD_UNSCHEDULABLE = "pod-unschedulable";
    /// A pod was evicted from the node, mostly for lack of disk or memory.
    POD_EVICTED = "pod-evicted";
    /// A pod waits for something before its containers can start: a volume, its network.
    POD_BLOCKED = "pod-blocked";
    /// A pod ended with an error.
    POD_FAILED = "pod-failed";
    /// A workload cannot make its pods: a quota, a policy or a webhook refuses them.
    PODS_REFUSED = "pods-refused";
    /// A rollout of a workload made no progress within its own deadline.
    ROLLOUT_STALLED = "rollout-stalled";
    /// A workload is still rolling out.
    ROLLOUT_PROGRESSING = "rollout-progressing";
    /// A job failed.
    JOB_FAILED = "job-failed";
    /// A Helm chart cannot be installed.
    CHART_FAILED = "chart-failed";
    /// A volume claim is not bound to a volume.
    VOLUME_UNBOUND = "volume-unbound";
    /// The names of a custom resource definition clash with another's.
    DEFINITION_REFUSED = "definition-refused";
    /// A condition of the object says that it does not get on.
    CONDITION_STALLED = "condition-stalled";
    /// A condition of the object says that it is not ready.
    CONDITION_NOT_READY = "condition-not-ready";
    /// A person paused changes at the box.
    CHANGES_PAUSED = "changes-paused";
    /// Changes wait for the maintenance window.
    OUTSIDE_WINDOW = "outside-window";
    /// Changes wait for a maintenance window, and the clock of the box cannot be trusted to tell when that is.
    WINDOW_WITHOUT_CLOCK = "window-without-clock";
    /// A maintenance window cannot be read: its times or its time zone are not known to this box.
    WINDOW_INVALID = "window-invalid";
    /// The clock of the box is behind a time that was proven already.
    CLOCK_BEHIND = "clock-behind";
}
