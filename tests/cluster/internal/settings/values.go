package settings

import (
	"fmt"
	"strconv"
)

// values holds what was given for each key, as text; a List key may have several.
type values map[string][]string

// set replaces (or, with add, extends) the value of a key after checking it against the key's kind.
// The source names the file, variable or flag for the error message.
func (v values) set(key Key, given []string, add bool, source string) error {
	if key.Kind != List && len(given) != 1 {
		return fmt.Errorf("%s: %q takes one value, not %d; give a single value", source, key.Name, len(given))
	}
	switch key.Kind {
	case Number:
		if _, err := strconv.Atoi(given[0]); err != nil {
			return fmt.Errorf("%s: %q must be a whole number, not %q", source, key.Name, given[0])
		}
	case Switch:
		if _, err := strconv.ParseBool(given[0]); err != nil {
			return fmt.Errorf("%s: %q must be true or false, not %q", source, key.Name, given[0])
		}
	}
	if add && key.Kind == List {
		given = append(append([]string{}, v[key.Name]...), given...)
	}
	v[key.Name] = given
	return nil
}

// over lays the other values on top of these: a key given there replaces the one here.
func (v values) over(other values) {
	for name, given := range other {
		v[name] = given
	}
}

// text returns the value of a Text key, or the fallback when it was not given or is empty.
func (v values) text(name, fallback string) string {
	if given := v[name]; len(given) > 0 && given[0] != "" {
		return given[0]
	}
	return fallback
}

// number returns the value of a Number key; set has checked its form.
func (v values) number(name string, fallback int) int {
	if n, err := strconv.Atoi(v.text(name, "")); err == nil {
		return n
	}
	return fallback
}

// asks tells whether a key was given a value other than nothing or false.
func (v values) asks(name string) bool {
	given := v[name]
	return len(given) > 0 && given[0] != "" && given[0] != "false"
}
