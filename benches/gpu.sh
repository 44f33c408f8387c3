#!/bin/sh
# Builds, checks and times all GPU kernels at the sizes of real scans; under 8 minutes on a machine with a GPU.
# Usage: benches/gpu.sh [gpu:N] [SIDExPROJECTIONS]...      Result: gpu-bench.json in $OUT, else in target/.
# It needs Rust, a Vulkan driver and libvulkan; where `cargo build` cannot reach the registry, run it once elsewhere
# and carry target/release: the built programs are used as they are with NO_BUILD=1.
set -eu
cd "$(dirname "$0")/.."
device=gpu
case "${1:-}" in gpu | gpu:*) device=$1 && shift ;; esac
[ $# -gt 0 ] || set -- 1024x1501 2048x3001 3072x3001
out=${OUT:-target}
mkdir -p "$out"

program() { # the newest program of this name that cargo built
    ls -t target/release/deps/"$1"-* | grep -v '\.d$' | head -n 1
}

if [ "${NO_BUILD:-0}" = 0 ]; then
    cargo test --release --no-run --test shaders_are_valid --test twins_agree
    cargo bench --no-run --bench gpu
fi
"$(program shaders_are_valid)"
# a missing GPU is a failure here, not a skipped test
TOMODELTA_REQUIRE_GPU=1 "$(program twins_agree)"
"$(program gpu)" "$device" "$@" >"$out/gpu-bench.json"
echo "wrote $out/gpu-bench.json" >&2
