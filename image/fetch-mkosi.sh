#!/usr/bin/env bash
# Fetches mkosi, the program that makes images, at the version that the recipe is written for.
#
#   image/fetch-mkosi.sh DIRECTORY
#
# In: the mirror of Debian that this machine's apt uses, or the one in HOLDFAST_DEBIAN_MIRROR. Out: DIRECTORY/mkosi with the package's files and
# DIRECTORY/bin/mkosi, which starts it. Guarantees: apt has checked the package with Debian's keys; nothing else of this machine is changed.
set -euo pipefail

readonly SUITE=bookworm-backports VERSION=24.3-1~bpo12+1
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

die() { printf 'image/fetch-mkosi.sh: %s\n' "$*" >&2; exit 1; }

directory=$(realpath -m "${1:?the directory to install to}")
mirror=${HOLDFAST_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(ORIGIN) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 !~ /-/ { print $3; exit }')}
[ -n "$mirror" ] || die "apt on this machine uses no mirror of Debian: name one in HOLDFAST_DEBIAN_MIRROR"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 0755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$SUITE" "$KEYRING" > "$work/mkosi.sources"
apt=(apt-get -qq -o Dir::Etc::sourcelist="$work/mkosi.sources" -o Dir::Etc::sourceparts="$work/none" -o Dir::State::lists="$work/lists"
    -o Dir::Cache="$work/cache" -o Acquire::Languages=none -o APT::Sandbox::User=)
"${apt[@]}" update
(cd "$work" && "${apt[@]}" download "mkosi=$VERSION")

rm -rf "$directory/mkosi"
mkdir -p "$directory/mkosi" "$directory/bin"
dpkg-deb --extract "$work"/mkosi_*.deb "$directory/mkosi"
cat > "$directory/bin/mkosi" << EOF
#!/bin/sh
PYTHONPATH='$directory/mkosi/usr/lib/python3/dist-packages' exec /usr/bin/python3 -B -m mkosi "\$@"
EOF
chmod 0755 "$directory/bin/mkosi"
