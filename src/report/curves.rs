//! Histogram of the change, rotation axis over height, growth over a series, voltage.

use std::path::{Path, PathBuf};

use super::axes::{Axis, Panel, legend, note};
use super::canvas::{Anchor, BLACK, BLUE, Canvas, GREY, RED, Rgb, SERIES};
use super::clock;
use super::gather::{Change, Run, Scan};
use crate::config::ElectrochemistryConfig;

/// Distribution of the change with the normal distribution of its noise and the thresholds.
pub(super) fn histogram(change: &Change) -> Canvas {
    let mut canvas = Canvas::new(640.0, 430.0);
    let record = &change.record;
    let rows: Vec<_> = change
        .histogram
        .iter()
        .filter(|r| r.low_per_cm.is_finite() && r.high_per_cm.is_finite())
        .collect();
    let reach = rows
        .iter()
        .filter(|r| r.voxels > 0)
        .map(|r| r.low_per_cm.abs().max(r.high_per_cm.abs()))
        .fold(1.5 * record.threshold.abs(), f64::max);
    let highest = rows.iter().map(|r| r.voxels).max().unwrap_or(1).max(1) as f64;
    let mut y = Axis::log(1.0, 1.5 * highest, "voxels per bin");
    y.from = 0.5;
    let x = Axis::new(
        -1.02 * reach,
        1.02 * reach,
        &format!("change of attenuation [{}]", record.unit),
    );
    let panel = Panel {
        low: [80.0, 44.0],
        high: [620.0, 375.0],
        x,
        y,
    };
    let text = format!(
        "distribution of the change: {} \u{2212} {}",
        record.target, record.reference
    );
    canvas.bold_text([80.0, 20.0], text, 14.0, Anchor::Start);
    panel.grid(&mut canvas);
    for row in rows.iter().filter(|r| r.voxels > 0) {
        let middle = 0.5 * (row.low_per_cm + row.high_per_cm);
        let colour = if middle > record.threshold {
            RED
        } else if middle < -record.threshold {
            BLUE
        } else {
            [150, 150, 150]
        };
        canvas.rect(
            panel.at(row.low_per_cm, row.voxels as f64),
            panel.at(row.high_per_cm, panel.y.from),
            colour,
            1.0,
        );
    }
    let width = rows.first().map_or(0.0, |r| r.high_per_cm - r.low_per_cm);
    if record.noise > 0.0 && width > 0.0 {
        let scale =
            record.voxels as f64 * width / (record.noise * (2.0 * std::f64::consts::PI).sqrt());
        let normal: Vec<[f64; 2]> = (-400..=400)
            .map(|k| reach * f64::from(k) / 400.0)
            .map(|d| [d, scale * (-0.5 * (d / record.noise).powi(2)).exp()])
            .filter(|p| p[1] >= panel.y.from)
            .collect();
        panel.curve(&mut canvas, &normal, BLACK, 1.6);
    }
    for threshold in [-record.threshold, record.threshold] {
        canvas.dashed(
            panel.at(threshold, panel.y.from),
            panel.at(threshold, panel.y.to),
            GREY,
            1.3,
        );
    }
    panel.frame(&mut canvas, true);
    let entries = [
        (RED, format!("increase: {} voxels", record.increase_voxels)),
        (BLUE, format!("decrease: {} voxels", record.decrease_voxels)),
        (BLACK, format!("noise, σ = {:.3}", record.noise)),
        (GREY, format!("threshold {:.3}", record.threshold)),
    ];
    legend(&mut canvas, [614.0, 50.0], &entries);
    canvas
}

/// The answers of every method over the detector rows, with the line that was taken.
pub(super) fn rotation_axis(scan: &Scan) -> Canvas {
    let mut canvas = Canvas::new(640.0, 400.0);
    let fit = &scan.record.rotation_axis;
    let last = scan.record.n_rows.max(2) as f64 - 1.0;
    let ends = [fit.at(0.0), fit.at(last)];
    let mut low = ends[0].min(ends[1]) - 3.0 * fit.uncertainty_px.max(0.05);
    let mut high = ends[0].max(ends[1]) + 3.0 * fit.uncertainty_px.max(0.05);
    for value in fit
        .methods
        .values()
        .flat_map(|m| &m.axis_px)
        .filter(|v| v.is_finite())
    {
        low = low.min(value - 0.1);
        high = high.max(value + 0.1);
    }
    let panel = Panel {
        low: [90.0, 44.0],
        high: [620.0, 345.0],
        x: Axis::new(0.0, last, "detector row"),
        y: Axis::new(low, high, "rotation axis [px]"),
    };
    canvas.bold_text(
        [90.0, 20.0],
        format!("rotation axis of {}", scan.record.name),
        14.0,
        Anchor::Start,
    );
    panel.grid(&mut canvas);
    let e = fit.uncertainty_px;
    let band = vec![
        panel.at(0.0, ends[0] - e),
        panel.at(last, ends[1] - e),
        panel.at(last, ends[1] + e),
        panel.at(0.0, ends[0] + e),
    ];
    canvas.polygon(band, GREY, 0.25);
    canvas.line(
        vec![panel.at(0.0, ends[0]), panel.at(last, ends[1])],
        BLACK,
        1.4,
    );
    let mut entries = vec![(
        BLACK,
        format!("taken: {:.2} ± {:.2} px", fit.axis_px, fit.uncertainty_px),
    )];
    for (k, (name, answers)) in fit.methods.iter().enumerate() {
        let colour = SERIES[k % SERIES.len()];
        for (row, value) in answers
            .rows
            .iter()
            .zip(&answers.axis_px)
            .filter(|(_, v)| v.is_finite())
        {
            canvas.dot(panel.at(*row, *value), 3.5, colour);
        }
        entries.push((colour, name.clone()));
    }
    panel.frame(&mut canvas, true);
    legend(&mut canvas, [614.0, 50.0], &entries);
    canvas
}

/// Where scans stand on a common time axis \[h\] since the first of them, where every one has a time.
fn hours(run: &Run, names: &[&str]) -> Option<Vec<f64>> {
    let of = |name: &str| {
        let scan = run.scans.iter().find(|scan| scan.record.name == name)?;
        clock::seconds(scan.record.time.as_deref()?)
    };
    let first = run
        .record
        .scans
        .iter()
        .filter_map(|name| of(name))
        .fold(f64::INFINITY, f64::min);
    names
        .iter()
        .map(|name| of(name).map(|s| (s - first) / 3600.0))
        .collect()
}

/// A Faraday mass beyond this multiple of everything else would flatten the rest and is left out of the picture.
const OFF_SCALE: f64 = 5.0;

/// Volume (and mass) of increase and decrease over the scans of the series; 0 at the reference where they share one.
pub(super) fn growth(run: &Run) -> Canvas {
    let reference = run.changes.first().map(|c| c.record.reference.as_str());
    let shared = reference.filter(|first| run.changes.iter().all(|c| c.record.reference == *first));
    let names: Vec<&str> = shared
        .into_iter()
        .chain(run.changes.iter().map(|c| c.record.target.as_str()))
        .collect();
    let times = hours(run, &names);
    let first = if shared.is_some() { 0 } else { 1 };
    let places: Vec<f64> = times
        .clone()
        .unwrap_or_else(|| (first..first + names.len()).map(|k| k as f64).collect());
    let mut canvas = Canvas::new(860.0, 420.0);
    canvas.bold_text([80.0, 20.0], "growth over the series", 14.0, Anchor::Start);
    let (least, most) = places
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &p| {
            (a.min(p), b.max(p))
        });
    let margin = 0.06 * (most - least).max(0.5);
    let title = if times.is_some() {
        "time since the first scan [h]"
    } else {
        "scan of the series"
    };
    let x = Axis::new(least - margin, most + margin, title);
    let line = |colour: Rgb, name: &str, value: &dyn Fn(&Change) -> [f64; 2]| -> Line {
        let zero = shared.map(|_| [0.0, 0.0]);
        (
            colour,
            name.to_string(),
            zero.into_iter()
                .chain(run.changes.iter().map(value))
                .collect(),
        )
    };
    let cubic = run.changes.first().map_or("voxels", |c| c.cubic().1);
    let volumes = vec![
        line(RED, "increase", &|c| {
            [c.record.increase_voxels as f64 * c.cubic().0, 0.0]
        }),
        line(BLUE, "decrease", &|c| {
            [c.record.decrease_voxels as f64 * c.cubic().0, 0.0]
        }),
    ];
    let unit = run.changes.first().map_or("", |c| c.record.unit.as_str());
    let (sums, right) = if run.changes.iter().all(|c| c.record.mass.is_some()) {
        (mass_lines(&line), "mass [µg]".to_string())
    } else {
        let sums = vec![
            line(RED, "increase, ±1σ", &|c| {
                [c.record.increase_sum, c.record.increase_sum_err]
            }),
            line(BLUE, "decrease, ±1σ", &|c| {
                [c.record.decrease_sum, c.record.decrease_sum_err]
            }),
        ];
        (sums, format!("summed change [{unit} · voxel]"))
    };
    for (k, (lines, title)) in [
        (volumes, format!("changed volume [{cubic}]")),
        (sums, right),
    ]
    .into_iter()
    .enumerate()
    {
        let offset = 430.0 * k as f64;
        let bounds = lines
            .iter()
            .flat_map(|l| &l.2)
            .flat_map(|p| [p[0] - p[1], p[0] + p[1]])
            .filter(|v| v.is_finite());
        let (low, high) = bounds.fold((0f64, 0f64), |(a, b), v| (a.min(v), b.max(v)));
        let y = Axis::new(1.08 * low, 1.08 * high, &title);
        let panel = Panel {
            low: [80.0 + offset, 44.0],
            high: [410.0 + offset, 365.0],
            x: x.clone(),
            y,
        };
        lines_panel(&mut canvas, &panel, &places, &lines);
    }
    canvas
}

/// Masses, and the mass that the charge moves where it is of their size.
fn mass_lines(line: &LineOf<'_>) -> Vec<Line> {
    type Of = fn(&crate::record::MassRecord) -> [f64; 2];
    let of = |colour: Rgb, name: &str, value: Of| {
        line(colour, name, &|c| {
            c.record.mass.as_ref().map_or([f64::NAN; 2], value)
        })
    };
    let mut lines = vec![
        of(RED, "increase", |m| [m.increase_ug, 0.0]),
        of(BLUE, "decrease", |m| [m.decrease_ug, 0.0]),
        of(BLACK, "net, ±1σ", |m| [m.net_ug, m.net_err_ug]),
    ];
    let largest = |lines: &[Line]| {
        lines
            .iter()
            .flat_map(|l| &l.2)
            .map(|v| v[0].abs())
            .filter(|v| v.is_finite())
            .fold(0.0, f64::max)
    };
    let charge = of(GREY, "charge (Faraday)", |m| {
        [m.faraday_ug.unwrap_or(f64::NAN), 0.0]
    });
    if largest(std::slice::from_ref(&charge)) <= OFF_SCALE * largest(&lines) {
        lines.push(charge);
    }
    lines
}

/// Makes a line of a colour and a name from what it takes of each difference.
type LineOf<'a> = dyn Fn(Rgb, &str, &dyn Fn(&Change) -> [f64; 2]) -> Line + 'a;

/// Colour, name, and `[value, error]` for each scan.
type Line = (Rgb, String, Vec<[f64; 2]>);

fn lines_panel(canvas: &mut Canvas, panel: &Panel, places: &[f64], lines: &[Line]) {
    panel.grid(canvas);
    canvas.line(
        vec![panel.at(panel.x.from, 0.0), panel.at(panel.x.to, 0.0)],
        GREY,
        0.8,
    );
    let mut entries = Vec::new();
    for (colour, name, values) in lines {
        if values.iter().all(|v| !v[0].is_finite()) {
            continue;
        }
        let points: Vec<[f64; 2]> = places.iter().zip(values).map(|(&x, v)| [x, v[0]]).collect();
        panel.curve(canvas, &points, *colour, 1.6);
        for (&x, v) in places.iter().zip(values).filter(|(_, v)| v[0].is_finite()) {
            if v[1] > 0.0 {
                canvas.line(
                    vec![panel.at(x, v[0] - v[1]), panel.at(x, v[0] + v[1])],
                    *colour,
                    1.2,
                );
            }
            canvas.dot(panel.at(x, v[0]), 3.2, *colour);
        }
        entries.push((*colour, name.clone()));
    }
    panel.frame(canvas, true);
    let width = entries
        .iter()
        .map(|(_, text)| super::canvas::text_width(text, 11.0))
        .fold(0.0, f64::max)
        + 32.0;
    legend(
        canvas,
        [panel.low[0] + 6.0 + width, panel.low[1] + 6.0],
        &entries,
    );
}

/// Voltage (and current) over time with the scans marked; a sentence about why there is none where it fails.
///
/// `None` when the config names no table.
pub(super) fn voltage(run: &Run, folder: &Path) -> Option<Result<Canvas, String>> {
    let config = run
        .record
        .config
        .get("electrochemistry")
        .filter(|value| !value.is_null())?;
    let config: ElectrochemistryConfig = match serde_json::from_value(config.clone()) {
        Ok(config) => config,
        Err(error) => {
            return Some(Err(format!(
                "[electrochemistry] of run.json is not readable: {error}"
            )));
        }
    };
    Some(read_table(&config, folder).map(|table| voltage_figure(run, &config, &table)))
}

struct Table {
    hours: Vec<f64>,
    voltage: Vec<f64>,
    current: Option<Vec<f64>>,
}

/// Rows of the voltage table that `[electrochemistry]` names; `folder` is the second place to look for it.
///
/// # Errors
/// The sentence that the report would show: what is missing, or why it cannot be read.
pub(super) fn voltage_rows(
    config: &ElectrochemistryConfig,
    folder: &Path,
) -> Result<usize, String> {
    Ok(read_table(config, folder)?.hours.len())
}

fn read_table(config: &ElectrochemistryConfig, folder: &Path) -> Result<Table, String> {
    let candidates: Vec<PathBuf> = vec![config.path.clone(), folder.join(&config.path)];
    let path = candidates
        .iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            format!(
                "the voltage table {} is not there (electrochemistry.path)",
                config.path.display()
            )
        })?;
    let wrong = |problem: String| format!("{}: {problem}", path.display());
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(|error| wrong(error.to_string()))?;
    let headers = reader
        .headers()
        .map_err(|error| wrong(error.to_string()))?
        .clone();
    let column = |name: &str, key: &str| {
        headers.iter().position(|h| h == name).ok_or_else(|| {
            wrong(format!(
                "no column {name} (electrochemistry.{key}); there are {}",
                headers.iter().collect::<Vec<_>>().join(", ")
            ))
        })
    };
    let time = column(&config.time_column, "time_column")?;
    let volts = column(&config.voltage_column, "voltage_column")?;
    let amps = match config.current_column.as_str() {
        "" => None,
        name => Some(column(name, "current_column")?),
    };
    let mut table = Table {
        hours: Vec::new(),
        voltage: Vec::new(),
        current: amps.map(|_| Vec::new()),
    };
    for row in reader.records() {
        let row = row.map_err(|error| wrong(error.to_string()))?;
        let number = |k: usize| {
            row.get(k)
                .and_then(|text| text.parse::<f64>().ok())
                .unwrap_or(f64::NAN)
        };
        table.hours.push(number(time) / 3600.0);
        table.voltage.push(number(volts));
        if let (Some(values), Some(k)) = (&mut table.current, amps) {
            values.push(number(k));
        }
    }
    if table.hours.iter().filter(|h| h.is_finite()).count() < 2 {
        return Err(wrong(format!(
            "fewer than two rows hold a number in {}",
            config.time_column
        )));
    }
    Ok(table)
}

/// At most two points per pixel, the least and the largest, so that no spike is lost.
fn thinned(x: &[f64], y: &[f64]) -> Vec<[f64; 2]> {
    const CELLS: usize = 1500;
    let size = x.len().div_ceil(CELLS).max(1);
    let mut out = Vec::new();
    for (x, y) in x.chunks(size).zip(y.chunks(size)) {
        let finite = || (0..x.len()).filter(|&k| x[k].is_finite() && y[k].is_finite());
        let low = finite().min_by(|&a, &b| y[a].total_cmp(&y[b]));
        let high = finite().max_by(|&a, &b| y[a].total_cmp(&y[b]));
        if let (Some(low), Some(high)) = (low, high) {
            let mut ends = [low, high];
            ends.sort_unstable();
            out.extend(ends.map(|k| [x[k], y[k]]));
        }
    }
    out
}

fn range(values: &[f64]) -> [f64; 2] {
    let (low, high) = values
        .iter()
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| {
            (a.min(v), b.max(v))
        });
    let margin = 0.06 * (high - low).max(1e-6);
    [low - margin, high + margin]
}

fn voltage_figure(run: &Run, config: &ElectrochemistryConfig, table: &Table) -> Canvas {
    let mut canvas = Canvas::new(
        860.0,
        if table.current.is_some() {
            520.0
        } else {
            380.0
        },
    );
    canvas.bold_text([80.0, 20.0], "cell voltage and scans", 14.0, Anchor::Start);
    let (first, last) = table
        .hours
        .iter()
        .filter(|h| h.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &h| {
            (a.min(h), b.max(h))
        });
    let x = Axis::new(first, last, "time [h]");
    let [low, high] = range(&table.voltage);
    let bottom = if table.current.is_some() {
        300.0
    } else {
        325.0
    };
    let x_top = if table.current.is_some() {
        Axis {
            title: String::new(),
            ..x.clone()
        }
    } else {
        x.clone()
    };
    let panel = Panel {
        low: [80.0, 64.0],
        high: [840.0, bottom],
        x: x_top,
        y: Axis::new(low, high, "voltage [V]"),
    };
    panel.grid(&mut canvas);
    panel.curve(
        &mut canvas,
        &thinned(&table.hours, &table.voltage),
        BLACK,
        1.4,
    );
    panel.frame(&mut canvas, true);
    if let Some(current) = &table.current {
        let [low, high] = range(current);
        let below = Panel {
            low: [80.0, 335.0],
            high: [840.0, 465.0],
            x,
            y: Axis::new(low, high, &config.current_column),
        };
        below.grid(&mut canvas);
        below.curve(&mut canvas, &thinned(&table.hours, current), GREY, 1.4);
        below.frame(&mut canvas, true);
    }
    let (places, exact) = scan_places(run, config, first, last);
    for (k, (name, hour)) in places.iter().enumerate() {
        if !(first..=last).contains(hour) {
            continue;
        }
        let top = panel.at(*hour, panel.y.to);
        canvas.dashed(top, panel.at(*hour, panel.y.from), RED, 1.2);
        let text = if places.len() <= 8 {
            name.clone()
        } else {
            (k + 1).to_string()
        };
        canvas.coloured_text([top[0], top[1] - 9.0], text, 11.0, Anchor::Middle, RED);
    }
    if !exact {
        canvas.coloured_text(
            [840.0, 20.0],
            "scans in order; their times are not known",
            11.0,
            Anchor::End,
            GREY,
        );
    }
    if places.is_empty() {
        note(&mut canvas, &panel, "no scan falls into this table");
    }
    canvas
}

/// Hours of the scans on the clock of the table, and whether they are times rather than an even spread.
fn scan_places(
    run: &Run,
    config: &ElectrochemistryConfig,
    first: f64,
    last: f64,
) -> (Vec<(String, f64)>, bool) {
    let names: Vec<String> = run
        .scans
        .iter()
        .map(|scan| scan.record.name.clone())
        .collect();
    if let Some(start) = clock::seconds(&config.start) {
        let timed: Vec<(String, f64)> = run
            .scans
            .iter()
            .filter_map(|scan| {
                Some((
                    scan.record.name.clone(),
                    (clock::seconds(scan.record.time.as_deref()?)? - start) / 3600.0,
                ))
            })
            .collect();
        if !timed.is_empty() {
            return (timed, true);
        }
    }
    let n = names.len().max(2) as f64 - 1.0;
    let spread = names
        .into_iter()
        .enumerate()
        .map(|(k, name)| (name, first + (last - first) * k as f64 / n))
        .collect();
    (spread, false)
}
