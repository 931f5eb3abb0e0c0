package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// fallbackNodeIP is from TEST-NET-1 (RFC 5737): the node's address must not be a loopback one, and nothing listens on it.
const fallbackNodeIP = "192.0.2.1"

// DefaultKubeconfig is where k3s writes the admin kubeconfig.
const DefaultKubeconfig = "/etc/rancher/k3s/k3s.yaml"

// Settings is everything the server needs to know, checked and complete.
type Settings struct {
	// DataDir is the absolute folder of all state.
	DataDir string
	// BindAddress and Port are where the API listens.
	BindAddress string
	Port        int
	// Advertise is the address the API server calls its own; it cannot be a loopback address.
	Advertise string
	// TLSNames are further names and addresses for the server certificate.
	TLSNames []string
	// ClusterCIDR and ServiceCIDR are the networks of pods and services.
	ClusterCIDR, ServiceCIDR netip.Prefix
	// ServicePorts is the range of NodePort ports, "first-last".
	ServicePorts string
	// ClusterDomain is the DNS domain of the cluster.
	ClusterDomain string
	// Kubeconfig is the absolute path of the admin kubeconfig, KubeconfigMode its mode.
	Kubeconfig     string
	KubeconfigMode os.FileMode
	// Token is the join secret, empty when none was given.
	Token string
	// NodeName, NodeIP, NodeLabels and NodeTaints describe the one node.
	NodeName   string
	NodeIP     string
	NodeLabels map[string]string
	NodeTaints []corev1.Taint
	// LocalStorage tells whether the local-path class exists, StoragePath where its volumes would be.
	LocalStorage bool
	StoragePath  string
	// Verbosity is klog's level.
	Verbosity int
	// APIServerArgs, ControllerArgs and SchedulerArgs are further flags, without dashes.
	APIServerArgs, ControllerArgs, SchedulerArgs []string
}

// check turns the given values into Settings. All problems are reported at once.
func check(given values) (Settings, []string, error) {
	var problems []error
	problem := func(format string, a ...any) { problems = append(problems, fmt.Errorf(format, a...)) }
	var unused []string
	for _, key := range Keys {
		if !given.asks(key.Name) {
			continue
		}
		switch key.Treatment {
		case Refused:
			problem("%q cannot be used: this is a test cluster of one node with its own SQLite datastore, not k3s; remove the key", key.Name)
		case Logged:
			unused = append(unused, key.Name)
		}
	}
	absolute := func(path string) string {
		full, err := filepath.Abs(path)
		if err != nil {
			problem("cannot make %q absolute: %w", path, err)
		}
		return full
	}
	network := func(name, fallback string) netip.Prefix {
		text := strings.Join(given[name], ",")
		if text == "" {
			text = fallback
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			problem("%q must be one network such as %s, not %q", name, fallback, text)
		}
		return prefix
	}
	settings := Settings{
		DataDir:        absolute(given.text("data-dir", "/var/lib/rancher/k3s")),
		BindAddress:    given.text("bind-address", "127.0.0.1"),
		Port:           given.number("https-listen-port", 6443),
		TLSNames:       given["tls-san"],
		ClusterCIDR:    network("cluster-cidr", "10.42.0.0/16"),
		ServiceCIDR:    network("service-cidr", "10.43.0.0/16"),
		ServicePorts:   given.text("service-node-port-range", "30000-32767"),
		ClusterDomain:  given.text("cluster-domain", "cluster.local"),
		Kubeconfig:     absolute(given.text("write-kubeconfig", DefaultKubeconfig)),
		Token:          given.text("token", ""),
		NodeName:       given.text("node-name", hostname()),
		NodeIP:         given.text("node-ip", fallbackNodeIP),
		NodeLabels:     map[string]string{},
		Verbosity:      given.number("v", 0),
		APIServerArgs:  given["kube-apiserver-arg"],
		ControllerArgs: given["kube-controller-manager-arg"],
		SchedulerArgs:  given["kube-scheduler-arg"],
	}
	settings.StoragePath = absolute(given.text("default-local-storage-path", filepath.Join(settings.DataDir, "storage")))
	if settings.Port < 1 || settings.Port > 65535 {
		problem("\"https-listen-port\" must be from 1 to 65535, not %d", settings.Port)
	}
	if net.ParseIP(settings.BindAddress) == nil {
		problem("\"bind-address\" must be an IP address, not %q", settings.BindAddress)
	}
	if net.ParseIP(settings.NodeIP) == nil {
		problem("\"node-ip\" must be one IP address, not %q", settings.NodeIP)
	}
	settings.Advertise = given.text("advertise-address", usableAddress(settings.NodeIP))
	if address := net.ParseIP(settings.Advertise); address == nil || address.IsLoopback() {
		problem("\"advertise-address\" must be an IP address outside loopback, not %q", settings.Advertise)
	}
	if errs := validation.IsDNS1123Subdomain(settings.NodeName); len(errs) > 0 {
		problem("\"node-name\" %q is not a node name: %s", settings.NodeName, errs[0])
	}
	mode, err := strconv.ParseUint(given.text("write-kubeconfig-mode", "0600"), 8, 9)
	if err != nil {
		problem("\"write-kubeconfig-mode\" must be an octal mode such as 0600, not %q", given.text("write-kubeconfig-mode", ""))
	}
	settings.KubeconfigMode = os.FileMode(mode)
	for _, label := range given["node-label"] {
		name, value, _ := strings.Cut(label, "=")
		if errs := append(validation.IsQualifiedName(name), validation.IsValidLabelValue(value)...); len(errs) > 0 {
			problem("\"node-label\" %q is not a label: %s", label, errs[0])
		}
		settings.NodeLabels[name] = value
	}
	for _, text := range given["node-taint"] {
		taint, err := parseTaint(text)
		if err != nil {
			problem("\"node-taint\" %q %w", text, err)
		}
		settings.NodeTaints = append(settings.NodeTaints, taint)
	}
	if file := given.text("token-file", ""); file != "" && settings.Token == "" {
		content, err := os.ReadFile(file)
		if err != nil {
			problem("\"token-file\" cannot be read: %w", err)
		}
		settings.Token = strings.TrimSpace(string(content))
	}
	var left []string
	for _, text := range given["disable"] {
		left = append(left, strings.Split(text, ",")...)
	}
	settings.LocalStorage = !slices.Contains(left, "local-storage")
	return settings, unused, errors.Join(problems...)
}

// usableAddress returns the node's address unless it is a loopback one, which Kubernetes refuses as an endpoint.
func usableAddress(nodeIP string) string {
	if address := net.ParseIP(nodeIP); address == nil || address.IsLoopback() {
		return fallbackNodeIP
	}
	return nodeIP
}

// parseTaint reads `key=value:Effect` or `key:Effect`.
func parseTaint(text string) (corev1.Taint, error) {
	left, effect, found := strings.Cut(text, ":")
	key, value, _ := strings.Cut(left, "=")
	taint := corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)}
	effects := []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}
	if !found || len(validation.IsQualifiedName(key)) > 0 || !slices.Contains(effects, taint.Effect) {
		return taint, errors.New("is not of the form key=value:NoSchedule, PreferNoSchedule or NoExecute")
	}
	return taint, nil
}
