#!/usr/bin/env bash
# Full-size scans: cost against size, overhead beside the work, forecasts against what came of them. About a quarter of an
# hour on two idle cores and 25 GB of disk; prints tables for RESULTS.md.
#
#   benches/scale.sh [FOLDER]            all of it, scans and volumes in FOLDER (a temporary one without)
#   SCALE_ROWS=64 benches/scale.sh       a shorter one: fewer rows of the large scan
#   SCALE_PARTS="size forecast" ...      some of the parts: size, overhead, forecast
#
# Needs /usr/bin/time (GNU) and, for the overhead, perf, python3 and a build with line tables and frame pointers:
#   RUSTFLAGS="-C force-frame-pointers=yes" cargo build --release --target-dir target/stacks \
#       --config 'profile.release.package.tomodelta.debug="line-tables-only"'
#   TOMODELTA=target/stacks/release/tomodelta SCALE_PARTS=overhead benches/scale.sh
set -euo pipefail
cd "$(dirname "$0")/.."
program=${TOMODELTA:-$PWD/target/release/tomodelta}
rows=${SCALE_ROWS:-256}
parts=${SCALE_PARTS:-size overhead forecast}
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
cores=$(nproc)
echo "$("$program" --version), $(date -u +%FT%RZ), $cores cores, load $(cut -d' ' -f1 /proc/loadavg) at the start"

# measure COMMAND...: user and system seconds, wall seconds, peak KiB into $user $system $wall $peak
measure() {
    /usr/bin/time -o "$folder/time" -f '%U %S %e %M' "$@" >"$folder/log" 2>&1 || {
        cat "$folder/log" >&2
        exit 1
    }
    read -r user system wall peak <"$folder/time"
}

calc() { awk "BEGIN { printf \"$1\", $2 }"; }

large() {
    [ -e "$folder/large/large.nxs" ] ||
        "$program" simulate "$folder/large" --preset large --angles 3001 --cols 3072 --rows "$rows" -q >/dev/null
}

reconstruct() { # ROWS...
    echo "$program" reconstruct "$folder/large/large.nxs" --output "$folder/volume.ome.zarr" --overwrite \
        --memory 3GiB --device cpu --rows "0..$1" -q
}

size() {
    large
    printf '\n| slices | CPU [s] | wall [s] | peak [MiB] of 3 GiB |\n|---|---|---|---|\n'
    local all=()
    for n in $((rows / 8)) $((rows / 4)) $((rows / 2)) "$rows"; do
        measure $(reconstruct "$n")
        printf '| %d | %s | %s | %s |\n' "$n" "$(calc %.1f "$user + $system")" "$wall" "$(calc %.0f "$peak / 1024")"
        all+=("$n $(calc %.2f "$user + $system") $wall")
    done
    # least squares: cost = a + b * slices, and the largest deviation from that line
    printf '%s\n' "${all[@]}" | awk '
        { x[NR] = $1; y[1, NR] = $2; y[2, NR] = $3 }
        END {
            split("CPU,wall", name, ",")
            for (c = 1; c <= 2; c++) {
                sx = sy = sxx = sxy = 0
                for (i = 1; i <= NR; i++) { sx += x[i]; sy += y[c, i]; sxx += x[i] ^ 2; sxy += x[i] * y[c, i] }
                b = (NR * sxy - sx * sy) / (NR * sxx - sx ^ 2); a = (sy - b * sx) / NR; worst = 0
                for (i = 1; i <= NR; i++) { d = (y[c, i] - a - b * x[i]) / y[c, NR]; if (d < 0) d = -d; if (d > worst) worst = d }
                printf "%s: %.3f s per slice and %.1f s beside; furthest from that line %.1f %% of the largest\n", name[c], b, a, 100 * worst
            }
        }'
}

overhead() {
    large
    command -v perf >/dev/null || { echo "no perf: no overhead table"; return; }
    printf '\noverhead, %d slices\n' "$rows"
    # the time by the clock from inside: perf takes its own at the end
    measure perf record --call-graph fp -F 199 -o "$folder/perf.data" -- /usr/bin/time -o "$folder/clock" -f %e $(reconstruct "$rows")
    benches/overhead.py "$folder/perf.data" "$program" "$(cat "$folder/clock")"
    rm -rf "$folder/volume.ome.zarr" "$folder/perf.data"
}

# in MiB or seconds, of what `--dry-run` prints
mib() { awk '{ f["B"] = 2 ^ -20; f["KiB"] = 2 ^ -10; f["MiB"] = 1; f["GiB"] = 1024; print $1 * f[$2] }'; }
seconds() { awk '{ s = 0; for (i = 1; i <= NF; i++) { n = $i + 0; if ($i ~ /ms$/) n /= 1000; else if ($i ~ /m$/) n *= 60; else if ($i ~ /h$/) n *= 3600; s += n } print s }'; }

# compare FORECAST FOUND: both and the deviation; a word where it is beyond the tolerance
compare() {
    awk -v a="$1" -v b="$2" -v most="${3:-20}" -v least="${4:--20}" \
        'BEGIN { d = 100 * (a / b - 1); printf "%.1f, %.1f (%+.0f %%)%s", a, b, d, (d > most || d < least) ? " BEYOND" : "" }'
}

# Forecasts against what came of them. Times by the clock say nothing on a busy machine: above a load of 1.5 per core and 1 those of the processor
# are judged alone. Exit code 1 where anything is more than 20 % off, or the memory more than was said to be its most.
forecast() {
    printf '\n| run | memory: likely, peak; at most [MiB] | disk: forecast, written [MiB] | wall: forecast, found [s] | CPU: forecast, found [s] |\n|---|---|---|---|---|\n'
    local name simulated cap flags series plan memory most disk time cpu written row beyond=0
    while IFS='|' read -r -u 3 name simulated cap flags; do
        series="$folder/$(tr -c 'a-z0-9\n' - <<<"$simulated")"
        [ -d "$series" ] || "$program" simulate "$series" --preset $simulated -q >/dev/null
        rm -rf "$folder/out"
        local run=("$program" run "$series/series.toml" --output "$folder/out" --memory "$cap" --device cpu $flags)
        plan=$("${run[@]}" -q --dry-run 2>/dev/null)
        memory=$(sed -n 's/^memory   peak about \([0-9.]* [A-Za-z]*\),.*/\1/p' <<<"$plan" | mib)
        most=$(sed -n 's/^memory   .*, at most \([0-9.]* [A-Za-z]*\),.*/\1/p' <<<"$plan" | mib)
        disk=$(sed -n 's/^disk     about \([0-9.]* [A-Za-z]*\) written.*/\1/p' <<<"$plan" | mib)
        time=$(sed -n 's/^time     about \([^,(]*\).*/\1/p' <<<"$plan" | seconds)
        cpu=$(sed -n 's/^time     about [^,(]*, \(.*\) of all threads.*/\1/p' <<<"$plan" | seconds)
        measure "${run[@]}" -v
        cp "$folder/log" "$folder/log-$name"
        printf '%s\n' "$plan" >"$folder/plan-$name"
        written=$(du -sb "$folder/out" | cut -f1)
        local load wall_tolerance=20
        load=$(cut -d' ' -f1 /proc/loadavg)
        awk "BEGIN { exit !($load > 1.5 * $cores + 1) }" && wall_tolerance=1e9
        row=$(printf '| %s | %s | %s | %s | %s |' "$name: $simulated, $cap $flags" \
            "$(compare "$memory" "$(calc %f "$peak / 1024")"), at most $most$(awk "BEGIN { if ($peak / 1024 > $most) print \" EXCEEDED, BEYOND\" }")" \
            "$(compare "$disk" "$(calc %f "$written / 2 ^ 20")")" \
            "$(compare "$time" "$wall" "$wall_tolerance" "-$wall_tolerance")" \
            "$(compare "$cpu" "$(calc %f "$user + $system")")")
        printf '%s\n' "$row"
        case $row in *BEYOND*) beyond=1 ;; esac
        rm -rf "$folder/out"
    done 3<<'END'
pair|null --cols 512 --rows 128 --angles 601|1GiB|
pair-3|null --cols 512 --rows 128 --angles 601|3GiB|
pair-fbp|null --cols 512 --rows 128 --angles 601|1GiB|--set reconstruct.method=fbp
pair-tiff|null --cols 512 --rows 128 --angles 601|1GiB|--format tiff
small-pair|null --cols 256 --rows 96 --angles 361|1GiB|
one|large --cols 2048 --rows 64 --angles 1201|1GiB|
one-slab|large --cols 2048 --rows 64 --angles 1201|3GiB|
one-fbp|large --cols 1024 --rows 64 --angles 801|1GiB|--set reconstruct.method=fbp
wide|large --cols 3072 --rows 32 --angles 3001|1GiB|
wide-3|large --cols 3072 --rows 32 --angles 3001|3GiB|
END
    return $beyond
}

failed=0
for part in $parts; do
    case $part in
    # one that is beyond does not keep the others from being shown
    forecast) forecast || failed=1 ;;
    *) "$part" ;;
    esac
done
exit $failed
