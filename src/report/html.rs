//! The page: one file, no network.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::gather::Run;
use super::tables::{self, escaped};

/// A drawn figure, ready for the page.
pub(super) struct Figure {
    /// Name of its files.
    pub(super) name: String,
    /// Sentence under it.
    pub(super) caption: String,
    pub(super) png: Vec<u8>,
}

/// Figures of the page by place.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) series: Vec<Figure>,
    pub(super) axes: Vec<Figure>,
    /// One list per difference.
    pub(super) changes: Vec<Vec<Figure>>,
    /// Figures that could not be drawn, and why.
    pub(super) missing: Vec<String>,
}

const STYLE: &str = "
:root{--line:#d9dce1;--ink:#1c1f24;--soft:#5b6470;--ground:#f6f7f9}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 'DejaVu Sans',system-ui,Helvetica,Arial,sans-serif;color:var(--ink);background:var(--ground)}
main{max-width:1180px;margin:0 auto;padding:28px 32px 60px;background:#fff;border-left:1px solid var(--line);border-right:1px solid var(--line)}
h1{font-size:27px;margin:0 0 4px}h2{font-size:20px;margin:38px 0 10px;padding-top:14px;border-top:2px solid var(--line)}
h3{font-size:16px;margin:24px 0 8px}p.sub{color:var(--soft);margin:0 0 18px}
nav a{margin-right:14px;color:#1e50aa;text-decoration:none}nav{margin:10px 0 6px}
table{border-collapse:collapse;font-size:13px;margin:8px 0 16px;max-width:100%}
.wide{overflow-x:auto}
th,td{padding:4px 10px;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th{background:var(--ground);font-weight:600}th:first-child,td:first-child{text-align:left}
.warn{background:#fff6e0;border:1px solid #e6b84c;border-radius:6px;padding:10px 16px;margin:14px 0}
.warn ul{margin:6px 0 0;padding-left:20px}.good{background:#e9f6ec;border:1px solid #8cc79a;border-radius:6px;padding:10px 16px}
figure{margin:14px 0 22px}figure img{max-width:100%;height:auto;display:block}
figcaption{font-size:13px;color:var(--soft);max-width:900px;margin-top:4px}
.row{display:flex;flex-wrap:wrap;gap:8px 24px;align-items:flex-start}.row figure{flex:1 1 480px;min-width:0}
code{background:var(--ground);padding:1px 4px;border-radius:3px}
details summary{cursor:pointer;color:#1e50aa}pre{font-size:12px;overflow-x:auto;background:var(--ground);padding:10px}
@media print{main{border:0;max-width:none}h2{break-before:auto}figure{break-inside:avoid}}
";

/// The whole page.
pub(super) fn page(run: &Run, figures: &Figures) -> String {
    let title = escaped(if run.record.series.is_empty() {
        "tomodelta"
    } else {
        &run.record.series
    });
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head><body><main>\n"
    );
    out += &format!(
        "<h1>{title}</h1><p class=\"sub\">{} scans, {} differences &middot; {} &middot; tomodelta {}</p>\n",
        run.scans.len(),
        run.changes.len(),
        escaped(&run.record.started),
        escaped(&run.record.version)
    );
    out += "<nav>";
    for (k, change) in run.changes.iter().enumerate() {
        out += &format!(
            "<a href=\"#d{k}\">{} &minus; {}</a>",
            escaped(&change.record.target),
            escaped(&change.record.reference)
        );
    }
    out += "<a href=\"#scans\">scans</a><a href=\"#run\">run</a><a href=\"#conventions\">conventions</a></nav>\n";
    out += &warnings(run, figures);
    out += "<h2>Summary</h2>\n<div class=\"wide\">";
    out += &tables::summary(run);
    out += "</div>\n";
    out += &row(&figures.series);
    for (k, change) in run.changes.iter().enumerate() {
        out += &format!(
            "<h2 id=\"d{k}\">{} &minus; {}</h2>\n",
            escaped(&change.record.target),
            escaped(&change.record.reference)
        );
        out += &row(figures.changes.get(k).map_or(&[][..], Vec::as_slice));
        out += "<div class=\"row\"><div>";
        out += &tables::totals(change);
        out += "</div><div>";
        out += &tables::alignment(&change.alignment);
        out += "</div></div>\n";
    }
    out += "<h2 id=\"scans\">Scans</h2>\n<div class=\"wide\">";
    out += &tables::scans(run);
    out += "</div><h3>Rotation axis</h3><div class=\"wide\">";
    out += &tables::axes(run);
    out += "</div>";
    out += &row(&figures.axes);
    out += "<h3>What the corrections touched</h3><div class=\"wide\">";
    out += &tables::corrections(run);
    out += "</div>";
    out += &tables::lock(run);
    out += "\n<h2 id=\"run\">Run</h2>\n";
    out += &tables::machine(run);
    out += "<h3>Inputs</h3><div class=\"wide\">";
    out += &tables::inputs(run);
    out += "</div>";
    let config = serde_json::to_string_pretty(&run.record.config).unwrap_or_default();
    out += &format!(
        "<details><summary>resolved config</summary><pre>{}</pre></details>\n",
        escaped(&config)
    );
    out += CONVENTIONS;
    out += "</main></body></html>\n";
    out
}

/// Warnings of the run first, then those of scans and differences that it does not repeat.
fn warnings(run: &Run, figures: &Figures) -> String {
    let mut all: Vec<String> = run.record.warnings.clone();
    let scans = run
        .scans
        .iter()
        .flat_map(|s| s.record.warnings.iter().map(move |w| (&s.record.name, w)));
    let changes = run.changes.iter().flat_map(|c| {
        c.record
            .warnings
            .iter()
            .chain(&c.alignment.warnings)
            .map(move |w| (&c.record.target, w))
    });
    for (name, warning) in scans.chain(changes) {
        // the run repeats most of them with the name in front
        if !all.iter().any(|known| known.contains(warning.as_str())) {
            all.push(format!("{name}: {warning}"));
        }
    }
    all.extend(figures.missing.iter().cloned());
    if all.is_empty() {
        return "<p class=\"good\">No warnings.</p>\n".into();
    }
    let items: String = all
        .iter()
        .map(|w| format!("<li>{}</li>", escaped(w)))
        .collect();
    format!(
        "<div class=\"warn\"><strong>{} warning{}</strong><ul>{items}</ul></div>\n",
        all.len(),
        if all.len() == 1 { "" } else { "s" }
    )
}

fn row(figures: &[Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let mut out = String::from("<div class=\"row\">");
    for figure in figures {
        out += &format!(
            "<figure><img alt=\"{0}\" src=\"data:image/png;base64,{1}\"><figcaption>{2}</figcaption></figure>",
            escaped(&figure.name),
            STANDARD.encode(&figure.png),
            escaped(&figure.caption)
        );
    }
    out += "</div>\n";
    out
}

const CONVENTIONS: &str = "<h2 id=\"conventions\">Conventions, for the methods section</h2>
<ul>
<li>Volumes are <code>[z, y, x]</code>; slice z is the detector row, x runs along columns, y along rows downwards. The rotation axis stands at (W &minus; 1)/2 of a slice W voxels wide; pixel centres are integers.</li>
<li>Attenuation is in 1/cm where the size of a pixel is known, else in 1/px.</li>
<li>The shift says where the sample stands in the target: a point at x in the reference stands at R(x) + shift in the target, R being the turn about the middle of the volume, positive from x towards y. The target was reconstructed on the grid of the reference with that motion; no volume was resampled.</li>
<li>The change is (target &minus; offset) / gain &minus; reference. An increase (red) is attenuation that the target has and the reference has not; a decrease is given as a positive number.</li>
<li>The noise is that between even and odd projections of both scans, or that of the unchanged voxels where it is larger. Sums run over the voxels beyond the threshold and the voxels next to them (<code>difference.grow</code>), where blur has put part of the change; their errors come from the noise of the difference, correlated as it is.</li>
<li>A grain is a set of connected voxels beyond the threshold; it counts at the height of its centroid.</li>
<li>Coloured voxels belong to a grain. Colours are drawn over the reference with an opacity that grows as the square root of the change.</li>
</ul>
<p>Cite the program with its version as given above; <code>run.json</code> and <code>config.toml</code> in the folder of the run make it repeatable.</p>
";
