//! Textures: rows of samples that the texture units fetch and interpolate.

use super::{Batch, Gpu};
use crate::error::{Error, Result};

/// A texture `[layer][row, sample]` of four numbers a sample, and a sampler that interpolates along a row.
pub struct Texture {
    texture: wgpu::Texture,
    view: wgpu::TextureView,
    sampler: wgpu::Sampler,
    size: wgpu::Extent3d,
    sample_bytes: u32,
}

impl Gpu {
    /// A texture of `[layers, rows, samples]`, single or `half` precision. The GPU interpolates between samples with shares in
    /// steps of 1/256 or finer.
    ///
    /// # Errors
    /// [`Error::Gpu`] for single precision where the GPU lacks `float32-filterable`, beyond `max_texture_dimension_2d` or
    /// `max_texture_array_layers`, or when memory runs out.
    pub fn texture(
        &self,
        label: &str,
        [layers, rows, samples]: [usize; 3],
        half: bool,
    ) -> Result<Texture> {
        let refused = |problem: String| Error::Gpu {
            problem,
            hint: "give --set reconstruct.gpu_kernel=plain".into(),
        };
        let filterable = self
            .device
            .features()
            .contains(wgpu::Features::FLOAT32_FILTERABLE);
        if !half && !filterable {
            return Err(refused(format!(
                "{} does not interpolate textures of single precision (float32-filterable)",
                self.info().name
            )));
        }
        let side = self.limits.max_texture_dimension_2d as usize;
        let most = self.limits.max_texture_array_layers as usize;
        if rows > side || samples > side || layers > most {
            return Err(refused(format!(
                "texture `{label}` of {layers} x {rows} x {samples}, but max_texture_dimension_2d of {} is {side} and \
                 max_texture_array_layers is {most}",
                self.info().name
            )));
        }
        let size = wgpu::Extent3d {
            width: samples as u32,
            height: rows as u32,
            depth_or_array_layers: layers as u32,
        };
        let texture = self.device.create_texture(&wgpu::TextureDescriptor {
            label: Some(label),
            size,
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: match half {
                true => wgpu::TextureFormat::Rgba16Float,
                false => wgpu::TextureFormat::Rgba32Float,
            },
            usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        });
        let view = texture.create_view(&wgpu::TextureViewDescriptor {
            dimension: Some(wgpu::TextureViewDimension::D2Array),
            ..Default::default()
        });
        let sampler = self.device.create_sampler(&wgpu::SamplerDescriptor {
            mag_filter: wgpu::FilterMode::Linear,
            min_filter: wgpu::FilterMode::Linear,
            ..Default::default()
        });
        self.check(&format!("texture `{label}`"))?;
        Ok(Texture {
            texture,
            view,
            sampler,
            size,
            sample_bytes: if half { 8 } else { 16 },
        })
    }
}

impl Texture {
    /// Texture and sampler at these bindings.
    #[must_use]
    pub fn entries(&self, texture: u32, sampler: u32) -> [wgpu::BindGroupEntry<'_>; 2] {
        [
            wgpu::BindGroupEntry {
                binding: texture,
                resource: wgpu::BindingResource::TextureView(&self.view),
            },
            wgpu::BindGroupEntry {
                binding: sampler,
                resource: wgpu::BindingResource::Sampler(&self.sampler),
            },
        ]
    }

    /// Rows of a layer.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.size.height as usize
    }
}

impl Batch<'_> {
    /// Copies `[layer, row, sample]` of `from` into `to`: the first `layers` layers, `rows` rows in each. A row is a multiple of 256
    /// bytes.
    pub fn copy_to_texture(
        &mut self,
        from: &wgpu::Buffer,
        to: &Texture,
        layers: usize,
        rows: usize,
    ) {
        self.encoder.copy_buffer_to_texture(
            wgpu::TexelCopyBufferInfo {
                buffer: from,
                layout: wgpu::TexelCopyBufferLayout {
                    offset: 0,
                    bytes_per_row: Some(to.size.width * to.sample_bytes),
                    rows_per_image: Some(rows as u32),
                },
            },
            to.texture.as_image_copy(),
            wgpu::Extent3d {
                width: to.size.width,
                height: rows as u32,
                depth_or_array_layers: layers as u32,
            },
        );
    }
}
