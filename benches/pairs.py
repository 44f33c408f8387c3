#!/usr/bin/env python3
"""Pairs of scans that share nothing with `tomodelta simulate`, run and scored: change found over true change, pulls, motion.

    python benches/pairs.py                       every pair of the table in RESULTS
    python benches/pairs.py grow photons=3000     one pair: both, new, loss, grow, shrink or none, with any of SETTINGS
    python benches/pairs.py table 18 25           some rows of the table

The sample: ellipsoids in a cylinder, with exact chords, averaged in transmission over 3 x 3 rays per pixel, so that edges are
blurred as a detector blurs them. The detector: Poisson noise, flats, darks, pixels whose gain differs between flats and
projections, whole columns of them, zingers. The scans are NXtomo files, run by `target/release/tomodelta run` (TOMODELTA names another one).
True sums are volumes of ellipsoids, cut at the slices that were measured. Needs numpy and h5py.
"""

import csv
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("TOMODELTA", str(ROOT / "target/release/tomodelta"))
COLS, ROWS = 200, 48
PIXEL_UM = 10.0
PER_CM = 1e4 / PIXEL_UM  # of 1/px
SETTINGS = {
    "seed": 1,
    "angles": 301,
    "arc": 180.0,  # degrees from the first to the last projection, which both ends belong to
    "photons": 5e4,  # in the open beam, of the reference
    "contrast": 0.01,  # of the spheres [1/px]: -1, 1 or 2 times; the cylinder has 0.012
    "flat": 1.0,  # height of the ellipsoids over their width; their other axes differ by the square root of it
    "changed": 15,  # of each sign
    "light": 1.0,  # of the target's scan, over the reference's
    "drift": 0.0,  # of the light within the target's scan, not seen by its flats
    "shift": (1.3, -0.8, 0.6),  # of the target's sample, voxels
    "turn": 0.0,  # about z, degrees
    "radius": 80.0,  # of the cylinder, px; above 100 it is wider than the detector
    "middle": (0.0, 0.0),  # where the cylinder stands beside the axis in the reference, px
    "wall": 0.0,  # attenuation of a tube of 4 px around the cylinder [1/px]
    "axis": (101.3, 99.8),  # px
    "wrong": 0.01,  # share of pixels with a gain wrong by 3 %
    "stripes": 0,  # whole columns with a gain wrong by 0.5 to 2 %
    "zingers": 2e-5,  # of all samples
    "backwards": 0,  # the target's angles run down
    "set": "",  # of the config, KEY=VALUE,KEY=VALUE
}
TABLE = [
    ("removed and new", "both", {}),
    ("turned by 1.3 degrees, `rigid`", "both", {"turn": 1.3, "set": "align.method=rigid"}),
    ("0.4 times the light in the second scan", "both", {"light": 0.4}),
    ("10 % wrong gains, ten times the zingers", "both", {"wrong": 0.1, "zingers": 2e-4}),
    ("121 projections", "both", {"angles": 121}),
    ("light that falls by 3 %, angles backwards", "both", {"drift": -0.03, "backwards": 1}),
    ("cylinder 1.2 times the detector", "both", {"radius": 120.0}),
    ("the same, axis moved by 5 px", "both", {"radius": 120.0, "axis": (101.3, 96.3)}),
    ("2500 photons, new spheres", "new", {"photons": 2500.0}),
    ("faint spheres", "both", {"contrast": 0.004}),
    ("fainter ones, smoothed", "both", {"contrast": 0.002, "set": "difference.smooth_sigma=1.5"}),
    ("fainter ones", "both", {"contrast": 0.002}),
    ("grown by a quarter of the radius", "grow", {}),
    ("shrunk to 0.7", "shrink", {}),
    ("unchanged", "none", {}),
    ("even detector, moved by 0.01 px", "both", {"wrong": 0.0, "shift": (0.01, 0.01, 0.0)}),
    ("even detector, moved by 0.5 px", "both", {"wrong": 0.0, "shift": (0.5, 0.3, 0.0)}),
    ("even detector, moved by 2 px", "both", {"wrong": 0.0, "shift": (1.7, -1.0, 0.4)}),
    ("moved and turned, stripes, zingers, truncated", "both",
     {"shift": (3.2, -2.1, 1.4), "turn": 0.7, "stripes": 8, "zingers": 1e-4, "radius": 110.0, "set": "align.method=rigid"}),
    ("moved and turned, stripes, zingers", "both",
     {"shift": (3.2, -2.1, 1.4), "turn": 0.7, "stripes": 8, "zingers": 1e-4, "set": "align.method=rigid"}),
    ("flat ellipsoids, cylinder beside the axis", "both", {"flat": 0.5, "middle": (9.0, -6.0), "stripes": 5}),
    ("0.2 times the light, stripes", "both", {"light": 0.2, "stripes": 5}),
    ("only loss, stripes", "loss", {"stripes": 5}),
    ("unchanged, not moved, stripes", "none", {"stripes": 5, "shift": (0.0, 0.0, 0.0)}),
    ("unchanged, moved by 5 px, stripes", "none", {"stripes": 5, "shift": (4.0, -3.0, 0.0)}),
    ("full turn, stripes", "both", {"arc": 360.0, "angles": 401, "stripes": 5}),
    ("61 projections", "both", {"angles": 61, "radius": 60.0}),
    ("moved by 12 px, turned by 2 degrees, `rigid`", "both",
     {"shift": (10.0, -7.0, 3.0), "turn": 2.0, "radius": 70.0, "set": "align.method=rigid"}),
    ("a tenth of the sample changes", "both", {"changed": 60}),
    ("low contrast, bright", "both", {"contrast": 0.003, "photons": 6e4, "angles": 601}),
    ("tube around the sample, turned by 3 degrees, `rigid`", "both",
     {"radius": 70.0, "wall": 0.05, "contrast": 0.004, "turn": 3.0, "set": "align.method=rigid"}),
    ("20000 photons, turned, `rigid`", "both", {"photons": 2e4, "turn": 0.8, "set": "align.method=rigid"}),
]


def place_spheres(random, radius, contrast, longest):
    """Centres from the middle of the volume, radii and contrasts [1/px] of bodies that do not touch, in any state."""
    reach = min(radius, 0.5 * COLS) - 12.0
    centres, radii = [], []
    while len(radii) < 180:
        r = random.uniform(1.5, 8.0)
        distance, angle = reach * math.sqrt(random.uniform()), random.uniform(0, 2 * math.pi)
        centre = np.array([distance * math.cos(angle), distance * math.sin(angle), random.uniform(-0.5, 0.5) * (ROWS - 1)])
        away = np.linalg.norm(np.reshape(centres, (-1, 3)) - centre, axis=1)
        if np.all(away > 1.25 * longest * (r + np.array(radii)) + 2):
            centres.append(centre)
            radii.append(r)
        elif random.uniform() < 1e-4:
            break  # full
    return np.array(centres), np.array(radii), contrast * random.choice([-1.0, 1.0, 2.0], len(radii))


def states(kind, random, radii, n):
    """Radii before and after. So many spheres come, go, grow or shrink."""
    before, after = radii.copy(), radii.copy()
    changed = random.permutation(len(radii))
    if kind in ("both", "new"):
        before[changed[:n]] = 0.0
    if kind in ("both", "loss"):
        after[changed[n : 2 * n]] = 0.0
    if kind == "grow":
        after[changed[:n]] *= 1.25
    if kind == "shrink":
        after[changed[:n]] *= 0.7
    return before, after


def cut_volume(r, flat, z, low, high):
    """Of an ellipsoid of half width r, scaled by `flat` in height, about height z, between two heights."""
    a, b = (np.clip((end - z) / flat, -r, r) for end in (low, high))
    return flat * math.pi * (r * r * (b - a) - (b**3 - a**3) / 3)


def project(angles, given, axis, centres, radii, contrast, middle, turn):
    """Transmission [angle, row, col]; `middle` is where the cylinder stands, `turn` how far the sample is turned."""
    columns = (np.arange(3 * COLS) - 1) / 3 - axis
    rows = (np.arange(3 * ROWS) - 1) / 3 - 0.5 * (ROWS - 1)
    out = np.empty((len(angles), ROWS, COLS), np.float32)
    long = given["flat"] ** -0.25  # half axes in the plane: r times it and over it, in height r times flat
    for number, angle in enumerate(angles):
        cos, sin = math.cos(angle), math.sin(angle)
        seen = columns - (middle[0] * cos - middle[1] * sin)
        chord = lambda r: 2 * np.sqrt(np.maximum(r**2 - seen**2, 0))
        body = 0.012 * chord(given["radius"]) + given["wall"] * (chord(given["radius"] + 4) - chord(given["radius"]))
        line = np.tile(body, (3 * ROWS, 1))
        for (x, y, z), r, value in zip(centres, radii, contrast):
            t = x * cos - y * sin
            # the shadow of an ellipse: half width w, chords as those of a circle of r times r / w
            own = angle + turn + 200 * r  # any direction, the same in both scans
            wide = math.hypot(r * long * math.cos(own), r / long * math.sin(own))
            high = r * given["flat"]
            i0, i1 = np.searchsorted(columns, (t - wide, t + wide))
            j0, j1 = np.searchsorted(rows, (z - high, z + high))
            square = 1 - ((columns[i0:i1] - t) / wide) ** 2 - (((rows[j0:j1] - z) / high) ** 2)[:, None]
            line[j0:j1, i0:i1] += 2 * value * r * r / wide * np.sqrt(np.maximum(square, 0))
        out[number] = np.exp(-line).reshape(ROWS, 3, COLS, 3).mean(axis=(1, 3))
    return out


def write_scan(path, random, transmission, degrees, photons, drift, gain, wrong, zingers):
    dark = 100.0
    light = photons * (1 + drift * np.linspace(0, 1, len(degrees)))[:, None, None]
    projections = random.poisson(light * transmission * gain * wrong) + dark + random.normal(0, 2, transmission.shape)
    hit = random.uniform(size=transmission.shape) < zingers
    projections[hit] += photons * random.uniform(0.3, 1.0, hit.sum())
    flats = random.poisson(photons * gain, (20, ROWS, COLS)) + dark
    darks = dark + random.normal(0, 2, (10, ROWS, COLS))
    frames = np.clip(np.rint(np.concatenate([flats, darks, projections])), 0, 65535).astype(np.uint16)
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXtomo"
        detector = entry.create_group("instrument/detector")
        entry["instrument"].attrs["NX_class"] = "NXinstrument"
        detector.attrs["NX_class"] = "NXdetector"
        detector.create_dataset("data", data=frames, chunks=(1, ROWS, COLS))
        detector["image_key"] = np.r_[np.ones(20, int), np.full(10, 2), np.zeros(len(degrees), int)]
        detector["x_pixel_size"] = PIXEL_UM
        detector["x_pixel_size"].attrs["units"] = "um"
        sample = entry.create_group("sample")
        sample.attrs["NX_class"] = "NXsample"
        sample["rotation_angle"] = np.r_[np.zeros(30), degrees]
        sample["rotation_angle"].attrs["units"] = "degrees"


def make_pair(folder, kind, given):
    """Writes both scans and their series; returns the ellipsoids (centres, radii before and after, contrasts, flatness) and the wrong pixels."""
    random = np.random.default_rng(given["seed"])
    centres, radii, contrast = place_spheres(random, given["radius"], given["contrast"], max(given["flat"] ** -0.25, given["flat"]))
    before, after = states(kind, random, radii, given["changed"])
    gain = 1 + 0.05 * random.normal(size=(ROWS, COLS))
    wrong = np.where(random.uniform(size=(ROWS, COLS)) < given["wrong"], 1.03, 1.0)
    striped = random.permutation(np.arange(10, COLS - 10))[: given["stripes"]]
    wrong[:, striped] *= 1 + random.choice([-1, 1], len(striped)) * random.uniform(0.005, 0.02, len(striped))
    shift, turn = np.array(given["shift"]), math.radians(given["turn"])
    rotation = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    middle = np.array([*given["middle"], 0.0])
    centres += middle
    degrees = np.linspace(0, given["arc"], given["angles"])
    for name, sizes, placed, middle, turn, axis, light, drift, order in (
        ("before", before, centres, middle, 0.0, given["axis"][0], 1.0, 0.0, 1),
        ("after", after, centres @ rotation.T + shift, rotation @ middle + shift, turn, given["axis"][1], given["light"],
         given["drift"], -1 if given["backwards"] else 1),
    ):
        there = sizes > 0
        seen = project(np.radians(degrees), given, axis, placed[there], sizes[there], contrast[there], middle, turn)
        write_scan(folder / f"{name}.nxs", random, seen[::order], degrees[::order], given["photons"] * light, drift, gain, wrong,
                   given["zingers"])
    (folder / "series.toml").write_text(
        '[series]\nname = "pair"\noutput = "out"\nreference = "before"\n'
        '[[scan]]\nname = "before"\npath = "before.nxs"\n[[scan]]\nname = "after"\npath = "after.nxs"\n'
    )
    return (centres, before, after, contrast, given["flat"]), wrong != 1.0


def true_sums(spheres, slices):
    """Of increase and decrease [1/cm], in the slices first to last."""
    centres, before, after, contrast, flat = spheres
    low, high = (end - 0.5 * (ROWS - 1) for end in (slices[0] - 0.5, slices[-1] + 0.5))
    cut = lambda radii: cut_volume(radii, flat, centres[:, 2], low, high)
    change = contrast * (cut(after) - cut(before)) * PER_CM
    return change[change > 0].sum(), -change[change < 0].sum()


def false_grains(out, spheres):
    """Grains whose middle lies in no ellipsoid that changed, nor within 3 voxels of one."""
    centres, before, after, _, flat = spheres
    changed = before != after
    reach = np.maximum(before, after)[changed] * max(1.0, flat, flat**-0.25) + 3
    places = centres[changed] + [0.5 * (COLS - 1), 0.5 * (COLS - 1), 0.5 * (ROWS - 1)]
    with open(out / "grains.csv", newline="") as table:
        grains = [[float(row[axis]) for axis in "xyz"] for row in csv.DictReader(table)]
    near = lambda grain: np.any(np.linalg.norm(places - grain, axis=1) < reach)
    return sum(not near(grain) for grain in grains), len(grains)


def score_lock(out, wrong):
    """Wrong pixels that the series lock took, of all, and good ones that it took."""
    taken = np.load(out / "stripes/pixels.npy")[0] > 0
    return f"{np.count_nonzero(taken & wrong)} of {np.count_nonzero(wrong)}, {np.count_nonzero(taken & ~wrong)}"


def score(folder, spheres, given):
    """The cells of a row: change found over true change, pulls, shift found less true shift, turn found less true turn."""
    out = folder / "out" / "differences" / "after"
    found, motion = (json.loads((out / f"{name}.json").read_text()) for name in ("difference", "alignment"))
    with open(out / "per_height.csv", newline="") as table:
        measured = [int(row["z"]) for row in csv.DictReader(table) if float(row["noise_per_cm"]) > 0]
    truth = true_sums(spheres, measured)
    ratios, pulls, below = [], [], []
    for sign, true in zip(("increase", "decrease"), truth):
        total, error = found[f"{sign}_sum"], found[f"{sign}_sum_err"]
        ratios.append(f"{total / true:.4f}" if true > 0 else f"none ({total:.3g})")
        pulls.append(f"{(total - true) / error:.1f}" if error > 0 else "-")
        below.append(f"{found[f'{sign}_below_sum'] / true:.3f}" if true > 0 else "-")
    off = ", ".join(f"{a - b:.3f}" for a, b in zip(motion["shift_voxel"], given["shift"]))
    turns = motion["rotation_deg"]
    turned = ", ".join(f"{a:.3f}" for a in (*turns[:2], turns[2] - given["turn"])) if motion["method"] == "rigid" else "-"
    wrong, grains = false_grains(out, spheres)
    grains = f"{grains} of {np.count_nonzero(spheres[1] != spheres[2])}, {wrong}"
    return f"{', '.join(ratios)} | {', '.join(pulls)} | {', '.join(below)} | {grains} | {off} | {turned}"


def run_pair(label, kind, changes):
    given = SETTINGS | changes
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        spheres, wrong = make_pair(folder, kind, given)
        settings = [word for pair in given["set"].split(",") if pair for word in ("--set", pair)]
        done = subprocess.run([PROGRAM, "run", str(folder / "series.toml"), "--device", "cpu", "-q", *settings],
                              capture_output=True, text=True)
        if done.returncode:
            print(f"| {label} | failed: {done.stderr.strip()} |", flush=True)
            return
        print(f"| {label} | {score(folder, spheres, given)} | {score_lock(folder / 'out', wrong)} |", flush=True)
        for warning in json.loads((folder / "out/run.json").read_text())["warnings"]:
            print(f"  {warning}", file=sys.stderr, flush=True)


def read_settings(words):
    given = {}
    for word in words:
        key, value = word.split("=", 1)
        if key not in SETTINGS:
            sys.exit(f"{key} is none of {', '.join(SETTINGS)}")
        default = SETTINGS[key]
        if isinstance(default, tuple):
            given[key] = tuple(float(part) for part in value.split(","))
        else:
            given[key] = type(default)(value)
    return given


if __name__ == "__main__":
    print("| pair | increase, decrease over truth | pulls | seen below the threshold | grains, of ellipsoids that changed, false | shift found - true, x y z [voxel] | rotation [degrees] | pixels the lock took of the wrong ones, good ones |")
    print("|---|---|---|---|---|---|---|---|")
    if sys.argv[1:2] == ["table"]:
        for pair in TABLE[int(sys.argv[2]) : int(sys.argv[3])]:
            run_pair(*pair)
    elif len(sys.argv) > 1:
        run_pair(" ".join(sys.argv[1:]), sys.argv[1], read_settings(sys.argv[2:]))
    else:
        for pair in TABLE:
            run_pair(*pair)
