//! One TIFF file per slice (f32, or u32 for labels), with `volume.json` and `checksums.json` beside them; also folders
//! and multi-page files of other software.

use std::fs::File;
use std::io::{BufReader, Cursor};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ::tiff::decoder::{Decoder, DecodingResult};
use ::tiff::encoder::{Rational, TiffEncoder, colortype};
use ::tiff::tags::{ResolutionUnit, Tag};
use ndarray::{Array3, ArrayViewMut3, Axis, s};
use rayon::prelude::*;

use super::checksum::{CHECKSUMS, Checksums, Part};
use super::partial::Partial;
use super::writer::{Backend, Voxel, Writer};
use super::{
    Hints, Opened, Slab, Stack, Stored, VolumeMeta, VolumeReader, VolumeWriter, VoxelType,
};
use crate::error::{Error, Result};
use crate::io::tiff_stack::limits;

const META: &str = "volume.json";

fn slice_name(z: usize) -> String {
    format!("slice_{z:05}.tif")
}

pub(super) fn create(partial: Partial, meta: &VolumeMeta) -> Result<Box<dyn VolumeWriter>> {
    Writer::start(partial, meta, |building| {
        std::fs::create_dir_all(building).map_err(Error::io("create folder", building))?;
        Ok(TiffBackend {
            folder: building.to_path_buf(),
            meta: meta.clone(),
            checksums: Checksums::default(),
            next: 0,
        })
    })
}

struct TiffBackend {
    folder: PathBuf,
    meta: VolumeMeta,
    checksums: Checksums,
    next: usize,
}

impl Backend for TiffBackend {
    fn append<T: Voxel>(&mut self, z0: usize, slices: &[T]) -> Result<()> {
        let slice_len = self.meta.shape[1] * self.meta.shape[2];
        let parts: Result<Vec<(String, Part)>> = slices
            .par_chunks(slice_len)
            .enumerate()
            .map(|(index, slice)| {
                let name = slice_name(z0 + index);
                let path = self.folder.join(&name);
                let bytes = encode(slice, &self.meta, z0 + index).map_err(|error| {
                    Error::input(
                        &path,
                        format!("cannot be encoded: {error}"),
                        "choose another --format",
                    )
                })?;
                super::store_part(&path, &bytes)?;
                Ok((name, Part::of(&bytes)))
            })
            .collect();
        self.checksums.parts.extend(parts?);
        self.next = z0 + slices.len() / slice_len;
        Ok(())
    }

    fn stored(&self) -> usize {
        self.next
    }

    fn read_back(&self, z: Range<usize>) -> Result<Array3<f32>> {
        let stack = TiffStack {
            path: self.folder.clone(),
            pages: Pages::Files(
                (0..z.end)
                    .map(|z| self.folder.join(slice_name(z)))
                    .collect(),
            ),
            meta: self.meta.clone(),
        };
        super::values(stack.slab(z)?)
    }

    fn finish(self) -> Result<Vec<String>> {
        super::write_json(
            &self.folder.join(META),
            &serde_json::json!({ "tomodelta": Stored::of(&self.meta).value() }),
        )?;
        self.checksums.store(&self.folder)?;
        Ok(Vec::new())
    }
}

fn encode<T: Voxel>(slice: &[T], meta: &VolumeMeta, z: usize) -> ::tiff::TiffResult<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::with_capacity(4 * slice.len() + 1024));
    let mut encoder = TiffEncoder::new(&mut bytes)?;
    let (height, width) = (meta.shape[1] as u32, meta.shape[2] as u32);
    macro_rules! write_as {
        ($color:ty, $voxel:ty) => {{
            let mut image = encoder.new_image::<$color>(width, height)?;
            if let Some(size) = meta.voxel_size_um {
                // pixels per centimetre, in thousandths
                let value = Rational { n: (1e7 / size).round().clamp(1.0, f64::from(u32::MAX)) as u32, d: 1000 };
                image.resolution(ResolutionUnit::Centimeter, value);
            }
            let description = serde_json::json!({ "unit": meta.unit, "voxel_size_um": meta.voxel_size_um, "slice": z });
            image.encoder().write_tag(Tag::ImageDescription, description.to_string().as_str())?;
            image.encoder().write_tag(Tag::Software, concat!("tomodelta ", env!("CARGO_PKG_VERSION")))?;
            image.write_data(bytemuck::cast_slice::<T, $voxel>(slice))?;
        }};
    }
    match T::TYPE {
        VoxelType::F32 => write_as!(colortype::Gray32Float, f32),
        VoxelType::U32 => write_as!(colortype::Gray32, u32),
    }
    Ok(bytes.into_inner())
}

pub(super) fn is_own(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else {
        return false;
    };
    let only_ours = entries.flatten().all(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name == META || name == CHECKSUMS || (name.starts_with("slice_") && name.ends_with(".tif"))
    });
    only_ours && load_meta(path).is_ok_and(|meta| meta.is_some())
}

fn load_meta(folder: &Path) -> Result<Option<VolumeMeta>> {
    let path = folder.join(META);
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(None);
    };
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        Error::input(
            &path,
            format!("is not JSON: {error}"),
            "remove it to read the slices alone",
        )
    })?;
    Ok(serde_json::from_value::<Stored>(value["tomodelta"].clone())
        .ok()
        .map(|stored| stored.volume))
}

/// Where slice z is.
enum Pages {
    Files(Vec<PathBuf>),
    OneFile,
}

struct TiffStack {
    path: PathBuf,
    pages: Pages,
    meta: VolumeMeta,
}

pub(super) fn open(path: &Path, hints: &Hints) -> Result<Box<dyn VolumeReader>> {
    let (pages, depth, first) = if path.is_dir() {
        let files = list(path)?;
        (Pages::Files(files.clone()), files.len(), files[0].clone())
    } else {
        (Pages::OneFile, count_pages(path)?, path.to_path_buf())
    };
    let mut decoder = decoder(&first)?;
    let (width, height) = decoder.dimensions().map_err(bad(&first))?;
    let shape = [depth, height as usize, width as usize];
    let color = decoder.colortype().map_err(bad(&first))?;
    let integer = decoder
        .find_tag_unsigned_vec::<u16>(Tag::SampleFormat)
        .map_err(bad(&first))?
        .is_none_or(|f| f[0] == 1);
    let voxel_type = if color == ::tiff::ColorType::Gray(32) && integer {
        VoxelType::U32
    } else {
        VoxelType::F32
    };
    let own = if path.is_dir() {
        load_meta(path)?
    } else {
        None
    };
    let mut meta = match own {
        Some(meta) if meta.shape == shape => meta,
        Some(meta) => {
            return Err(Error::Shape {
                what: format!("slices in {} against its {META}", path.display()),
                expected: meta.shape.to_vec(),
                found: shape.to_vec(),
                hint: "slices are missing or foreign; write the volume again".into(),
            });
        }
        None => super::foreign_meta(shape, voxel_type, hints),
    };
    meta.voxel_type = voxel_type;
    super::apply_hints(&mut meta, hints);
    Ok(Box::new(Opened(TiffStack {
        path: path.to_path_buf(),
        pages,
        meta,
    })))
}

/// The TIFF files of a folder in the order that a person expects (2 before 10).
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let name = entry
            .map_err(Error::io("list", folder))?
            .file_name()
            .to_string_lossy()
            .into_owned();
        let lower = name.to_ascii_lowercase();
        if (lower.ends_with(".tif") || lower.ends_with(".tiff")) && !name.starts_with('.') {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(Error::input(
            folder,
            "is a folder without zarr.json and without .tif files",
            "give the folder of the volume itself",
        ));
    }
    names.sort_by(|a, b| natord::compare(a, b).then_with(|| a.cmp(b)));
    if folder.join(META).exists() {
        // names are ours: a hole in the numbers must not close up silently
        for (z, name) in names.iter().enumerate() {
            if *name != slice_name(z) {
                return Err(Error::input(
                    folder,
                    format!("expected {}, found {name}", slice_name(z)),
                    "a slice is missing or foreign; write the volume again",
                ));
            }
        }
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

type FileDecoder = Decoder<BufReader<File>>;

fn decoder(path: &Path) -> Result<FileDecoder> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let limits = limits(&mut file).map_err(Error::io("read", path))?;
    Ok(Decoder::new(BufReader::with_capacity(1 << 16, file))
        .map_err(bad(path))?
        .with_limits(limits))
}

fn bad(path: &Path) -> impl FnOnce(::tiff::TiffError) -> Error {
    let path = path.to_path_buf();
    move |error| {
        Error::input(
            path,
            format!("cannot be read as TIFF: {error}"),
            "the file is damaged, cut short, or of an unsupported kind",
        )
    }
}

/// Slices decoded at a time.
fn at_once() -> usize {
    2 * rayon::current_num_threads()
}

/// Slices that wait to be placed, of four bytes a voxel.
pub(super) fn reader_bytes(shape: [usize; 3]) -> u64 {
    4 * (at_once() * shape[1] * shape[2]) as u64
}

fn count_pages(path: &Path) -> Result<usize> {
    let mut decoder = decoder(path)?;
    let mut pages = 1;
    while decoder.more_images() {
        decoder.next_image().map_err(bad(path))?;
        pages += 1;
    }
    Ok(pages)
}

impl TiffStack {
    fn page(&self, decoder: &mut FileDecoder, path: &Path) -> Result<DecodingResult> {
        let (width, height) = decoder.dimensions().map_err(bad(path))?;
        let found = vec![height as usize, width as usize];
        let color = decoder.colortype().map_err(bad(path))?;
        if found != self.meta.shape[1..] || !matches!(color, ::tiff::ColorType::Gray(_)) {
            return Err(Error::Shape {
                what: format!("slice {} ({color:?})", path.display()),
                expected: self.meta.shape[1..].to_vec(),
                found,
                hint: "all slices of a volume have one size and one grey channel".into(),
            });
        }
        decoder.read_image().map_err(bad(path))
    }

    /// Slices `z`, decoded a few at a time: the slab that they go into is held beside them.
    fn each(
        &self,
        z: Range<usize>,
        mut take: impl FnMut(usize, Vec<DecodingResult>) -> Result<()>,
    ) -> Result<()> {
        let at_once = at_once();
        let mut one_file = match &self.pages {
            Pages::Files(_) => None,
            Pages::OneFile => Some(decoder(&self.path)?),
        };
        for first in z.clone().step_by(at_once) {
            let part = first..(first + at_once).min(z.end);
            let pages = match (&self.pages, &mut one_file) {
                (Pages::Files(files), _) => files[part]
                    .par_iter()
                    .map(|path| self.page(&mut decoder(path)?, path))
                    .collect::<Result<_>>()?,
                (Pages::OneFile, decoder) => part
                    .map(|page| {
                        let decoder = decoder.as_mut().expect("opened above");
                        decoder.seek_to_image(page).map_err(bad(&self.path))?;
                        self.page(decoder, &self.path)
                    })
                    .collect::<Result<_>>()?,
            };
            take(first - z.start, pages)?;
        }
        Ok(())
    }

    /// Puts pages of values into `slices`, as f32; the first of them is slice `z0`.
    fn place(
        &self,
        z0: usize,
        pages: Vec<DecodingResult>,
        mut slices: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        slices
            .outer_iter_mut()
            .into_par_iter()
            .zip(pages)
            .enumerate()
            .try_for_each(|(index, (mut slice, page))| {
                let to = slice
                    .as_slice_mut()
                    .expect("a slice of a fresh array is contiguous");
                macro_rules! convert {
                    ($page:expr, $of:expr) => {
                        to.iter_mut()
                            .zip($page)
                            .for_each(|(to, from)| *to = $of(from))
                    };
                }
                match page {
                    DecodingResult::F32(page) => to.copy_from_slice(&page),
                    DecodingResult::F64(page) => convert!(page, |v| v as f32),
                    DecodingResult::U8(page) => convert!(page, f32::from),
                    DecodingResult::U16(page) => convert!(page, f32::from),
                    DecodingResult::I8(page) => convert!(page, f32::from),
                    DecodingResult::I16(page) => convert!(page, f32::from),
                    DecodingResult::I32(page) => convert!(page, |v| v as f32),
                    _ => return Err(self.mixed(z0 + index)),
                }
                Ok(())
            })
    }
}

impl Stack for TiffStack {
    fn meta(&self) -> &VolumeMeta {
        &self.meta
    }
    fn path(&self) -> &Path {
        &self.path
    }
    fn slab(&self, z: Range<usize>) -> Result<Slab> {
        let [_, ny, nx] = self.meta.shape;
        let shape = (z.len(), ny, nx);
        let z0 = z.start;
        if self.meta.voxel_type == VoxelType::U32 {
            let mut labels = Array3::zeros(shape);
            self.each(z, |first, pages| {
                for (index, page) in pages.into_iter().enumerate() {
                    let DecodingResult::U32(page) = page else {
                        return Err(self.mixed(z0 + first + index));
                    };
                    let mut slice = labels.index_axis_mut(Axis(0), first + index);
                    slice.iter_mut().zip(page).for_each(|(to, from)| *to = from);
                }
                Ok(())
            })?;
            return Ok(Slab::Labels(labels));
        }
        let mut values = Array3::zeros(shape);
        self.each(z, |first, pages| {
            let slices = values.slice_mut(s![first..first + pages.len(), .., ..]);
            self.place(z0 + first, pages, slices)
        })?;
        Ok(Slab::Values(values))
    }
    fn bytes_per_slice(&self) -> u64 {
        reader_bytes(self.meta.shape)
    }
}

impl TiffStack {
    fn mixed(&self, z: usize) -> Error {
        Error::input(
            &self.path,
            format!("slice {z} has another or an unsupported element type"),
            "save the stack as 32-bit float",
        )
    }
}
