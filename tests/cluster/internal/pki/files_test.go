package pki

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/util/cert"
)

func TestAuthoritiesAndServiceAccountKeySurviveAndLeavesFollowTheNames(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "tls")
	first, err := Open(folder, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(first.ServiceAccountKey)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Open(folder, []string{"127.0.0.1", "box.example"})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.serverCA, second.serverCA) || first.Token("s") != second.Token("s") {
		t.Error("the server authority changed")
	}
	if again, err := os.ReadFile(second.ServiceAccountKey); err != nil || !bytes.Equal(key, again) {
		t.Errorf("the service account key changed: %v", err)
	}
	chain, err := cert.CertsFromFile(second.ServingCert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(second.serverCA)
	for _, name := range []string{"127.0.0.1", "box.example"} {
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("the server certificate does not hold for %s: %v", name, err)
		}
	}
}

func TestAKeyIsReadableByItsOwnerOnly(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "tls")
	files, err := Open(folder, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(folder, "k3s.yaml")
	if err := files.WriteKubeconfig(kubeconfig, 0o600, "https://127.0.0.1:6443"); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(folder, "*.key"))
	if err != nil || len(paths) != 5 {
		t.Fatalf("expected five keys: %v %v", paths, err)
	}
	for _, path := range append(paths, kubeconfig) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode should be 0600: %v %v", path, info.Mode(), err)
		}
	}
}

func TestADamagedAuthorityIsAnErrorNotANewOne(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "tls")
	if _, err := Open(folder, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "server-ca.crt"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(folder, nil); err == nil || !strings.Contains(err.Error(), "server-ca.crt") {
		t.Errorf("a damaged authority must be named: %v", err)
	}
}
