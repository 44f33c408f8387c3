//! The tables of the page.

use super::gather::{Change, Run, Scan};
use crate::record::AlignmentRecord;

/// Text that is safe between tags and in quoted attributes.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A table; cells are texts, escaped here. The first column is left-aligned.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = String::from("<table><thead><tr>");
    for name in head {
        out += &format!("<th>{}</th>", escaped(name));
    }
    out += "</tr></thead><tbody>";
    for row in rows {
        out += "<tr>";
        for cell in row {
            out += &format!("<td>{}</td>", escaped(cell));
        }
        out += "</tr>";
    }
    out += "</tbody></table>";
    out
}

/// A number with as many digits as its size needs.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "\u{2013}".into();
    }
    let size = value.abs();
    let text = if size == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&size) {
        let exponent = size.log10().floor();
        format!(
            "{:.2} × 10{}",
            value / 10f64.powf(exponent),
            super::axes::superscript(exponent as i32)
        )
    } else {
        let decimals = (3.0 - size.log10().floor()).clamp(0.0, 5.0) as usize;
        format!("{value:.decimals$}")
    };
    text.replace('-', "\u{2212}")
}

/// Value and standard deviation, rounded to two digits of the latter.
pub(super) fn with_error(value: f64, error: f64) -> String {
    if !(error > 0.0 && error.is_finite() && value.is_finite()) {
        return number(value);
    }
    let exponent = value.abs().max(error).log10().floor();
    let scale = if (-3.0..6.0).contains(&exponent) {
        0.0
    } else {
        exponent
    };
    let (value, error) = (value / 10f64.powf(scale), error / 10f64.powf(scale));
    let decimals = (1.0 - error.log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{value:.decimals$} ± {error:.decimals$}");
    let text = if scale == 0.0 {
        text
    } else {
        format!("({text}) × 10{}", super::axes::superscript(scale as i32))
    };
    text.replace('-', "\u{2212}")
}

/// Thousands apart, by thin spaces.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            out.push('\u{202F}');
        }
        out.push(digit);
    }
    out
}

pub(super) fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (0..units.len() - 1)
        .take_while(|k| n >> (10 * (k + 1)) > 0)
        .count();
    if power == 0 {
        format!("{n} B")
    } else {
        format!(
            "{:.1} {}",
            n as f64 / f64::from(1u32 << 10).powi(power as i32),
            units[power]
        )
    }
}

/// One line per difference: what moved, what changed.
pub(super) fn summary(run: &Run) -> String {
    let mass = run.changes.iter().any(|c| c.record.mass.is_some());
    let cubic = run.changes.first().map_or("voxels", |c| c.cubic().1);
    let unit = run.changes.first().map_or("", |c| c.record.unit.as_str());
    let (increase, decrease) = (format!("increase [{cubic}]"), format!("decrease [{cubic}]"));
    let sums = format!("sum of the change within both [{unit} · voxel]");
    let mut head = vec![
        "target − reference",
        increase.as_str(),
        decrease.as_str(),
        "grains + / −",
        sums.as_str(),
    ];
    if mass {
        head.extend(["net mass [µg]", "by charge [µg]"]);
    }
    head.extend(["shift x, y, z [voxel]", "confidence"]);
    let rows: Vec<Vec<String>> = run
        .changes
        .iter()
        .map(|c| {
            let (r, a) = (&c.record, &c.alignment);
            let voxel = c.cubic().0;
            let net_err = r.increase_sum_err.hypot(r.decrease_sum_err);
            let mut row = vec![
                format!("{} − {}", r.target, r.reference),
                number(r.increase_voxels as f64 * voxel),
                number(r.decrease_voxels as f64 * voxel),
                format!(
                    "{} / {}",
                    count(r.increase_grains),
                    count(r.decrease_grains)
                ),
                with_error(r.increase_sum - r.decrease_sum, net_err),
            ];
            if mass {
                let m = r.mass.as_ref();
                row.push(m.map_or("–".into(), |m| with_error(m.net_ug, m.net_err_ug)));
                row.push(m.and_then(|m| m.faraday_ug).map_or("–".into(), number));
            }
            row.push(
                a.shift_voxel
                    .map(|s| format!("{s:.2}"))
                    .join(", ")
                    .replace('-', "\u{2212}"),
            );
            row.push(if a.measured() {
                format!("{:.2}", a.confidence)
            } else {
                "–".into()
            });
            row
        })
        .collect();
    table(&head, &rows)
}

/// How the target lies.
pub(super) fn alignment(a: &AlignmentRecord) -> String {
    let three = |v: [f64; 3], digits: usize| {
        v.map(|s| format!("{s:.digits$}"))
            .join(", ")
            .replace('-', "\u{2212}")
    };
    let measured = |text: String| {
        if a.measured() {
            text
        } else {
            "not measured".into()
        }
    };
    let mut rows = vec![
        vec!["method".into(), a.method.clone()],
        vec!["shift x, y, z [voxel]".into(), three(a.shift_voxel, 3)],
        vec![
            "its standard deviation [voxel]".into(),
            measured(three(a.shift_err_voxel, 3)),
        ],
        vec![
            "rotation about x, y, z [degrees]".into(),
            three(a.rotation_deg, 3),
        ],
        vec![
            "its standard deviation [degrees]".into(),
            measured(three(a.rotation_err_deg, 3)),
        ],
        vec![
            "confidence (0 chance, 1 certain)".into(),
            measured(format!("{:.2}", a.confidence)),
        ],
        vec![
            "root mean square of the difference, before".into(),
            measured(number(a.residual_before)),
        ],
        vec!["the same, after".into(), measured(number(a.residual_after))],
    ];
    rows.extend(a.axis_correction.map(|c| {
        vec![
            "axis moved by [px], leant by [px per row]".into(),
            format!(
                "{:.3} &plusmn; {:.3}, {:.5} &plusmn; {:.5}",
                c.axis_px, c.axis_err_px, c.slope_px_per_row, c.slope_err_px_per_row
            ),
        ]
    }));
    let mut out = table(&["alignment", ""], &rows);
    if let (Some(closure), Some(with)) = (a.closure_voxel, &a.closure_with) {
        out += &table(
            &["closure over three scans", ""],
            &[vec![
                format!(
                    "shift against {with}, both on the grid of {}: x, y, z [voxel]",
                    a.reference
                ),
                three(closure, 3),
            ]],
        );
    }
    if a.per_octant.len() == 8 {
        let half = |k: usize| {
            a.per_octant[4 * k..4 * k + 4]
                .iter()
                .map(|v| number(*v))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let rows = vec![
            vec!["above the middle".into(), half(0)],
            vec!["below it".into(), half(1)],
        ];
        out += &table(
            &[
                "octants",
                "difference left there over that left at the same heights: left back, right back, left front, right front",
            ],
            &rows,
        );
    }
    if a.per_height.len() > 1 {
        let rows: Vec<Vec<String>> = a
            .per_height
            .iter()
            .enumerate()
            .map(|(k, h)| {
                let errors = a.per_height_err.get(k).copied().unwrap_or([f64::NAN; 3]);
                let shifts = [0, 1, 2].map(|axis| {
                    // an error beyond a voxel: nothing there fixes the shift
                    if errors[axis] > 1.0 {
                        "\u{2013}".to_string()
                    } else if errors[axis].is_finite() {
                        format!("{:.3} \u{b1} {:.3}", h[axis + 1], errors[axis])
                    } else {
                        format!("{:.3}", h[axis + 1])
                    }
                });
                vec![
                    format!("{:.0}", h[0]),
                    shifts.join(", ").replace('-', "\u{2212}"),
                ]
            })
            .collect();
        out += &table(
            &[
                "slice",
                "shift found there alone, less the common one: x, y, z [voxel]",
            ],
            &rows,
        );
    }
    out
}

/// Totals of one difference.
pub(super) fn totals(c: &Change) -> String {
    let r = &c.record;
    let (voxel, cubic) = c.cubic();
    let unit = format!("{} · voxel", r.unit);
    let mut rows = vec![
        vec!["voxels measured".into(), count(r.voxels)],
        vec![
            "grey values: target = gain × reference + offset".into(),
            format!("gain {}, offset {}", number(r.gain), number(r.offset)),
        ],
        vec![
            format!("noise of a voxel, one standard deviation [{}]", r.unit),
            number(r.noise),
        ],
        vec![
            "residue of unchanged edges in a slice, and of faces across the axis, as a shift [voxel], and ripple around edges over their gradient [voxel]; the threshold takes them in".into(),
            format!(
                "{}, {}, {}",
                number(r.edge_residue_voxel),
                number(r.edge_residue_z_voxel),
                number(r.edge_ripple_voxel)
            ),
        ],
        vec![
            "noise of unchanged voxels over that of the projections alone".into(),
            r.noise_excess.map_or("–".into(), number),
        ],
        vec![
            "null difference (even against odd projections): voxels beyond the threshold; expected; grains".into(),
            r.null.as_ref().map_or("–".into(), |n| {
                format!(
                    "{} of {}; {}; {}",
                    count(n.increase_voxels + n.decrease_voxels),
                    count(n.voxels),
                    number(2.0 * n.expected_by_noise),
                    count(n.grains)
                )
            }),
        ],
        vec![
            format!("threshold [{}]", r.unit),
            format!("{} ({})", number(r.threshold), r.threshold_rule),
        ],
        vec![
            "voxels expected beyond it by noise alone, each side".into(),
            number(r.expected_by_noise),
        ],
        vec![
            format!("increase: voxels; volume [{cubic}]; grains"),
            format!(
                "{}; {}; {}",
                count(r.increase_voxels),
                number(r.increase_voxels as f64 * voxel),
                count(r.increase_grains)
            ),
        ],
        vec![
            format!("decrease: voxels; volume [{cubic}]; grains"),
            format!(
                "{}; {}; {}",
                count(r.decrease_voxels),
                number(r.decrease_voxels as f64 * voxel),
                count(r.decrease_grains)
            ),
        ],
        vec![
            format!("sum over the increase [{unit}]"),
            with_error(r.increase_sum, r.increase_sum_err),
        ],
        vec![
            format!("sum over the decrease [{unit}]"),
            with_error(r.decrease_sum, r.decrease_sum_err),
        ],
        vec![
            "parts of these errors, increase; decrease: noise of the projections, structure of unchanged material, doubtful change, alignment, grey values, change seen below the threshold".into(),
            [&r.increase_err_parts, &r.decrease_err_parts]
                .map(|p| {
                    [p.noise, p.structure, p.doubtful, p.alignment, p.matching, p.missed]
                        .map(number)
                        .join(", ")
                })
                .join("; "),
        ],
        vec![
            format!("sum over every voxel measured [{unit}]"),
            with_error(r.total_sum, r.total_sum_err),
        ],
        vec![
            "grains below difference.min_grain_voxels, dropped".into(),
            format!(
                "{} with {} voxels",
                count(r.dropped_grains),
                count(r.dropped_voxels)
            ),
        ],
    ];
    if let Some(m) = &r.mass {
        rows.push(vec![
            "mass of the increase; of the decrease [µg]".into(),
            format!("{}; {}", number(m.increase_ug), number(m.decrease_ug)),
        ]);
        rows.push(vec![
            "net mass [µg]".into(),
            with_error(m.net_ug, m.net_err_ug),
        ]);
        if let Some(faraday) = m.faraday_ug {
            let ratio = m.ratio.map_or("–".into(), |ratio| {
                with_error(ratio, m.ratio_err.unwrap_or(0.0))
            });
            rows.push(vec![
                "mass moved by the charge (Faraday) [µg]; net over it".into(),
                format!("{}; {ratio}", number(faraday)),
            ]);
        }
    }
    table(&["totals", ""], &rows)
}

/// Geometry and range of every scan.
pub(super) fn scans(run: &Run) -> String {
    let rows: Vec<Vec<String>> = run
        .scans
        .iter()
        .map(|scan| {
            let s = &scan.record;
            vec![
                s.name.clone(),
                s.layout.clone(),
                format!("{} × {} × {}", s.n_angles, s.n_rows, s.n_cols),
                format!(
                    "{:.2} to {:.2} ({})",
                    s.angle_range_deg[0], s.angle_range_deg[1], s.angle_source
                ),
                s.pixel_size_um.map_or("–".into(), number),
                s.time.clone().unwrap_or_else(|| "–".into()),
                s.charge_mah_cm2.map_or("–".into(), number),
                format!(
                    "{} … {}, mean {} {}",
                    number(s.value_range.min),
                    number(s.value_range.max),
                    number(s.value_range.mean),
                    s.unit
                ),
            ]
        })
        .collect();
    let head = [
        "scan",
        "layout",
        "projections × rows × columns",
        "angles [degrees]",
        "pixel [µm]",
        "time",
        "charge [mAh/cm²]",
        "attenuation",
    ];
    table(&head, &rows)
}

/// The axis of every scan.
pub(super) fn axes(run: &Run) -> String {
    let rows: Vec<Vec<String>> = run
        .scans
        .iter()
        .map(|scan| {
            let fit = &scan.record.rotation_axis;
            let methods: Vec<String> = fit
                .methods
                .iter()
                .map(|(name, answers)| {
                    let finite: Vec<f64> = answers
                        .axis_px
                        .iter()
                        .copied()
                        .filter(|v| v.is_finite())
                        .collect();
                    let mean = finite.iter().sum::<f64>() / finite.len().max(1) as f64;
                    format!("{name} {mean:.2} ({} heights)", finite.len())
                })
                .collect();
            vec![
                scan.record.name.clone(),
                with_error(fit.axis_px, fit.uncertainty_px),
                number(fit.middle_row),
                number(fit.slope_px_per_row),
                methods.join("; "),
                if fit.agree { "yes" } else { "no" }.into(),
                fit.notes.join("; "),
            ]
        })
        .collect();
    table(
        &[
            "scan",
            "axis [px]",
            "at row",
            "lean [px/row]",
            "mean of each method",
            "agree",
            "notes",
        ],
        &rows,
    )
}

/// What the corrections touched in every scan.
pub(super) fn corrections(run: &Run) -> String {
    let touched = |scan: &Scan| {
        let record = &scan.record;
        record.corrections.touched([record.n_angles, record.n_cols])
    };
    let mut head = vec!["scan", "samples"];
    head.extend(
        run.scans
            .first()
            .map(touched)
            .iter()
            .flatten()
            .map(|rule| rule.rule),
    );
    let rows: Vec<Vec<String>> = run
        .scans
        .iter()
        .map(|scan| {
            let mut row = vec![
                scan.record.name.clone(),
                count(scan.record.corrections.samples),
            ];
            row.extend(touched(scan).map(|rule| {
                if rule.count == 0 {
                    "0".into()
                } else {
                    format!("{} ({} %)", count(rule.count), number(100.0 * rule.share()))
                }
            }));
            row
        })
        .collect();
    table(&head, &rows)
}

/// The pixels that answer wrongly in the whole series, in a sentence; empty where they were not looked for.
pub(super) fn lock(run: &Run) -> String {
    let Some(lock) = &run.record.lock else {
        return String::new();
    };
    format!(
        "<p>Series lock: {} pixels of the {} x {} detector answer wrongly in all of {} scans (root mean square {} in line integrals) \
         and were corrected alike in every scan; {} were interpolated. The map is <code>stripes/pixels.npy</code>.</p>",
        count(lock.corrected),
        lock.shape[0],
        lock.shape[1],
        lock.scans.len(),
        number(lock.strength),
        count(lock.interpolated)
    )
}

/// Inputs with size and hash.
pub(super) fn inputs(run: &Run) -> String {
    let rows: Vec<Vec<String>> = run
        .record
        .inputs
        .iter()
        .map(|i| {
            vec![
                i.scan.clone(),
                i.path.clone(),
                bytes(i.bytes),
                i.blake3.chars().take(16).collect::<String>(),
            ]
        })
        .collect();
    table(&["scan", "file", "size", "BLAKE3 (first 16 digits)"], &rows)
}

/// Machine and time.
pub(super) fn machine(run: &Run) -> String {
    let r = &run.record;
    let mut rows = vec![
        vec!["program".into(), format!("tomodelta {}", r.version)],
        vec!["started".into(), r.started.clone()],
        vec!["device".into(), r.device.clone()],
        vec!["threads".into(), r.threads.to_string()],
        vec!["cap on memory".into(), bytes(r.memory_cap_bytes)],
    ];
    let total: f64 = r.stages.iter().map(|s| s.1).sum();
    rows.extend(
        r.stages
            .iter()
            .map(|(name, seconds)| vec![name.clone(), format!("{seconds:.1} s")]),
    );
    rows.push(vec!["all stages".into(), format!("{total:.1} s")]);
    table(&["", ""], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_readers() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(-12.3456), "\u{2212}12.35");
        assert_eq!(number(4.2e8), "4.20 × 10⁸");
        assert_eq!(number(f64::NAN), "\u{2013}");
        assert_eq!(with_error(12.3456, 0.0213), "12.346 ± 0.021");
        assert_eq!(with_error(-1234.5, 56.0), "\u{2212}1234 ± 56");
        assert_eq!(count(1_234_567), "1\u{202F}234\u{202F}567");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(escaped("<b> & \"c\""), "&lt;b&gt; &amp; &quot;c&quot;");
    }

    #[test]
    fn a_motion_given_by_hand_claims_no_confidence() {
        let of = |method: &str| {
            alignment(&AlignmentRecord {
                confidence: 1.0,
                method: method.into(),
                ..AlignmentRecord::default()
            })
        };
        for method in ["given", "none"] {
            assert_eq!(of(method).matches("not measured").count(), 5);
            assert!(!of(method).contains("1.00"));
        }
        assert!(of("rigid").contains("1.00") && !of("rigid").contains("not measured"));
    }
}
