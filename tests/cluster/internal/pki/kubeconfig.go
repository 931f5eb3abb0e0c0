package pki

import (
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"holdfast/tests/cluster/internal/disk"
)

// WriteKubeconfig writes an admin kubeconfig of the form k3s writes: one cluster, user and context named `default`.
func (f *Files) WriteKubeconfig(path string, mode os.FileMode, url string) error {
	config := api.NewConfig()
	config.Clusters["default"] = &api.Cluster{Server: url, CertificateAuthorityData: f.serverCA}
	config.AuthInfos["default"] = &api.AuthInfo{
		ClientCertificateData: f.adminClient.certificate,
		ClientKeyData:         f.adminClient.key,
	}
	config.Contexts["default"] = &api.Context{Cluster: "default", AuthInfo: "default"}
	config.CurrentContext = "default"
	content, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("cannot encode the kubeconfig: %w", err)
	}
	return disk.Write(path, content, mode)
}
