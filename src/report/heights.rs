//! What changed at which height, and the grains (figures 4e and 5c-f of the reference experiment).

use super::axes::{Axis, Panel, legend, note};
use super::canvas::{Anchor, BLACK, BLUE, Canvas, RED, Rgb};
use super::gather::Change;
use crate::record::PerHeightRow;

/// Groups of slices over which grains are averaged, at most.
const GROUPS: usize = 50;

/// Height of a slice, in the unit of [`Change::length`].
fn height(change: &Change, z: f64) -> f64 {
    z * change.length().0
}

/// The axis of heights, downwards as in the sections.
fn height_axis(change: &Change) -> Axis {
    let n = change.per_height.len().max(1) as f64;
    Axis::new(
        height(change, n),
        0.0,
        &format!("height [{}]", change.length().1),
    )
}

/// Two panels side by side that share the axis of heights.
fn two_panels(change: &Change, left: Axis, right: Axis) -> (Canvas, [Panel; 2]) {
    let canvas = Canvas::new(860.0, 480.0);
    let y = height_axis(change);
    let panels = [
        Panel {
            low: [80.0, 44.0],
            high: [450.0, 425.0],
            x: left,
            y: y.clone(),
        },
        Panel {
            low: [475.0, 44.0],
            high: [845.0, 425.0],
            x: right,
            y,
        },
    ];
    (canvas, panels)
}

fn title(canvas: &mut Canvas, change: &Change, what: &str) {
    let text = format!(
        "{what}: {} \u{2212} {}",
        change.record.target, change.record.reference
    );
    canvas.bold_text([80.0, 20.0], text, 14.0, Anchor::Start);
}

fn names() -> Vec<(Rgb, String)> {
    vec![(RED, "increase".into()), (BLUE, "decrease".into())]
}

/// Area between 0 and a curve over height, and its line.
fn filled_profile(canvas: &mut Canvas, panel: &Panel, points: &[[f64; 2]], colour: Rgb) {
    if points.is_empty() {
        return;
    }
    let mut outline: Vec<[f64; 2]> = points.iter().map(|p| panel.at(p[0], p[1])).collect();
    outline.push(panel.at(0.0, points[points.len() - 1][1]));
    outline.push(panel.at(0.0, points[0][1]));
    canvas.polygon(outline, colour, 0.18);
    panel.curve(canvas, points, colour, 1.6);
}

/// Band of one standard deviation around a curve over height: `[value, height, error]`.
fn band(canvas: &mut Canvas, panel: &Panel, points: &[[f64; 3]], colour: Rgb) {
    let finite: Vec<[f64; 3]> = points
        .iter()
        .copied()
        .filter(|p| p.iter().all(|v| v.is_finite()))
        .collect();
    let mut outline: Vec<[f64; 2]> = finite.iter().map(|p| panel.at(p[0] + p[2], p[1])).collect();
    outline.extend(finite.iter().rev().map(|p| panel.at(p[0] - p[2], p[1])));
    canvas.polygon(outline, colour, 0.25);
    panel.curve(
        canvas,
        &finite.iter().map(|p| [p[0], p[1]]).collect::<Vec<_>>(),
        colour,
        1.6,
    );
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    let most = values.filter(|v| v.is_finite()).fold(0.0, f64::max);
    if most > 0.0 { 1.08 * most } else { 1.0 }
}

/// Volume of increase and decrease per slice, and the summed change (or the mass) with one standard deviation.
pub(super) fn per_height(change: &Change) -> Canvas {
    let rows = &change.per_height;
    let (voxel, cubic) = change.cubic();
    let volume = |voxels: u64| voxels as f64 * voxel;
    let left = Axis::new(
        0.0,
        largest(
            rows.iter()
                .map(|r| volume(r.increase_voxels.max(r.decrease_voxels))),
        ),
        &format!("changed volume per slice [{cubic}]"),
    );
    let (series, axis_title) = right_series(change);
    let top = largest(series.iter().flat_map(|s| {
        s.2.iter()
            .map(|p| p[0] + if p[2].is_finite() { p[2] } else { 0.0 })
    }));
    let bottom = -largest(series.iter().flat_map(|s| {
        s.2.iter()
            .map(|p| -(p[0] - if p[2].is_finite() { p[2] } else { 0.0 }))
    }));
    let bottom = if series.iter().any(|s| s.2.iter().any(|p| p[0] < 0.0)) {
        bottom
    } else {
        0.0
    };
    let (mut canvas, [a, b]) = two_panels(change, left, Axis::new(bottom, top, &axis_title));
    title(&mut canvas, change, "change over height");
    a.grid(&mut canvas);
    b.grid(&mut canvas);
    let profile = |value: fn(&PerHeightRow) -> u64| -> Vec<[f64; 2]> {
        rows.iter()
            .map(|r| [volume(value(r)), height(change, r.z as f64 + 0.5)])
            .collect()
    };
    filled_profile(&mut canvas, &a, &profile(|r| r.increase_voxels), RED);
    filled_profile(&mut canvas, &a, &profile(|r| r.decrease_voxels), BLUE);
    for (colour, _, points) in &series {
        band(&mut canvas, &b, points, *colour);
    }
    if bottom < 0.0 {
        canvas.dashed(b.at(0.0, b.y.from), b.at(0.0, b.y.to), BLACK, 0.8);
    }
    a.frame(&mut canvas, true);
    b.frame(&mut canvas, false);
    legend(&mut canvas, [444.0, 50.0], &names());
    let named: Vec<(Rgb, String)> = series
        .into_iter()
        .map(|(colour, name, _)| (colour, name))
        .collect();
    legend(&mut canvas, [839.0, 50.0], &named);
    canvas
}

type Series = (Rgb, String, Vec<[f64; 3]>);

/// Masses where they are known, else the summed change; `[value, height, error]`.
fn right_series(change: &Change) -> (Vec<Series>, String) {
    let rows = &change.per_height;
    let points = |value: &dyn Fn(&PerHeightRow) -> [f64; 2]| -> Vec<[f64; 3]> {
        rows.iter()
            .map(|r| {
                let [v, e] = value(r);
                [v, height(change, r.z as f64 + 0.5), e]
            })
            .collect()
    };
    if rows.iter().any(|r| r.net_ug.is_some()) {
        let of = |v: Option<f64>| v.unwrap_or(f64::NAN);
        let series = vec![
            (
                RED,
                "increase".to_string(),
                points(&|r| [of(r.increase_ug), 0.0]),
            ),
            (
                BLUE,
                "decrease".to_string(),
                points(&|r| [of(r.decrease_ug), 0.0]),
            ),
            (
                BLACK,
                "net, ±1σ".to_string(),
                points(&|r| [of(r.net_ug), of(r.net_ug_err)]),
            ),
        ];
        return (series, "mass per slice [µg]".into());
    }
    let series = vec![
        (
            RED,
            "increase, ±1σ".to_string(),
            points(&|r| [r.increase_sum_per_cm, r.increase_sum_err]),
        ),
        (
            BLUE,
            "decrease, ±1σ".to_string(),
            points(&|r| [r.decrease_sum_per_cm, r.decrease_sum_err]),
        ),
    ];
    (
        series,
        format!("summed change per slice [{} · voxel]", change.record.unit),
    )
}

/// Grains of one sign in one group of slices.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    n: f64,
    sum: f64,
    squares: f64,
}

impl Group {
    fn mean(&self) -> f64 {
        if self.n > 0.0 {
            self.sum / self.n
        } else {
            f64::NAN
        }
    }

    /// Standard error of the mean; not known for a single grain.
    fn error(&self) -> f64 {
        if self.n < 2.0 {
            return 0.0;
        }
        let mean = self.mean();
        ((self.squares / self.n - mean * mean).max(0.0) / (self.n - 1.0)).sqrt()
    }
}

/// Number and mean volume of the grains against height, grains counted where their centroid lies.
pub(super) fn grains_per_height(change: &Change) -> Canvas {
    let n_z = change.per_height.len().max(1);
    let step = n_z.div_ceil(GROUPS).max(1);
    let n_groups = n_z.div_ceil(step);
    let voxel = change.cubic().0;
    let mut groups = [
        vec![Group::default(); n_groups],
        vec![Group::default(); n_groups],
    ];
    for grain in &change.grains {
        let group = ((grain.z.max(0.0) / step as f64) as usize).min(n_groups - 1);
        let volume = grain.voxels as f64 * voxel;
        let group = &mut groups[usize::from(grain.sign < 0)][group];
        group.n += 1.0;
        group.sum += volume;
        group.squares += volume * volume;
    }
    let most = largest(groups.iter().flatten().map(|g| g.n));
    let most_volume = largest(groups.iter().flatten().map(|g| g.mean() + g.error()));
    let per = if step == 1 {
        "per slice".to_string()
    } else {
        format!("per {step} slices")
    };
    let (mut canvas, [a, b]) = two_panels(
        change,
        Axis::new(0.0, most, &format!("grains {per}")),
        Axis::new(
            0.0,
            most_volume,
            &format!("mean volume of a grain [{}]", change.cubic().1),
        ),
    );
    title(&mut canvas, change, "grains over height");
    a.grid(&mut canvas);
    b.grid(&mut canvas);
    for (side, colour) in [(0, RED), (1, BLUE)] {
        let mut staircase = Vec::new();
        for (k, group) in groups[side].iter().enumerate() {
            let ends = [k * step, ((k + 1) * step).min(n_z)].map(|z| height(change, z as f64));
            staircase.extend(ends.map(|h| [group.n, h]));
            let middle = (ends[0] + ends[1]) / 2.0;
            if group.n > 0.0 {
                let (mean, error) = (group.mean(), group.error());
                canvas.line(
                    vec![b.at(mean - error, middle), b.at(mean + error, middle)],
                    colour,
                    1.2,
                );
                canvas.dot(b.at(mean, middle), 2.6, colour);
            }
        }
        filled_profile(&mut canvas, &a, &staircase, colour);
    }
    a.frame(&mut canvas, true);
    b.frame(&mut canvas, false);
    if change.grains.is_empty() {
        note(&mut canvas, &a, "no grains");
        note(&mut canvas, &b, "no grains");
    }
    legend(&mut canvas, [444.0, 50.0], &names());
    canvas
}

/// Distribution of the volumes of the grains, both axes logarithmic, five bins per decade.
pub(super) fn grain_sizes(change: &Change) -> Canvas {
    let mut canvas = Canvas::new(640.0, 430.0);
    let (voxel, cubic) = change.cubic();
    let volumes: Vec<(f64, bool)> = change
        .grains
        .iter()
        .map(|g| (g.voxels as f64 * voxel, g.sign < 0))
        .collect();
    let least = volumes.iter().map(|v| v.0).fold(f64::INFINITY, f64::min);
    let most = volumes.iter().map(|v| v.0).fold(0.0, f64::max);
    let x = if volumes.is_empty() {
        Axis::log(voxel, 1e3 * voxel, "")
    } else {
        Axis::log(least, most, "")
    };
    let (first, decades) = (x.from.log10().round(), (x.to / x.from).log10().round());
    let bins = (5.0 * decades) as usize;
    let mut counts = [vec![0u64; bins], vec![0u64; bins]];
    for (volume, falling) in &volumes {
        let bin = ((volume.log10() - first) * 5.0 + 1e-9)
            .floor()
            .clamp(0.0, bins as f64 - 1.0) as usize;
        counts[usize::from(*falling)][bin] += 1;
    }
    let highest = counts.iter().flatten().copied().max().unwrap_or(1).max(1) as f64;
    let x = Axis {
        title: format!("volume of a grain [{cubic}]"),
        ..x
    };
    let y = Axis {
        from: 0.5,
        to: 10f64.powf((1.3 * highest).log10().ceil()),
        log: true,
        ..Axis::log(1.0, 10.0, "grains")
    };
    let panel = Panel {
        low: [80.0, 44.0],
        high: [620.0, 375.0],
        x,
        y,
    };
    title(&mut canvas, change, "sizes of the grains");
    for decade in 0..6 {
        let value = 10f64.powi(decade);
        if value < panel.y.to {
            let y = panel.at(panel.x.from, value)[1];
            canvas.line(vec![[80.0, y], [620.0, y]], super::canvas::LIGHT, 0.6);
        }
    }
    for (side, colour) in [(0, RED), (1, BLUE)] {
        for (bin, &n) in counts[side].iter().enumerate().filter(|(_, n)| **n > 0) {
            // the two signs stand beside each other within their bin
            let edge = |share: f64| 10f64.powf(first + (bin as f64 + share) / 5.0);
            let from = 0.08 + 0.42 * side as f64;
            canvas.rect(
                panel.at(edge(from), n as f64),
                panel.at(edge(from + 0.42), panel.y.from),
                colour,
                0.85,
            );
        }
    }
    panel.frame(&mut canvas, true);
    if volumes.is_empty() {
        note(&mut canvas, &panel, "no grains");
    }
    let counted = |falling: bool| volumes.iter().filter(|v| v.1 == falling).count();
    let entries = [
        (RED, format!("increase ({} grains)", counted(false))),
        (BLUE, format!("decrease ({} grains)", counted(true))),
    ];
    legend(&mut canvas, [614.0, 50.0], &entries);
    canvas
}
