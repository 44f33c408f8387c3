//! Scans on disk, as beamlines write them.
//!
//! A scan is written under a temporary name and renamed when it is complete.

use std::fs;
use std::path::{Path, PathBuf};

use rust_hdf5::{H5Dataset, H5File, VarLenUnicode};

use super::Format;
use super::detector::{FrameJob, FrameKind};
use super::papers::start_of;
use super::series::{ScanPlan, Series};
use crate::error::{Error, Result};

/// Takes the frames of one scan in their order.
pub(super) trait FrameWriter: Send {
    /// Writes the next frame.
    fn push(&mut self, job: FrameJob, counts: &[u16]) -> Result<()>;
    /// Closes the scan and gives it its name.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// The writer for a scan's format. An older scan of that name is replaced when the new one is complete.
pub(super) fn create(
    folder: &Path,
    series: &Series,
    scan: &ScanPlan,
    jobs: &[FrameJob],
) -> Result<Box<dyn FrameWriter>> {
    let target = folder.join(&scan.file);
    Ok(match scan.format {
        Format::Nxtomo => Box::new(NxTomo::create(target, series, scan, jobs, false)?),
        Format::NxtomoGzip => Box::new(NxTomo::create(target, series, scan, jobs, true)?),
        Format::Tiff => Box::new(TiffFolder::create(target, series)?),
    })
}

fn partial(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    target.with_file_name(name)
}

/// NXtomo: all frames in one dataset, told apart by `image_key`.
struct NxTomo {
    target: PathBuf,
    partial: PathBuf,
    file: H5File,
    data: H5Dataset,
    next: usize,
    shape: [usize; 2],
}

const DATA: &str = "/entry/instrument/detector/data";

impl NxTomo {
    fn create(
        target: PathBuf,
        series: &Series,
        scan: &ScanPlan,
        jobs: &[FrameJob],
        gzip: bool,
    ) -> Result<Self> {
        let partial = partial(&target);
        let (file, data) = Self::lay_out(&partial, series, scan, jobs, gzip)
            .map_err(|error| hdf5(&partial, error))?;
        Ok(NxTomo {
            target,
            partial,
            file,
            data,
            next: 0,
            shape: [series.n_rows, series.n_cols],
        })
    }

    /// Everything but the frames.
    fn lay_out(
        path: &Path,
        series: &Series,
        scan: &ScanPlan,
        jobs: &[FrameJob],
        gzip: bool,
    ) -> rust_hdf5::Result<(H5File, H5Dataset)> {
        let (n_rows, n_cols) = (series.n_rows, series.n_cols);
        let file = H5File::create(path)?;
        file.set_attr_string("default", "entry")?;
        let group = |parent: &rust_hdf5::H5Group,
                     name: &str,
                     class: &str|
         -> rust_hdf5::Result<rust_hdf5::H5Group> {
            let group = parent.create_group(name)?;
            group.set_attr_string("NX_class", class)?;
            Ok(group)
        };
        let entry = group(&file.root_group(), "entry", "NXentry")?;
        entry.write_vlen_strings("definition", &["NXtomo"])?;
        entry.write_vlen_strings("title", &[format!("simulated, {}", scan.name).as_str()])?;
        entry.write_vlen_strings("start_time", &[start_of(series, scan).as_str()])?;

        let instrument = group(&entry, "instrument", "NXinstrument")?;
        let detector = group(&instrument, "detector", "NXdetector")?;
        let builder = detector
            .new_dataset::<u16>()
            .shape([jobs.len(), n_rows, n_cols])
            .chunk(&[1, n_rows, n_cols]);
        let data = if gzip {
            builder.shuffle_deflate(4).create("data")?
        } else {
            builder.create("data")?
        };
        let keys: Vec<u8> = jobs.iter().map(|job| job.kind as u8).collect();
        detector
            .new_dataset::<u8>()
            .shape([keys.len()])
            .create("image_key")?
            .write_raw(&keys)?;
        for name in ["x_pixel_size", "y_pixel_size"] {
            let size = detector.new_dataset::<f64>().shape([1usize]).create(name)?;
            size.write_raw(&[series.pixel_size_um])?;
            with_units(&size, "um")?;
        }

        let sample = group(&entry, "sample", "NXsample")?;
        sample.write_vlen_strings("name", &[scan.name.as_str()])?;
        let angles = series.angles_deg();
        let per_frame: Vec<f64> = jobs
            .iter()
            .map(|job| match job.kind {
                FrameKind::Projection => angles[job.index],
                // flats and darks carry the angle at which the stage stood
                _ => angles[if job.time > 0.5 { angles.len() - 1 } else { 0 }],
            })
            .collect();
        let rotation = sample
            .new_dataset::<f64>()
            .shape([per_frame.len()])
            .create("rotation_angle")?;
        rotation.write_raw(&per_frame)?;
        with_units(&rotation, "degree")?;

        let links = group(&entry, "data", "NXdata")?;
        links.set_attr_string("signal", "data")?;
        links.create_soft_link("data", DATA)?;
        links.create_soft_link("image_key", "/entry/instrument/detector/image_key")?;
        links.create_soft_link("rotation_angle", "/entry/sample/rotation_angle")?;
        Ok((file, data))
    }
}

impl FrameWriter for NxTomo {
    fn push(&mut self, _: FrameJob, counts: &[u16]) -> Result<()> {
        let [n_rows, n_cols] = self.shape;
        self.data
            .write_slice(&[self.next, 0, 0], &[1, n_rows, n_cols], counts)
            .map_err(|error| hdf5(&self.partial, error))?;
        self.next += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let NxTomo {
            target,
            partial,
            file,
            data,
            ..
        } = *self;
        drop(data);
        file.close().map_err(|error| hdf5(&partial, error))?;
        fs::rename(&partial, &target).map_err(Error::io("rename to its name", &target))
    }
}

fn with_units(dataset: &H5Dataset, units: &str) -> rust_hdf5::Result<()> {
    dataset
        .new_attr::<VarLenUnicode>()
        .shape(())
        .create("units")?
        .write_string(units)
}

fn hdf5(path: &Path, error: rust_hdf5::Hdf5Error) -> Error {
    Error::dataset(
        path,
        DATA,
        format!("cannot write: {error}"),
        "check free space and permissions of the folder",
    )
}

/// A folder of TIFF files.
struct TiffFolder {
    target: PathBuf,
    partial: PathBuf,
    shape: [usize; 2],
}

const PARTS: [(&str, &str, FrameKind); 3] = [
    ("projections", "projection", FrameKind::Projection),
    ("flats", "flat", FrameKind::Flat),
    ("darks", "dark", FrameKind::Dark),
];
const ANGLES: &str = "angles.txt";

impl TiffFolder {
    fn create(target: PathBuf, series: &Series) -> Result<Self> {
        let partial = partial(&target);
        remove(&partial)?;
        for (folder, _, _) in PARTS {
            let path = partial.join(folder);
            fs::create_dir_all(&path).map_err(Error::io("create folder", &path))?;
        }
        let text: String = series
            .angles_deg()
            .iter()
            .map(|angle| format!("{angle:.6}\n"))
            .collect();
        let path = partial.join(ANGLES);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
        Ok(TiffFolder {
            target,
            partial,
            shape: [series.n_rows, series.n_cols],
        })
    }
}

impl FrameWriter for TiffFolder {
    fn push(&mut self, job: FrameJob, counts: &[u16]) -> Result<()> {
        let (folder, stem) = PARTS
            .iter()
            .find(|(_, _, kind)| *kind == job.kind)
            .map(|(folder, stem, _)| (*folder, *stem))
            .expect("every kind has its folder");
        let path = self
            .partial
            .join(folder)
            .join(format!("{stem}_{:05}.tif", job.index));
        let file = fs::File::create(&path).map_err(Error::io("create", &path))?;
        let [n_rows, n_cols] = self
            .shape
            .map(|n| u32::try_from(n).expect("sizes are at most 65535"));
        tiff::encoder::TiffEncoder::new(std::io::BufWriter::new(file))
            .and_then(|mut tiff| {
                tiff.write_image::<tiff::encoder::colortype::Gray16>(n_cols, n_rows, counts)
            })
            .map_err(|error| {
                Error::input(
                    &path,
                    format!("cannot write: {error}"),
                    "check free space and permissions",
                )
            })
    }

    fn finish(self: Box<Self>) -> Result<()> {
        remove(&self.target)?;
        fs::rename(&self.partial, &self.target)
            .map_err(Error::io("rename to its name", &self.target))
    }
}

/// Removes a scan folder, but only one that holds nothing else than what a scan folder holds.
fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let known = |name: &str| name == ANGLES || PARTS.iter().any(|(part, _, _)| *part == name);
    for entry in fs::read_dir(folder).map_err(Error::io("read folder", folder))? {
        let entry = entry.map_err(Error::io("read folder", folder))?;
        let name = entry.file_name();
        if !name.to_str().is_some_and(known) {
            return Err(Error::input(
                folder,
                format!("holds {}, which a simulated scan does not", name.display()),
                "move it away, or simulate into another folder",
            ));
        }
    }
    fs::remove_dir_all(folder).map_err(Error::io("remove", folder))
}
