//! A figure as a list of strokes, drawn to PNG and SVG alike.

use std::io::Cursor;
use std::path::Path;
use std::sync::Once;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontTransform, register_font};

use crate::error::{Error, Result};

/// Pixels of the PNG (and units of the SVG) per unit of a figure.
const SCALE: usize = 2;
/// The PNG is drawn this much larger and averaged, as the rasteriser draws thick lines without smoothing.
const OVERSAMPLE: usize = 2;

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

pub(super) const BLACK: Rgb = [0, 0, 0];
pub(super) const WHITE: Rgb = [255, 255, 255];
pub(super) const GREY: Rgb = [110, 110, 110];
pub(super) const LIGHT: Rgb = [222, 222, 222];
/// Increase.
pub(super) const RED: Rgb = [190, 30, 40];
/// Decrease.
pub(super) const BLUE: Rgb = [30, 80, 170];
/// Colours of further series, told apart by colour-blind readers (Okabe and Ito 2008).
pub(super) const SERIES: [Rgb; 6] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [230, 159, 0],
];

/// Where a text hangs on its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// An image in RGB, rows from the top.
#[derive(Debug, Clone)]
pub(super) struct Pixels {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) rgb: Vec<u8>,
}

enum Stroke {
    Rect {
        low: [f64; 2],
        high: [f64; 2],
        fill: Rgb,
        alpha: f64,
    },
    Line {
        points: Vec<[f64; 2]>,
        colour: Rgb,
        width: f64,
    },
    Polygon {
        points: Vec<[f64; 2]>,
        fill: Rgb,
        alpha: f64,
    },
    Dot {
        at: [f64; 2],
        radius: f64,
        fill: Rgb,
    },
    Text {
        at: [f64; 2],
        text: String,
        size: f64,
        colour: Rgb,
        anchor: Anchor,
        upright: bool,
        bold: bool,
    },
    Image {
        at: [f64; 2],
        size: [f64; 2],
        pixels: Pixels,
    },
}

/// A figure of a given size; the origin is the upper left corner.
pub(super) struct Canvas {
    pub(super) width: f64,
    pub(super) height: f64,
    strokes: Vec<Stroke>,
}

impl Canvas {
    pub(super) fn new(width: f64, height: f64) -> Canvas {
        Canvas {
            width,
            height,
            strokes: Vec::new(),
        }
    }

    pub(super) fn rect(&mut self, low: [f64; 2], high: [f64; 2], fill: Rgb, alpha: f64) {
        self.strokes.push(Stroke::Rect {
            low,
            high,
            fill,
            alpha,
        });
    }

    pub(super) fn line(&mut self, points: Vec<[f64; 2]>, colour: Rgb, width: f64) {
        if points.len() > 1 {
            self.strokes.push(Stroke::Line {
                points,
                colour,
                width,
            });
        }
    }

    pub(super) fn dashed(&mut self, from: [f64; 2], to: [f64; 2], colour: Rgb, width: f64) {
        let length = (to[0] - from[0]).hypot(to[1] - from[1]);
        let dashes = (length / 7.0).ceil().max(1.0) as usize;
        let at = |share: f64| {
            [
                from[0] + share * (to[0] - from[0]),
                from[1] + share * (to[1] - from[1]),
            ]
        };
        for k in 0..dashes {
            let start = k as f64 / dashes as f64;
            self.line(
                vec![at(start), at(start + 0.6 / dashes as f64)],
                colour,
                width,
            );
        }
    }

    pub(super) fn polygon(&mut self, points: Vec<[f64; 2]>, fill: Rgb, alpha: f64) {
        if points.len() > 2 {
            self.strokes.push(Stroke::Polygon {
                points,
                fill,
                alpha,
            });
        }
    }

    pub(super) fn dot(&mut self, at: [f64; 2], radius: f64, fill: Rgb) {
        self.strokes.push(Stroke::Dot { at, radius, fill });
    }

    pub(super) fn text(
        &mut self,
        at: [f64; 2],
        text: impl Into<String>,
        size: f64,
        anchor: Anchor,
    ) {
        self.coloured_text(at, text, size, anchor, BLACK);
    }

    pub(super) fn coloured_text(
        &mut self,
        at: [f64; 2],
        text: impl Into<String>,
        size: f64,
        anchor: Anchor,
        colour: Rgb,
    ) {
        self.strokes.push(Stroke::Text {
            at,
            text: text.into(),
            size,
            colour,
            anchor,
            upright: false,
            bold: false,
        });
    }

    pub(super) fn bold_text(
        &mut self,
        at: [f64; 2],
        text: impl Into<String>,
        size: f64,
        anchor: Anchor,
    ) {
        self.strokes.push(Stroke::Text {
            at,
            text: text.into(),
            size,
            colour: BLACK,
            anchor,
            upright: false,
            bold: true,
        });
    }

    /// Text that reads from below.
    pub(super) fn upright_text(&mut self, at: [f64; 2], text: impl Into<String>, size: f64) {
        let text = text.into();
        self.strokes.push(Stroke::Text {
            at,
            text,
            size,
            colour: BLACK,
            anchor: Anchor::Middle,
            upright: true,
            bold: false,
        });
    }

    /// The pixels stretched over `size`.
    pub(super) fn image(&mut self, at: [f64; 2], size: [f64; 2], pixels: Pixels) {
        self.strokes.push(Stroke::Image { at, size, pixels });
    }

    /// The PNG file of the figure.
    ///
    /// # Errors
    /// [`Error::Input`] when the drawing fails, which would be a bug of this program.
    pub(super) fn png(&self, path: &Path) -> Result<Vec<u8>> {
        let big = SCALE * OVERSAMPLE;
        let (width, height) = self.pixels(big);
        let mut buffer = vec![255u8; width * height * 3];
        {
            let root = BitMapBackend::with_buffer(&mut buffer, (width as u32, height as u32))
                .into_drawing_area();
            self.draw(&root, big as f64)
                .map_err(|problem| failed(path, problem))?;
        }
        let drawn = Pixels {
            width,
            height,
            rgb: buffer,
        };
        let small = resized(&drawn, width / OVERSAMPLE, height / OVERSAMPLE);
        encoded(&small).map_err(|problem| failed(path, problem))
    }

    /// The SVG file of the figure: exact positions, pictures embedded at their own resolution.
    ///
    /// # Errors
    /// As for [`Canvas::png`].
    pub(super) fn svg(&self, path: &Path) -> Result<String> {
        let (width, height) = self.pixels(SCALE);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            self.width.ceil(),
            self.height.ceil()
        );
        for stroke in &self.strokes {
            out += &svg_element(stroke).map_err(|problem| failed(path, problem))?;
            out.push('\n');
        }
        out += "</svg>\n";
        Ok(out)
    }

    fn pixels(&self, scale: usize) -> (usize, usize) {
        let even = |length: f64| (length.ceil() as usize).max(1) * scale;
        (even(self.width), even(self.height))
    }

    fn draw<B: DrawingBackend>(
        &self,
        root: &DrawingArea<B, Shift>,
        scale: f64,
    ) -> std::result::Result<(), String> {
        load_fonts();
        root.fill(&plotters::style::WHITE)
            .map_err(|e| e.to_string())?;
        for stroke in &self.strokes {
            draw_stroke(root, stroke, scale).map_err(|e| e.to_string())?;
        }
        root.present().map_err(|e| e.to_string())
    }
}

fn failed(path: &Path, problem: impl Into<String>) -> Error {
    Error::input(
        path,
        format!("the figure cannot be drawn: {}", problem.into()),
        "report this as a bug with the folder of the run",
    )
}

/// The fonts travel in the program, so that figures look alike on machines without any.
fn load_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (style, bytes) in [
            (FontStyle::Normal, dejavu::sans::regular()),
            (FontStyle::Bold, dejavu::sans::bold()),
        ] {
            let loaded = register_font("sans-serif", style, bytes);
            debug_assert!(loaded.is_ok(), "the embedded fonts are valid");
        }
    });
}

fn encoded(pixels: &Pixels) -> std::result::Result<Vec<u8>, String> {
    let mut out = Cursor::new(Vec::new());
    image::RgbImage::from_raw(
        pixels.width as u32,
        pixels.height as u32,
        pixels.rgb.clone(),
    )
    .expect("three bytes per pixel were made")
    .write_to(&mut out, image::ImageFormat::Png)
    .map_err(|error| error.to_string())?;
    Ok(out.into_inner())
}

fn svg_element(stroke: &Stroke) -> std::result::Result<String, String> {
    let hex = |rgb: &Rgb| format!("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
    let list = |points: &[[f64; 2]]| {
        points
            .iter()
            .map(|p| format!("{:.2},{:.2}", p[0], p[1]))
            .collect::<Vec<_>>()
            .join(" ")
    };
    Ok(match stroke {
        Stroke::Rect {
            low,
            high,
            fill,
            alpha,
        } => {
            let (x, y) = (low[0].min(high[0]), low[1].min(high[1]));
            let (w, h) = ((high[0] - low[0]).abs(), (high[1] - low[1]).abs());
            format!(
                "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{w:.2}\" height=\"{h:.2}\" fill=\"{}\" fill-opacity=\"{alpha}\"/>",
                hex(fill)
            )
        }
        Stroke::Line {
            points,
            colour,
            width,
        } => format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"/>",
            list(points),
            hex(colour)
        ),
        Stroke::Polygon {
            points,
            fill,
            alpha,
        } => {
            format!(
                "<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"{alpha}\"/>",
                list(points),
                hex(fill)
            )
        }
        Stroke::Dot { at, radius, fill } => {
            format!(
                "<circle cx=\"{:.2}\" cy=\"{:.2}\" r=\"{radius}\" fill=\"{}\"/>",
                at[0],
                at[1],
                hex(fill)
            )
        }
        Stroke::Text {
            at,
            text,
            size,
            colour,
            anchor,
            upright,
            bold,
        } => {
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            let turn = if *upright {
                format!(" transform=\"rotate(-90 {:.2} {:.2})\"", at[0], at[1])
            } else {
                String::new()
            };
            let weight = if *bold { " font-weight=\"bold\"" } else { "" };
            // the middle of a line of text lies about 0.36 em above its base line; the rasteriser's size is the height
            // of the line, 1.24 em
            format!(
                "<text x=\"{:.2}\" y=\"{:.2}\" dy=\"0.36em\" font-size=\"{:.2}\" text-anchor=\"{anchor}\" fill=\"{}\"{weight}{turn}>{}</text>",
                at[0],
                at[1],
                size / 1.24,
                hex(colour),
                super::tables::escaped(text)
            )
        }
        Stroke::Image { at, size, pixels } => format!(
            "<image x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{:.2}\" preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>",
            at[0],
            at[1],
            size[0],
            size[1],
            STANDARD.encode(encoded(pixels)?)
        ),
    })
}

fn colour(rgb: Rgb, alpha: f64) -> RGBAColor {
    RGBAColor(rgb[0], rgb[1], rgb[2], alpha)
}

fn draw_stroke<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    stroke: &Stroke,
    scale: f64,
) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let at = |p: [f64; 2]| ((p[0] * scale).round() as i32, (p[1] * scale).round() as i32);
    match stroke {
        Stroke::Rect {
            low,
            high,
            fill,
            alpha,
        } => root.draw(&Rectangle::new(
            [at(*low), at(*high)],
            colour(*fill, *alpha).filled(),
        )),
        Stroke::Line {
            points,
            colour: rgb,
            width,
        } => {
            let width = ((width * scale).round() as u32).max(1);
            let points: Vec<(i32, i32)> = points.iter().map(|&p| at(p)).collect();
            root.draw(&PathElement::new(
                points,
                colour(*rgb, 1.0).stroke_width(width),
            ))
        }
        Stroke::Polygon {
            points,
            fill,
            alpha,
        } => {
            let points: Vec<(i32, i32)> = points.iter().map(|&p| at(p)).collect();
            root.draw(&Polygon::new(points, colour(*fill, *alpha)))
        }
        Stroke::Dot {
            at: middle,
            radius,
            fill,
        } => root.draw(&Circle::new(
            at(*middle),
            ((radius * scale).round() as i32).max(1),
            colour(*fill, 1.0).filled(),
        )),
        Stroke::Text {
            at: place,
            text,
            size,
            colour: rgb,
            anchor,
            upright,
            bold,
        } => {
            let style = if *bold {
                FontStyle::Bold
            } else {
                FontStyle::Normal
            };
            let mut font = FontDesc::new(FontFamily::SansSerif, size * scale, style);
            if *upright {
                font = font.transform(FontTransform::Rotate270);
            }
            let h = match anchor {
                Anchor::Start => HPos::Left,
                Anchor::Middle => HPos::Center,
                Anchor::End => HPos::Right,
            };
            let ink = colour(*rgb, 1.0);
            let style = TextStyle::from(font)
                .color(&ink)
                .pos(Pos::new(h, VPos::Center));
            // the backend centres the box of the line, whose descent is empty under most letters and digits
            let low = if *upright {
                *place
            } else {
                [place[0], place[1] + 0.07 * size]
            };
            root.draw(&Text::new(text.as_str(), at(low), style))
        }
        Stroke::Image {
            at: place,
            size,
            pixels,
        } => {
            let fitted = resized(
                pixels,
                ((size[0] * scale).round() as usize).max(1),
                ((size[1] * scale).round() as usize).max(1),
            );
            let element = BitMapElement::<_, plotters::backend::RGBPixel>::with_owned_buffer(
                at(*place),
                (fitted.width as u32, fitted.height as u32),
                fitted.rgb,
            )
            .expect("three bytes per pixel were made");
            root.draw(&element)
        }
    }
}

/// Means over the part of the old pixels that each new pixel covers; enlarged pixels stay sharp squares.
pub(super) fn resized(from: &Pixels, width: usize, height: usize) -> Pixels {
    let across = spans(from.width, width);
    let down = spans(from.height, height);
    let mut rgb = Vec::with_capacity(width * height * 3);
    for rows in &down {
        for columns in &across {
            let mut sum = [0u32; 3];
            for y in rows.clone() {
                for x in columns.clone() {
                    let start = 3 * (y * from.width + x);
                    for (total, &value) in sum.iter_mut().zip(&from.rgb[start..start + 3]) {
                        *total += u32::from(value);
                    }
                }
            }
            let n = (rows.len() * columns.len()) as u32;
            rgb.extend(sum.map(|total| ((total + n / 2) / n) as u8));
        }
    }
    Pixels { width, height, rgb }
}

/// For each of `new` pixels the range of `old` pixels that it shows, at least one.
fn spans(old: usize, new: usize) -> Vec<std::ops::Range<usize>> {
    (0..new)
        .map(|k| {
            let start = (k * old / new).min(old - 1);
            start..((k + 1) * old / new).clamp(start + 1, old)
        })
        .collect()
}

/// Width of a text, about \[unit\].
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    load_fonts();
    FontDesc::new(FontFamily::SansSerif, size * 4.0, FontStyle::Normal)
        .layout_box(text)
        .map_or(
            0.55 * size * text.chars().count() as f64,
            |((x0, _), (x1, _))| f64::from(x1 - x0) / 4.0,
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_same_picture_in_both_files() {
        let mut canvas = Canvas::new(60.0, 40.0);
        canvas.rect([10.0, 10.0], [30.0, 20.0], RED, 1.0);
        canvas.text([30.0, 30.0], "10 µm", 10.0, Anchor::Middle);
        canvas.image(
            [40.0, 5.0],
            [10.0, 10.0],
            Pixels {
                width: 1,
                height: 1,
                rgb: vec![0, 200, 0],
            },
        );
        let path = Path::new("figure");
        let png = image::load_from_memory(&canvas.png(path).unwrap())
            .unwrap()
            .to_rgb8();
        assert_eq!(png.dimensions(), (120, 80));
        assert_eq!(png.get_pixel(40, 30).0, RED);
        assert_eq!(png.get_pixel(90, 20).0, [0, 200, 0]);
        assert!(
            png.enumerate_pixels()
                .any(|(_, y, p)| y > 50 && p.0[0] < 80),
            "the text is there without system fonts"
        );
        let svg = canvas.svg(path).unwrap();
        assert!(
            svg.contains("10 µm") && svg.contains("data:image/png;base64,"),
            "{svg}"
        );
    }

    #[test]
    fn resizing_keeps_the_mean_and_enlarges_sharply() {
        let two = Pixels {
            width: 2,
            height: 1,
            rgb: vec![0, 0, 0, 200, 200, 200],
        };
        assert_eq!(resized(&two, 1, 1).rgb, vec![100, 100, 100]);
        assert_eq!(
            resized(&two, 4, 1).rgb,
            vec![0, 0, 0, 0, 0, 0, 200, 200, 200, 200, 200, 200]
        );
    }
}
