package main

import (
	_ "github.com/k3s-io/kine/pkg/drivers/sqlite"
	_ "github.com/k3s-io/kine/pkg/server"
	_ "k8s.io/kubectl/pkg/cmd"
	_ "k8s.io/kubernetes/cmd/kube-apiserver/app"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	_ "k8s.io/kubernetes/cmd/kube-scheduler/app"
	_ "sigs.k8s.io/kwok/pkg/kwok/controllers"
	_ "sigs.k8s.io/kwok/pkg/config"
	_ "github.com/coreos/go-systemd/v22/daemon"
	_ "sigs.k8s.io/yaml"
)

func main() {}
