#!/usr/bin/env bash
# Builds the static node binary `holdfast` for one or more targets.
#
#   cross/build.sh [TARGET...]        default: x86_64-unknown-linux-musl aarch64-unknown-linux-musl
#
# In:  this repository; a Rust toolchain (below); cargo-zigbuild and zig (target/tools/venv or PATH).
# Out: target/cross/<target>/holdfast, one path per line on standard output; everything else goes to standard error.
# Guarantees: the result is statically linked and not larger than 10,000,000 bytes, or the script fails.
#
# Two kinds of toolchain do it; the first that can is taken, HOLDFAST_CROSS_TOOLCHAIN=rustup|distribution decides:
#   rustup        the toolchain in PATH has a standard library for the target (`rustup target add TARGET`)
#   distribution  Debian's or Ubuntu's rustc, cargo and the source of the standard library, which is built along
#                 (packages rustc-web cargo-web rust-web-src on Debian 12; rustc cargo rust-src elsewhere)
# Zig brings the C compiler, linker and musl for every target, so no cross compiler package is needed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly MAX_BYTES=10000000
readonly OUT="${HOLDFAST_CROSS_OUT:-${CARGO_TARGET_DIR:-target}/cross}"

say() { printf '%s\n' "$*" >&2; }
die() { say "cross/build.sh: $*"; exit 1; }

targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl)
for target in "${targets[@]}"; do
    case "$target" in
        x86_64-unknown-linux-musl | aarch64-unknown-linux-musl) ;;
        *) die "unknown target '$target': x86_64-unknown-linux-musl and aarch64-unknown-linux-musl are built" ;;
    esac
done

tools=$(realpath -m "${HOLDFAST_TOOLS:-target/tools}")/venv/bin
if [ -x "$tools/cargo-zigbuild" ]; then
    PATH="$tools:$PATH"
    # Named, because cargo-zigbuild asks the first python3 in PATH for it, which need not be the one it was installed with.
    CARGO_ZIGBUILD_ZIG_PATH=$("$tools/python3" -c 'import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))')
    export CARGO_ZIGBUILD_ZIG_PATH
fi
command -v cargo-zigbuild >/dev/null || die "cargo-zigbuild is missing: run 'cargo xtask prerequisites --for cross'"

# The machine's own compiler, whatever rustup has put in front of it in PATH.
system_rustc=/usr/bin/rustc
system_cargo=/usr/bin/cargo

has_rustup_std() {
    command -v rustc >/dev/null && [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] &&
        compgen -G "$(rustc --print sysroot)/lib/rustlib/$1/lib/libstd-*.rlib" >/dev/null
}
has_distribution() {
    [ -x "$system_rustc" ] && [ -x "$system_cargo" ] &&
        [ -f "$("$system_rustc" --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ]
}

for target in "${targets[@]}"; do
    toolchain="${HOLDFAST_CROSS_TOOLCHAIN:-}"
    if [ -z "$toolchain" ]; then
        if has_rustup_std "$target"; then toolchain=rustup
        elif has_distribution; then toolchain=distribution
        else die "no standard library for $target: 'rustup target add $target', or on Debian 'apt install rustc-web cargo-web rust-web-src'"
        fi
    fi
    say "cross: $target with the $toolchain toolchain"
    build_std=()
    case "$toolchain" in
        rustup) cargo=$(rustup which cargo 2>/dev/null || command -v cargo)
                rustc=$(rustup which rustc 2>/dev/null || command -v rustc) ;;
        distribution)
            has_distribution || die "the distribution's rustc, cargo and rust-src packages are not all installed"
            cargo=$system_cargo rustc=$system_rustc
            # panic_abort alone: the node profile aborts, so no unwinder is carried along.
            build_std=(-Z build-std=std,panic_abort) ;;
        *) die "HOLDFAST_CROSS_TOOLCHAIN is '$toolchain': rustup or distribution" ;;
    esac

    # No unwind tables: the node profile aborts on a panic, nothing ever reads them, and they are a twelfth of the file.
    # RUSTC_BOOTSTRAP lets a stable compiler build its own standard library. Zig has the C runtime objects, hence no
    # self-contained linking.
    # Of SQLite, what the node has no use for: full text search, trees of rectangles, statistics of pages and of columns. 235 KB.
    sqlite="-USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS -USQLITE_ENABLE_FTS5 -USQLITE_ENABLE_RTREE"
    sqlite="$sqlite -USQLITE_ENABLE_DBSTAT_VTAB -USQLITE_ENABLE_STAT4 -USQLITE_SOUNDEX"
    env -u RUSTC_WRAPPER -u CARGO_ENCODED_RUSTFLAGS -u RUSTUP_TOOLCHAIN \
        PATH="$(dirname "$cargo"):$PATH" CARGO="$cargo" RUSTC="$rustc" RUSTC_BOOTSTRAP=$((${#build_std[@]} > 0 ? 1 : 0)) \
        CARGO_TARGET_DIR="$OUT/build" LIBSQLITE3_FLAGS="$sqlite" \
        RUSTFLAGS="-C link-self-contained=no -C target-feature=+crt-static -C force-unwind-tables=no" \
        cargo-zigbuild build --locked --profile node --target "$target" --package holdfast --bin holdfast "${build_std[@]}" >&2

    mkdir -p "$OUT/$target"
    install -m 0755 "$OUT/build/$target/node/holdfast" "$OUT/$target/holdfast"
    bytes=$(stat -c %s "$OUT/$target/holdfast")
    if readelf -l "$OUT/$target/holdfast" | grep -q INTERP; then
        die "$OUT/$target/holdfast is not static: it asks for a dynamic loader"
    fi
    say "cross: $OUT/$target/holdfast is $bytes bytes (limit $MAX_BYTES)"
    [ "$bytes" -le "$MAX_BYTES" ] || die "$OUT/$target/holdfast is larger than $MAX_BYTES bytes"
    printf '%s\n' "$OUT/$target/holdfast"
done
