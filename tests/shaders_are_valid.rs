//! Every shader parses, validates, and has the parameters that the host writes. Needs no GPU.

use std::mem::{offset_of, size_of};
use std::path::Path;

use tomodelta::correct::stripe::on_gpu as stripes;
use tomodelta::correct::{Guard, line_integrals};
use tomodelta::reconstruct::{backproject, filter, fourier_grid, fourier_transform, ramp_filter};
use wgpu::naga;

/// Name, offset and size of each field, then the size of all.
type Layout = (Vec<(&'static str, usize, usize)>, usize);

macro_rules! layout {
    ($params:ty { $($field:ident),* $(,)? }) => {{
        let fields = vec![$((stringify!($field), offset_of!($params, $field), {
            fn field_size<T>(_: impl Fn(&$params) -> T) -> usize { size_of::<T>() }
            field_size(|params| params.$field)
        })),*];
        (fields, size_of::<$params>())
    }};
}

fn ramp_filter_layout() -> Layout {
    layout!(ramp_filter::RampFilterParams {
        n_rows,
        n_angles,
        n_pairs,
        n_cols,
        n_fft,
        log2_n_fft,
        n_local,
        n_left,
        upsample,
        n_out,
        row_stride,
        block,
    })
}

fn backproject_layout() -> Layout {
    layout!(backproject::BackprojectParams {
        n_rays,
        first_ray,
        n_angles,
        row_stride,
        n_x,
        n_y,
        y_first,
        y_start,
        y_end,
        n_slices,
        start,
        u_max,
        scale,
    })
}

fn ray_layout() -> Layout {
    layout!(backproject::RayConstants {
        along_x,
        along_y,
        origin,
        tile_x,
        tile_y
    })
}

fn line_integral_layout() -> Layout {
    layout!(line_integrals::LineIntegralParams {
        n_rows,
        n_cols,
        first_held,
        n_held,
        first_wanted,
        n_wanted,
        n_angles,
        n_groups,
        zinger_size,
        zinger_limit,
        guard_reach,
        cubic,
        min_transmission,
        first_locked,
        width,
        turn,
        first_counted,
        n_slices,
        moving,
        zinger_kind,
        dark_limit,
        monitored,
        left_air,
        left_air_end,
        right_air,
        right_air_end,
        counts_lines,
        has_factors,
        n_kept,
    })
}

fn taps_layout() -> Layout {
    layout!(line_integrals::Taps {
        weights,
        first,
        unused
    })
}

fn view_layout() -> Layout {
    layout!(filter::View {
        weight,
        radius,
        seen_right,
        seen_left
    })
}

fn locked_pixel_layout() -> Layout {
    layout!(line_integrals::LockedPixel {
        at,
        columns,
        weights
    })
}

fn locked_column_layout() -> Layout {
    layout!(line_integrals::LockedColumnParams {
        n_cols,
        n_angles,
        first_row,
        first,
        min_transmission
    })
}

fn levelled_column_layout() -> Layout {
    layout!(line_integrals::LevelledColumn {
        row,
        col,
        left,
        share
    })
}

fn stripe_layout() -> Layout {
    layout!(stripes::StripeParams {
        n_rows,
        n_cols,
        n_angles,
        first_row,
        first_wanted,
        n_wanted,
        size,
        stride,
        window,
        first_kept,
        end_kept,
        mean_over,
        snr,
        dead,
        keep,
        normalize,
        first_counted,
        min_transmission,
        reach,
        logarithm,
    })
}

fn wave_layout() -> Layout {
    layout!(stripes::WaveParams {
        n_cols,
        n_angles,
        pad,
        n_waves,
        odd,
        mirrored,
    })
}

fn fit_layout() -> Layout {
    layout!(stripes::FitParams {
        n_cols,
        n_angles,
        pad,
        half,
        n_blocks,
        n_terms,
        before_along,
        n_along,
        before_across,
        n_across,
        n_parts,
        slot,
    })
}

fn wavelet_layout() -> Layout {
    layout!(stripes::WaveletParams {
        n_cols,
        n_angles,
        pad,
        half_cols,
        half_angles,
        n_taps,
        has_low,
    })
}

fn fourier_grid_layout() -> Layout {
    layout!(fourier_grid::FourierGridParams {
        n_rows,
        n_angles,
        n_pairs,
        n_fft,
        log2_n_fft,
        n_u,
        n_v,
        u_first,
        u_band,
        start,
        unused_0,
        unused_1,
    })
}

fn line_layout() -> Layout {
    layout!(fourier_grid::Line {
        along_u,
        along_v,
        up,
        mirrored
    })
}

fn fourier_transform_layout() -> Layout {
    layout!(fourier_transform::FourierTransformParams {
        n,
        log2_n,
        n_local,
        block,
        n_lines,
        n_u,
        u_first,
        n_x,
        n_y,
        y_first,
        y_band,
        n_slices,
    })
}

fn parsed(source: &str) -> Result<naga::Module, String> {
    validated(source).map(|(module, _)| module)
}

/// Bytes shared by the workgroup in an entry point.
fn workgroup_memory(module: &naga::Module, info: &naga::valid::ModuleInfo, entry: usize) -> u64 {
    let used = |(handle, variable): (naga::Handle<naga::GlobalVariable>, &naga::GlobalVariable)| {
        let shared = variable.space == naga::AddressSpace::WorkGroup;
        let read = !info.get_entry_point(entry)[handle].is_empty();
        let size = module.types[variable.ty].inner.size(module.to_ctx());
        if shared && read { u64::from(size) } else { 0 }
    };
    module.global_variables.iter().map(used).sum()
}

fn validated(source: &str) -> Result<(naga::Module, naga::valid::ModuleInfo), String> {
    let module =
        naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
    let info = naga::valid::Validator::new(
        naga::valid::ValidationFlags::all(),
        // packing two halves into one word: every WebGPU device has it
        naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32,
    )
    .validate(&module)
    .map_err(|error| error.emit_to_string(source))?;
    Ok((module, info))
}

/// What differs between the struct of a shader and that of the host.
fn difference(module: &naga::Module, name: &str, (fields, size): &Layout) -> Option<String> {
    let found = module
        .types
        .iter()
        .find(|(_, ty)| ty.name.as_deref() == Some(name));
    let Some((
        _,
        naga::Type {
            inner: naga::TypeInner::Struct { members, span },
            ..
        },
    )) = found
    else {
        return Some(format!("there is no struct {name}"));
    };
    let theirs: Vec<(&str, usize, usize)> = members
        .iter()
        .map(|member| {
            let size = module.types[member.ty].inner.size(module.to_ctx()) as usize;
            (
                member.name.as_deref().unwrap_or(""),
                member.offset as usize,
                size,
            )
        })
        .collect();
    (theirs != *fields || *span as usize != *size)
        .then(|| format!("{theirs:?}, {span} against {fields:?}, {size}"))
}

#[test]
fn every_shader_parses_and_validates() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        let (module, info) =
            validated(&source).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!module.entry_points.is_empty(), "{}", path.display());
        for (index, entry) in module.entry_points.iter().enumerate() {
            let memory = workgroup_memory(&module, &info, index);
            // transforms take what desktop GPUs have, all others what every WebGPU device has
            let transforms = entry.name.ends_with("_local");
            let most = if transforms { 32_768 } else { 16_384 };
            assert!(memory <= most, "{}: {memory} bytes", entry.name);
            // 256 invocations are what every WebGPU device has
            assert_eq!(
                entry.workgroup_size,
                [256, 1, 1],
                "{}: {}",
                path.display(),
                entry.name
            );
        }
        seen += 1;
    }
    assert!(seen >= 9);
    assert!(parsed("fn broken( {").is_err());
    assert!(parsed("@compute @workgroup_size(1) fn f() { let a: u32 = 1.5; }").is_err());
}

#[test]
fn parameters_have_the_same_names_places_and_sizes_on_both_sides() {
    for (source, name, layout) in [
        (
            ramp_filter::SOURCE,
            "RampFilterParams",
            ramp_filter_layout(),
        ),
        (
            backproject::SOURCE,
            "BackprojectParams",
            backproject_layout(),
        ),
        (ramp_filter::SOURCE, "View", view_layout()),
        (backproject::SOURCE, "RayConstants", ray_layout()),
        (line_integrals::SOURCE, "Taps", taps_layout()),
        (
            line_integrals::SOURCE,
            "LineIntegralParams",
            line_integral_layout(),
        ),
        (line_integrals::SOURCE, "LockedPixel", locked_pixel_layout()),
        (
            line_integrals::LOCKED_COLUMNS_SOURCE,
            "LockedPixel",
            locked_pixel_layout(),
        ),
        (
            line_integrals::LOCKED_COLUMNS_SOURCE,
            "LockedColumnParams",
            locked_column_layout(),
        ),
        (
            line_integrals::LOCKED_COLUMNS_SOURCE,
            "LevelledColumn",
            levelled_column_layout(),
        ),
        (stripes::SORT_SOURCE, "StripeParams", stripe_layout()),
        (stripes::FIND_SOURCE, "StripeParams", stripe_layout()),
        (stripes::FILTER_SOURCE, "WaveParams", wave_layout()),
        (stripes::FIT_SOURCE, "FitParams", fit_layout()),
        (stripes::WAVELET_SOURCE, "WaveletParams", wavelet_layout()),
        (
            fourier_grid::SOURCE,
            "FourierGridParams",
            fourier_grid_layout(),
        ),
        (fourier_grid::SOURCE, "Line", line_layout()),
        (
            fourier_transform::SOURCE,
            "FourierTransformParams",
            fourier_transform_layout(),
        ),
    ] {
        let module = parsed(source).unwrap();
        assert_eq!(difference(&module, name, &layout), None);
        let mut swapped = layout.clone();
        swapped.0.swap(1, 2);
        assert!(
            difference(&module, name, &swapped).is_some(),
            "swapped fields must be seen"
        );
        let larger = (layout.0, layout.1 + 4);
        assert!(
            difference(&module, name, &larger).is_some(),
            "another size must be seen"
        );
    }
}

#[test]
fn constants_of_the_shaders_are_those_of_the_host() {
    assert!(ramp_filter::SOURCE.contains(&format!("const LOCAL: u32 = {}u;", ramp_filter::LOCAL)));
    assert!(
        backproject::SOURCE.contains(&format!("array<RayConstants, {}>", backproject::MAX_RAYS))
    );
    assert!(fourier_transform::SOURCE.contains(&format!(
        "const LOCAL: u32 = {}u;",
        fourier_transform::LOCAL
    )));
    assert!(
        fourier_grid::SOURCE.contains(&format!("const STEPS: u32 = {}u;", fourier_grid::STEPS))
    );
    assert!(fourier_grid::SOURCE.contains(&format!(
        "array<f32, {}>",
        fourier_grid::window_table().len()
    )));
    for line in [
        format!("const AROUND: u32 = {}u;", Guard::AROUND),
        format!("const SIGMA: f32 = {:.1};", Guard::SIGMA),
        format!("const ROUNDING: f32 = {:e};", Guard::ROUNDING),
        format!("const TRACK: i32 = {};", Guard::TRACK),
    ] {
        assert!(line_integrals::SOURCE.contains(&line), "{line}");
    }
    for line in [
        format!("const LOCAL: u32 = {}u;", stripes::LOCAL),
        format!("var<workgroup> keys: array<u32, {}>;", stripes::LOCAL),
        format!("var<workgroup> places: array<u32, {}>;", stripes::LOCAL),
        format!("const SEGMENT: u32 = {}u;", stripes::SEGMENT),
    ] {
        assert!(stripes::SORT_SOURCE.contains(&line), "{line}");
    }
    for line in [
        format!("const BLOCK: u32 = {}u;", stripes::BLOCK),
        format!("const COLS: u32 = {}u;", stripes::COLS),
        format!("const FLOOR: f32 = {:e};", stripes::FLOOR),
    ] {
        assert!(stripes::FIT_SOURCE.contains(&line), "{line}");
    }
    let shift = format!("const SHIFT: u32 = {}u;", stripes::SHIFT);
    assert!(stripes::FIND_SOURCE.contains(&shift));
    assert!(backproject::SOURCE.contains(&format!("tile.x * {}u + at.x", backproject::TILE)));
}
