// Package settings turns k3s's configuration (files, environment, flags) into one checked Settings value.
//
// In: a YAML file with k3s's own key names, its drop-in directory, K3S_* variables and command line flags.
// Out: Settings, with every path absolute. Guarantee: a key that k3s does not have is refused by its name, and a
// key whose meaning this test cluster cannot honour is either logged (harmless) or refused (it would change the result).
package settings

// Kind is the form of a key's value.
type Kind int

const (
	// Text is one string.
	Text Kind = iota
	// Number is a whole number.
	Number
	// Switch is true or false.
	Switch
	// List is any number of strings; a single string counts as a list of one.
	List
)

// Treatment says what the test cluster does with a key.
type Treatment int

const (
	// Honoured keys have the effect they have in k3s.
	Honoured Treatment = iota
	// Logged keys configure parts that are simulated or absent: they are accepted, logged and have no effect.
	Logged
	// Refused keys ask for another kind of cluster; starting without them would not be what was asked for.
	Refused
)

// Key is one k3s server option, as a file key and as a flag.
type Key struct {
	Name      string
	Short     string
	Env       string
	Kind      Kind
	Treatment Treatment
	Help      string
}

// Keys are the options of `k3s server` (k3s 1.36) in the order of its own help.
var Keys = []Key{
	{Name: "debug", Kind: Switch, Treatment: Logged},
	{Name: "v", Kind: Number, Help: "log verbosity of the Kubernetes parts"},
	{Name: "vmodule", Kind: Text, Treatment: Logged},
	{Name: "log", Short: "l", Kind: Text, Treatment: Logged},
	{Name: "alsologtostderr", Kind: Switch, Treatment: Logged},
	{Name: "bind-address", Kind: Text, Help: "address of the https port (default 127.0.0.1, unlike k3s)"},
	{Name: "https-listen-port", Kind: Number, Help: "https port of the API (default 6443)"},
	{Name: "supervisor-port", Kind: Number, Treatment: Logged},
	{Name: "apiserver-port", Kind: Number, Treatment: Logged},
	{Name: "apiserver-bind-address", Kind: Text, Treatment: Logged},
	{Name: "advertise-address", Kind: Text, Help: "address the API server gives to its members"},
	{Name: "advertise-port", Kind: Number, Treatment: Logged},
	{Name: "tls-san", Kind: List, Help: "further host name or address in the server certificate (repeatable)"},
	{Name: "tls-san-security", Kind: Switch, Treatment: Logged},
	{Name: "data-dir", Short: "d", Env: "K3S_DATA_DIR", Kind: Text, Help: "folder that holds all state (default /var/lib/rancher/k3s)"},
	{Name: "cluster-cidr", Kind: List, Help: "network of pod addresses (default 10.42.0.0/16)"},
	{Name: "service-cidr", Kind: List, Help: "network of service addresses (default 10.43.0.0/16)"},
	{Name: "service-node-port-range", Kind: Text, Help: "ports for NodePort services (default 30000-32767)"},
	{Name: "cluster-dns", Kind: List, Treatment: Logged},
	{Name: "cluster-domain", Kind: Text, Help: "cluster domain (default cluster.local)"},
	{Name: "flannel-backend", Kind: Text, Treatment: Logged},
	{Name: "flannel-ipv6-masq", Kind: Switch, Treatment: Logged},
	{Name: "flannel-external-ip", Kind: Switch, Treatment: Logged},
	{Name: "egress-selector-mode", Kind: Text, Treatment: Logged},
	{Name: "servicelb-namespace", Kind: Text, Treatment: Logged},
	{Name: "write-kubeconfig", Short: "o", Env: "K3S_KUBECONFIG_OUTPUT", Kind: Text, Help: "where the admin kubeconfig is written (default /etc/rancher/k3s/k3s.yaml)"},
	{Name: "write-kubeconfig-mode", Env: "K3S_KUBECONFIG_MODE", Kind: Text, Help: "file mode of the kubeconfig, octal (default 0600)"},
	{Name: "write-kubeconfig-group", Kind: Text, Treatment: Logged},
	{Name: "helm-job-image", Kind: Text, Treatment: Logged},
	{Name: "token", Short: "t", Env: "K3S_TOKEN", Kind: Text, Help: "join secret; stored, never used: there is nothing to join"},
	{Name: "token-file", Env: "K3S_TOKEN_FILE", Kind: Text, Help: "file holding the join secret"},
	{Name: "agent-token", Kind: Text, Treatment: Logged},
	{Name: "agent-token-file", Kind: Text, Treatment: Logged},
	{Name: "server", Short: "s", Env: "K3S_URL", Kind: Text, Treatment: Refused},
	{Name: "cluster-init", Env: "K3S_CLUSTER_INIT", Kind: Switch, Treatment: Refused},
	{Name: "cluster-reset", Kind: Switch, Treatment: Refused},
	{Name: "cluster-reset-restore-path", Kind: Text, Treatment: Refused},
	{Name: "kube-apiserver-arg", Kind: List, Help: "further flag=value for the API server (repeatable)"},
	{Name: "etcd-arg", Kind: List, Treatment: Logged},
	{Name: "kube-controller-manager-arg", Kind: List, Help: "further flag=value for the controller manager (repeatable)"},
	{Name: "kube-scheduler-arg", Kind: List, Help: "further flag=value for the scheduler (repeatable)"},
	{Name: "kube-cloud-controller-manager-arg", Kind: List, Treatment: Logged},
	{Name: "kine-tls", Kind: Switch, Treatment: Logged},
	{Name: "datastore-endpoint", Env: "K3S_DATASTORE_ENDPOINT", Kind: Text, Treatment: Refused},
	{Name: "datastore-cafile", Kind: Text, Treatment: Refused},
	{Name: "datastore-certfile", Kind: Text, Treatment: Refused},
	{Name: "datastore-keyfile", Kind: Text, Treatment: Refused},
	{Name: "etcd-expose-metrics", Kind: Switch, Treatment: Logged},
	{Name: "etcd-disable-snapshots", Kind: Switch, Treatment: Logged},
	{Name: "etcd-snapshot-schedule-cron", Kind: Text, Treatment: Logged},
	{Name: "etcd-snapshot-retention", Kind: Number, Treatment: Logged},
	{Name: "etcd-snapshot-dir", Kind: Text, Treatment: Logged},
	{Name: "etcd-snapshot-compress", Kind: Switch, Treatment: Logged},
	{Name: "default-local-storage-path", Kind: Text, Help: "folder named in the volumes of the local-path class (default DATA-DIR/storage)"},
	{Name: "disable", Kind: List, Help: "packaged parts to leave out; only local-storage exists here, the others are never there"},
	{Name: "disable-scheduler", Kind: Switch, Treatment: Refused},
	{Name: "disable-cloud-controller", Kind: Switch, Treatment: Logged},
	{Name: "disable-kube-proxy", Kind: Switch, Treatment: Logged},
	{Name: "disable-network-policy", Kind: Switch, Treatment: Logged},
	{Name: "disable-helm-controller", Kind: Switch, Treatment: Logged},
	{Name: "disable-agent", Kind: Switch, Treatment: Refused},
	{Name: "disable-apiserver", Kind: Switch, Treatment: Refused},
	{Name: "disable-controller-manager", Kind: Switch, Treatment: Refused},
	{Name: "disable-etcd", Kind: Switch, Treatment: Refused},
	{Name: "embedded-registry", Kind: Switch, Treatment: Logged},
	{Name: "supervisor-metrics", Kind: Switch, Treatment: Logged},
	{Name: "node-name", Env: "K3S_NODE_NAME", Kind: Text, Help: "name of the node (default: host name)"},
	{Name: "with-node-id", Kind: Switch, Treatment: Logged},
	{Name: "node-label", Kind: List, Help: "label of the node, key=value (repeatable)"},
	{Name: "node-taint", Kind: List, Help: "taint of the node, key=value:Effect (repeatable)"},
	{Name: "image-credential-provider-bin-dir", Kind: Text, Treatment: Logged},
	{Name: "image-credential-provider-config", Kind: Text, Treatment: Logged},
	{Name: "docker", Kind: Switch, Treatment: Logged},
	{Name: "container-runtime-endpoint", Kind: Text, Treatment: Logged},
	{Name: "image-service-endpoint", Kind: Text, Treatment: Logged},
	{Name: "default-runtime", Kind: Text, Treatment: Logged},
	{Name: "disable-default-registry-endpoint", Kind: Switch, Treatment: Logged},
	{Name: "nonroot-devices", Kind: Switch, Treatment: Logged},
	{Name: "pause-image", Kind: Text, Treatment: Logged},
	{Name: "snapshotter", Kind: Text, Treatment: Logged},
	{Name: "private-registry", Kind: Text, Treatment: Logged},
	{Name: "system-default-registry", Kind: Text, Treatment: Logged},
	{Name: "node-ip", Short: "i", Kind: List, Help: "address of the node (default 192.0.2.1, a documentation address)"},
	{Name: "node-external-ip", Kind: List, Treatment: Logged},
	{Name: "node-internal-dns", Kind: List, Treatment: Logged},
	{Name: "node-external-dns", Kind: List, Treatment: Logged},
	{Name: "resolv-conf", Kind: Text, Treatment: Logged},
	{Name: "flannel-iface", Kind: Text, Treatment: Logged},
	{Name: "flannel-conf", Kind: Text, Treatment: Logged},
	{Name: "flannel-cni-conf", Kind: Text, Treatment: Logged},
	{Name: "vpn-auth", Kind: Text, Treatment: Logged},
	{Name: "vpn-auth-file", Kind: Text, Treatment: Logged},
	{Name: "kubelet-arg", Kind: List, Treatment: Logged},
	{Name: "kube-proxy-arg", Kind: List, Treatment: Logged},
	{Name: "protect-kernel-defaults", Kind: Switch, Treatment: Logged},
	{Name: "secrets-encryption", Kind: Switch, Treatment: Logged},
	{Name: "secrets-encryption-provider", Kind: Text, Treatment: Logged},
	{Name: "enable-pprof", Kind: Switch, Treatment: Logged},
	{Name: "rootless", Kind: Switch, Treatment: Logged},
	{Name: "prefer-bundled-bin", Kind: Switch, Treatment: Logged},
	{Name: "selinux", Kind: Switch, Treatment: Logged},
	{Name: "lb-server-port", Kind: Number, Treatment: Logged},
}

// find returns the key of that name.
func find(name string) (Key, bool) {
	for _, key := range Keys {
		if key.Name == name {
			return key, true
		}
	}
	return Key{}, false
}
