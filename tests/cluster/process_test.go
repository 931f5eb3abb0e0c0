package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// TestMain lets the test binary stand in for the built one: with this variable set it is the program itself.
func TestMain(m *testing.M) {
	if os.Getenv("TESTCLUSTER_RUN_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// cluster is one server process with its own folder and port.
type cluster struct {
	t       *testing.T
	folder  string
	process *exec.Cmd
	log     bytes.Buffer
	client  *kubernetes.Clientset
}

// newCluster prepares a folder and configuration; the folder's path is longer than a Unix socket's may be.
func newCluster(t *testing.T, name string) *cluster {
	t.Helper()
	c := &cluster{t: t, folder: filepath.Join(t.TempDir(), "a-folder-with-a-long-name-as-test-runners-make-them-0123456789", name)}
	if err := os.MkdirAll(c.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	config := fmt.Sprintf("data-dir: %s\nhttps-listen-port: %d\nwrite-kubeconfig: %s\nnode-name: %s\n",
		filepath.Join(c.folder, "data"), port, c.kubeconfig(), name)
	if err := os.WriteFile(c.config(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, c.log.String())
		}
	})
	return c
}

func (c *cluster) config() string     { return filepath.Join(c.folder, "config.yaml") }
func (c *cluster) kubeconfig() string { return filepath.Join(c.folder, "k3s.yaml") }

// start runs the server and waits until the API is ready.
func (c *cluster) start(ctx context.Context) {
	c.t.Helper()
	began := time.Now()
	c.process = exec.Command(os.Args[0], "server", "--config", c.config())
	c.process.Env = append(os.Environ(), "TESTCLUSTER_RUN_MAIN=1")
	c.process.Stderr = &c.log
	if err := c.process.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.await(ctx, "the API to be ready", func() (bool, error) {
		config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig())
		if err != nil {
			return false, nil
		}
		if c.client, err = kubernetes.NewForConfig(config); err != nil {
			return false, err
		}
		return c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil, nil
	})
	c.t.Logf("ready after %s", time.Since(began).Round(time.Millisecond))
}

// stop ends the server in order and returns its exit code and how long it took.
func (c *cluster) stop() (int, time.Duration) {
	c.t.Helper()
	began := time.Now()
	if err := c.process.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	_ = c.process.Wait()
	return c.process.ProcessState.ExitCode(), time.Since(began)
}

// kill ends the server as a power cut would.
func (c *cluster) kill() {
	if c.process != nil && c.process.ProcessState == nil {
		_ = c.process.Process.Kill()
		_ = c.process.Wait()
	}
}

// await polls a condition for a minute at most.
func (c *cluster) await(ctx context.Context, what string, holds func() (bool, error)) {
	c.t.Helper()
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) { return holds() })
	if err != nil {
		c.t.Fatalf("waited for %s: %v", what, err)
	}
}
