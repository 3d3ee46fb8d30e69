//! From WGSL to a pipeline. The shader owns its interface: bindings are read from it by naga and filled by variable name, and the
//! structs that the host writes are held to their WGSL namesakes.

use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::check::CheckOf;
use super::{Gpu, Grid, Slice};
use crate::batch::{Header, Offset};
use crate::error::{Error, Result};

/// A kernel's WGSL and the constants that make one pipeline of it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The kernel's name: of its file in `shaders/`, its label, its module in `kernels`, its loop in `reference`.
    pub kernel: &'static str,
    /// The composed shader.
    pub wgsl: String,
    /// Values of its `override`s.
    pub constants: Vec<(&'static str, f64)>,
}

impl Source {
    /// `pieces` of WGSL after one another, behind `const` declarations of the sizes that WGSL does not let a pipeline override.
    pub fn compose(kernel: &'static str, sizes: &[(&str, u32)], pieces: &[&str], constants: Vec<(&'static str, f64)>) -> Self {
        let mut wgsl = String::new();
        for (name, value) in sizes {
            wgsl += &format!("const {name} = {value}u;\n");
        }
        for piece in pieces {
            wgsl += piece;
            wgsl += "\n";
        }
        Self { kernel, wgsl, constants }
    }

    fn key(&self) -> impl Hash + Eq + '_ {
        (self.kernel, self.wgsl.as_str(), self.constants.iter().map(|(name, value)| (*name, value.to_bits())).collect::<Vec<_>>())
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Source {}

impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// A kernel whose interface is known. It is compiled, and held to its definition, when a plan is made of it: many at a time.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) kernel: &'static str,
    source: Source,
    layout: wgpu::BindGroupLayout,
    pub(super) bindings: Vec<(String, u32)>,
    known: Mutex<Known>,
}

/// What is known of a kernel on its device.
#[derive(Debug, Default)]
struct Known {
    /// Compiled, or what is wrong where it cannot be used.
    outcome: Option<Result<wgpu::ComputePipeline, String>>,
    /// Whether it was held to its definition: who measures kernels compiles them first and drops what is wrong.
    checked: bool,
}

/// The structs that host and shader share: WGSL name and size in bytes on the host.
const SHARED_STRUCTS: [(&str, usize); 2] = [("Header", size_of::<Header>()), ("Offset", size_of::<Offset>())];

impl Pipeline {
    pub(super) fn new(gpu: &Gpu, source: &Source) -> Result<Self> {
        let kernel = source.kernel;
        let refused = |problem: String| Error::Kernel { kernel, problem };
        let module = naga::front::wgsl::parse_str(&source.wgsl).map_err(|error| refused(error.emit_to_string(&source.wgsl)))?;
        for (_, ty) in module.types.iter() {
            let (Some(name), naga::TypeInner::Struct { span, .. }) = (&ty.name, &ty.inner) else { continue };
            if let Some((_, size)) = SHARED_STRUCTS.iter().find(|(shared, size)| shared == name && *size != *span as usize) {
                return Err(refused(format!("struct `{name}` has {span} bytes in WGSL and {size} on the host")));
            }
        }
        let (bindings, entries): (Vec<_>, Vec<_>) = module.global_variables.iter().filter_map(|(_, v)| binding(v)).unzip();

        let device = gpu.device();
        let layout = gpu.checked(&format!("kernel `{kernel}`"), || {
            Ok(device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel), entries: &entries }))
        })?;
        Ok(Self { kernel, source: source.clone(), layout, bindings, known: Mutex::default() })
    }

    /// The WGSL and the constants that it is made of.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The compiled kernel, once it has met `check`; each is done at the first call that asks for it, and other threads wait for them.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the driver refuses it or it gives other results than its definition.
    pub fn vetted(&self, gpu: &Gpu, grid: Grid, check: Option<&CheckOf>) -> Result<wgpu::ComputePipeline> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // A lost device or too little memory says nothing about the kernel.
        let name = format!("kernel `{}`: ", self.kernel); // which the error that is made of a problem says itself
        let settled = |outcome: Result<wgpu::ComputePipeline>| match outcome {
            Ok(compiled) => Ok(Ok(compiled)),
            Err(Error::Kernel { problem, .. } | Error::Device { problem }) => Ok(Err(problem.trim_start_matches(&name).to_owned())),
            Err(error) => Err(error),
        };
        let mut outcome = match known.outcome.take() {
            Some(outcome) => outcome,
            None => {
                let begin = Instant::now();
                let compiled = self.compile(gpu);
                gpu.add_pipeline_time(begin.elapsed());
                settled(compiled)?
            }
        };
        if let (Ok(compiled), Some(check), false) = (&outcome, check.filter(|_| gpu.computes()), known.checked) {
            let begin = Instant::now();
            let checked = check(grid).run(gpu, self, compiled, grid).map(|_| compiled.clone());
            gpu.add_check_time(begin.elapsed());
            outcome = settled(checked)?;
            known.checked = true;
        }
        known.outcome = Some(outcome.clone());
        outcome.map_err(|problem| Error::Kernel { kernel: self.kernel, problem })
    }

    fn compile(&self, gpu: &Gpu) -> Result<wgpu::ComputePipeline> {
        let (device, kernel, source) = (gpu.device(), self.kernel, &self.source);
        // wgpu panics where a thread waits for the one context of GL for more than six seconds, and a compiler may take that for a few.
        let one_at_a_time = gpu.info().backend == wgpu::Backend::Gl;
        let _compiling = one_at_a_time.then(|| gpu.shared.compiling.lock().unwrap_or_else(PoisonError::into_inner));
        gpu.checked(&format!("kernel `{kernel}`"), || {
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(kernel),
                bind_group_layouts: &[Some(&self.layout)],
                ..Default::default()
            });
            let shader = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(kernel),
                source: wgpu::ShaderSource::Wgsl(source.wgsl.as_str().into()),
            });
            Ok(device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel),
                layout: Some(&pipeline_layout),
                module: &shader,
                entry_point: Some("main"),
                // No kernel reads workgroup memory that it has not written.
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &source.constants,
                    zero_initialize_workgroup_memory: false,
                },
                // Drivers keep what they have compiled on disk themselves. wgpu's own cache hands a file to the driver unchecked, which asks
                // for `unsafe` code and for trust in that file.
                cache: None,
            }))
        })
    }

    /// Binds a buffer to each variable of the shader, by name.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the names are not just those of the shader.
    pub fn bind(&self, gpu: &Gpu, buffers: &[(&str, &Slice)]) -> Result<wgpu::BindGroup> {
        let refused = |problem: String| Error::Kernel { kernel: self.kernel, problem };
        if let Some((name, _)) = buffers.iter().find(|(name, _)| !self.bindings.iter().any(|(binding, _)| binding == name)) {
            return Err(refused(format!("the shader has no variable `{name}`")));
        }
        let mut entries = Vec::with_capacity(self.bindings.len());
        for (name, binding) in &self.bindings {
            let Some((_, slice)) = buffers.iter().find(|(given, _)| given == name) else {
                return Err(refused(format!("no buffer is bound to the variable `{name}`")));
            };
            entries.push(wgpu::BindGroupEntry { binding: *binding, resource: slice.binding() });
        }
        gpu.checked(&format!("kernel `{}`", self.kernel), || {
            let descriptor = wgpu::BindGroupDescriptor { label: Some(self.kernel), layout: &self.layout, entries: &entries };
            Ok(gpu.device().create_bind_group(&descriptor))
        })
    }
}

/// The name and the layout entry of a variable that is bound to a buffer.
fn binding(variable: &naga::GlobalVariable) -> Option<((String, u32), wgpu::BindGroupLayoutEntry)> {
    let ty = match variable.space {
        naga::AddressSpace::Uniform => wgpu::BufferBindingType::Uniform,
        naga::AddressSpace::Storage { access } => {
            wgpu::BufferBindingType::Storage { read_only: !access.contains(naga::StorageAccess::STORE) }
        }
        _ => return None,
    };
    let binding = variable.binding?.binding;
    let entry = wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    Some(((variable.name.clone()?, binding), entry))
}
