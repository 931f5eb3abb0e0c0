#!/usr/bin/env bash
# Runs static node binaries: `holdfast version` and `holdfast doctor -o json`, under QEMU where the architecture is another.
#
#   cross/smoke.sh BINARY...          as printed by cross/build.sh
#
# Guarantees: each binary starts, says the version of this workspace, and its doctor answers with JSON. What the doctor
# finds is not judged: this machine is not a box.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -gt 0 ] || set -- "$here"/target/cross/*-linux-musl/holdfast
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$here/Cargo.toml")

die() { echo "cross/smoke.sh: $*" >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for binary in "$@"; do
    # Bytes 18 and 19 of an ELF file are the machine: 62 is x86_64, 183 is aarch64.
    case "$(od -An -tu1 -j18 -N1 "$binary" | tr -d ' ')" in
        62) machine=x86_64 ;;
        183) machine=aarch64 ;;
        *) die "$binary is for neither x86_64 nor aarch64" ;;
    esac
    run=("$binary")
    if [ "$machine" != "$(uname -m)" ]; then
        emulator=$(command -v "qemu-$machine-static" || command -v "qemu-$machine") ||
            die "qemu-$machine-static is missing: run 'cargo xtask prerequisites --for cross'"
        run=("$emulator" "$binary")
    fi

    said=$("${run[@]}" version) || die "'$binary version' failed"
    case "$said" in
        *"$version"*) echo "$machine: $said" ;;
        *) die "'$binary version' says '$said', not $version" ;;
    esac

    cat > "$scratch/config.toml" <<TOML
state_dir = "$scratch/$machine/state"
socket = "$scratch/$machine/holdfast.sock"
TOML
    # Its exit code says whether something is wrong with the machine; only a crash (a signal, 128 and above) counts here.
    code=0
    "${run[@]}" doctor -o json --config "$scratch/config.toml" > "$scratch/doctor.json" || code=$?
    [ "$code" -lt 100 ] || die "'$binary doctor' ended with exit code $code"
    python3 -m json.tool "$scratch/doctor.json" > /dev/null ||
        die "'$binary doctor -o json' did not answer with JSON: $(head -c 200 "$scratch/doctor.json")"
    echo "$machine: doctor answered, $(wc -c < "$scratch/doctor.json") bytes of JSON, exit code $code"
done
