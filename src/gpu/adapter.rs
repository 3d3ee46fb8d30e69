//! Which adapter runs, and what to tell someone who has none.

use crate::error::{Error, Result};

/// What to ask of the GPU. The default lets the `WGPU_*` variables decide, and without them takes the fastest kind of adapter.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Only these backends; else `WGPU_BACKEND` (a list such as `vulkan,gl`); else all.
    pub backends: Option<wgpu::Backends>,
    /// Only an adapter whose name contains this, in any case of letters; else `WGPU_ADAPTER_NAME`; else any.
    pub adapter_name: Option<String>,
    /// Integrated (`LowPower`) or discrete (`HighPerformance`) first; else `WGPU_POWER_PREF`; else discrete.
    pub power_preference: Option<wgpu::PowerPreference>,
    /// Ask for no more than these limits, to see how a model runs on a lesser adapter; else all that the adapter has.
    pub limits: Option<wgpu::Limits>,
}

/// One adapter of this machine, in the order of preference.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    pub info: wgpu::AdapterInfo,
    pub features: wgpu::Features,
    pub limits: wgpu::Limits,
}

impl AdapterSummary {
    /// All adapters that `options` allow, best first: [`Gpu::new`](super::Gpu::new) takes the first.
    ///
    /// # Errors
    /// [`Error::Adapter`] when there is none.
    pub fn list(options: &GpuOptions) -> Result<Vec<Self>> {
        let adapters = pollster::block_on(candidates(options))?;
        Ok(adapters.iter().map(|a| Self { info: a.get_info(), features: a.features(), limits: a.limits() }).collect())
    }

    /// Whether it computes on the CPU (lavapipe, SwiftShader, WARP).
    pub fn is_software(&self) -> bool {
        is_software(&self.info)
    }
}

fn is_software(info: &wgpu::AdapterInfo) -> bool {
    info.device_type == wgpu::DeviceType::Cpu
}

/// `name (backend)`, for messages.
fn describe(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    format!("`{}` ({})", info.name, info.backend)
}

/// What comes first: real before software, then the preferred kind, then the native backend of the platform.
fn rank(info: &wgpu::AdapterInfo, preference: wgpu::PowerPreference) -> (bool, u8, u8) {
    use wgpu::{Backend, DeviceType};
    let low_power = preference == wgpu::PowerPreference::LowPower;
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => low_power as u8,
        DeviceType::IntegratedGpu => !low_power as u8,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    };
    let backend = match info.backend {
        Backend::Vulkan | Backend::Metal => 0,
        Backend::Dx12 => 1,
        Backend::BrowserWebGpu => 2,
        Backend::Gl => 3,
        _ => 4,
    };
    (is_software(info), kind, backend)
}

async fn candidates(options: &GpuOptions) -> Result<Vec<wgpu::Adapter>> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    let (backends, preference) = (options.backends, options.power_preference);
    descriptor.backends = backends.map_or_else(backends_of_variable, Ok)?;
    let preference = preference.map_or_else(preference_of_variable, Ok)?;
    let backends = descriptor.backends;
    let mut adapters = wgpu::Instance::new(descriptor).enumerate_adapters(backends).await;
    adapters.retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    if adapters.is_empty() {
        let names = backends.iter_names().map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>().join(", ");
        let problem = format!("no GPU adapter with compute shaders was found (backends: {names}): {}", what_to_install());
        return Err(Error::Adapter { problem });
    }
    // A stable sort: the driver's own order decides among equals.
    adapters.sort_by_key(|adapter| rank(&adapter.get_info(), preference));

    let name = options.adapter_name.clone().or_else(|| variable("WGPU_ADAPTER_NAME")).filter(|name| !name.is_empty());
    if let Some(name) = name {
        let wanted = name.to_lowercase();
        let (matching, others): (Vec<_>, Vec<_>) = adapters.into_iter().partition(|a| a.get_info().name.to_lowercase().contains(&wanted));
        if matching.is_empty() {
            let list = others.iter().map(describe).collect::<Vec<_>>().join(", ");
            return Err(Error::Adapter { problem: format!("no adapter's name contains `{name}`: choose one of {list}") });
        }
        return Ok(matching);
    }
    Ok(adapters)
}

/// What a variable of wgpu's says, if it says anything.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}

/// wgpu itself leaves out what it does not know, and then finds no adapter.
fn backends_of_variable() -> Result<wgpu::Backends> {
    let Some(names) = variable("WGPU_BACKEND") else { return Ok(wgpu::Backends::default()) };
    match names.split(',').find(|name| wgpu::Backends::from_comma_list(name).is_empty()) {
        None => Ok(wgpu::Backends::from_comma_list(&names)),
        Some(name) => Err(Error::Adapter { problem: format!("WGPU_BACKEND names `{name}`: expected some of vulkan, metal, dx12, gl") }),
    }
}

fn preference_of_variable() -> Result<wgpu::PowerPreference> {
    match (wgpu::PowerPreference::from_env(), variable("WGPU_POWER_PREF")) {
        (None, Some(value)) => Err(Error::Adapter { problem: format!("WGPU_POWER_PREF is `{value}`: expected low or high") }),
        (preference, _) => Ok(preference.unwrap_or_default()),
    }
}

fn what_to_install() -> &'static str {
    if cfg!(target_os = "linux") {
        "install the vendor's Vulkan driver, or Mesa's, which also runs on the CPU (Debian, Ubuntu: `apt-get install mesa-vulkan-drivers libvulkan1`; \
         Fedora: `dnf install mesa-vulkan-drivers vulkan-loader`; Arch: `pacman -S vulkan-swrast vulkan-icd-loader`), and see that WGPU_BACKEND does not exclude it"
    } else {
        "install the vendor's GPU driver, and see that WGPU_BACKEND does not exclude it"
    }
}

/// What was opened.
pub(super) struct Opened {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// Squares of f16 numbers, of so many each way, that the adapter multiplies with f32 sums.
    pub square: Option<u32>,
}

/// Bindings that may be there at a time, for which DX12 takes memory as it opens the device. wgpu asks for a million by itself, and warns of what
/// they take of the host's memory where an integrated GPU shares it. A model of 24 layers has some 2,000 while it loads.
const MOST_BINDINGS: u32 = 1 << 16;

/// Bytes that a driver is asked for at a time for buffers of less; a larger one gets just what it takes. wgpu's own choice begins with 128 MB and
/// doubles it, most of which a small model would leave unused.
const BLOCK: u64 = 4 << 20;

/// Opens the first candidate.
pub(super) async fn open(options: GpuOptions) -> Result<Opened> {
    let adapters = candidates(&options).await?;
    let Some(adapter) = adapters.first() else {
        return Err(Error::Adapter { problem: format!("no GPU adapter was found: {}", what_to_install()) });
    };
    let info = adapter.get_info();
    if is_software(&info) {
        log::warn!("{} computes on the CPU: results are right, but slow; install a GPU's driver to use the GPU", describe(adapter));
    }
    log::info!("running on {} with driver {} {}", describe(adapter), info.driver, info.driver_info);
    let mut required_limits = options.limits.unwrap_or_else(|| adapter.limits());
    required_limits.max_non_sampler_bindings = required_limits.max_non_sampler_bindings.min(MOST_BINDINGS);
    // Lavapipe of Mesa 26 has them with subgroups of 8 only. With 4 it lists sizes without having the feature, at which wgpu panics; with 16 it crashes.
    let has_units = !is_software(&info) || info.subgroup_max_size == 8;
    let square = square(&adapter.cooperative_matrix_properties()).filter(|_| has_units);
    let mut wanted = wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SHADER_F16;
    if square.is_some() {
        wanted |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
    }
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("minilm"),
        required_features: adapter.features() & wanted,
        required_limits,
        memory_hints: wgpu::MemoryHints::Manual { suballocated_device_memory_block_size: BLOCK..BLOCK },
        experimental_features: if square.is_some() { experimental() } else { wgpu::ExperimentalFeatures::disabled() },
        ..Default::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await.map_err(|error| Error::Adapter {
        problem: format!("{} could not be opened ({error}): choose another adapter or update its driver", describe(adapter)),
    })?;
    Ok(Opened { device, queue, square })
}

/// The largest squares for products of f16 with f32 sums.
fn square(offered: &[wgpu::CooperativeMatrixProperties]) -> Option<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let square = |size: u32| offered.iter().any(|p| [p.m_size, p.n_size, p.k_size] == [size; 3] && (p.ab_type, p.cr_type) == (F16, F32));
    [16, 8].into_iter().find(|size| square(*size))
}

/// Cooperative matrices are an experiment of wgpu's, which this lets us ask for. Only products in f16 use them, and only after each form was
/// held to its definition on the adapter.
#[allow(unsafe_code)]
fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: what the caller acknowledges is that wgpu may have mistakes there. Our shaders take fragments only from workgroup memory, at
    // places that their constants fix.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::{Backend, DeviceType, PowerPreference};

    fn info(device_type: DeviceType, backend: Backend) -> wgpu::AdapterInfo {
        wgpu::AdapterInfo::new(device_type, backend)
    }

    #[test]
    fn software_is_last_whatever_is_preferred() {
        for preference in [PowerPreference::None, PowerPreference::LowPower, PowerPreference::HighPerformance] {
            let software = rank(&info(DeviceType::Cpu, Backend::Vulkan), preference);
            for kind in [DeviceType::DiscreteGpu, DeviceType::IntegratedGpu, DeviceType::VirtualGpu, DeviceType::Other] {
                assert!(rank(&info(kind, Backend::Gl), preference) < software);
            }
        }
    }

    #[test]
    fn power_preference_orders_real_adapters() {
        let discrete = info(DeviceType::DiscreteGpu, Backend::Vulkan);
        let integrated = info(DeviceType::IntegratedGpu, Backend::Vulkan);
        assert!(rank(&discrete, PowerPreference::None) < rank(&integrated, PowerPreference::None));
        assert!(rank(&integrated, PowerPreference::LowPower) < rank(&discrete, PowerPreference::LowPower));
    }
}
