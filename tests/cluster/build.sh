#!/bin/sh
# Builds the test cluster's one binary.
# Usage: build.sh [OUTPUT]    OUTPUT: path of the binary (default: target/testcluster/k3s in the repository)
# The sources' hash is kept beside the binary (OUTPUT.stamp): nothing is built while both are unchanged.
# Needs Go (the version in go.mod or newer; go fetches it by itself) and a C compiler, for SQLite.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
output=${1:-$here/../../target/testcluster/k3s}
kubernetes=v1.36.3

say() { echo "testcluster: $*" >&2; }
fail() {
	say "$*"
	exit 1
}

command -v go >/dev/null 2>&1 || PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null 2>&1 ||
	fail "Go is missing. Install Go 1.26 or newer (https://go.dev/dl), or a distribution's golang package of 1.21 or newer, which fetches it."
compiler=${CC:-gcc}
command -v "${compiler%% *}" >/dev/null 2>&1 ||
	fail "the C compiler $compiler is missing (SQLite is built with it). Install it, for example: apt-get install gcc libc6-dev"

cd "$here"
source=$({
	go env GOOS GOARCH
	find . -type f \( -name '*.go' -o -name '*.yaml' -o -name 'go.mod' -o -name 'go.sum' -o -name build.sh \) ! -name '*_test.go' |
		LC_ALL=C sort | xargs sha256sum
} | sha256sum | cut -c1-16)

if [ -x "$output" ] && [ "$(cat "$output.stamp" 2>/dev/null || true)" = "$source" ]; then
	say "$output is up to date ($source)"
	exit 0
fi

# The version the API reports; k3s sets the same variables.
set -- "-s -w -X main.source=$source"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	set -- "$1 -X $package.gitVersion=$kubernetes+holdfast-testcluster -X $package.gitMajor=1 -X $package.gitMinor=36 -X $package.gitTreeState=clean"
done

mkdir -p "$(dirname "$output")"
say "building $output from Kubernetes $kubernetes (the first build takes some minutes)"
CGO_ENABLED=1 GOFLAGS="-mod=readonly" nice go build -trimpath -buildvcs=false -ldflags "$1" -o "$output.new" . ||
	fail "the build failed; see above"
mv "$output.new" "$output"
echo "$source" >"$output.stamp"
say "built $output ($(($(wc -c <"$output") / 1048576)) MiB, $source)"
