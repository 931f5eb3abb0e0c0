package settings

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// DefaultConfig is the file k3s reads when none is named.
const DefaultConfig = "/etc/rancher/k3s/config.yaml"

// ErrHelp is returned when the flags ask for help.
var ErrHelp = errors.New("help asked for")

// Parse reads the flags of `k3s server`, the configuration file they name and the environment.
// Flags win over the file, the file over the environment (k3s's own order). Keys that have no effect here are
// returned by name, for the log.
func Parse(args []string, environment func(string) string) (Settings, []string, error) {
	flags, config, err := parseFlags(args)
	if err != nil {
		return Settings{}, nil, err
	}
	asked := config != ""
	if !asked {
		config = environment("K3S_CONFIG_FILE")
		asked = config != ""
	}
	if !asked {
		config = DefaultConfig
	}
	all := values{}
	for _, key := range Keys {
		if given := environment(key.Env); key.Env != "" && given != "" {
			if err := all.set(key, []string{given}, false, key.Env); err != nil {
				return Settings{}, nil, err
			}
		}
	}
	file, err := readFiles(config, asked)
	if err != nil {
		return Settings{}, nil, err
	}
	all.over(file)
	all.over(flags)
	return check(all)
}

// parseFlags splits the command line into key values and the configuration file's path.
// Both `--name value` and `--name=value` work, one dash or two, as in k3s.
func parseFlags(args []string) (values, string, error) {
	given, config := values{}, ""
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "-h" || arg == "--help" || arg == "-help" || arg == "help" {
			return nil, "", ErrHelp
		}
		if !strings.HasPrefix(arg, "-") {
			return nil, "", fmt.Errorf("unexpected argument %q: `k3s server` takes only flags", arg)
		}
		name, value, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		key, known := flag(name)
		if !known {
			return nil, "", unknown("command line", name)
		}
		if !inline && key.Kind == Switch {
			value, inline = "true", true
		}
		if !inline {
			i++
			if i >= len(args) {
				return nil, "", fmt.Errorf("flag --%s needs a value", key.Name)
			}
			value = args[i]
		}
		if key.Name == "config" {
			config = value
			continue
		}
		if err := given.set(key, []string{value}, true, "flag --"+key.Name); err != nil {
			return nil, "", err
		}
	}
	return given, config, nil
}

// flag finds a key by its long or short flag name.
func flag(name string) (Key, bool) {
	if name == "config" || name == "c" {
		return Key{Name: "config"}, true
	}
	for _, key := range Keys {
		if key.Name == name || (key.Short != "" && key.Short == name) {
			return key, true
		}
	}
	return Key{}, false
}

// Usage writes the help of `k3s server`.
func Usage(out io.Writer) {
	groups := []struct {
		treatment Treatment
		title     string
	}{
		{Honoured, "Keys with the effect they have in k3s (as flags, or in the file without the dashes)"},
		{Logged, "Keys that are accepted and logged, without effect"},
		{Refused, "Keys that are refused: they ask for another kind of cluster"},
	}
	fmt.Fprintln(out, "  -c, --config FILE    configuration in YAML (default "+DefaultConfig+"), then FILE.d/*.yaml")
	for _, group := range groups {
		fmt.Fprintf(out, "\n%s:\n", group.title)
		line := " "
		for _, key := range Keys {
			if key.Treatment != group.treatment {
				continue
			}
			if group.treatment == Honoured {
				fmt.Fprintf(out, "  --%-30s %s\n", key.Name, key.Help)
				continue
			}
			if utf8.RuneCountInString(line)+len(key.Name) > 110 {
				fmt.Fprintln(out, line)
				line = " "
			}
			line += " " + key.Name
		}
		if line != " " {
			fmt.Fprintln(out, line)
		}
	}
}

// hostname is the default node name: the machine's, in lower case.
func hostname() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "testcluster"
	}
	return strings.ToLower(name)
}
