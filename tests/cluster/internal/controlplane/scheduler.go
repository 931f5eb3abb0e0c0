package controlplane

import (
	"context"
	"fmt"

	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"holdfast/tests/cluster/internal/settings"
)

// RunScheduler runs the scheduler until the context ends; it returns an error even then, as upstream does.
func RunScheduler(ctx context.Context, s settings.Settings, kubeconfig string) error {
	opts := options.NewOptions()
	flags := []string{
		"kubeconfig=" + kubeconfig,
		"leader-elect=false",
		"secure-port=0",
		"profiling=false",
		"kube-api-qps=200",
		"kube-api-burst=400",
	}
	if err := parse("scheduler", *opts.Flags, flags, s.SchedulerArgs); err != nil {
		return err
	}
	config, scheduler, err := app.Setup(ctx, opts)
	if err != nil {
		return fmt.Errorf("options of the scheduler: %w", err)
	}
	return app.Run(ctx, config, scheduler)
}
