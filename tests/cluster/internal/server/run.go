// Package server starts all parts of the test cluster in order and stops them in the reverse order.
//
// In: settings. Out: a running cluster until the context ends or a part fails. Guarantee: on an orderly end every
// acknowledged write is in the database and the process has let go of it; after any other end the next start recovers.
package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"holdfast/tests/cluster/internal/controlplane"
	"holdfast/tests/cluster/internal/datastore"
	"holdfast/tests/cluster/internal/disk"
	"holdfast/tests/cluster/internal/helm"
	"holdfast/tests/cluster/internal/kubelet"
	"holdfast/tests/cluster/internal/pki"
	"holdfast/tests/cluster/internal/settings"
	"holdfast/tests/cluster/internal/storage"
)

// stopLimit bounds the end of the API server. By then it has stopped listening and answered what it had begun;
// what is left is saying goodbye to open connections, which takes upstream some seconds and changes no data.
const stopLimit = time.Second

// Run runs the cluster until the context ends. It returns nil after an orderly end.
func Run(ctx context.Context, s settings.Settings, version string) error {
	began := time.Now()
	// A Unix socket's path may have 107 bytes only, so the datastore's is relative to the folder, as k3s does it.
	home := filepath.Join(s.DataDir, "server")
	lock, err := disk.Lock(filepath.Join(home, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := os.Chdir(home); err != nil {
		return fmt.Errorf("cannot enter the data folder: %w", err)
	}
	files, kubeconfig, err := prepareFiles(s, home)
	if err != nil {
		return err
	}
	store, err := datastore.Start(filepath.Join(home, "db", "state.db"), "kine.sock")
	if err != nil {
		return err
	}
	defer store.Stop()

	apiCtx, stopAPI := context.WithCancel(context.Background())
	defer stopAPI()
	api := make(chan error, 1)
	go func() { api <- controlplane.RunAPIServer(apiCtx, s, files, "kine.sock") }()

	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case err := <-api:
			api <- err
			if err == nil {
				err = errors.New("without an error; see the log")
			}
			return fmt.Errorf("the API server ended: %w", err)
		case <-groupCtx.Done():
			return nil
		}
	})
	group.Go(func() error {
		return runMembers(groupCtx, group, s, files, kubeconfig, version, began)
	})
	err = group.Wait()
	klog.InfoS("Stopping")
	stopAPI()
	select {
	case <-api:
	case <-time.After(stopLimit):
		klog.InfoS("Not waiting for connections that are still open")
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// prepareFiles makes certificates, token and kubeconfigs and returns the path of the components' own kubeconfig.
func prepareFiles(s settings.Settings, home string) (*pki.Files, string, error) {
	files, err := pki.Open(filepath.Join(home, "tls"), certificateNames(s))
	if err != nil {
		return nil, "", err
	}
	if err := writeToken(s, files, filepath.Join(home, "token")); err != nil {
		return nil, "", err
	}
	own := filepath.Join(home, "cred", "admin.kubeconfig")
	if err := files.WriteKubeconfig(own, 0o600, url(s)); err != nil {
		return nil, "", err
	}
	if err := files.WriteKubeconfig(s.Kubeconfig, s.KubeconfigMode, url(s)); err != nil {
		return nil, "", fmt.Errorf("%w (give another path with write-kubeconfig)", err)
	}
	klog.InfoS("Wrote kubeconfig", "path", s.Kubeconfig)
	return files, own, nil
}

// writeToken keeps the join token where k3s keeps it. Without a given secret one is made once.
func writeToken(s settings.Settings, files *pki.Files, path string) error {
	secret := s.Token
	if secret == "" {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		random := make([]byte, 16)
		if _, err := rand.Read(random); err != nil {
			return err
		}
		secret = hex.EncodeToString(random)
	}
	return disk.Write(path, []byte(files.Token(secret)+"\n"), 0o600)
}

// runMembers waits for the API, starts everything that uses it, and tells the service manager.
func runMembers(ctx context.Context, group *errgroup.Group, s settings.Settings, files *pki.Files, kubeconfig, version string, began time.Time) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("own kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(config, "testcluster"))
	if err != nil {
		return fmt.Errorf("own client: %w", err)
	}
	if err := awaitReady(ctx, client); err != nil {
		return err
	}
	klog.InfoS("Kube API server is now running", "address", url(s), "after", time.Since(began).Round(time.Millisecond))
	if s.LocalStorage {
		provisioner := &storage.Provisioner{Client: client, Folder: s.StoragePath}
		if err := provisioner.Start(ctx); err != nil {
			return err
		}
	}
	if err := helm.EnsureDefinition(ctx, client); err != nil {
		return err
	}
	node := &kubelet.Kubelet{
		Name: s.NodeName, IP: s.NodeIP, Version: version, Labels: s.NodeLabels, Taints: s.NodeTaints,
		ClusterCIDR: s.ClusterCIDR, Kubeconfig: kubeconfig,
	}
	if err := node.Start(ctx); err != nil {
		return err
	}
	// The controllers come after the node: one that they first see unready would have its pods marked unready too.
	group.Go(func() error { return controlplane.RunControllerManager(ctx, s, files, kubeconfig) })
	group.Go(func() error { return controlplane.RunScheduler(ctx, s, kubeconfig) })
	klog.InfoS("k3s is up and running (holdfast-testcluster, not k3s)", "after", time.Since(began).Round(time.Millisecond))
	_, err = daemon.SdNotify(false, daemon.SdNotifyReady)
	return err
}
