package settings

import "fmt"

// unknown is the error for a key k3s does not have; it names the nearest one it has.
func unknown(source, name string) error {
	best, distance := "", 4
	for _, key := range Keys {
		if d := editDistance(name, key.Name); d < distance {
			best, distance = key.Name, d
		}
	}
	if best == "" {
		return fmt.Errorf("%s: unknown key %q; `k3s server --help` lists the known ones", source, name)
	}
	return fmt.Errorf("%s: unknown key %q; did you mean %q?", source, name, best)
}

// editDistance is the Levenshtein distance between two strings.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
