package main

import (
	goflag "flag"
	"strconv"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// setLog sends all logs to stderr. The parts are quiet unless the verbosity is above 0.
func setLog(verbosity int) {
	flags := goflag.NewFlagSet("log", goflag.ContinueOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{"logtostderr": "true", "v": strconv.Itoa(verbosity)} {
		if err := flags.Set(name, value); err != nil {
			klog.ErrorS(err, "Cannot set up the log", "flag", name)
		}
	}
	logrus.SetLevel(logrus.WarnLevel)
	if verbosity > 0 {
		logrus.SetLevel(logrus.InfoLevel)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
}

// logStart says what this is and which keys have no effect.
func logStart(unused []string) {
	klog.InfoS("Starting holdfast-testcluster, a stand-in for k3s in tests; it is not k3s", "version", version, "source", source)
	for _, key := range unused {
		klog.InfoS("This key has no effect on a simulated node", "key", key)
	}
}
