#!/bin/sh
# Checks and times all GPU kernels, their variants and a whole scan on a machine with a GPU; ends within 8 minutes, whatever fails.
# Usage: benches/gpu.sh [gpu:N] [SIDExPROJECTIONS]... [whole:SIDExPROJECTIONSxSLICES]... [seconds:N]
#
# Results go to $OUT (else target/gpu-bench) as they come: kernels.jsonl and whole.jsonl (a line of JSON for each part), log.txt (all
# that was said), summary.txt (which part passed). A run that is cut short loses only the part at work.
#
# It needs a driver with Vulkan and libvulkan.so.1. What is missing is looked for: the loader in packages *.deb in $DEBS (unpacked beside
# the results, nothing is installed), else by apt-get; the driver's manifest in the folders where drivers put it, else one is
# written for NVIDIA's libGLX_nvidia.so.0. It says what it found.
# Build first: BUILD_ONLY=1 benches/gpu.sh, on this machine or on one like it, without a limit of time (a quarter of an hour on two
# cores from nothing). Then NO_BUILD=1 takes these programs, from $PROGRAMS (else target/$PROFILE/deps, PROFILE being release), and needs
# no cargo. Without either it builds within its time what it can: the bench, which checks every kernel itself, then the tests.
# A smaller limit: LIMIT=seconds.
set -u
cd "$(dirname "$0")/.." || exit 2
device=gpu
case "${1:-}" in gpu | gpu:*) device=$1 && shift ;; esac
[ $# -gt 0 ] || set -- 1024x1501 2048x3001 3072x3001 whole:2048x3001x2048 seconds:35
out=${OUT:-target/gpu-bench}
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
programs=${PROGRAMS:-target/${PROFILE:-release}/deps}
began=$(date +%s)
limit=${LIMIT:-470}
failed=0
: >"$out/log.txt"
: >"$out/summary.txt"

say() { # to the log and the terminal
    echo "$*" | tee -a "$out/log.txt" >&2
}

note() { # a line of the summary
    echo "$*" >>"$out/summary.txt"
    case "$*" in *FAILED* | *missing* | *"no time"*) failed=1 ;; esac
}

finish() {
    say "summary, after $(($(date +%s) - began)) s, results in $out:"
    tee -a "$out/log.txt" <"$out/summary.txt" >&2
    exit "$failed"
}
trap 'note "stopped from outside: FAILED"; finish' TERM INT

left() {
    echo $((limit - $(date +%s) + began))
}

part() { # NAME SECONDS COMMAND...: runs it within its time and what is left of all
    name=$1 most=$2
    shift 2
    [ "$(left)" -lt "$most" ] && most=$(left)
    if [ "$most" -lt 5 ]; then
        note "$name: no time left"
        return 1
    fi
    say "== $name (at most $most s)"
    before=$(date +%s)
    # a driver that hangs does not hear the first signal
    timeout -k 5 "$most" "$@" 2>>"$out/log.txt"
    rc=$?
    took=$(($(date +%s) - before))
    if [ "$rc" -eq 0 ]; then
        note "$name: ok, $took s"
    else
        note "$name: FAILED ($rc, 124 and 137 are out of time), $took s"
    fi
    return "$rc"
}

has_loader() {
    ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1' && return 0
    old=$IFS IFS=:
    for folder in ${LD_LIBRARY_PATH:-} /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib64 /usr/local/lib; do
        [ -e "$folder/libvulkan.so.1" ] && IFS=$old && return 0
    done
    IFS=$old
    return 1
}

find_loader() {
    has_loader && return 0
    for package in "${DEBS:-}"/*.deb; do
        [ -e "$package" ] && dpkg -x "$package" "$out/packages" 2>>"$out/log.txt"
    done
    for folder in "$out"/packages/usr/lib/*-linux-gnu; do
        [ -e "$folder/libvulkan.so.1" ] || continue
        LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        export LD_LIBRARY_PATH
        say "libvulkan.so.1 from $folder"
        return 0
    done
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        part "libvulkan1 by apt-get" 60 sh -c '{ apt-get install -y libvulkan1 || { apt-get update && apt-get install -y libvulkan1; }; } 1>&2'
    fi
    has_loader && return 0
    note "missing: libvulkan.so.1 (the package libvulkan1 or vulkan-loader; or give its .deb in DEBS=folder)"
    return 1
}

find_driver() { # sets VK_DRIVER_FILES where the loader would not find the driver itself; NVIDIA's goes first
    [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] && return 0
    standard="/etc/vulkan/icd.d /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d /usr/local/etc/vulkan/icd.d"
    for folder in $standard; do
        for manifest in "$folder"/nvidia*.json; do
            [ -e "$manifest" ] && say "driver manifest $manifest" && return 0
        done
    done
    for manifest in /usr/local/nvidia/share/vulkan/icd.d/*.json /opt/nvidia/share/vulkan/icd.d/*.json; do
        [ -e "$manifest" ] || continue
        say "driver manifest $manifest, where the loader does not look"
        VK_DRIVER_FILES=$manifest
        export VK_DRIVER_FILES
        return 0
    done
    if ldconfig -p 2>/dev/null | grep -q 'libGLX_nvidia\.so\.0'; then
        echo '{"file_format_version": "1.0.0", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.3.0"}}' >"$out/nvidia_icd.json"
        VK_DRIVER_FILES=$out/nvidia_icd.json
        export VK_DRIVER_FILES
        say "no driver manifest: wrote one for libGLX_nvidia.so.0"
        return 0
    fi
    if command -v nvidia-smi >/dev/null; then
        note "missing: the graphics part of the NVIDIA driver (libGLX_nvidia.so.0; containers need the capability \"graphics\")"
        return 1
    fi
    for folder in $standard; do
        for manifest in "$folder"/*.json; do
            [ -e "$manifest" ] && say "driver manifest $manifest" && return 0
        done
    done
    note "missing: the manifest of a Vulkan driver (looked in $standard)"
    return 1
}

program() { # the newest program of this name that cargo built
    ls -t "$programs/$1"-* 2>/dev/null | grep -v '\.' | head -n 1
}

bench() { # NAME SECONDS FILE ARGUMENTS...
    name=$1 most=$2 file=$3
    shift 3
    bench_program=$(program gpu)
    if [ -z "$bench_program" ]; then
        note "$name: missing, no program $programs/gpu-*; run without NO_BUILD=1"
        return
    fi
    part "$name" "$most" sh -c 'file=$1; shift; "$@" >"$file"' sh "$out/$file" "$bench_program" "$device" "$@"
    if grep -q '"kind":"software"' "$out/$file" && ! grep -qE '"kind":"(discrete|integrated|virtual|unknown)"' "$out/$file"; then
        note "$name: missing, Vulkan sees no GPU but a software driver (see log.txt)"
    fi
}

check() { # NAME SECONDS: a test of tests/, where it was built
    test_program=$(program "$1")
    if [ -z "$test_program" ]; then
        note "$1: not built"
        return
    fi
    # a missing GPU is a failure here, not a skipped test
    part "$1" "$2" sh -c 'TOMODELTA_REQUIRE_GPU=1 "$1" 1>&2' sh "$test_program"
}

tests="--test shaders_are_valid --test twins_agree --test cpu_and_gpu_agree"
if [ "${BUILD_ONLY:-0}" != 0 ]; then
    # in one go, so that no core waits for another program to be linked
    # shellcheck disable=SC2086 # one word each
    exec cargo test --release --no-run --bench gpu $tests
fi
command -v nvidia-smi >/dev/null &&
    nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm --format=csv >>"$out/log.txt" 2>&1
find_loader
find_driver
if [ "${NO_BUILD:-0}" = 0 ]; then
    # what is not built by then leaves time for the figures of programs from before
    part build 300 cargo test --release --no-run --bench gpu ||
        note "build first, without a limit: BUILD_ONLY=1 $0; then NO_BUILD=1 $0"
    # the tests repeat what the bench checks, and go beyond it to whole scans: only where the build was short
    if [ "$(left)" -gt 400 ]; then
        # shellcheck disable=SC2086
        part "build of the tests" 60 cargo test --release --no-run $tests
    fi
fi
check shaders_are_valid 20
# the figures first, in case time runs out
sizes="" wholes=""
for argument in "$@"; do
    case "$argument" in
    whole:*) wholes="$wholes $argument" ;;
    seconds:*) wholes="$wholes $argument" ;;
    *) sizes="$sizes $argument" ;;
    esac
done
# shellcheck disable=SC2086 # one word each
bench "kernels" 150 kernels.jsonl $sizes
case "$wholes" in
*whole:*)
    # shellcheck disable=SC2086
    bench "whole scans" 190 whole.jsonl $wholes
    ;;
esac
check twins_agree 60
check cpu_and_gpu_agree 60
finish
