//! Panels with axes, ticks and legends.

use super::canvas::{Anchor, BLACK, Canvas, GREY, LIGHT, Rgb, text_width};

/// Size of the numbers at the ticks.
const TICK_SIZE: f64 = 11.0;
/// Size of the titles of the axes.
pub(super) const TITLE_SIZE: f64 = 12.5;

/// One axis: the values that its ends stand for.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) log: bool,
    pub(super) title: String,
    /// Values are divided by ten to this power at the ticks; the title says so.
    pub(super) exponent: i32,
}

impl Axis {
    /// From `from` to `to` (which may run downwards); values far from 1 are written with a power of ten in the title.
    pub(super) fn new(from: f64, to: f64, title: &str) -> Axis {
        let (from, to) = if (to - from).abs() > 1e-300 && (to - from).is_finite() {
            (from, to)
        } else {
            (0.0, 1.0)
        };
        let largest = from.abs().max(to.abs());
        let exponent = match largest.log10().floor() as i32 {
            e if (-2..=3).contains(&e) => 0,
            e => e.div_euclid(3) * 3,
        };
        let title = match exponent {
            0 => title.to_string(),
            e => with_power(title, e),
        };
        Axis {
            from,
            to,
            log: false,
            title,
            exponent,
        }
    }

    /// A logarithmic axis between two positive values, widened to whole decades.
    pub(super) fn log(from: f64, to: f64, title: &str) -> Axis {
        let low = 10f64.powf(from.max(1e-300).log10().floor());
        let high = 10f64.powf(to.max(10.0 * low).log10().ceil());
        Axis {
            from: low,
            to: high,
            log: true,
            title: title.to_string(),
            exponent: 0,
        }
    }

    /// 0 at `from`, 1 at `to`.
    pub(super) fn share(&self, value: f64) -> f64 {
        if self.log {
            (value.max(1e-300) / self.from).log10() / (self.to / self.from).log10()
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }

    /// Values of the ticks with their text.
    pub(super) fn ticks(&self, about: usize) -> Vec<(f64, String)> {
        if self.log {
            let (low, high) = (
                self.from.log10().round() as i32,
                self.to.log10().round() as i32,
            );
            let step = ((high - low) as usize).div_ceil(about.max(1)).max(1);
            return (low..=high)
                .step_by(step)
                .map(|e| (10f64.powi(e), format!("10{}", superscript(e))))
                .collect();
        }
        let (low, high) = (self.from.min(self.to), self.from.max(self.to));
        let mut step = nice_step((high - low) / about.max(1) as f64);
        let inside = |step: f64| (high / step + 1e-9).floor() - (low / step - 1e-9).ceil() + 1.0;
        // one mark alone tells no scale
        while high > low && inside(step) < 2.0 {
            step = nice_step(0.4 * step);
        }
        let unit = 10f64.powi(self.exponent);
        let decimals = (-(step / unit).log10().floor()).clamp(0.0, 9.0) as usize;
        let first = (low / step - 1e-9).ceil() as i64;
        let last = (high / step + 1e-9).floor() as i64;
        (first..=last)
            .map(|k| {
                let value = k as f64 * step;
                let text = format!("{:.*}", decimals, value / unit);
                (value, text.replace('-', "\u{2212}"))
            })
            .collect()
    }
}

/// `volume [µm³]` becomes `volume [10⁶ µm³]`.
fn with_power(title: &str, exponent: i32) -> String {
    let power = format!("10{}", superscript(exponent));
    match title.rsplit_once('[') {
        Some((what, unit)) => format!("{what}[{power} {unit}"),
        None => format!("{title} [{power}]"),
    }
}

pub(super) fn superscript(n: i32) -> String {
    n.to_string()
        .chars()
        .map(|c| match c {
            '-' => '\u{207B}',
            '1' => '\u{00B9}',
            '2' => '\u{00B2}',
            '3' => '\u{00B3}',
            c => char::from_u32(0x2070 + (c as u32 - '0' as u32)).unwrap_or(c),
        })
        .collect()
}

/// The next of 1, 2, 5 times a power of ten.
pub(super) fn nice_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.max(1e-300).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|&step| step >= rough * 0.999)
        .unwrap_or(10.0 * power)
}

/// A rectangle of the canvas with an axis below and one at the left.
pub(super) struct Panel {
    pub(super) low: [f64; 2],
    pub(super) high: [f64; 2],
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Panel {
    /// Point of the canvas at `(x, y)`, kept within the panel.
    pub(super) fn at(&self, x: f64, y: f64) -> [f64; 2] {
        let (a, b) = (
            self.x.share(x).clamp(0.0, 1.0),
            self.y.share(y).clamp(0.0, 1.0),
        );
        [
            self.low[0] + a * (self.high[0] - self.low[0]),
            self.high[1] - b * (self.high[1] - self.low[1]),
        ]
    }

    /// Grid, before the data.
    pub(super) fn grid(&self, canvas: &mut Canvas) {
        let (nx, ny) = self.counts();
        for (value, _) in self.x.ticks(nx) {
            let x = self.at(value, self.y.from)[0];
            canvas.line(vec![[x, self.low[1]], [x, self.high[1]]], LIGHT, 0.6);
        }
        for (value, _) in self.y.ticks(ny) {
            let y = self.at(self.x.from, value)[1];
            canvas.line(vec![[self.low[0], y], [self.high[0], y]], LIGHT, 0.6);
        }
    }

    fn counts(&self) -> (usize, usize) {
        (
            ((self.high[0] - self.low[0]) / 60.0).max(2.0) as usize,
            ((self.high[1] - self.low[1]) / 50.0).max(2.0) as usize,
        )
    }

    /// Frame, ticks and titles, after the data. `named_y`: the left axis has numbers and a title.
    pub(super) fn frame(&self, canvas: &mut Canvas, named_y: bool) {
        let ([x0, y0], [x1, y1]) = (self.low, self.high);
        canvas.line(
            vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]],
            BLACK,
            1.0,
        );
        let (nx, ny) = self.counts();
        for (value, text) in self.x.ticks(nx) {
            let x = self.at(value, self.y.from)[0];
            canvas.line(vec![[x, y1], [x, y1 + 4.0]], BLACK, 1.0);
            canvas.text([x, y1 + 13.0], text, TICK_SIZE, Anchor::Middle);
        }
        canvas.text(
            [(x0 + x1) / 2.0, y1 + 32.0],
            self.x.title.clone(),
            TITLE_SIZE,
            Anchor::Middle,
        );
        let mut widest = 0f64;
        for (value, text) in self.y.ticks(ny) {
            let y = self.at(self.x.from, value)[1];
            canvas.line(vec![[x0 - 4.0, y], [x0, y]], BLACK, 1.0);
            if named_y {
                widest = widest.max(text_width(&text, TICK_SIZE));
                canvas.text([x0 - 8.0, y], text, TICK_SIZE, Anchor::End);
            }
        }
        if named_y {
            canvas.upright_text(
                [x0 - 22.0 - widest, (y0 + y1) / 2.0],
                self.y.title.clone(),
                TITLE_SIZE,
            );
        }
    }

    /// A line through values; breaks where a value is not finite.
    pub(super) fn curve(&self, canvas: &mut Canvas, points: &[[f64; 2]], colour: Rgb, width: f64) {
        for piece in points.split(|p| !(p[0].is_finite() && p[1].is_finite())) {
            canvas.line(
                piece.iter().map(|p| self.at(p[0], p[1])).collect(),
                colour,
                width,
            );
        }
    }
}

/// Colour and text of each series, from the upper right corner of a panel downwards, on a white ground.
pub(super) fn legend(canvas: &mut Canvas, corner: [f64; 2], entries: &[(Rgb, String)]) {
    let width = entries
        .iter()
        .map(|(_, text)| text_width(text, TICK_SIZE))
        .fold(0.0, f64::max)
        + 32.0;
    let height = 16.0 * entries.len() as f64 + 6.0;
    let low = [corner[0] - width, corner[1]];
    canvas.rect(low, [corner[0], corner[1] + height], [255, 255, 255], 0.85);
    for (k, (colour, text)) in entries.iter().enumerate() {
        let y = corner[1] + 11.0 + 16.0 * k as f64;
        canvas.line(vec![[low[0] + 6.0, y], [low[0] + 22.0, y]], *colour, 3.0);
        canvas.text([low[0] + 27.0, y], text.clone(), TICK_SIZE, Anchor::Start);
    }
}

/// A grey note inside a panel that has nothing to show.
pub(super) fn note(canvas: &mut Canvas, panel: &Panel, text: &str) {
    let middle = [
        (panel.low[0] + panel.high[0]) / 2.0,
        (panel.low[1] + panel.high[1]) / 2.0,
    ];
    canvas.coloured_text(middle, text, TITLE_SIZE, Anchor::Middle, GREY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let texts = |axis: &Axis, n| axis.ticks(n).into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(
            texts(&Axis::new(0.0, 1.0, ""), 5),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(texts(&Axis::new(130.0, 0.0, ""), 3), ["0", "50", "100"]);
        assert_eq!(
            Axis::new(0.0, 3e4, "volume [µm³]").title,
            "volume [10³ µm³]"
        );
        let large = Axis::new(0.0, 2.5e6, "volume [µm³]");
        assert_eq!(large.title, "volume [10⁶ µm³]");
        assert_eq!(texts(&large, 5), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
        assert_eq!(
            texts(&Axis::log(3.0, 2e3, ""), 9),
            ["10⁰", "10¹", "10²", "10³", "10⁴"]
        );
        assert_eq!(texts(&Axis::new(-1.0, 1.0, ""), 2), ["\u{2212}1", "0", "1"]);
        // steps of 2 would leave the zero alone
        assert_eq!(texts(&Axis::new(-1.1, 1.1, ""), 2), ["\u{2212}1", "0", "1"]);
    }

    #[test]
    fn an_empty_range_still_makes_an_axis() {
        assert!(!Axis::new(3.0, 3.0, "").ticks(4).is_empty());
        assert!(!Axis::new(f64::NAN, 1.0, "").ticks(4).is_empty());
    }
}
