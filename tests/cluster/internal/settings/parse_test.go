package settings

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func none(string) string { return "" }

// write puts a configuration file into a fresh folder and returns its path.
func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFileWithK3sKeysIsUnderstood(t *testing.T) {
	file := write(t, `
data-dir: /tmp/holdfast-test/data
https-listen-port: 16443
write-kubeconfig: /tmp/holdfast-test/k3s.yaml
write-kubeconfig-mode: "0640"
node-name: box-1
node-ip: 192.0.2.7
node-label: [site=shop-4, tier=edge]
node-taint: site=closed:NoSchedule
tls-san: box.example
cluster-cidr: 10.52.0.0/16
disable: [traefik, local-storage]
kubelet-arg: [max-pods=50]
`)
	s, unused, err := Parse([]string{"--config", file}, none)
	if err != nil {
		t.Fatal(err)
	}
	if s.DataDir != "/tmp/holdfast-test/data" || s.Port != 16443 || s.Kubeconfig != "/tmp/holdfast-test/k3s.yaml" || s.KubeconfigMode != 0o640 {
		t.Errorf("paths, port or mode are wrong: %+v", s)
	}
	if s.NodeName != "box-1" || s.NodeIP != "192.0.2.7" || s.Advertise != "192.0.2.7" || s.NodeLabels["site"] != "shop-4" || s.NodeLabels["tier"] != "edge" {
		t.Errorf("the node is wrong: %+v", s)
	}
	if len(s.NodeTaints) != 1 || s.NodeTaints[0].Key != "site" || s.NodeTaints[0].Value != "closed" || s.NodeTaints[0].Effect != "NoSchedule" {
		t.Errorf("the taints are wrong: %+v", s.NodeTaints)
	}
	if s.ClusterCIDR.String() != "10.52.0.0/16" || s.ServiceCIDR.String() != "10.43.0.0/16" || !slices.Equal(s.TLSNames, []string{"box.example"}) {
		t.Errorf("the network is wrong: %+v", s)
	}
	if s.LocalStorage {
		t.Error("local-storage was disabled but is on")
	}
	if !slices.Equal(unused, []string{"kubelet-arg"}) {
		t.Errorf("keys without effect should be named: %v", unused)
	}
}

func TestAnUnknownKeyIsRefusedByNameWithTheNearest(t *testing.T) {
	for _, c := range []struct{ content, name, nearest string }{
		{"write-kubecnofig: /tmp/x\n", `"write-kubecnofig"`, `"write-kubeconfig"`},
		{"node-labels+: [a=b]\n", `"node-labels"`, `"node-label"`},
		{"holdfast: yes\n", `"holdfast"`, "--help"},
	} {
		_, _, err := Parse([]string{"--config", write(t, c.content)}, none)
		if err == nil || !strings.Contains(err.Error(), c.name) || !strings.Contains(err.Error(), c.nearest) {
			t.Errorf("%q: error should name %s and %s: %v", c.content, c.name, c.nearest, err)
		}
	}
	if _, _, err := Parse([]string{"--https-listen-prot=1"}, none); err == nil || !strings.Contains(err.Error(), `"https-listen-port"`) {
		t.Errorf("an unknown flag should be refused with the nearest: %v", err)
	}
}

func TestKeysForAnotherKindOfClusterAreRefused(t *testing.T) {
	for _, content := range []string{"server: https://192.0.2.1:6443\n", "cluster-init: true\n", "datastore-endpoint: postgres://x\n"} {
		if _, _, err := Parse([]string{"-c", write(t, content)}, none); err == nil || !strings.Contains(err.Error(), "cannot be used") {
			t.Errorf("%q must be refused: %v", content, err)
		}
	}
	if _, _, err := Parse([]string{"-c", write(t, "cluster-init: false\nserver: \"\"\n")}, none); err != nil {
		t.Errorf("asking for nothing is fine: %v", err)
	}
}

func TestFlagsWinOverTheFileAndTheFileOverTheEnvironment(t *testing.T) {
	file := write(t, "node-name: from-file\ndata-dir: /tmp/from-file\n")
	environment := func(name string) string {
		return map[string]string{"K3S_CONFIG_FILE": file, "K3S_NODE_NAME": "from-environment", "K3S_DATA_DIR": "/tmp/from-environment", "K3S_TOKEN": "secret"}[name]
	}
	s, _, err := Parse([]string{"--data-dir=/tmp/from-flag"}, environment)
	if err != nil {
		t.Fatal(err)
	}
	if s.NodeName != "from-file" || s.DataDir != "/tmp/from-flag" || s.Token != "secret" {
		t.Errorf("wrong order: %+v", s)
	}
}

func TestDropInsOverrideOrAddToTheMainFile(t *testing.T) {
	file := write(t, "node-name: main\nnode-label: [a=1]\ntls-san: [one.example]\n")
	if err := os.Mkdir(file+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"10-name.yaml": "node-name: first\nnode-label+: [b=2]\n",
		"20-name.yml":  "node-name: second\ntls-san: [two.example]\n",
		"ignored.txt":  "no-such-key: 1\n",
	} {
		if err := os.WriteFile(filepath.Join(file+".d", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, _, err := Parse([]string{"--config=" + file}, none)
	if err != nil {
		t.Fatal(err)
	}
	if s.NodeName != "second" || s.NodeLabels["a"] != "1" || s.NodeLabels["b"] != "2" || !slices.Equal(s.TLSNames, []string{"two.example"}) {
		t.Errorf("drop-ins are laid wrongly: %+v", s)
	}
}

func TestBadValuesAreRefusedByKey(t *testing.T) {
	for content, word := range map[string]string{
		"https-listen-port: high\n":         "https-listen-port",
		"https-listen-port: 70000\n":        "https-listen-port",
		"node-name: Not_A_Name\n":           "node-name",
		"node-ip: here\n":                   "node-ip",
		"advertise-address: 127.0.0.1\n":    "advertise-address",
		"write-kubeconfig-mode: \"0999\"\n": "write-kubeconfig-mode",
		"cluster-cidr: 10.0.0.0\n":          "cluster-cidr",
		"node-taint: nothing\n":             "node-taint",
		"data-dir: [a, b]\n":                "data-dir",
		"token: {a: b}\n":                   "token",
		"selinux: perhaps\n":                "selinux",
		"node-name: a\nnode-name: b\n":      "node-name",
		"- a\n":                             "mapping",
	} {
		if _, _, err := Parse([]string{"-c", write(t, content)}, none); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: the error should say %q: %v", content, word, err)
		}
	}
}

func TestAnEmptyFileMeansDefaults(t *testing.T) {
	for _, content := range []string{"", "# nothing\n", "---\n"} {
		s, unused, err := Parse([]string{"-c", write(t, content)}, none)
		if err != nil || len(unused) != 0 {
			t.Fatalf("%q: %v %v", content, unused, err)
		}
		if s.DataDir != "/var/lib/rancher/k3s" || s.Kubeconfig != DefaultKubeconfig || s.Port != 6443 || s.BindAddress != "127.0.0.1" || s.KubeconfigMode != 0o600 || !s.LocalStorage {
			t.Errorf("defaults are wrong: %+v", s)
		}
	}
}

func TestAFileThatWasAskedForMustExist(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	if _, _, err := Parse([]string{"--config", missing}, none); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a named file that is missing must be an error: %v", err)
	}
}
