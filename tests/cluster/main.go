// Command k3s is holdfast-testcluster: a stand-in for k3s in tests and the demo. It is not k3s.
//
// It takes the part of k3s's command line that a supervisor uses (`server`, `kubectl`, `--version`) and runs the
// upstream Kubernetes API server, controllers and scheduler with kine's SQLite datastore and a simulated kubelet.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"holdfast/tests/cluster/internal/server"
	"holdfast/tests/cluster/internal/settings"
)

// version is what the API and `--version` report; source is a hash of this program's sources, set by the build.
const version = "v1.36.3+holdfast-testcluster"

var source = "unknown"

func main() {
	if filepath.Base(os.Args[0]) == "kubectl" {
		os.Exit(kubectl(os.Args[1:]))
	}
	command, args := "--help", []string{}
	if len(os.Args) > 1 {
		command, args = os.Args[1], os.Args[2:]
	}
	switch command {
	case "server":
		os.Exit(serve(args))
	case "kubectl":
		os.Exit(kubectl(args))
	case "--version", "-v", "version":
		fmt.Printf("k3s version %s (%s)\ngo version %s\n", version, source, runtime.Version())
	case "--help", "-h", "help":
		help()
	default:
		fmt.Fprintf(os.Stderr, "k3s: no command %q here: this is holdfast-testcluster, not k3s; it has server, kubectl and --version\n", command)
		os.Exit(1)
	}
}

// serve runs the server until SIGTERM or SIGINT; a second signal ends the process at once.
func serve(args []string) int {
	chosen, unused, err := settings.Parse(args, os.Getenv)
	if errors.Is(err, settings.ErrHelp) {
		help()
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "k3s (holdfast-testcluster): %v\n", err)
		return 1
	}
	setLog(chosen.Verbosity)
	logStart(unused)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop)
	if err := server.Run(ctx, chosen, version); err != nil {
		fmt.Fprintf(os.Stderr, "k3s (holdfast-testcluster): %v\n", err)
		return 1
	}
	return 0
}

func help() {
	fmt.Print(`k3s (holdfast-testcluster ` + version + `)

This is NOT k3s. It is a stand-in for tests and the demo of Holdfast: a real Kubernetes API server, controllers and
scheduler on a SQLite datastore, with a simulated node. Pods turn Running and Ready, but no container is ever run.

Usage:
  k3s server [--config FILE] [flags]    run the cluster in the foreground; the log goes to stderr
  k3s kubectl ...                       kubectl, with the cluster's kubeconfig
  k3s --version

Flags of k3s server:
`)
	settings.Usage(os.Stdout)
}
