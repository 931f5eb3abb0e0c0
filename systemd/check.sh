#!/usr/bin/env bash
# Checks the units as they are installed.
#
# In: the files beside this script. Out: 0 if `systemd-analyze verify` has nothing to say, with and without the drop-in, the unit by itself
# scores 3.0 or better in `systemd-analyze security`, and sysusers and tmpfiles accept their files. Changes nothing on this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

die() {
    echo "systemd/check.sh: $*" >&2
    exit 1
}

# Behind a daemon in its restarts it would never begin, and a system whose daemon does not start would stay.
if grep -q '^After=.*holdfast\.service' "$here/holdfast-health.service"; then
    die "holdfast-health.service must not be ordered after holdfast.service, see there"
fi

command -v systemd-analyze > /dev/null || die "systemd-analyze is missing: install the package systemd"

# Without an installed binary, another program stands for it: verify wants one that exists.
program=/usr/bin/holdfast
[ -x "$program" ] || program=$(command -v true)

alone=$stage/alone
child=$stage/child
mkdir -p "$alone" "$child/holdfast.service.d"
for directory in "$alone" "$child"; do
    sed "s|^ExecStart=/usr/bin/holdfast run$|ExecStart=$program run|" "$here/holdfast.service" > "$directory/holdfast.service"
    grep -q "^ExecStart=$program run$" "$directory/holdfast.service" || die "holdfast.service does not start /usr/bin/holdfast run"
done
cp "$here/holdfast.service.d/10-kubernetes-child.conf" "$child/holdfast.service.d/"
unit=$stage/unit
mkdir -p "$unit/holdfast.service.d"
cp "$alone/holdfast.service" "$unit/"
cp "$here/holdfast.service.d/20-kubernetes-unit.conf" "$unit/holdfast.service.d/"
# The unit's program is a link that Holdfast makes.
sed "s|/var/lib/holdfast/k3s/unit/program|$(command -v true)|" "$here/k3s.service" > "$unit/k3s.service"
said=$(SYSTEMD_UNIT_PATH="$unit:" systemd-analyze verify --man=no --recursive-errors=no "$unit/k3s.service" 2>&1) || die "verify of k3s.service failed: $said"
[ -z "$said" ] || die "verify of k3s.service says: $said"
grep -q '^\[Install\]' "$here/k3s.service" && die "k3s.service can be enabled; only Holdfast may start it"

for directory in "$alone" "$child" "$unit"; do
    said=$(SYSTEMD_UNIT_PATH="$directory:" systemd-analyze verify --man=no --recursive-errors=no "$directory/holdfast.service" 2>&1) ||
        die "verify of ${directory##*/} failed: $said"
    [ -z "$said" ] || die "verify of ${directory##*/} says: $said"
done
echo "holdfast.service verifies, by itself, with Kubernetes as its child and as a unit; k3s.service verifies"

others=$stage/others
mkdir -p "$others"
for unit in "$here"/holdfast-*.service; do
    name=${unit##*/}
    sed -e "s|^\(Exec[A-Za-z]*=\)/usr/bin/holdfast |\1$program |" -e "s|^ExecStart=/usr/sbin/wpa_supplicant |ExecStart=$program |" "$unit" > "$others/${name/@/@wlan0}"
done
for unit in "$others"/*.service; do
    said=$(SYSTEMD_UNIT_PATH="$others:" systemd-analyze verify --man=no --recursive-errors=no "$unit" 2>&1) || die "verify of ${unit##*/} failed: $said"
    [ -z "$said" ] || die "verify of ${unit##*/} says: $said"
done
echo "$(find "$others" -name '*.service' | wc -l) units beside it verify"

# `--threshold` is in tenths.
SYSTEMD_UNIT_PATH="$alone:" systemd-analyze security --no-pager --offline=true --threshold=30 "$alone/holdfast.service" > "$stage/score" 2>&1 ||
    die "the unit by itself is more exposed than 3.0: $(tail -n 3 "$stage/score")"
tail -n 1 "$stage/score"
SYSTEMD_UNIT_PATH="$child:" systemd-analyze security --no-pager --offline=true --threshold=100 "$child/holdfast.service" > "$stage/score" 2>&1 || true
echo "with Kubernetes as its child (see holdfast.service.d): $(tail -n 1 "$stage/score")"

mkdir -p "$stage/root/usr/lib/sysusers.d" "$stage/root/usr/lib/tmpfiles.d" "$stage/root/etc"
cp "$here/holdfast.sysusers" "$stage/root/usr/lib/sysusers.d/holdfast.conf"
cp "$here/holdfast.tmpfiles" "$stage/root/usr/lib/tmpfiles.d/holdfast.conf"
systemd-sysusers --root="$stage/root" || die "sysusers refuses holdfast.sysusers"
grep -q '^holdfast:' "$stage/root/etc/passwd" || die "sysusers made no user holdfast"
systemd-tmpfiles --root="$stage/root" --create "$stage/root/usr/lib/tmpfiles.d/holdfast.conf" || die "tmpfiles refuses holdfast.tmpfiles"
[ -d "$stage/root/etc/holdfast" ] || die "tmpfiles made no /etc/holdfast"
grep -qx 'enable holdfast.service' "$here/holdfast.preset" || die "the preset does not enable holdfast.service"
echo "sysusers, tmpfiles and preset are accepted"
