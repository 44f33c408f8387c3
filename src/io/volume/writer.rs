//! What the writers of all formats share: order, shape and type of the slabs, and the name that comes last.

use std::ops::Range;
use std::path::Path;

use ndarray::{Array3, ArrayView3};

use super::partial::Partial;
use super::{VolumeMeta, VolumeWriter, VoxelType};
use crate::error::{Error, Result};

const _: () = assert!(
    cfg!(target_endian = "little"),
    "stored volumes are little-endian and are written as they lie in memory"
);

/// An element type that volumes hold.
pub(super) trait Voxel:
    bytemuck::Pod + Send + Sync + PartialOrd + rust_hdf5::H5Type
{
    /// Its name in the metadata.
    const TYPE: VoxelType;
    /// Name of the type in Zarr.
    const ZARR: &'static str;
    /// `numpy` name of the type.
    const NUMPY: &'static str;
    /// Stands where nothing was written; never read back as a value.
    const FILL: Self;
    /// One voxel of the next smaller scale.
    fn pool(voxels: &[Self]) -> Self;
    /// The voxels of the next smaller scale from four lines, a pair of each for one voxel; `to` may be longer.
    fn pool_pairs(lines: [&[Self]; 4], to: &mut [Self]) {
        for (x, to) in to.iter_mut().enumerate().take(lines[0].len() / 2) {
            *to = Self::pool(&block_of(lines, 2 * x));
        }
    }
    /// Least and largest of the numbers that are finite; infinite the other way round where none is.
    fn bounds(voxels: &[Self]) -> [f64; 2] {
        let none = [f64::INFINITY, f64::NEG_INFINITY];
        let numbers = voxels.iter().map(|voxel| voxel.number());
        numbers.fold(none, |[low, high], number| {
            [low.min(number), high.max(number)]
        })
    }
    /// As a number.
    fn number(self) -> f64;
}

/// Bounds of two lots of voxels together.
pub(super) fn wider([low, high]: [f64; 2], [least, largest]: [f64; 2]) -> [f64; 2] {
    [low.min(least), high.max(largest)]
}

/// The eight voxels of four lines at `x` and beside it.
fn block_of<T: Copy>([a, b, c, d]: [&[T]; 4], x: usize) -> [T; 8] {
    [
        a[x],
        a[x + 1],
        b[x],
        b[x + 1],
        c[x],
        c[x + 1],
        d[x],
        d[x + 1],
    ]
}

impl Voxel for f32 {
    const TYPE: VoxelType = VoxelType::F32;
    const ZARR: &'static str = "float32";
    const NUMPY: &'static str = "<f4";
    const FILL: f32 = f32::NAN;
    /// Mean of the voxels that are not NaN.
    fn pool(voxels: &[f32]) -> f32 {
        let (mut sum, mut count) = (0f64, 0u32);
        for &voxel in voxels {
            if !voxel.is_nan() {
                sum += f64::from(voxel);
                count += 1;
            }
        }
        if count == 0 {
            f32::NAN
        } else {
            (sum / f64::from(count)) as f32
        }
    }
    /// Without a branch where there are no NaNs, so that the compiler makes vectors of it; the sums are those of
    /// [`Voxel::pool`].
    fn pool_pairs(lines: [&[f32]; 4], to: &mut [f32]) {
        let [a, b, c, d] = lines.map(|line| line.as_chunks::<2>().0);
        let pairs = a.iter().zip(b).zip(c).zip(d);
        for ((((a, b), c), d), to) in pairs.zip(&mut *to) {
            let sum = [a, b, c, d]
                .into_iter()
                .flatten()
                .fold(0.0, |sum, &voxel| sum + f64::from(voxel));
            *to = (sum / 8.0) as f32;
        }
        for (x, to) in to.iter_mut().enumerate().take(a.len()) {
            if to.is_nan() {
                *to = Self::pool(&block_of(lines, 2 * x));
            }
        }
    }
    fn bounds(voxels: &[f32]) -> [f64; 2] {
        crate::stats::bounds(voxels).map(f64::from)
    }
    fn number(self) -> f64 {
        f64::from(self)
    }
}

impl Voxel for u32 {
    const TYPE: VoxelType = VoxelType::U32;
    const ZARR: &'static str = "uint32";
    const NUMPY: &'static str = "<u4";
    const FILL: u32 = 0;
    /// The largest label, so that small grains stay visible.
    fn pool(voxels: &[u32]) -> u32 {
        voxels.iter().copied().max().unwrap_or(0)
    }
    fn number(self) -> f64 {
        f64::from(self)
    }
}

/// What a format does with slices that arrive in order, complete, and of the right type.
pub(super) trait Backend: Send {
    /// Stores slices `[z, y, x]`, the first of which is `z0`.
    fn append<T: Voxel>(&mut self, z0: usize, slices: &[T]) -> Result<()>;
    /// Slices from 0 on that a later process could read back.
    fn stored(&self) -> usize;
    /// Stored slices, also those of a backend before this one at the same place.
    fn read_back(&self, z: Range<usize>) -> Result<Array3<f32>>;
    /// Completes the files; returns the names of companions beside the volume.
    fn finish(self) -> Result<Vec<String>>;
}

/// The [`VolumeWriter`] over a [`Backend`].
pub(super) struct Writer<B> {
    // before `partial`: files are closed before the folder goes
    backend: B,
    meta: VolumeMeta,
    next: usize,
    partial: Partial,
}

impl<B: Backend + 'static> Writer<B> {
    /// Starts the output; `open` makes the backend for the path at which it is built.
    pub(super) fn start(
        partial: Partial,
        meta: &VolumeMeta,
        open: impl FnOnce(&Path) -> Result<B>,
    ) -> Result<Box<dyn VolumeWriter>> {
        if meta.shape.contains(&0) {
            return Err(Error::input(
                partial.path(),
                format!("a volume of shape {:?} has no voxels", meta.shape),
                "check the rows and the crop",
            ));
        }
        let backend = open(&partial.path())?;
        Ok(Box::new(Writer {
            backend,
            meta: meta.clone(),
            next: 0,
            partial,
        }))
    }

    fn push<T: Voxel>(&mut self, z0: usize, slices: ArrayView3<'_, T>) -> Result<()> {
        let (n, ny, nx) = slices.dim();
        let [depth, height, width] = self.meta.shape;
        let wrong = |what: &str, expected: Vec<usize>, found: Vec<usize>| Error::Shape {
            what: format!("slab for {}: {what}", self.partial.path().display()),
            expected,
            found,
            hint: "slabs have the width of the volume and come in ascending order without gaps"
                .into(),
        };
        if T::TYPE != self.meta.voxel_type {
            return Err(Error::input(
                self.partial.path(),
                format!(
                    "the volume holds {:?} and was given {:?}",
                    self.meta.voxel_type,
                    T::TYPE
                ),
                "write labels with write_labels and values with write",
            ));
        }
        if [ny, nx] != [height, width] {
            return Err(wrong("[y, x]", vec![height, width], vec![ny, nx]));
        }
        if z0 != self.next || z0 + n > depth {
            return Err(wrong(
                "first and last slice",
                vec![self.next, depth],
                vec![z0, z0 + n],
            ));
        }
        if n > 0 {
            let standard = slices.as_standard_layout();
            let flat = standard.as_slice().expect("the layout was made standard");
            self.backend.append(z0, flat)?;
        }
        self.next += n;
        Ok(())
    }
}

impl<B: Backend + 'static> VolumeWriter for Writer<B> {
    fn write(&mut self, z0: usize, slices: ArrayView3<'_, f32>) -> Result<()> {
        self.push(z0, slices)
    }
    fn write_labels(&mut self, z0: usize, slices: ArrayView3<'_, u32>) -> Result<()> {
        self.push(z0, slices)
    }
    fn stored(&self) -> usize {
        self.backend.stored().min(self.next)
    }
    fn read_back(&self, z: Range<usize>) -> Result<Array3<f32>> {
        self.backend.read_back(z)
    }
    fn keep_when_dropped(&mut self) {
        self.partial.keep();
    }
    fn folder(&self) -> &Path {
        self.partial.folder()
    }
    fn finish(self: Box<Self>) -> Result<()> {
        let Writer {
            backend,
            meta,
            next,
            partial,
        } = *self;
        if next != meta.shape[0] {
            return Err(Error::Shape {
                what: format!("slices written to {}", partial.path().display()),
                expected: vec![meta.shape[0]],
                found: vec![next],
                hint: "write every slice before finishing".into(),
            });
        }
        let companions = backend.finish()?;
        partial.commit(&companions)
    }
}
