//! The one error type of the library.
//!
//! Every text names what failed, what was expected and found, and the way out, in one sentence, so that the binary
//! prints it as it stands.

use std::path::{Path, PathBuf};

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, with the path or key beside the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried, as a verb phrase ("read", "create folder").
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file exists and can be read, but its content is not usable.
    #[error("{path}: {problem}; {hint}", path = .path.display())]
    Input {
        /// The file or folder.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
        /// The way out.
        hint: String,
    },
    /// A dataset of an HDF5 file is missing or not usable.
    #[error("{path}: dataset {dataset}: {problem}; {hint}", path = .path.display())]
    Dataset {
        /// The HDF5 file.
        path: PathBuf,
        /// The path of the dataset in the file.
        dataset: String,
        /// What was expected and what was found.
        problem: String,
        /// The way out.
        hint: String,
    },
    /// Two things that must fit do not.
    #[error("{what}: expected {expected:?}, found {found:?}; {hint}")]
    Shape {
        /// What was compared.
        what: String,
        /// The expected shape, slowest axis first.
        expected: Vec<usize>,
        /// The shape found, slowest axis first.
        found: Vec<usize>,
        /// The way out.
        hint: String,
    },
    /// A value of the config or of a flag breaks a rule.
    #[error("{key} = {value}: {rule}")]
    Config {
        /// The full key, e.g. `difference.sigma`.
        key: String,
        /// The value given.
        value: String,
        /// The rule that it breaks, and what to write instead.
        rule: String,
    },
    /// A key that no table has.
    #[error("{origin}: unknown key {key}{nearest}; `tomodelta config --default` prints every key")]
    UnknownKey {
        /// The file or flag that holds the key.
        origin: String,
        /// The full key.
        key: String,
        /// Empty, or ", the nearest known key is ...".
        nearest: String,
    },
    /// An output is in the way.
    #[error("{path} exists; give --overwrite to replace it or another --output", path = .path.display())]
    OutputExists {
        /// The output in the way.
        path: PathBuf,
    },
    /// The memory cap is too small for even one slice.
    #[error("{what} needs {needed} but --memory allows {cap}; raise --memory to at least {needed}")]
    Memory {
        /// The stage.
        what: String,
        /// Needed, human readable.
        needed: String,
        /// Allowed, human readable.
        cap: String,
    },
    /// The GPU is missing, lost, or too small.
    #[error("{problem}; {hint}")]
    Gpu {
        /// What failed, with the limit by name.
        problem: String,
        /// The way out, usually a flag.
        hint: String,
    },
    /// The methods that find the rotation axis disagree.
    #[error("{problem}; {hint}")]
    CenterDisagrees {
        /// The answers and how far apart they are.
        problem: String,
        /// What to pass.
        hint: String,
    },
    /// SIGINT or SIGTERM.
    #[error(
        "interrupted; finished volumes and slabs are kept: run the same command with --resume to go on"
    )]
    Interrupted,
}

impl Error {
    /// An operating-system error with its path, for `map_err`.
    pub fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }

    /// An unusable file.
    pub fn input(
        path: impl AsRef<Path>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Error {
        Error::Input {
            path: path.as_ref().to_path_buf(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }

    /// A missing or unusable dataset.
    pub fn dataset(
        path: impl AsRef<Path>,
        dataset: impl Into<String>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Error {
        Error::Dataset {
            path: path.as_ref().to_path_buf(),
            dataset: dataset.into(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }

    /// A config value that breaks a rule.
    pub fn config(
        key: impl Into<String>,
        value: impl std::fmt::Display,
        rule: impl Into<String>,
    ) -> Error {
        Error::Config {
            key: key.into(),
            value: value.to_string(),
            rule: rule.into(),
        }
    }

    /// The process exit code: 2 for wrong usage or input, 3 for a rotation axis in doubt, 1 for a failure, 128 plus its
    /// number for a signal.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Io { source, .. }
                if !matches!(
                    source.kind(),
                    std::io::ErrorKind::NotFound
                        | std::io::ErrorKind::PermissionDenied
                        | std::io::ErrorKind::InvalidInput
                ) =>
            {
                1
            }
            Error::Gpu { .. } => 1,
            Error::Interrupted => crate::stop::exit_code(),
            Error::CenterDisagrees { .. } => 3,
            _ => 2,
        }
    }
}
