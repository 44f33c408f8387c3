//! How each scan moved against its reference, and whether three scans agree about it.

use super::{Finished, SeriesRun, Taken, valid_radius};
use crate::align::{self, PilotPair};
use crate::config::{AlignConfig, AlignMethod, StripeMethod};
use crate::correct::CorrectedScan;
use crate::error::Result;
use crate::io::volume;
use crate::pipeline::beyond::Beyond;
use crate::pipeline::match_axes::{self, Seen};
use crate::pipeline::output::{Existing, read_json, write_json};
use crate::pipeline::pilot::{self, Target, find_motion};
use crate::pipeline::reconstruct_scan::Motion;
use crate::plan::ScanPlan;
use crate::record::{AlignmentRecord, AxisCorrection};

impl SeriesRun<'_> {
    /// Finds how the scan is moved, or takes what an earlier run found.
    pub(super) fn align(
        &mut self,
        taken: &Taken<'_>,
        reference: &str,
        beyond: Option<Beyond<'_>>,
    ) -> Result<(Motion, AlignmentRecord)> {
        let scan_plan = taken.plan;
        let path = self
            .folder
            .difference(&scan_plan.name)?
            .join("alignment.json");
        if self.session.existing == Existing::Resume
            && let Ok(record) = read_json::<AlignmentRecord>(&path)
        {
            self.warn(&scan_plan.name, &record.warnings);
            let found = Motion::from_rotations(record.shift_voxel, record.rotation_deg);
            return Ok((taken.start.followed_by(found), record));
        }
        let other = self
            .finished
            .get(reference)
            .expect("references come first")
            .clone();
        let reference_scan = self.reference_of_axis(&other, taken)?;
        let volume = volume::open(&other.volume)?;
        let pilots = taken.scan.with_stripes(self.stripes_of_pilots());
        let still = Motion::default().magnified(taken.start.magnification);
        let mut target = Target {
            scan: &pilots,
            geometry: taken.geometry.clone(),
            binned_from: taken.binned_from,
            slices: scan_plan.slices.clone(),
            grid: taken.grid,
            config: &self.config.reconstruct,
            scale: taken.scale,
            valid_radius: valid_radius(taken, self.config, &still).min(other.valid_radius),
            slab: scan_plan.slab,
            pilot_slab: scan_plan.pilot_slab,
            start: taken.start,
            beyond,
        };
        let (motion, mut record) = find_motion(
            volume.as_ref(),
            &mut target,
            scan_plan.pilot_binning,
            &self.config.align,
            &mut |target, motion, warnings| match &reference_scan {
                Some(reference) => self.match_axes(reference, &other, target, motion, warnings),
                None => Ok(None),
            },
            &self.session.device,
            &self.session.progress,
        )?;
        drop(reference_scan);
        record.reference = reference.to_string();
        if self.config.align.searches() {
            match_axes::widen_errors(&mut record, &taken.geometry, &other.geometry);
        }
        if record.confidence < self.config.align.min_confidence {
            record.warnings.push(format!(
                "alignment of {} is uncertain (confidence {:.2}): look at the checkerboard in the report, or give align.shift",
                scan_plan.name, record.confidence
            ));
        }
        self.warn(&scan_plan.name, &record.warnings);
        let [x, y, z] = record.shift_voxel;
        log::info!(
            "{}: moved by x {x:.2}, y {y:.2}, z {z:.2} voxels against {reference}",
            scan_plan.name
        );
        write_json(&path, &record)?;
        Ok((motion, record))
    }

    /// Rings stand still between the scans and would pull the shift towards zero, so pilots lose them too, by the cheapest method that
    /// does it.
    fn stripes_of_pilots(&self) -> StripeMethod {
        match self.config.correct.stripe.method {
            StripeMethod::None => StripeMethod::None,
            _ => StripeMethod::Sorting,
        }
    }

    /// The reference as its axis is compared with that of the scan; `None` where that was given by hand or nobody asked.
    ///
    /// It is opened before there are pilots, as turning a compressed scan wants the memory that they take.
    fn reference_of_axis(
        &self,
        other: &Finished,
        taken: &Taken<'_>,
    ) -> Result<Option<CorrectedScan>> {
        let align = &self.config.align;
        let searched = taken.geometry.axis.uncertainty_px > 0.0;
        // rows averaged in groups are previews
        if !align.searches() || !align.match_axis || !searched || taken.binned_from.1 > 1 {
            return Ok(None);
        }
        let reference = self.corrected(other.index, true)?;
        Ok(Some(
            reference
                .with_stripes(self.stripes_of_pilots())
                .without_phase(),
        ))
    }

    /// How the axis of the scan stands against that of its reference.
    fn match_axes(
        &self,
        reference: &CorrectedScan,
        other: &Finished,
        target: &Target<'_>,
        motion: &Motion,
        warnings: &mut Vec<String>,
    ) -> Result<Option<AxisCorrection>> {
        let stage = self.session.progress.stage("matching the axes", 1, "pair");
        let scan = target.scan.without_phase();
        let seen = |source, geometry, motion| Seen {
            source,
            geometry,
            motion,
            at_once: target.pilot_slab,
        };
        let found = match_axes::find(
            &seen(reference, &other.geometry, other.motion),
            &seen(&scan, &target.geometry, *motion),
            &target.slices,
        )?;
        stage.inc(1);
        Ok(found.filter(|found| {
            match_axes::believed(found, &target.geometry, &other.geometry, warnings)
        }))
    }

    /// Registers the scan with another one of the same reference, both on its grid: what is found there is the
    /// disagreement of three alignments.
    pub(super) fn closure(
        &mut self,
        scan_plan: &ScanPlan,
        own: &Finished,
        reference: &str,
        alignment: &mut AlignmentRecord,
    ) -> Result<()> {
        let searched = matches!(alignment.method.as_str(), "translation" | "rigid");
        let other = self
            .finished
            .iter()
            .find(|(_, other)| other.reference.as_deref() == Some(reference))
            .map(|(name, other)| (name.clone(), other.clone()));
        let (Some((name, other)), true, None) = (other, searched, alignment.closure_voxel) else {
            return Ok(());
        };
        let binning = scan_plan.pilot_binning;
        let radius = own.valid_radius.min(other.valid_radius) / binning as f64 - 2.0;
        let stage = self.session.progress.stage("closure", 1, "pair");
        let pair = PilotPair {
            reference: pilot::bin_volume(volume::open(&other.volume)?.as_ref(), binning)?,
            target: pilot::bin_volume(volume::open(&own.volume)?.as_ref(), binning)?,
            binning,
            radius: radius.max(2.0),
        };
        let config = AlignConfig {
            method: AlignMethod::Translation,
            search: 0.05_f64.min(self.config.align.search),
            ..self.config.align.clone()
        };
        let found = align::register(&pair, &config)?;
        stage.inc(1);
        if found.confidence < config.min_confidence {
            log::info!(
                "{}: no closure, {name} has too little in common with it",
                scan_plan.name
            );
            return Ok(());
        }
        let worst = found.shift_voxel.iter().fold(0f64, |a, b| a.max(b.abs()));
        log::info!("{}: closure with {name} {:.3} voxel", scan_plan.name, worst);
        if worst > 0.2 {
            let text = format!(
                "alignment: it does not close: against {name}, on the same grid, this scan is off by {worst:.2} voxel"
            );
            self.warn(&scan_plan.name, std::slice::from_ref(&text));
            alignment.warnings.push(text);
        }
        alignment.closure_voxel = Some(found.shift_voxel);
        alignment.closure_with = Some(name);
        let path = self
            .folder
            .difference(&scan_plan.name)?
            .join("alignment.json");
        write_json(&path, alignment)
    }
}
