//! Which GPUs there are, which one is taken, and what happens when it fails.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::config::DeviceChoice;
use crate::error::{Error, Result};
use crate::trace::Trace;

/// What an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// A card with its own memory.
    Discrete,
    /// Shares the memory of the CPU.
    Integrated,
    /// A share of a GPU in a virtual machine.
    Virtual,
    /// The driver does not say.
    Unknown,
    /// No GPU: a driver that computes on the CPU.
    Software,
}

/// The limits that decide how work is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdapterLimits {
    /// Largest part of a buffer that a kernel sees \[bytes\].
    pub max_storage_buffer_binding_size: u64,
    /// Largest buffer \[bytes\].
    pub max_buffer_size: u64,
    /// Memory shared by a workgroup \[bytes\].
    pub max_compute_workgroup_storage_size: u32,
    /// Invocations of a workgroup.
    pub max_compute_invocations_per_workgroup: u32,
    /// Workgroups of a dispatch along each axis.
    pub max_compute_workgroups_per_dimension: u32,
}

/// One line of `tomodelta devices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdapterInfo {
    /// N of `--device gpu:N`.
    pub number: usize,
    /// Name of the device.
    pub name: String,
    /// What it is.
    pub kind: AdapterKind,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Limits.
    pub limits: AdapterLimits,
    /// Optional features that matter here: `timestamp-query`, `shader-f16`, `subgroup`, `float32-filterable`.
    pub features: Vec<String>,
    /// Whether `--device auto` takes this one.
    pub would_choose: bool,
}

/// An open GPU.
///
/// Shared by threads; work of one [`Gpu`] runs in the order of its submissions.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    info: AdapterInfo,
    faults: Arc<Mutex<Vec<Fault>>>,
    trace: Mutex<Trace>,
    #[cfg(test)]
    starved: std::sync::atomic::AtomicU32,
}

/// A submitted batch, to wait for.
#[derive(Debug, Clone)]
pub struct Ticket(pub(super) wgpu::SubmissionIndex);

/// What the driver reported, some time after the call that caused it.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    kind: FaultKind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    OutOfMemory,
    Lost,
    Refused,
}

const FEATURES: [(wgpu::Features, &str); 4] = [
    (wgpu::Features::TIMESTAMP_QUERY, "timestamp-query"),
    (wgpu::Features::SHADER_F16, "shader-f16"),
    (wgpu::Features::SUBGROUP, "subgroup"),
    (wgpu::Features::FLOAT32_FILTERABLE, "float32-filterable"),
];

fn adapters() -> Vec<wgpu::Adapter> {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    // validation layers are for those who debug a driver; the checks of wgpu itself are always on
    descriptor.flags = wgpu::InstanceFlags::empty();
    // where the driver tells how much memory is free, what would take more is refused, and the work is cut smaller; other
    // programs and the staging buffers of the driver keep the rest
    descriptor.memory_budget_thresholds = wgpu::MemoryBudgetThresholds {
        for_resource_creation: Some(90),
        for_device_loss: None,
    };
    pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends))
}

fn describe(number: usize, adapter: &wgpu::Adapter) -> AdapterInfo {
    let info = adapter.get_info();
    let limits = adapter.limits();
    AdapterInfo {
        number,
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Other => AdapterKind::Unknown,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
        },
        backend: info.backend.to_string(),
        driver: [info.driver.trim(), info.driver_info.trim()]
            .join(" ")
            .trim()
            .to_string(),
        name: info.name,
        limits: AdapterLimits {
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_buffer_size: limits.max_buffer_size,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
            max_compute_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
        },
        features: FEATURES
            .iter()
            .filter(|(feature, _)| adapter.features().contains(*feature))
            .map(|(_, name)| (*name).to_string())
            .collect(),
        would_choose: false,
    }
}

/// The best adapter: real before software, discrete before integrated, then the first of the list.
fn best(infos: &[AdapterInfo], software: bool) -> Option<usize> {
    let rank = |kind| match kind {
        AdapterKind::Discrete => Some(0),
        AdapterKind::Virtual => Some(1),
        AdapterKind::Integrated => Some(2),
        AdapterKind::Unknown => Some(3),
        AdapterKind::Software => software.then_some(4),
    };
    infos
        .iter()
        .filter_map(|info| rank(info.kind).map(|rank| (rank, info.number)))
        .min()
        .map(|(_, number)| number)
}

fn describe_all(adapters: &[wgpu::Adapter]) -> Vec<AdapterInfo> {
    let mut infos: Vec<AdapterInfo> = adapters
        .iter()
        .enumerate()
        .map(|(number, adapter)| describe(number, adapter))
        .collect();
    if let Some(chosen) = best(&infos, false) {
        infos[chosen].would_choose = true;
    }
    infos
}

/// The adapters that `--device gpu:N` counts, software ones included.
#[must_use]
pub fn list() -> Vec<AdapterInfo> {
    describe_all(&adapters())
}

/// See [`super::Device::open`]; `None` is the CPU.
pub(super) fn open(choice: DeviceChoice) -> Result<Option<Gpu>> {
    let wanted = match choice {
        DeviceChoice::Cpu => return Ok(None),
        DeviceChoice::Auto => None,
        DeviceChoice::Gpu(number) => Some(number),
        // opened one by one
        DeviceChoice::Several(numbers) => Some(numbers.first().copied()),
    };
    let adapters = adapters();
    let infos = describe_all(&adapters);
    let number = match wanted {
        None => match best(&infos, false) {
            None => return Ok(None),
            Some(number) => number,
        },
        Some(None) => best(&infos, true).ok_or_else(|| Error::Gpu {
            problem: "no GPU was found through Vulkan, Metal or DX12".into(),
            hint: "install the driver of the GPU (or Mesa's lavapipe), or give --device cpu".into(),
        })?,
        Some(Some(number)) if number < infos.len() => number,
        Some(Some(number)) => {
            let names: Vec<String> = infos
                .iter()
                .map(|info| format!("gpu:{} is {}", info.number, info.name))
                .collect();
            return Err(Error::Gpu {
                problem: format!("there is no gpu:{number}, found {} GPUs", infos.len()),
                hint: match names.is_empty() {
                    true => "install the driver of the GPU, or give --device cpu".into(),
                    false => format!("choose among these: {}", names.join(", ")),
                },
            });
        }
    };
    Gpu::open(&adapters[number], infos[number].clone()).map(Some)
}

impl Gpu {
    fn open(adapter: &wgpu::Adapter, info: AdapterInfo) -> Result<Gpu> {
        let wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::FLOAT32_FILTERABLE;
        Self::open_within(adapter, info, adapter.limits(), adapter.features() & wanted)
    }

    /// The best GPU, software ones included, as if it had no optional features and the limits that `change` leaves.
    #[cfg(test)]
    pub(crate) fn limited(change: impl FnOnce(&mut wgpu::Limits)) -> Option<Arc<Gpu>> {
        let adapters = adapters();
        let infos = describe_all(&adapters);
        let adapter = &adapters[best(&infos, true)?];
        let mut limits = adapter.limits();
        change(&mut limits);
        let info = describe(0, adapter);
        let gpu = Self::open_within(adapter, info, limits, wgpu::Features::empty());
        gpu.ok().map(Arc::new)
    }

    /// The next `n` buffers of 64 KiB and more find no memory, as a driver would report it.
    #[cfg(test)]
    pub(crate) fn starve(&self, n: u32) {
        self.starved.store(n, std::sync::atomic::Ordering::SeqCst);
    }

    /// Keeps the fault of [`Gpu::starve`].
    #[cfg(test)]
    pub(super) fn ration(&self, size: u64) {
        use std::sync::atomic::Ordering::SeqCst;
        let left = |n: u32| n.checked_sub(1);
        if size >= 64 << 10 && self.starved.fetch_update(SeqCst, SeqCst, left).is_ok() {
            let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
            faults.push(Fault {
                kind: FaultKind::OutOfMemory,
                text: "made by a test".into(),
            });
        }
    }

    fn open_within(
        adapter: &wgpu::Adapter,
        info: AdapterInfo,
        limits: wgpu::Limits,
        features: wgpu::Features,
    ) -> Result<Gpu> {
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("tomodelta"),
            required_features: features,
            required_limits: limits.clone(),
            // few, large buffers: pools would only hold memory back
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request).map_err(|error| Error::Gpu {
            problem: format!("{} ({}) cannot be opened: {error}", info.name, info.backend),
            hint: "another program may hold it; try `tomodelta devices`, another gpu:N, or --device cpu".into(),
        })?;
        let faults = Arc::new(Mutex::new(Vec::new()));
        let keep = |faults: &Arc<Mutex<Vec<Fault>>>| {
            let faults = Arc::clone(faults);
            move |kind, text: String| {
                faults
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Fault { kind, text })
            }
        };
        let uncaught = keep(&faults);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let kind = match error {
                wgpu::Error::OutOfMemory { .. } => FaultKind::OutOfMemory,
                _ => FaultKind::Refused,
            };
            uncaught(kind, error.to_string());
        }));
        let lost = keep(&faults);
        device.set_device_lost_callback(move |_, text| lost(FaultKind::Lost, text));
        Ok(Gpu {
            device,
            queue,
            limits,
            info,
            faults,
            trace: Mutex::default(),
            #[cfg(test)]
            starved: Default::default(),
        })
    }

    /// Name, backend, driver, limits.
    #[must_use]
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Keeps the times of its work in `trace` from now on.
    pub fn set_trace(&self, trace: Trace) {
        *self.trace.lock().unwrap_or_else(PoisonError::into_inner) = trace;
    }

    /// The timeline; off unless it was set.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.trace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// `NAME (backend, driver)`.
    #[must_use]
    pub fn describe(&self) -> String {
        format!(
            "{} ({}, {})",
            self.info.name, self.info.backend, self.info.driver
        )
    }

    /// Largest buffer that a kernel can see whole \[bytes\].
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.limits
            .max_storage_buffer_binding_size
            .min(self.limits.max_buffer_size)
    }

    /// Whether the driver counts the time of kernels.
    #[must_use]
    pub fn has_timestamps(&self) -> bool {
        self.device
            .features()
            .contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// What the driver reported since the last call, as an error about `what`.
    ///
    /// # Errors
    /// [`Error::Gpu`] for memory that ran out, a lost device, or a call that was refused.
    pub fn check(&self, what: &str) -> Result<()> {
        let mut kept = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = kept.clone();
        // a lost device stays lost, and the driver reports nothing more about it
        kept.retain(|fault| fault.kind == FaultKind::Lost);
        drop(kept);
        // what follows from a loss says less than the loss
        let Some(fault) = faults
            .iter()
            .find(|fault| fault.kind == FaultKind::Lost)
            .or(faults.first())
        else {
            return Ok(());
        };
        Err(Error::Gpu {
            problem: match fault.kind {
                FaultKind::OutOfMemory => format!("{what}: memory of {} ran out ({})", self.info.name, fault.text),
                FaultKind::Lost => format!("{what}: {} was lost ({})", self.info.name, fault.text),
                FaultKind::Refused => format!("{what}: {} refused it ({})", self.info.name, fault.text),
            },
            hint: match fault.kind {
                FaultKind::OutOfMemory => {
                    "close other programs that use the GPU, reconstruct a smaller reconstruct.crop, or give --device cpu"
                }
                FaultKind::Lost => "the driver was reset or the GPU removed; run again, with --device cpu if it recurs",
                FaultKind::Refused => "give --device cpu, and report this with the output of `tomodelta devices`",
            }
            .into(),
        })
    }

    /// What a driver does when it resets the GPU.
    #[cfg(test)]
    pub(crate) fn lose(&self) {
        self.device.destroy();
    }

    /// Waits until everything submitted is done.
    ///
    /// # Errors
    /// See [`Gpu::check`].
    pub fn wait(&self, what: &str) -> Result<()> {
        self.poll(what, None)
    }

    /// Waits until the batch of this ticket is done, whatever was submitted after it.
    ///
    /// # Errors
    /// See [`Gpu::check`].
    pub fn wait_for(&self, ticket: &Ticket, what: &str) -> Result<()> {
        self.poll(what, Some(ticket.0.clone()))
    }

    fn poll(&self, what: &str, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::Wait {
            submission_index,
            timeout: None,
        });
        self.check(what)?;
        polled.map(|_| ()).map_err(|error| Error::Gpu {
            problem: format!("{what}: {} does not answer ({error})", self.info.name),
            hint: "run again, with --device cpu if it recurs".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(number: usize, kind: AdapterKind) -> AdapterInfo {
        AdapterInfo {
            number,
            name: String::new(),
            kind,
            backend: String::new(),
            driver: String::new(),
            limits: AdapterLimits {
                max_storage_buffer_binding_size: 0,
                max_buffer_size: 0,
                max_compute_workgroup_storage_size: 0,
                max_compute_invocations_per_workgroup: 0,
                max_compute_workgroups_per_dimension: 0,
            },
            features: Vec::new(),
            would_choose: false,
        }
    }

    #[test]
    fn a_discrete_gpu_goes_before_an_integrated_one_and_software_only_when_asked_for() {
        use AdapterKind::{Discrete, Integrated, Software};
        let of = |kinds: &[AdapterKind]| -> Vec<AdapterInfo> {
            kinds
                .iter()
                .enumerate()
                .map(|(number, &kind)| adapter(number, kind))
                .collect()
        };
        assert_eq!(
            best(&of(&[Software, Integrated, Discrete, Discrete]), true),
            Some(2)
        );
        assert_eq!(best(&of(&[Software, Integrated]), false), Some(1));
        assert_eq!(best(&of(&[Software]), false), None);
        assert_eq!(best(&of(&[Software]), true), Some(0));
        assert_eq!(best(&[], true), None);
    }

    #[test]
    fn a_number_that_is_not_there_is_an_error_with_the_way_out() {
        let Err(error) = open(DeviceChoice::Gpu(Some(1000))) else {
            panic!("gpu:1000 cannot be there")
        };
        let text = error.to_string();
        assert!(
            text.contains("gpu:1000") && (text.contains("--device cpu") || text.contains("choose")),
            "{text}"
        );
    }

    #[test]
    fn a_buffer_beyond_the_limits_is_an_error_that_names_the_limit() {
        let Some(gpu) = crate::gpu::for_tests() else {
            return;
        };
        let Err(error) = gpu.storage::<f32>("too large", (gpu.max_bytes() / 4 + 1) as usize) else {
            panic!("this is beyond the limit")
        };
        assert!(error.to_string().contains("max_"), "{error}");
        gpu.check("nothing else")
            .expect("the driver was not bothered");
        gpu.storage::<f32>("fits", 1000)
            .expect("this is within the limit");
    }

    #[test]
    fn a_lost_device_is_an_error_wherever_it_is_noticed() {
        let Some(gpu) = crate::gpu::for_tests() else {
            return;
        };
        let buffer = gpu
            .storage_from::<f32>("values", &[1.0, 2.0])
            .expect("the device is there");
        assert_eq!(
            gpu.read::<f32>(&buffer).expect("the device is there"),
            [1.0, 2.0]
        );
        gpu.lose();
        let errors = [
            gpu.wait("work"),
            gpu.storage::<f32>("more", 10).map(drop),
            gpu.read::<f32>(&buffer).map(drop),
            gpu.write::<f32>(&buffer, 0, &[3.0]),
        ];
        for error in errors {
            let text = error.expect_err("the device is gone").to_string();
            assert!(text.contains("--device cpu"), "{text}");
        }
    }
}
