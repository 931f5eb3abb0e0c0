package main

import (
	"os"
	"strings"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"

	"holdfast/tests/cluster/internal/settings"
)

// kubectl runs upstream kubectl. Without KUBECONFIG or --kubeconfig it uses the file that `k3s server` writes.
func kubectl(args []string) int {
	given := os.Getenv("KUBECONFIG") != ""
	for _, arg := range args {
		given = given || arg == "--kubeconfig" || strings.HasPrefix(arg, "--kubeconfig=")
	}
	if !given {
		path := os.Getenv("K3S_KUBECONFIG_OUTPUT")
		if path == "" {
			path = settings.DefaultKubeconfig
		}
		if err := os.Setenv("KUBECONFIG", path); err != nil {
			return 1
		}
	}
	os.Args = append([]string{"kubectl"}, args...)
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
	return 0
}
