//! Corrected line integrals as HDF5: dataset `/sinograms` `[row, angle, col]` f32, `/angles_deg`, `/rows`.

use std::path::{Path, PathBuf};

use ndarray::ArrayView3;
use rust_hdf5::types::VarLenUnicode;
use rust_hdf5::{H5Dataset, H5File, H5FileOptions};

use crate::config::Config;
use crate::correct::{CorrectedScan, CorrectionCounts};
use crate::error::{Error, Result};
use crate::scan::SinogramSource;

/// Writes rows in ascending order; the file has its name when [`Writer::finish`] returns, and is removed if dropped.
pub struct Writer {
    dataset: H5Dataset,
    file: H5File,
    temporary: PathBuf,
    target: PathBuf,
    shape: [usize; 3],
    finished: bool,
}

fn bad(path: &Path) -> impl Fn(rust_hdf5::Hdf5Error) -> Error {
    let path = path.to_path_buf();
    move |error| {
        Error::dataset(
            &path,
            "/sinograms",
            error.to_string(),
            "check the space left and the rights of the folder",
        )
    }
}

impl Writer {
    /// Starts a file for `shape` `[row, angle, col]`, row 0 being detector row `first_row`.
    ///
    /// # Errors
    /// [`Error::OutputExists`] without `overwrite`; those of the file system.
    pub fn create(
        target: &Path,
        shape: [usize; 3],
        scan: &CorrectedScan,
        first_row: usize,
        config: &Config,
        overwrite: bool,
    ) -> Result<Writer> {
        if target.exists() && !overwrite {
            return Err(Error::OutputExists {
                path: target.to_path_buf(),
            });
        }
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(".partial");
        let temporary = target.with_file_name(name);
        let bad = bad(target);
        let file = H5FileOptions::new()
            .no_locking()
            .create(&temporary)
            .map_err(&bad)?;
        let describe = || -> rust_hdf5::Result<H5Dataset> {
            let dataset = file
                .new_dataset::<f32>()
                .shape(shape)
                .chunk(&[1, shape[1], shape[2]])
                .fill_value(f32::NAN)
                .create("sinograms")?;
            let config = toml::to_string(config).unwrap_or_default();
            for (name, text) in [
                ("axes", "row, angle, col"),
                ("quantity", "line integral, -ln(transmission)"),
                ("program", concat!("tomodelta ", env!("CARGO_PKG_VERSION"))),
                ("config", config.as_str()),
            ] {
                let attribute = dataset.new_attr::<VarLenUnicode>().shape(()).create(name)?;
                attribute.write_scalar(&VarLenUnicode(text.to_string()))?;
            }
            if let Some(size) = scan.scan().pixel_size_um {
                dataset
                    .new_attr::<f64>()
                    .shape(())
                    .create("pixel_size_um")?
                    .write_numeric(&size)?;
            }
            let degrees: Vec<f64> = scan
                .angles_rad()
                .iter()
                .map(|angle| angle.to_degrees())
                .collect();
            file.new_dataset::<f64>()
                .shape([degrees.len()])
                .create("angles_deg")?
                .write_raw(&degrees)?;
            let rows: Vec<u64> = (first_row..first_row + shape[0])
                .map(|row| row as u64)
                .collect();
            file.new_dataset::<u64>()
                .shape([rows.len()])
                .create("rows")?
                .write_raw(&rows)?;
            Ok(dataset)
        };
        let dataset = describe().map_err(&bad)?;
        Ok(Writer {
            dataset,
            file,
            temporary,
            target: target.to_path_buf(),
            shape,
            finished: false,
        })
    }

    /// Writes rows that start at `row`.
    ///
    /// # Errors
    /// Those of the file system.
    ///
    /// # Panics
    /// When the sinograms are not contiguous.
    pub fn write(&mut self, row: usize, sinograms: ArrayView3<'_, f32>) -> Result<()> {
        let [_, angles, cols] = self.shape;
        for (k, sinogram) in sinograms.outer_iter().enumerate() {
            let values = sinogram
                .to_slice()
                .expect("sinograms of a slab are contiguous");
            self.dataset
                .write_slice(&[row + k, 0, 0], &[1, angles, cols], values)
                .map_err(bad(&self.target))?;
        }
        Ok(())
    }

    /// Adds what the corrections touched and gives the file its name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(mut self, counts: &CorrectionCounts) -> Result<()> {
        let text = serde_json::to_string(counts).unwrap_or_default();
        let store = || -> rust_hdf5::Result<()> {
            let attribute = self
                .dataset
                .new_attr::<VarLenUnicode>()
                .shape(())
                .create("corrections")?;
            attribute.write_scalar(&VarLenUnicode(text))?;
            self.file.flush()
        };
        store().map_err(bad(&self.target))?;
        std::fs::File::open(&self.temporary)
            .and_then(|file| file.sync_all())
            .map_err(Error::io("write", &self.temporary))?;
        std::fs::rename(&self.temporary, &self.target).map_err(Error::io("write", &self.target))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
