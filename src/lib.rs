//! From raw synchrotron micro-CT scans to measured change.
#![warn(clippy::print_stdout)]

pub mod align;
pub mod center;
pub mod config;
pub mod correct;
pub mod difference;
pub mod error;
pub mod gpu;
pub mod io;
pub mod phantom;
pub mod progress;
pub mod reconstruct;
pub mod record;
pub mod report;
pub mod scan;
pub mod simulate;

pub use config::Config;
pub use error::{Error, Result};
