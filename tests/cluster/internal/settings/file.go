package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readFiles reads a configuration file and then every *.yaml and *.yml of its drop-in folder (`FILE.d`) in order of
// name, as k3s does: later files win, and a key written `name+` adds to a list instead of replacing it.
// A missing main file is an error only if it was asked for.
func readFiles(path string, asked bool) (values, error) {
	all := values{}
	files := []string{path}
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		found, err := filepath.Glob(filepath.Join(path+".d", pattern))
		if err != nil {
			return nil, fmt.Errorf("cannot list %s.d: %w", path, err)
		}
		files = append(files, found...)
	}
	sort.Strings(files[1:])
	for _, file := range files {
		content, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) && file == path && !asked {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the configuration: %w", err)
		}
		if err := all.readYAML(content, file); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readYAML adds the keys of one YAML document to the values.
func (v values) readYAML(content []byte, file string) error {
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return fmt.Errorf("%s is not YAML: %w", file, err)
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s: expected a mapping of keys to values", file)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		written := root.Content[i].Value
		source := fmt.Sprintf("%s:%d", file, root.Content[i].Line)
		if seen[written] {
			return fmt.Errorf("%s: key %q is given twice; keep one", source, written)
		}
		seen[written] = true
		key, known := find(strings.TrimSuffix(written, "+"))
		if !known {
			return unknown(source, strings.TrimSuffix(written, "+"))
		}
		given, err := scalars(root.Content[i+1])
		if err != nil {
			return fmt.Errorf("%s: %q %w", source, key.Name, err)
		}
		if err := v.set(key, given, strings.HasSuffix(written, "+"), source); err != nil {
			return err
		}
	}
	return nil
}

// scalars reads a scalar or a list of scalars as text.
func scalars(node *yaml.Node) ([]string, error) {
	switch node.Kind {
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return []string{""}, nil
		}
		return []string{node.Value}, nil
	case yaml.SequenceNode:
		out := make([]string, 0, len(node.Content))
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				return nil, errors.New("must be a list of plain values")
			}
			out = append(out, item.Value)
		}
		return out, nil
	}
	return nil, errors.New("must be a plain value or a list of them")
}
