package pki

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"crypto/sha256"

	"k8s.io/client-go/util/keyutil"

	"holdfast/tests/cluster/internal/disk"
)

// Files are the paths of everything the components need.
type Files struct {
	// ServerCA and ClientCA verify the listener and its clients.
	ServerCA, ClientCA string
	// ServingCert and ServingKey are the listener's.
	ServingCert, ServingKey string
	// ServiceAccountKey signs the tokens of service accounts.
	ServiceAccountKey string

	serverCA    []byte
	adminClient pair
}

// Open loads or makes everything under the folder. The names are those the API must answer to.
func Open(folder string, names []string) (*Files, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of the certificates: %w", err)
	}
	serverCA, err := openAuthority(folder, "server-ca")
	if err != nil {
		return nil, err
	}
	clientCA, err := openAuthority(folder, "client-ca")
	if err != nil {
		return nil, err
	}
	serving, err := serverCA.server("kube-apiserver", names)
	if err != nil {
		return nil, err
	}
	admin, err := clientCA.client("system:admin", "system:masters")
	if err != nil {
		return nil, err
	}
	in := func(name string) string { return filepath.Join(folder, name) }
	files := &Files{
		ServerCA:          in("server-ca.crt"),
		ClientCA:          in("client-ca.crt"),
		ServingCert:       in("serving-kube-apiserver.crt"),
		ServingKey:        in("serving-kube-apiserver.key"),
		ServiceAccountKey: in("service.key"),
		serverCA:          serverCA.pem,
		adminClient:       admin,
	}
	for path, content := range map[string][]byte{
		files.ServingCert: serving.certificate, files.ServingKey: serving.key,
		in("client-admin.crt"): admin.certificate, in("client-admin.key"): admin.key,
	} {
		if err := disk.Write(path, content, 0o600); err != nil {
			return nil, err
		}
	}
	return files, openServiceAccountKey(files.ServiceAccountKey)
}

// openServiceAccountKey makes the key at path unless it is there: tokens must stay valid over restarts.
func openServiceAccountKey(path string) error {
	if _, err := keyutil.PrivateKeyFromFile(path); err == nil {
		return nil
	} else if _, missing := os.Stat(path); !errors.Is(missing, os.ErrNotExist) {
		return fmt.Errorf("the service account key is damaged: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	content, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	return disk.Write(path, content, 0o600)
}

// Token returns the join token in k3s's form: the hash of the server's authority, then the secret.
func (f *Files) Token(secret string) string {
	sum := sha256.Sum256(f.serverCA)
	return "K10" + hex.EncodeToString(sum[:]) + "::server:" + secret
}
