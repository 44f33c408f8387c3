//! The GPU through wgpu (Vulkan, Metal, DX12): devices, buffers, kernels, timing. Knows no stage.
//!
//! - [`list`] says what is there, [`Device::open`] takes one.
//! - Nothing here panics on what a driver does: validation errors, a lost device and memory that runs out are kept by
//!   [`Gpu`] and returned as [`crate::Error::Gpu`] by the next call that can fail.
//! - Limits are those of the adapter, not the defaults of WebGPU; every buffer and every dispatch is checked against
//!   them by name before the driver sees it.

mod buffer;
mod device;
mod kernel;
mod staging;
mod texture;
mod timing;

use crate::config::DeviceChoice;
use crate::error::Result;

pub use buffer::Readback;
pub use device::{AdapterInfo, AdapterKind, AdapterLimits, Gpu, Ticket, list};
pub use kernel::{Batch, Kernel, Submit};
pub use staging::Staging;
pub use texture::Texture;
pub use timing::{Timer, Timing};

/// A device that the stages run on.
#[derive(Clone)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// A GPU.
    Gpu(std::sync::Arc<Gpu>),
    /// Several; the slices of a slab are dealt out among them.
    Several(Vec<std::sync::Arc<Gpu>>),
}

impl Device {
    /// Opens what the user asked for.
    ///
    /// `auto` takes a real GPU, a discrete one before an integrated one, and else the CPU: a software adapter counts only where
    /// a GPU was asked for.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when a GPU was asked for and there is none, or when it cannot be opened.
    pub fn open(choice: DeviceChoice) -> Result<Device> {
        if let DeviceChoice::Several(numbers) = &choice {
            let mut gpus = Vec::with_capacity(numbers.len());
            for &number in numbers {
                match Device::open(DeviceChoice::Gpu(Some(number)))? {
                    Device::Gpu(gpu) => gpus.push(gpu),
                    Device::Several(more) => gpus.extend(more),
                    Device::Cpu => {}
                }
            }
            return Ok(Device::Several(gpus));
        }
        Ok(device::open(choice)?.map_or(Device::Cpu, |gpu| Device::Gpu(std::sync::Arc::new(gpu))))
    }

    /// `cpu` with the instruction set, or name, backend and driver of the GPU.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu => format!("cpu ({})", instruction_set()),
            Device::Gpu(gpu) => gpu.describe(),
            Device::Several(gpus) => {
                let all: Vec<String> = gpus.iter().map(|gpu| gpu.describe()).collect();
                all.join(" and ")
            }
        }
    }

    /// Keeps the times of the GPUs in `trace` from now on.
    pub fn set_trace(&self, trace: &crate::trace::Trace) {
        match self {
            Device::Cpu => {}
            Device::Gpu(gpu) => gpu.set_trace(trace.clone()),
            Device::Several(gpus) => gpus.iter().for_each(|gpu| gpu.set_trace(trace.clone())),
        }
    }
}

/// Keeps Mesa from looking for a compositor where there is none, which it would complain about on stderr.
///
/// Its device-selection layer asks the compositor which GPU to put first; without `XDG_RUNTIME_DIR` there is nobody to ask. Who
/// chooses by the variables of that layer keeps it.
///
/// # Safety
/// It sets a variable of the environment: to be called first thing in `main`, while no other thread can read one.
#[expect(
    unsafe_code,
    reason = "a layer of the Vulkan loader is switched off by a variable only"
)]
pub unsafe fn look_for_no_compositor() {
    let absent = |name: &str| std::env::var_os(name).is_none();
    let names = ["XDG_RUNTIME_DIR", "MESA_VK_DEVICE_SELECT", "DRI_PRIME"];
    if cfg!(target_os = "linux") && names.into_iter().all(absent) {
        // SAFETY: the caller's promise.
        unsafe {
            std::env::set_var("NODEVICE_SELECT", "1");
        }
    }
}

/// The widest vector instructions of this CPU.
fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            return "AVX2";
        }
        "SSE2"
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}

/// A GPU, software ones included; without one a test says so and passes, or fails where `TOMODELTA_REQUIRE_GPU` is set.
#[cfg(test)]
pub(crate) fn for_tests() -> Option<std::sync::Arc<Gpu>> {
    match Device::open(DeviceChoice::Gpu(None)) {
        Ok(Device::Gpu(gpu)) => Some(gpu),
        _ => {
            assert!(
                std::env::var_os("TOMODELTA_REQUIRE_GPU").is_none(),
                "TOMODELTA_REQUIRE_GPU is set, but there is no GPU"
            );
            eprintln!("SKIPPED: no GPU, not even a software one");
            None
        }
    }
}
