// Package pki makes and keeps the certificates and keys of the cluster, under the names k3s gives them.
//
// In: the folder `DATA-DIR/server/tls` and the names the server must answer to. Out: file paths for the components.
// Guarantee: authorities and the service account key are made once and kept; leaf certificates are made anew at
// every start, so that changed names take effect and nothing expires in a running test.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/util/keyutil"

	"holdfast/tests/cluster/internal/disk"
)

// k3s's own validity times: ten years for an authority, one for a leaf.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
)

// authority is a certificate that signs others.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
}

// openAuthority loads `NAME.crt` and `NAME.key` from the folder, or makes them when neither is there.
func openAuthority(folder, name string) (*authority, error) {
	certPath, keyPath := filepath.Join(folder, name+".crt"), filepath.Join(folder, name+".key")
	certPEM, certErr := os.ReadFile(certPath)
	keyPEM, keyErr := os.ReadFile(keyPath)
	if certErr == nil && keyErr == nil {
		return parseAuthority(certPEM, keyPEM, certPath)
	}
	// The certificate is written last: a key alone is what a crash between the two writes leaves.
	if !errors.Is(certErr, os.ErrNotExist) {
		return nil, fmt.Errorf("the authority %s is incomplete: %w", certPath, errors.Join(certErr, keyErr))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("k3s-%s@%d", name, now.Unix())},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if keyPEM, err = keyutil.MarshalPrivateKeyToPEM(key); err != nil {
		return nil, err
	}
	certPEM = encodeCertificate(der)
	if err := disk.Write(keyPath, keyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := disk.Write(certPath, certPEM, 0o644); err != nil {
		return nil, err
	}
	return parseAuthority(certPEM, keyPEM, certPath)
}

// serial is a random certificate serial number of up to 127 bits.
func serial() *big.Int {
	limit := new(big.Int).Lsh(big.NewInt(1), 127)
	number, err := rand.Int(rand.Reader, limit)
	if err != nil {
		// crypto/rand does not fail on Linux; a fixed serial is still a valid certificate.
		return big.NewInt(time.Now().UnixNano())
	}
	return number
}
