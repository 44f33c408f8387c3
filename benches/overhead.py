#!/usr/bin/env python3
"""What a run spends on reading, turning, writing and waiting, beside correcting and reconstructing.

    RUSTFLAGS="-C force-frame-pointers=yes" cargo build --release --target-dir target/stacks \\
        --config 'profile.release.package.tomodelta.debug="line-tables-only"'
    perf record --call-graph fp -F 199 -o run.perf target/stacks/release/tomodelta reconstruct ...
    benches/overhead.py run.perf target/stacks/release/tomodelta [WALL_SECONDS]

Every sample of CPU time goes to the innermost source file of this program in its stack (functions that the compiler put into
others included): work of the system, copies and page faults to whoever asked for them. Copies where frames become sinograms are
turning. With the wall time, what the cores idled is waiting. Beside that the severe count: all copies and fills of memory and all
page faults taken for overhead, those of the methods' own memory too.
"""

import collections
import os
import re
import subprocess
import sys

# the first that matches the source file, or, where the stack holds none, the symbol
KINDS = [
    ("reading", r"src/io/(?!volume|scratch)|rust_hdf5|inflate|zlib|tiff::|LZ4_decompress|pread64"),
    ("turning", r"src/io/scratch|src/pipeline/(rows|binned|halves)"),
    ("writing", r"src/io/volume|blake3|LZ4|blosc|shuffle|crc32|zarrs|fast_?copy|ext4|writeback|fdatasync"),
    ("light of every projection", r"src/correct/screen"),
    ("correcting", r"src/correct/|logf"),
    ("axis", r"src/center/|src/pipeline/(sample_radius|steady)"),
    ("reconstructing", r"src/reconstruct/|rustfft|realfft|sincos"),
    ("range of values", r"src/pipeline/reconstruct_scan"),
]
OVERHEAD = {"reading", "turning", "writing"}
COPY = r"memmove|memcpy|memset"
FAULT = r"page_fault|exc_page"


def samples(data):
    """Weight and stack of every sample; a frame is (address, symbol, where from), the innermost first."""
    text = subprocess.run(
        ["perf", "script", "-i", data, "-F", "comm,tid,period,ip,sym,dso"], capture_output=True, text=True, check=True,
    ).stdout
    taken = []
    for line in text.splitlines():
        if found := re.match(r"\s+([0-9a-f]+) (.*) \((.*)\)\s*$", line):
            taken[-1][1].append((int(found.group(1), 16), re.sub(r"\+0x[0-9a-f]+$", "", found.group(2)), found.group(3)))
        elif found := re.match(r"\S.*\s(\d+)\s*$", line):
            taken.append((int(found.group(1)), []))
    return taken


def source_files(binary, addresses):
    """The innermost file of `src/` that each address (an offset in the file of the program) was compiled from."""
    real = os.path.realpath(binary)
    program = subprocess.run(["readelf", "-lW", real], capture_output=True, text=True, check=True).stdout
    segments = [
        [int(number, 16) for number in line.split()[1:6]]
        for line in program.splitlines() if line.strip().startswith("LOAD")
    ]

    def virtual(address):
        for file_offset, virtual_at, _, in_file, _ in segments:
            if file_offset <= address < file_offset + in_file:
                return address - file_offset + virtual_at
        return address

    wanted = {address: virtual(address) for address in addresses}
    answer = subprocess.run(
        ["addr2line", "-a", "-i", "-e", real],
        input="\n".join(map(hex, sorted(set(wanted.values())))), capture_output=True, text=True, check=True,
    ).stdout
    files, current = {}, None
    for line in answer.splitlines():
        if re.fullmatch(r"0x[0-9a-f]+", line):
            current = int(line, 16)
        elif current not in files:
            own = re.search(r"(?:^|/)(src/[a-z0-9_/]+\.rs)", line)
            if own and "/rustc/" not in line and ".cargo" not in line:
                files[current] = own.group(1)
    return {address: files.get(at) for address, at in wanted.items()}


def main():
    data, binary = sys.argv[1:3]
    taken = samples(data)
    name = os.path.basename(binary)
    files = source_files(binary, {at for _, stack in taken for at, _, place in stack if os.path.basename(place) == name})
    if not any(files.values()):
        sys.exit("no source file was found: is this the program that ran, built with line tables and frame pointers?")
    kinds, details, severe = collections.Counter(), collections.defaultdict(collections.Counter), 0
    for period, stack in taken:
        symbols = [symbol for _, symbol, _ in stack] or ["?"]
        own = next((files[at] for at, _, _ in stack if files.get(at)), None)
        copied = re.search(COPY, symbols[0])
        faulted = any(re.search(FAULT, symbol) for symbol in symbols)
        if own == "src/correct/mod.rs" and re.search("memmove|memcpy", symbols[0]):
            kind = "turning"
        else:
            asked = [own] if own else symbols
            kind = next((kind for kind, words in KINDS if any(re.search(words, place) for place in asked)), "all else")
        kinds[kind] += period
        details[kind]["page faults" if faulted else "copies" if copied else own or symbols[0]] += period
        if kind in OVERHEAD or copied or faulted:
            severe += period
    total = sum(kinds.values())
    overhead = sum(kinds[kind] for kind in OVERHEAD)
    print(f"CPU {total / 1e9:.1f} s")
    for kind, period in kinds.most_common():
        mark = "*" if kind in OVERHEAD else " "
        most = ", ".join(f"{place} {100 * part / total:.1f}" for place, part in details[kind].most_common(6))
        print(f"{100 * period / total:5.1f} % {mark} {kind}  [{most}]")
    print(f"{100 * overhead / total:5.1f} % of the CPU time is overhead (*), {100 * severe / total:.1f} % by the severe count")
    if len(sys.argv) > 3:
        cores = len(os.sched_getaffinity(0))
        room = 1e9 * cores * float(sys.argv[3])
        idle = max(room - total, 0.0)
        both = [f"{100 * (part + idle) / room:.1f} %" for part in (overhead, severe)]
        print(f"{100 * idle / room:5.1f} % of {cores} cores x {sys.argv[3]} s idle; with what they idled {both[0]}, by the severe count {both[1]}")


if __name__ == "__main__":
    main()
