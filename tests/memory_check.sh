#!/usr/bin/env bash
# Every block of `unsafe` under a tool that sees wrong memory accesses:
#   tests/memory_check.sh            AddressSanitizer (all levels of the instruction set that this processor has)
#   tests/memory_check.sh valgrind   Valgrind, which takes the AVX2 path
# The sanitizer's runtime comes with rustup's stable toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."

# the tests that run the kernels: medians, back-projection, gridding, each against plain code; and the allocator's calls
filters=(correct::median correct::minus_log reconstruct::fbp reconstruct::fourier reconstruct::tests::against_definition allocator::)

# built CARGO_COMMAND...: the binary of the library's tests that it built
built() {
    cargo "$@" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

case "${1:-asan}" in
asan)
    # All `unsafe` is in this crate: it alone is built for the sanitizer, and it alone is told to take an unstable flag.
    wrapper=$(mktemp)
    trap 'rm -f "$wrapper"' EXIT
    printf '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec "$@"\n' >"$wrapper"
    chmod +x "$wrapper"
    binary=$(RUSTC_WORKSPACE_WRAPPER="$wrapper" built rustc --lib --profile test --message-format=json -- -Zsanitizer=address)
    # what the process still holds at its end (thread pools, tables made once) is no leak
    ASAN_OPTIONS=detect_leaks=0 "$binary" "${filters[@]}"
    ;;
valgrind)
    binary=$(built test --lib --no-run --message-format=json)
    valgrind -q --error-exitcode=9 "$binary" --test-threads 1 "${filters[@]}"
    ;;
*)
    echo "usage: $0 [asan|valgrind]" >&2
    exit 2
    ;;
esac
