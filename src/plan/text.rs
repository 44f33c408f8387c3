//! The plan in words.

use std::fmt;

use super::Plan;

/// `1.50 GiB`
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                // three figures, or what fits under a cap of few GiB is not told
                let digits = if value < 10.0 { 2 } else { 1 };
                format!("{value:.digits$} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.2} TiB")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "device   {} ({} threads)", self.device, self.threads)?;
        writeln!(
            f,
            "memory   peak about {}, at most {}, of {} allowed",
            human_bytes(self.likely_bytes()),
            human_bytes(self.peak_bytes()),
            human_bytes(self.memory_cap)
        )?;
        writeln!(
            f,
            "disk     about {} written, at most {} if nothing can be compressed; {} more while the work goes on",
            human_bytes(self.disk.expected),
            human_bytes(self.disk.at_most),
            human_bytes(self.scratch_bytes)
        )?;
        if let Some(lock) = &self.lock {
            writeln!(
                f,
                "lock     wrong pixels found over {} scans, {} rows at a time; peak memory {}",
                lock.scans.len(),
                lock.band,
                human_bytes(lock.peak_bytes)
            )?;
        }
        for scan in &self.scans {
            let [angles, rows, cols] = scan.shape;
            writeln!(
                f,
                "scan     {} ({}): {angles} projections of {rows} x {cols}",
                scan.name, scan.layout
            )?;
            if let Some(reference) = &scan.reference {
                writeln!(
                    f,
                    "         put on the grid of {reference}; pilot volumes binned by {}",
                    scan.pilot_binning
                )?;
            }
            writeln!(f, "         corrected {}", scan.corrections)?;
            writeln!(
                f,
                "         rows {}..{} to slices of {} x {}, {} slabs of {}; peak memory {}; writes {}",
                scan.rows.start,
                scan.rows.end,
                scan.slice[0],
                scan.slice[1],
                scan.slices.len().div_ceil(scan.slab),
                scan.slab,
                human_bytes(scan.peak_bytes),
                human_bytes(scan.volume_bytes)
            )?;
            writeln!(f, "         {}", scan.reading)?;
            if scan.field.half {
                writeln!(
                    f,
                    "         half acquisition: what lies beyond the axis is seen once, the slice is up to {} px wide",
                    scan.field.width
                )?;
            }
            if scan.may_be_half {
                writeln!(
                    f,
                    "         a full turn: if the axis is found near the edge (half acquisition), slices are up to {cols2} x {cols2}, \
                     and memory and disk are planned anew",
                    cols2 = 2 * cols / scan.binning
                )?;
            }
            if scan.binning > 1 {
                writeln!(
                    f,
                    "         rows and columns averaged in groups of {}",
                    scan.binning
                )?;
            }
        }
        for difference in &self.differences {
            writeln!(
                f,
                "change   {} minus {}: slabs of {}, writes {}",
                difference.target,
                difference.reference,
                difference.slab,
                human_bytes(difference.volume_bytes)
            )?;
        }
        Ok(())
    }
}
