#!/usr/bin/env python3
"""CPU time of the corrections beside Algotom's, method by method, on the same sinograms in the same run.

    python benches/correct.py [1501x1024] [3001x2048]

Needs Algotom (`pip install algotom`) and cargo. For each size the Rust benchmark `correct` runs once before and once after
Algotom's methods, and the lesser of both counts; of Algotom the lesser of two calls, after one on a small sinogram that compiles.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import algotom.prep.removal as removal  # noqa: E402
import numba  # noqa: E402
import numpy as np  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = {
    "zinger": lambda s: removal.remove_zinger(s, 0.08, size=2),
    "sorting": removal.remove_stripe_based_sorting,
    "filtering": removal.remove_stripe_based_filtering,
    "fitting": removal.remove_stripe_based_fitting,
    "large": removal.remove_large_stripe,
    "dead": removal.remove_dead_stripe,
    "all": removal.remove_all_stripe,
    "interpolation": removal.remove_stripe_based_interpolation,
    "normalization": removal.remove_stripe_based_normalization,
    "wavelet-fft": removal.remove_stripe_based_wavelet_fft,
    "regularization": removal.remove_stripe_based_regularization,
    "fft": removal.remove_stripe_based_fft,
}


@numba.njit
def sinogram(n_angles, n_cols):
    """The sinogram of benches/correct.rs, number by number (up to the last bits of exp, sin and cos)."""
    state = np.uint64(7)
    out = np.empty((n_angles, n_cols), np.float32)
    factor, term = np.uint64(6364136223846793005), np.uint64(1442695040888963407)
    for angle in range(n_angles):
        turn = angle / n_angles
        for col in range(n_cols):
            t = 2.0 * col / n_cols - 1.0
            chord = np.sqrt(max(0.8 - (t - 0.1 * np.cos(3.1 * turn)) ** 2, 0.0))
            kind = col % 173
            if kind == 31:
                gain = 0.95
            elif (kind == 60 or kind == 61) and turn < 0.45:
                gain = 1.06
            elif kind == 90:
                state = state * factor + term
                gain = 1.0 + 0.3 * ((state >> np.uint64(40)) / 16777216.0 - 0.5)
            else:
                gain = 1.0 + 0.004 * ((col * 7919 % 101) / 101.0 - 0.5)
            state = state * factor + term
            zinger = 1.0 if (state >> np.uint64(40)) / 16777216.0 < 2e-5 else 0.0
            if col % 431 == 120:
                light = 0.35
            else:
                light = np.exp(-chord * (1.0 + 0.1 * np.sin(9.0 * t + 5.0 * turn)))
            state = state * factor + term
            a = (state >> np.uint64(40)) / 16777216.0
            state = state * factor + term
            b = (state >> np.uint64(40)) / 16777216.0
            out[angle, col] = light * gain + 0.02 * (a + b - 1.0) + zinger
    return out


def ours(size):
    """CPU time of each method [ms]."""
    command = ["cargo", "bench", "-q", "--bench", "correct", "--", f"/{size}$"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    times = {}
    for path in target.glob(f"criterion/correct/*/{size}/new/estimates.json"):
        times[path.parts[-4]] = json.loads(path.read_text())["median"]["point_estimate"] * 1e-6
    return times


def algotom(method, data):
    """CPU time of one call [ms], or why there is none."""
    best = float("inf")
    try:
        METHODS[method](data[:181, :256].copy())
        for _ in range(2):
            given = data.copy()
            began = time.process_time()
            METHODS[method](given)
            best = min(best, time.process_time() - began)
    except Exception as error:  # it refuses rows whose factors are too alike
        return str(error)
    return 1e3 * best


for size in sys.argv[1:] or ["1501x1024", "3001x2048"]:
    n_angles, n_cols = map(int, size.split("x"))
    data = sinogram(n_angles, n_cols)
    first = ours(size)
    theirs = {method: algotom(method, data) for method in METHODS}
    second = ours(size)
    print(f"| {size} | tomodelta [CPU ms] | Algotom [CPU ms] | ratio |\n|---|---|---|---|")
    for method in sorted(first, key=lambda name: list(METHODS).index(name.split(",")[0])):
        own = min(first[method], second[method])
        other = theirs[method] if method in theirs else theirs["zinger"]
        if isinstance(other, str):
            print(f"| {method} | {own:.1f} | {other} | |")
        else:
            print(f"| {method} | {own:.1f} | {other:.0f} | {other / own:.0f} |")
