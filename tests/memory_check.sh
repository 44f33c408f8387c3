#!/usr/bin/env bash
# Every block of `unsafe` under a tool that sees wrong memory accesses:
#   tests/memory_check.sh            AddressSanitizer (all levels of the instruction set that this processor has)
#   tests/memory_check.sh valgrind   Valgrind, which takes the AVX2 path
# The sanitizer's runtime comes with rustup's stable toolchain; RUSTC_BOOTSTRAP lets it take the flag.
set -euo pipefail
cd "$(dirname "$0")/.."

# the tests that run the kernels: medians, back-projection, gridding, each against plain code
filters=(correct::median reconstruct::fbp reconstruct::fourier reconstruct::tests::against_definition)
host=$(rustc -vV | sed -n 's/^host: //p')

case "${1:-asan}" in
asan)
    # what the process still holds at its end (thread pools, tables made once) is no leak
    export ASAN_OPTIONS=detect_leaks=0
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" \
        cargo test --lib --target "$host" --target-dir target/asan -- "${filters[@]}"
    ;;
valgrind)
    binary=$(cargo test --lib --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    valgrind -q --error-exitcode=9 "$binary" --test-threads 1 "${filters[@]}"
    ;;
*)
    echo "usage: $0 [asan|valgrind]" >&2
    exit 2
    ;;
esac
