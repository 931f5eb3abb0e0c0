// Package controlplane runs the upstream API server, controller manager and scheduler inside this process.
//
// In: settings, certificate paths, the datastore's socket. Out: blocking Run functions that end with their context.
// Guarantee: each is the upstream component with its upstream flags; the only deviations are the flags written here.
package controlplane

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
)

// parse applies flags (name=value, without dashes) to a component's own flag sets. Later ones win.
func parse(component string, sets cliflag.NamedFlagSets, flags ...[]string) error {
	all := pflag.NewFlagSet(component, pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		all.AddFlagSet(set)
	}
	var args []string
	for _, group := range flags {
		for _, flag := range group {
			args = append(args, "--"+strings.TrimLeft(flag, "-"))
		}
	}
	if err := all.Parse(args); err != nil {
		return fmt.Errorf("flag of the %s: %w", component, err)
	}
	return nil
}
