//! Pictures: sections with the change on top, checkerboard, projections of the change.

use ndarray::Array2;

use super::axes::{TITLE_SIZE, nice_step};
use super::canvas::{Anchor, BLACK, BLUE, Canvas, GREY, Pixels, RED, Rgb, WHITE};
use super::gather::Change;
use super::sections::{Plane, Sections, checkerboard, window};

/// Width that pictures fill \[unit\]; they are as high as they need to be up to the other limit.
const PICTURE: [f64; 2] = [560.0, 560.0];
/// Squares of a checkerboard along the longer side.
const SQUARES: usize = 8;

/// The change \[unit of the difference\] that is drawn in full colour: a round value that 2 % of the change exceeds.
pub(super) fn full_colour(change: &Change) -> f64 {
    let threshold = change.record.threshold.max(0.0);
    let mut sizes: Vec<(f64, u64)> = change
        .histogram
        .iter()
        .map(|row| (0.5 * (row.low_per_cm + row.high_per_cm)).abs())
        .zip(change.histogram.iter().map(|row| row.voxels))
        .filter(|(size, voxels)| size.is_finite() && *size > threshold && *voxels > 0)
        .collect();
    sizes.sort_by(|a, b| b.0.total_cmp(&a.0));
    let total: u64 = sizes.iter().map(|s| s.1).sum();
    let mut seen = 0;
    let mut limit = 2.0 * threshold;
    for (size, voxels) in sizes {
        seen += voxels;
        limit = size;
        if seen as f64 >= 0.02 * total as f64 {
            break;
        }
    }
    let limit = limit.max(1.2 * threshold);
    if limit > 0.0 { nice_step(limit) } else { 1.0 }
}

fn mix(from: Rgb, to: Rgb, share: f64) -> Rgb {
    let share = share.clamp(0.0, 1.0);
    [0, 1, 2].map(|k| (f64::from(from[k]) * (1.0 - share) + f64::from(to[k]) * share).round() as u8)
}

/// How much of the colour a change of `share` of the full one gets: small changes stay visible.
fn opacity(share: f64) -> f64 {
    share.clamp(0.0, 1.0).sqrt()
}

fn side_colour(value: f64) -> Rgb {
    if value < 0.0 { BLUE } else { RED }
}

fn grey_of(value: f32, [low, high]: [f32; 2]) -> Rgb {
    let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
    [(share * 255.0).round() as u8; 3]
}

fn picture(plane: &Array2<f32>, mut colour: impl FnMut((usize, usize), f32) -> Rgb) -> Pixels {
    let (height, width) = plane.dim();
    let rgb = plane
        .indexed_iter()
        .flat_map(|(at, &value)| colour(at, value))
        .collect();
    Pixels { width, height, rgb }
}

/// Size of a picture of `columns` x `rows` pixels within `limits`.
fn fitted(columns: usize, rows: usize, limits: [f64; 2]) -> [f64; 2] {
    let scale = (limits[0] / columns as f64).min(limits[1] / rows as f64);
    [columns as f64 * scale, rows as f64 * scale]
}

/// A scale bar in the lower left corner of a picture that is `pixels` wide on `width` units.
fn scale_bar(
    canvas: &mut Canvas,
    change: &Change,
    factor: usize,
    at: [f64; 2],
    size: [f64; 2],
    pixels: usize,
    colour: Rgb,
) {
    let (edge, unit) = change.length();
    let across = pixels as f64 * factor as f64 * edge;
    // the largest round length below a quarter of the picture
    let quarter = across / 4.0;
    let power = 10f64.powf(quarter.log10().floor());
    let length = [5.0, 2.0, 1.0]
        .into_iter()
        .map(|m| m * power)
        .find(|&l| l <= quarter)
        .unwrap_or(power);
    let units = length / across * size[0];
    let (x, y) = (at[0] + 14.0, at[1] + size[1] - 14.0);
    let text = if length >= 1000.0 && unit == "µm" {
        format!("{} mm", length / 1000.0)
    } else {
        format!("{length} {unit}")
    };
    let half = (units / 2.0).max(super::canvas::text_width(&text, 13.0) / 2.0);
    // dark ground, so that the bar shows on any sample
    if colour == WHITE {
        canvas.rect(
            [x - 7.0, y - 24.0],
            [x + half + units / 2.0 + 7.0, y + 8.0],
            BLACK,
            0.45,
        );
    }
    canvas.rect([x, y - 2.0], [x + units, y + 2.0], colour, 1.0);
    canvas.coloured_text(
        [x + units / 2.0, y - 13.0],
        text,
        13.0,
        Anchor::Middle,
        colour,
    );
}

/// Small arrows that name the directions of a picture.
fn directions(canvas: &mut Canvas, corner: [f64; 2], right: &str, down: &str) {
    let [x, y] = corner;
    canvas.coloured_text(
        [x, y],
        format!("{right} \u{2192}   {down} \u{2193}"),
        11.0,
        Anchor::End,
        GREY,
    );
}

/// Bar of the colours of a change, from minus to plus the full colour; what is below the threshold is left grey.
fn colour_bar(canvas: &mut Canvas, change: &Change, limit: f64, x: f64, top: f64, bottom: f64) {
    const STEPS: usize = 201;
    let ground: Rgb = [200, 200, 200];
    let mut rgb = Vec::new();
    for k in 0..STEPS {
        let value = limit * (1.0 - 2.0 * k as f64 / (STEPS - 1) as f64);
        let beyond = value.abs() >= change.record.threshold;
        let colour = if beyond {
            mix(ground, side_colour(value), opacity(value.abs() / limit))
        } else {
            ground
        };
        rgb.extend(colour);
    }
    canvas.image(
        [x, top],
        [16.0, bottom - top],
        Pixels {
            width: 1,
            height: STEPS,
            rgb,
        },
    );
    canvas.line(
        vec![
            [x, top],
            [x + 16.0, top],
            [x + 16.0, bottom],
            [x, bottom],
            [x, top],
        ],
        BLACK,
        1.0,
    );
    let decimals = (1.0 - limit.log10().floor()).clamp(0.0, 6.0) as usize;
    for (share, value) in [
        (0.0, limit),
        (0.25, limit / 2.0),
        (0.5, 0.0),
        (0.75, -limit / 2.0),
        (1.0, -limit),
    ] {
        let y = top + share * (bottom - top);
        canvas.line(vec![[x + 16.0, y], [x + 20.0, y]], BLACK, 1.0);
        let sign = if value > 0.0 { "+" } else { "" };
        let text = format!("{sign}{value:.decimals$}").replace('-', "\u{2212}");
        canvas.text([x + 24.0, y], text, 11.0, Anchor::Start);
    }
    canvas.upright_text(
        [x + 82.0, (top + bottom) / 2.0],
        format!("change of attenuation [{}]", change.record.unit),
        TITLE_SIZE,
    );
}

/// Which plane a figure shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Z,
    Y,
    X,
}

impl View {
    fn plane(self, sections: &Sections) -> &Plane {
        match self {
            View::Z => &sections.z,
            View::Y => &sections.y,
            View::X => &sections.x,
        }
    }

    fn directions(self) -> (&'static str, &'static str) {
        match self {
            View::Z => ("x", "y"),
            View::Y => ("x", "z"),
            View::X => ("y", "z"),
        }
    }

    fn title(self, sections: &Sections, change: &Change) -> String {
        let (name, index) = match self {
            View::Z => ("z", sections.cut.z),
            View::Y => ("y", sections.cut.y),
            View::X => ("x", sections.cut.x),
        };
        let (edge, unit) = change.length();
        let place = if unit == "µm" {
            format!(" ({:.0} µm)", index as f64 * edge)
        } else {
            String::new()
        };
        format!("section at {name} = {index}{place}")
    }
}

/// Grey section of the reference with the change on top (figure 4c of the reference experiment).
pub(super) fn overlay(sections: &Sections, change: &Change, view: View, limit: f64) -> Canvas {
    let plane = view.plane(sections);
    let (rows, columns) = plane.reference.dim();
    let size = fitted(columns, rows, PICTURE);
    let height = size[1].max(200.0);
    let mut canvas = Canvas::new(size[0] + 150.0, height + 62.0);
    let at = [20.0, 40.0];
    canvas.bold_text(
        [at[0], 20.0],
        format!(
            "{} \u{2212} {}",
            change.record.target, change.record.reference
        ),
        14.0,
        Anchor::Start,
    );
    let grey = window(&plane.reference);
    let pixels = picture(&plane.reference, |at, value| {
        let d = f64::from(plane.change[at]);
        let ground = grey_of(value, grey);
        if d == 0.0 {
            ground
        } else {
            mix(ground, side_colour(d), opacity(d.abs() / limit))
        }
    });
    canvas.image(at, size, pixels);
    scale_bar(
        &mut canvas,
        change,
        sections.factor,
        at,
        size,
        columns,
        WHITE,
    );
    colour_bar(
        &mut canvas,
        change,
        limit,
        at[0] + size[0] + 16.0,
        at[1],
        at[1] + height.min(size[1].max(200.0)),
    );
    canvas.coloured_text(
        [at[0], at[1] + size[1] + 12.0],
        view.title(sections, change),
        11.0,
        Anchor::Start,
        GREY,
    );
    let (right, down) = view.directions();
    directions(
        &mut canvas,
        [at[0] + size[0], at[1] + size[1] + 12.0],
        right,
        down,
    );
    canvas
}

/// Squares of the reference and of the aligned target by turns: structure runs on across the borders.
pub(super) fn alignment(sections: &Sections, change: &Change) -> Canvas {
    let views = [View::Z, View::Y];
    let limits = [430.0, 430.0];
    let sizes = views.map(|view| {
        let (rows, columns) = view.plane(sections).reference.dim();
        fitted(columns, rows, limits)
    });
    let height = sizes[0][1].max(sizes[1][1]);
    let mut canvas = Canvas::new(sizes[0][0] + sizes[1][0] + 60.0, height + 66.0);
    canvas.bold_text(
        [20.0, 20.0],
        format!(
            "checkerboard of {} and {} on one grid",
            change.record.reference, change.record.target
        ),
        14.0,
        Anchor::Start,
    );
    let mut x = 20.0;
    for (view, size) in views.into_iter().zip(sizes) {
        let plane = view.plane(sections);
        let (rows, columns) = plane.reference.dim();
        let edge = (rows.max(columns) / SQUARES).max(1);
        let grey = window(&plane.reference);
        let at = [x, 40.0];
        canvas.image(
            at,
            size,
            picture(&checkerboard(plane, edge), |_, value| grey_of(value, grey)),
        );
        // marks outside of the picture, so that nothing lies on the borders to be judged
        let unit = size[0] / columns as f64 * edge as f64;
        for k in 0..=(columns / edge) {
            let mark = at[0] + unit * k as f64;
            canvas.line(vec![[mark, at[1] - 5.0], [mark, at[1] - 1.0]], GREY, 1.0);
        }
        scale_bar(
            &mut canvas,
            change,
            sections.factor,
            at,
            size,
            columns,
            WHITE,
        );
        canvas.coloured_text(
            [x, at[1] + size[1] + 12.0],
            view.title(sections, change),
            11.0,
            Anchor::Start,
            GREY,
        );
        let (right, down) = view.directions();
        directions(
            &mut canvas,
            [x + size[0], at[1] + size[1] + 12.0],
            right,
            down,
        );
        x += size[0] + 20.0;
    }
    canvas
}

/// Largest change along the line of sight, from the side and from above (figure 4d).
pub(super) fn projections(sections: &Sections, change: &Change, limit: f64) -> Canvas {
    let limits = [400.0, 430.0];
    let parts = [
        (&sections.along_y, ("x", "z"), "seen along y"),
        (&sections.along_z, ("x", "y"), "seen along z"),
    ];
    let sizes = [0, 1].map(|k| {
        let (rows, columns) = parts[k].0[0].dim();
        fitted(columns, rows, limits)
    });
    let height = sizes[0][1].max(sizes[1][1]).max(200.0);
    let mut canvas = Canvas::new(sizes[0][0] + sizes[1][0] + 175.0, height + 66.0);
    canvas.bold_text(
        [20.0, 20.0],
        format!(
            "largest change along the line of sight: {} \u{2212} {}",
            change.record.target, change.record.reference
        ),
        14.0,
        Anchor::Start,
    );
    let mut x = 20.0;
    for ((sides, (right, down), title), size) in parts.into_iter().zip(sizes) {
        let at = [x, 40.0];
        let (_, columns) = sides[0].dim();
        let pixels = picture(&sides[0], |place, increase| {
            let tint =
                |value: f32, colour: Rgb| mix(WHITE, colour, opacity(f64::from(value) / limit));
            let (red, blue) = (tint(increase, RED), tint(sides[1][place], BLUE));
            // as inks on each other: where both are in the line of sight it gets dark
            [0, 1, 2].map(|k| (u32::from(red[k]) * u32::from(blue[k]) / 255) as u8)
        });
        canvas.image(at, size, pixels);
        let [x1, y1] = [at[0] + size[0], at[1] + size[1]];
        canvas.line(vec![at, [x1, at[1]], [x1, y1], [at[0], y1], at], GREY, 0.8);
        scale_bar(
            &mut canvas,
            change,
            sections.factor,
            at,
            size,
            columns,
            BLACK,
        );
        canvas.coloured_text([x, y1 + 12.0], title, 11.0, Anchor::Start, GREY);
        directions(&mut canvas, [x1, y1 + 12.0], right, down);
        x += size[0] + 20.0;
    }
    colour_bar(&mut canvas, change, limit, x, 40.0, 40.0 + height);
    canvas
}
