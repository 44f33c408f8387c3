#!/bin/sh
# Builds, checks and times all GPU kernels, their variants and a whole scan; ends within 8 minutes, whatever fails.
# Usage: benches/gpu.sh [gpu:N] [SIDExPROJECTIONS]... [whole:SIDExPROJECTIONSxSLICES]... [seconds:N]
# Result: gpu-bench.json and gpu-bench.log in $OUT, else in target/; the last lines say which part passed.
# It needs Rust, a Vulkan driver and libvulkan. Where `cargo build` cannot reach the registry, run it once elsewhere and carry
# target/release: the built programs are used as they are with NO_BUILD=1 (PROFILE=debug: those of target/debug). A smaller limit: LIMIT=seconds.
set -u
cd "$(dirname "$0")/.."
device=gpu
case "${1:-}" in gpu | gpu:*) device=$1 && shift ;; esac
[ $# -gt 0 ] || set -- 1024x1501 2048x3001 3072x3001 whole:2048x3001x2048 seconds:45
out=${OUT:-target}
mkdir -p "$out"
: >"$out/gpu-bench.log"
began=$(date +%s)
limit=${LIMIT:-470}
summary=""
failed=0

program() { # the newest program of this name that cargo built
    ls -t "target/${PROFILE:-release}/deps/$1"-* 2>/dev/null | grep -v '\.' | head -n 1
}

part() { # NAME SECONDS COMMAND...: runs it within its time and what is left of all
    name=$1 most=$2
    shift 2
    left=$((limit - $(date +%s) + began))
    [ "$left" -lt "$most" ] && most=$left
    if [ "$most" -lt 5 ]; then
        summary="$summary
$name: no time left"
        failed=1
        return
    fi
    echo "== $name (at most $most s)" | tee -a "$out/gpu-bench.log" >&2
    before=$(date +%s)
    timeout "$most" "$@" 2>>"$out/gpu-bench.log"
    rc=$?
    took=$(($(date +%s) - before))
    if [ "$rc" -eq 0 ]; then
        summary="$summary
$name: ok, $took s"
    else
        summary="$summary
$name: FAILED ($rc, 124 is out of time), $took s"
        failed=1
    fi
}

bench() { # NAME SECONDS FILE ARGUMENTS...
    name=$1 most=$2 file=$3
    shift 3
    bench_program=$(program gpu)
    if [ -z "$bench_program" ]; then
        summary="$summary
$name: not built"
        failed=1
        return
    fi
    part "$name" "$most" sh -c 'file=$1; shift; "$@" >"$file"' sh "$out/$file" "$bench_program" "$device" "$@"
}

check() { # NAME SECONDS: a test of tests/, where it was built
    test_program=$(program "$1")
    if [ -z "$test_program" ]; then
        summary="$summary
$1: not built"
        return
    fi
    # a missing GPU is a failure here, not a skipped test
    part "$1" "$2" sh -c 'TOMODELTA_REQUIRE_GPU=1 "$1" 1>&2' sh "$test_program"
}

if [ "${NO_BUILD:-0}" = 0 ]; then
    part build 270 cargo bench --no-run --bench gpu
    part "build of the tests" 120 cargo test --release --no-run --test shaders_are_valid --test twins_agree --test cpu_and_gpu_agree
fi
check shaders_are_valid 20
# the figures first: they are what a lease is short for
sizes="" wholes=""
for argument in "$@"; do
    case "$argument" in
    whole:*) wholes="$wholes $argument" ;;
    seconds:*) wholes="$wholes $argument" ;;
    *) sizes="$sizes $argument" ;;
    esac
done
# shellcheck disable=SC2086 # one word each
bench "kernels" 150 gpu-bench.json $sizes
case "$wholes" in
*whole:*)
    # shellcheck disable=SC2086
    bench "whole scans" 170 gpu-whole.json $wholes
    ;;
esac
check twins_agree 60
check cpu_and_gpu_agree 60
cat "$out/gpu-bench.log" >&2
echo "$summary" | tee -a "$out/gpu-bench.log" >&2
echo "wrote $out/gpu-bench.json, $out/gpu-whole.json and $out/gpu-bench.log in $(($(date +%s) - began)) s" >&2
exit "$failed"
