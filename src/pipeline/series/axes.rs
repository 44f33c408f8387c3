//! Before the long work: where every scan turns, and how wide its sample is.

use super::SeriesRun;
use crate::center::AxisFit;
use crate::config::Truncation;
use crate::error::Result;
use crate::pipeline::certain_axis;
use crate::pipeline::geometry::ScanGeometry;
use crate::pipeline::output::{Existing, read_json, write_json};
use crate::pipeline::sample_radius;
use crate::plan::Plan;
use crate::reconstruct::support::Reach;
use crate::record::ScanRecord;
use crate::scan::Scan;

impl SeriesRun<'_> {
    /// Finds the axis of every scan (in the order of the config) before any long work, so that a doubt stops the run early. The averaged flats are
    /// not kept: twenty scans of them are gigabytes.
    pub(super) fn find_axes(&mut self, plan: &Plan, scans: &[Scan]) -> Result<Vec<AxisFit>> {
        let mut axes = vec![AxisFit::default(); scans.len()];
        for scan_plan in &plan.scans {
            for warning in &scans[scan_plan.index].warnings {
                self.warnings.push(format!("{}: {warning}", scan_plan.name));
            }
            let kept: Option<ScanRecord> = match self.session.existing {
                Existing::Resume => {
                    read_json(&self.folder.scan(&scan_plan.name)?.join("scan.json")).ok()
                }
                _ => None,
            };
            let axis_path = self.folder.scan(&scan_plan.name)?.join("axis.json");
            let found: Option<AxisFit> = match self.session.existing {
                Existing::Resume => read_json(&axis_path).ok(),
                _ => None,
            };
            // the record of a scan that is done holds the axis with what the alignment added, which is added again
            axes[scan_plan.index] = match found.or(kept.map(|record| record.rotation_axis)) {
                Some(axis) => axis,
                None => {
                    let corrected = self.corrected(scan_plan.index, true)?;
                    let axis = certain_axis(
                        &scan_plan.name,
                        &corrected.without_phase(),
                        &self.config.center_of(&self.config.scan[scan_plan.index]),
                        &self.session.progress,
                    )?;
                    write_json(&axis_path, &axis)?;
                    axis
                }
            };
        }
        Ok(axes)
    }

    /// How wide the sample of every scan is, where the detector does not hold it (in the order of the config). A scan takes over what was found
    /// of its reference, in its own pixels: rows that go on alike leave nothing in the difference.
    pub(super) fn find_reaches(
        &self,
        plan: &Plan,
        scans: &[Scan],
        axes: &[AxisFit],
    ) -> Result<Vec<Reach>> {
        let config = &self.config.reconstruct;
        let mut reaches = vec![Reach::Inside; scans.len()];
        for scan_plan in &plan.scans {
            let index = scan_plan.index;
            let pixel = scans[index].pixel_size_um;
            reaches[index] = match &scan_plan.reference {
                _ if config.truncation == Truncation::RollOff => Reach::Inside,
                _ if config.sample_diameter_mm.is_some() => {
                    let radius = sample_radius::given(config, pixel)?;
                    radius.map_or(Reach::Inside, Reach::Radius)
                }
                Some(reference) => {
                    let other = plan.scans.iter().find(|other| other.name == *reference);
                    let other = other.expect("references stand in the plan").index;
                    let magnification = self.config.scan[index].magnification;
                    let seen = match (magnification, scans[other].pixel_size_um, pixel) {
                        (Some(given), _, _) => given,
                        (None, Some(theirs), Some(ours)) => theirs / ours,
                        _ => 1.0,
                    };
                    reaches[other].scaled(seen)
                }
                None => {
                    let scan = self.corrected(index, false)?;
                    let rows = &scan_plan.rows;
                    let geometry = ScanGeometry::new(&scan, &axes[index], rows, config)?;
                    sample_radius::find(
                        &scan_plan.name,
                        &scan,
                        &geometry,
                        rows.clone(),
                        config,
                        pixel,
                    )?
                }
            };
        }
        Ok(reaches)
    }
}
