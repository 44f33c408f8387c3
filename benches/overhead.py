#!/usr/bin/env python3
"""What a run spends on reading, writing, turning and waiting, beside correcting and reconstructing.

    perf record -F 499 -o run.perf target/release/tomodelta reconstruct ...
    benches/overhead.py run.perf target/release/tomodelta [WALL_SECONDS]

Every sample of CPU time goes to the source file of this program that it was taken in (functions that the compiler put into
others included), or else to the library or system function. Needs a build with line tables:
    cargo build --release --config 'profile.release.package.tomodelta.debug="line-tables-only"'
Copies and fills of memory, and page faults, are counted as overhead, whoever asked for them. With the wall time, what the
cores idled is counted as waiting.
"""

import collections
import os
import re
import subprocess
import sys

# the first that matches the source file or the symbol
KINDS = [
    ("reading", r"src/io/(hdf5|tiff|npy|stall|assemble)|rust_hdf5|inflate|zlib|tiff::|LZ4_decompress"),
    ("turning", r"src/io/scratch"),
    ("writing", r"src/io/volume|blake3|LZ4|blosc|shuffle|crc32|zarrs|fast_copy"),
    ("light of every projection", r"src/correct/screen"),
    ("correcting", r"src/correct/|logf"),
    ("axis", r"src/center/|src/pipeline/sample_radius"),
    ("reconstructing", r"src/reconstruct/|rustfft|realfft|sincos|fourier"),
    ("range of values", r"src/pipeline/reconstruct_scan"),
    ("page faults", r"page_fault|clear_page|_fault|_vma|vma_|^do_mmap|_mmap$|folio_add|charge|lru_|alloc_pages|rmqueue|free_unref|zap_|unmap|_pte|pte_|release_pages|tlb"),
    ("copies in the system", r"copy_folio|copy_to_iter|_copy_|copy_page|copy_user|rep_movs|ext4|jbd2|block|blk_|bio_|xas_|filemap|folio|writeback|iomap|truncate"),
    ("copies in the program", r"memmove|memcpy|memset"),
]
OVERHEAD = {"reading", "turning", "writing", "page faults", "copies in the system", "copies in the program"}


def samples(data):
    text = subprocess.run(
        ["perf", "script", "-i", data, "-F", "period,ip,sym,dso", "--show-mmap-events"],
        capture_output=True, text=True, check=True,
    ).stdout
    maps, taken = [], []
    for line in text.splitlines():
        found = re.search(r"PERF_RECORD_MMAP2? .*?\[(0x[0-9a-f]+)\((0x[0-9a-f]+)\) @ (0x[0-9a-f]+|0) .*\]: \S+ (\S+)", line)
        if found:
            start, length, offset = (int(number, 16) for number in found.groups()[:3])
            maps.append((start, length, offset, found.group(4)))
            continue
        found = re.match(r"\s*(\d+)\s+([0-9a-f]+) (.*) \((.*)\)\s*$", line)
        if found:
            taken.append((int(found.group(1)), int(found.group(2), 16), found.group(3), found.group(4)))
    return maps, taken


def source_files(binary, maps, addresses):
    """The innermost file of `src/` that each address was compiled from."""
    real = os.path.realpath(binary)
    program = subprocess.run(["readelf", "-lW", real], capture_output=True, text=True, check=True).stdout
    segments = [
        [int(number, 16) for number in line.split()[1:6]]
        for line in program.splitlines() if line.strip().startswith("LOAD")
    ]

    def virtual(address):
        for start, length, offset, path in maps:
            if start <= address < start + length and os.path.realpath(path) == real:
                at = address - start + offset
                for file_offset, virtual_at, _, in_file, _ in segments:
                    if file_offset <= at < file_offset + in_file:
                        return at - file_offset + virtual_at
        return None

    wanted = {address: virtual(address) for address in addresses}
    asked = sorted({at for at in wanted.values() if at is not None})
    answer = subprocess.run(
        ["addr2line", "-a", "-i", "-e", real], input="\n".join(map(hex, asked)), capture_output=True, text=True, check=True,
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
    maps, taken = samples(data)
    own = {ip for _, ip, _, dso in taken if os.path.basename(dso) == os.path.basename(binary)}
    files = source_files(binary, maps, own)
    kinds, details = collections.Counter(), collections.defaultdict(collections.Counter)
    for period, ip, symbol, _ in taken:
        symbol = re.sub(r"\+0x[0-9a-f]+$", "", symbol)
        place = files.get(ip) or symbol
        kind = next((kind for kind, words in KINDS if re.search(words, place)), "all else")
        kinds[kind] += period
        details[kind][place] += period
    total = sum(kinds.values())
    seconds = total / 1e9
    overhead = sum(kinds[kind] for kind in OVERHEAD) / 1e9
    print(f"CPU {seconds:.1f} s")
    for kind, period in kinds.most_common():
        mark = "*" if kind in OVERHEAD else " "
        most = ", ".join(f"{place} {100 * part / total:.1f}" for place, part in details[kind].most_common(6))
        print(f"{100 * period / total:5.1f} % {mark} {kind}  [{most}]")
    print(f"{100 * overhead / seconds:5.1f} % of the CPU time is overhead (*)")
    if len(sys.argv) > 3:
        cores = len(os.sched_getaffinity(0))
        room = cores * float(sys.argv[3])
        idle = max(room - seconds, 0.0)
        print(f"{100 * idle / room:5.1f} % of {cores} cores x {sys.argv[3]} s idle; overhead and idle together {100 * (overhead + idle) / room:.1f} %")


if __name__ == "__main__":
    main()
