//! Reference outputs for the tests of this stage.
#![expect(
    clippy::print_stdout,
    reason = "a test that is skipped says so in its output"
)]

use std::path::Path;

/// Input and expected output of one reference case.
pub(super) struct Golden {
    pub(super) input: Vec<f32>,
    pub(super) expected: Vec<f32>,
    pub(super) n_cols: usize,
}

impl Golden {
    /// Case `name` of the data set `set` (`a` or `b`) on `input`; `None` where the references are absent, which is said.
    pub(super) fn read(input: &str, name: &str, set: &str) -> Option<Golden> {
        Golden::read_named(&format!("{input}_{set}"), &format!("out_{name}_{set}"))
    }

    /// The same by file names without the extension.
    pub(super) fn read_named(input: &str, output: &str) -> Option<Golden> {
        let (shape, input) = read_npy(input)?;
        let (_, expected) = read_npy(output)?;
        Some(Golden {
            input,
            expected,
            n_cols: *shape.last()?,
        })
    }

    /// Largest magnitude of the expected values.
    pub(super) fn peak(&self) -> f32 {
        self.expected
            .iter()
            .fold(0.0, |peak, value| value.abs().max(peak))
    }
}

/// Shape and values of a reference file; `None` where it is absent, which is said.
pub(super) fn read_npy(name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/goldens")
        .join(name)
        .with_extension("npy");
    let Ok(file) = std::fs::File::open(&path) else {
        println!("SKIPPED: {} is absent", path.display());
        return None;
    };
    let npy =
        npyz::NpyFile::new(std::io::BufReader::new(file)).expect("the references are .npy files");
    let shape = npy.shape().iter().map(|&side| side as usize).collect();
    Some((
        shape,
        npy.into_vec::<f32>().expect("the references are f32"),
    ))
}

/// Largest difference of two arrays of the same length; infinite where one has a NaN.
pub(super) fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference = |(a, b): (&f32, &f32)| {
        if (a - b).is_nan() {
            f32::INFINITY
        } else {
            (a - b).abs()
        }
    };
    a.iter().zip(b).map(difference).fold(0.0, f32::max)
}
