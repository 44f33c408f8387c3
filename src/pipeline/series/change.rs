//! What the scans of a series are measured for: their differences, and when each voxel first changed.

use serde_json::json;

use super::{Finished, SeriesRun};
use crate::allocator;
use crate::difference;
use crate::error::Result;
use crate::io::volume;
use crate::pipeline::output::{Existing, read_json};
use crate::pipeline::provenance;
use crate::pipeline::{first_change, halves};
use crate::plan::{Plan, ScanPlan};
use crate::record::{AlignmentRecord, DifferenceRecord};

impl SeriesRun<'_> {
    pub(super) fn subtract(
        &mut self,
        scan_plan: &ScanPlan,
        target: &Finished,
        reference: &str,
        alignment: &AlignmentRecord,
        plan: &Plan,
    ) -> Result<()> {
        let name = &scan_plan.name;
        let folder = self.folder.difference(name)?;
        if self.session.existing == Existing::Resume && folder.join("difference.json").exists() {
            log::info!("{name}: the difference is complete, kept");
            let record: DifferenceRecord = read_json(&folder.join("difference.json"))?;
            self.warn(name, &record.warnings);
            return Ok(());
        }
        let other = self
            .finished
            .get(reference)
            .expect("references come first")
            .clone();
        let slab = plan
            .differences
            .iter()
            .find(|d| &d.target == name)
            .map_or(1, |d| d.slab);
        let groups = self.sampled_slices(scan_plan);
        let open = |name: &str| -> Result<_> {
            let folder = self.folder.scan(name)?;
            Ok(halves::open(&folder, self.config.run.format, &groups))
        };
        let samples = if groups.is_empty() {
            (None, None)
        } else {
            (open(reference)?, open(name)?)
        };
        let context = difference::Context {
            target: name,
            reference,
            halves: match &samples {
                (Some(reference), Some(target)) => Some(difference::Halves {
                    groups,
                    reference: reference.as_ref(),
                    target: target.as_ref(),
                }),
                _ => None,
            },
            config: &self.config.difference,
            mass: self.config.mass.as_ref(),
            charge_mah_cm2: self.config.scan[scan_plan.index].charge_mah_cm2,
            shift_err_z: alignment.shift_err_voxel[2],
            format: self.config.run.format,
            slab,
            valid_radius: target.valid_radius.min(other.valid_radius),
            valid_z: target.valid_z.start.max(other.valid_z.start)
                ..target.valid_z.end.min(other.valid_z.end),
            overwrite: self.session.existing != Existing::Refuse,
            provenance: provenance(
                self.config,
                name,
                &[
                    ("reference", json!(reference)),
                    ("alignment", json!(alignment)),
                ],
            ),
            progress: &self.session.progress,
        };
        let (reference_volume, target_volume) =
            (volume::open(&other.volume)?, volume::open(&target.volume)?);
        allocator::release();
        let record = difference::run(
            reference_volume.as_ref(),
            target_volume.as_ref(),
            &folder,
            &context,
        )?;
        allocator::release();
        self.warn(name, &record.warnings);
        Ok(())
    }

    /// The map of when each voxel first changed, where there are several differences.
    pub(super) fn first_change(&mut self) -> Result<()> {
        let format = self.config.run.format;
        let mut labels = Vec::new();
        for scan in &self.config.scan {
            if self.config.reference_of(scan).is_some() {
                let folder = self.folder.difference(&scan.name)?;
                let path = folder.join(volume::file_name("labels", format));
                labels.push((scan.name.clone(), volume::open(&path)?));
            }
        }
        if labels.len() < 2 {
            return Ok(());
        }
        let budget = crate::plan::memory_cap(self.config)? / 4;
        let table = self.folder.path().join("first_change.csv");
        if self.session.existing == Existing::Resume && table.exists() {
            return Ok(());
        }
        first_change::write(
            self.folder.path(),
            &labels,
            format,
            budget,
            self.session.existing != Existing::Refuse,
            &self.session.progress,
        )?;
        Ok(())
    }
}
