//! Names of the problems that only a node has. Each is a heading in `docs/troubleshooting.md`; those that the hub knows too are
//! in [`holdfast_protocol::codes`].

/// A file of the settings cannot be read.
pub const SETTINGS_UNREADABLE: &str = "settings-unreadable";
/// A file of the settings holds an unknown key or an unusable value.
pub const SETTINGS_INVALID: &str = "settings-invalid";

/// The kubeconfig cannot be read or used.
pub const KUBECONFIG_UNUSABLE: &str = "kubeconfig-unusable";
/// Kubernetes was started and has not written its kubeconfig yet.
pub const KUBERNETES_STARTING: &str = "kubernetes-starting";
/// Kubernetes stands still on purpose, for as long as its files are worked on.
pub const KUBERNETES_SWITCHING: &str = "kubernetes-switching";
/// A custom resource definition was not established in time.
pub const CRD_NOT_ESTABLISHED: &str = "crd-not-established";
/// The k3s program is not there or cannot be started.
pub const KUBERNETES_BINARY_MISSING: &str = "kubernetes-binary-missing";
/// k3s was started without root.
pub const KUBERNETES_NEEDS_ROOT: &str = "kubernetes-needs-root";
/// The API of Kubernetes answers, but the box has not registered as a node of it.
pub const KUBERNETES_NODE_MISSING: &str = "kubernetes-node-missing";
/// The box's node of Kubernetes is not ready: pods cannot run on it.
pub const KUBERNETES_NODE_NOT_READY: &str = "kubernetes-node-not-ready";
/// A document gives apps to a box that is an agent of k3s.
pub const KUBERNETES_AGENT_APPS: &str = "kubernetes-agent-apps";
/// k3s ended by itself.
pub const KUBERNETES_EXITED: &str = "kubernetes-exited";
/// A file that k3s is run with cannot be written or read.
pub const KUBERNETES_FILE: &str = "kubernetes-file";
/// Another version of k3s runs than the document demands.
pub const KUBERNETES_WRONG_VERSION: &str = "kubernetes-wrong-version";
/// The k3s of a document is not in the store as it should be.
pub const KUBERNETES_ARTIFACT: &str = "kubernetes-artifact";
/// A k3s does not say which version it is.
pub const KUBERNETES_VERSION_UNKNOWN: &str = "kubernetes-version-unknown";
/// systemd does not do with the unit of k3s what it is asked to.
pub const KUBERNETES_SYSTEMD: &str = "kubernetes-systemd";
/// The box runs no image of Holdfast, or not from two slots.
pub const OS_NO_IMAGE: &str = "os-no-image";
/// The keys that images are signed with cannot be read.
pub const OS_KEYS_UNREADABLE: &str = "os-keys-unreadable";
/// The image is for another processor.
pub const OS_WRONG_ARCHITECTURE: &str = "os-wrong-architecture";
/// The image that is wanted has the version of one that the box has, and another content.
pub const OS_SAME_VERSION: &str = "os-same-version";
/// The image is larger than the slot.
pub const OS_SLOT_TOO_SMALL: &str = "os-slot-too-small";
/// The EFI system partition has no room for the kernel image.
pub const OS_ESP_FULL: &str = "os-esp-full";
/// The image of the other slot cannot be booted.
pub const OS_NO_WAY_BACK: &str = "os-no-way-back";
/// The disk does not take the image, or gives back another.
pub const OS_DISK_FAILED: &str = "os-disk-failed";
/// The broker cannot be reached.
pub const BROKER_UNREACHABLE: &str = "broker-unreachable";
/// The broker refused the session.
pub const BROKER_REFUSED: &str = "broker-refused";
/// A broker's address in the identity cannot be read.
pub const BROKER_ADDRESS: &str = "broker-address";
/// A blob could not be fetched from the hub.
pub const BLOB_UNREACHABLE: &str = "blob-unreachable";
/// The node's own certificate or key cannot be used for TLS.
pub const IDENTITY_UNUSABLE: &str = "identity-unusable";
/// The state directory or a file of the identity can be read or written by others.
pub const STATE_MODE_TOO_WIDE: &str = "state-mode-too-wide";
/// The state directory belongs to another user.
pub const STATE_OWNER_WRONG: &str = "state-owner-wrong";
/// The state directory cannot be made, read or written.
pub const STATE_UNUSABLE: &str = "state-unusable";
/// A file of the identity is damaged.
pub const IDENTITY_DAMAGED: &str = "identity-damaged";
/// The identity was written by a newer holdfast.
pub const IDENTITY_TOO_NEW: &str = "identity-too-new";
/// The box is not enrolled yet.
pub const NOT_ENROLLED: &str = "not-enrolled";
/// The box is enrolled already.
pub const ALREADY_ENROLLED: &str = "already-enrolled";
/// No daemon answers at the socket.
pub const DAEMON_UNREACHABLE: &str = "daemon-unreachable";
/// The hub cannot be reached.
pub const HUB_UNREACHABLE: &str = "hub-unreachable";
/// The hub answered with something that is not an answer.
pub const HUB_ANSWER_INVALID: &str = "hub-answer-invalid";
/// No token was given or found.
pub const TOKEN_MISSING: &str = "token-missing";
/// A token's source cannot be read.
pub const TOKEN_UNREADABLE: &str = "token-unreadable";
/// The socket of the local API cannot be made.
pub const SOCKET_UNUSABLE: &str = "socket-unusable";
/// The daemon has started, but the node does not run yet.
pub const NODE_STARTING: &str = "node-starting";
/// The metrics address cannot be listened on.
pub const METRICS_ADDRESS_UNUSABLE: &str = "metrics-address-unusable";
/// Images that the documents need cannot be imported or pinned now.
pub const IMAGES_UNKEPT: &str = "images-unkept";
/// An archive of images is none that containerd takes.
pub const IMAGE_ARCHIVE_INVALID: &str = "image-archive-invalid";
/// Something else keeps changing an object that Holdfast keeps putting back.
pub const DRIFT_FIGHT: &str = "drift-fight";
/// The directory for a datastore in memory is not in memory.
pub const DATASTORE_NOT_IN_MEMORY: &str = "datastore-not-in-memory";
/// The datastore is etcd, which cannot be held in memory.
pub const DATASTORE_NOT_SQLITE: &str = "datastore-not-sqlite";
/// A file of the datastore cannot be read or written.
pub const DATASTORE_FILE: &str = "datastore-file";
/// The datastore, or a snapshot of it, is damaged.
pub const DATASTORE_DAMAGED: &str = "datastore-damaged";
/// No snapshot of the datastore in memory can be taken.
pub const DATASTORE_SNAPSHOT_FAILED: &str = "datastore-snapshot-failed";
/// The datastore has grown above its limit.
pub const DATASTORE_LARGE: &str = "datastore-large";
/// The log of the datastore has grown above its limit.
pub const DATASTORE_LOG_LARGE: &str = "datastore-log-large";
/// A damaged part of Kubernetes was set aside and is rebuilt.
pub const KUBERNETES_HEALED: &str = "kubernetes-healed";
/// A part of Kubernetes was damaged too often to be set aside once more.
pub const KUBERNETES_HEAL_LIMIT: &str = "kubernetes-heal-limit";
/// A damaged part of Kubernetes cannot be set aside.
pub const KUBERNETES_HEAL_FAILED: &str = "kubernetes-heal-failed";
/// The disk is nearly full: what can be done without was removed.
pub const DISK_LOW: &str = "disk-low";
/// The device reports that it has used up most of its life.
pub const FLASH_WORN: &str = "flash-worn";
/// A sealed value cannot be opened: it is missing, damaged, or was sealed for another place.
pub const SEALED_VALUE_UNUSABLE: &str = "sealed-value-unusable";
/// A value is sealed to another key than this box has.
pub const SEALED_TO_OTHER_KEY: &str = "sealed-to-other-key";
/// The address of the node cannot be put on its interface.
pub const NODE_ADDRESS_FAILED: &str = "node-address-failed";
/// k3s would skip minor versions.
pub const KUBERNETES_VERSION_SKIPPED: &str = "kubernetes-version-skipped";
/// k3s would go down to an older minor version.
pub const KUBERNETES_DOWNGRADE: &str = "kubernetes-downgrade";
/// The disk has no room for what the document brings.
pub const SPACE_INSUFFICIENT: &str = "space-insufficient";
/// The document's pods ask for more memory than the box has for them.
pub const MEMORY_INSUFFICIENT: &str = "memory-insufficient";
/// A registry says that it has no such image.
pub const IMAGE_NOT_FOUND: &str = "image-not-found";
/// A probe of an app is not answered well.
pub const PROBE_FAILED: &str = "probe-failed";
/// A probe of an app cannot be carried out as it is written.
pub const PROBE_INVALID: &str = "probe-invalid";
/// There is no document that the node could go back to as it was asked.
pub const ROLLBACK_IMPOSSIBLE: &str = "rollback-impossible";
/// The document that was asked for runs already.
pub const ALREADY_RUNNING: &str = "already-running";
/// A person at the box asked for an earlier document.
pub const ROLLED_BACK_BY_HAND: &str = "rolled-back-by-hand";
/// A document wants an operating system, and the box runs none that Holdfast switches.
pub const OS_NOT_MANAGED: &str = "os-not-managed";
/// An image of the operating system was tried and did not come up.
pub const OS_FELL_BACK: &str = "os-fell-back";
/// The box restarted too often for one operating system.
pub const OS_RESTARTS_SPENT: &str = "os-restarts-spent";
/// The operating system to go back to is not there any more.
pub const OS_SLOT_GONE: &str = "os-slot-gone";
/// The box was to restart and did not.
pub const OS_NO_RESTART: &str = "os-no-restart";
/// What is written down of the operating system cannot be read or written.
pub const OS_RECORD: &str = "os-record";
/// This boot was not found good.
pub const BOOT_NOT_GOOD: &str = "boot-not-good";
/// The record of boots is damaged.
pub const BOOT_RECORD_DAMAGED: &str = "boot-record-damaged";
/// The personal settings of the box cannot be written to where the system reads them.
pub const PERSONAL_NOT_APPLIED: &str = "personal-not-applied";
/// There is no state directory, so there is nothing to erase.
pub const STATE_MISSING: &str = "state-missing";
/// A factory reset waits for the next start of the machine.
pub const RESET_ORDERED: &str = "reset-ordered";
/// A factory reset cannot be taken back any more.
pub const RESET_BEGUN: &str = "reset-begun";
/// Nobody confirmed a factory reset.
pub const RESET_NOT_CONFIRMED: &str = "reset-not-confirmed";
/// The order of a factory reset cannot be read.
pub const RESET_ORDER_DAMAGED: &str = "reset-order-damaged";
/// Something could not be erased.
pub const RESET_FAILED: &str = "reset-failed";
/// The machine cannot be restarted.
pub const RESTART_FAILED: &str = "restart-failed";
/// The console has no terminal.
pub const CONSOLE_NO_TERMINAL: &str = "console-no-terminal";
/// The release that came with the image of the box cannot be used.
pub const SEED_UNUSABLE: &str = "seed-unusable";
/// The command line is wrong.
pub const USAGE: &str = "usage";
