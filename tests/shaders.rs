//! Every shader in every form, without a GPU: valid, translated to the language of each platform, and checked by a compiler of that
//! language where one is installed. `tests/platforms/shader_compilers.sh` installs them.
//!
//! Workgroup memory is not zeroed, since the crate's pipelines do not ask for it: FXC writes that out, value by value, for minutes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use minilm::gpu::Source;
use minilm::kernels::all_sources;
use minilm::wgpu;
use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

/// Parses and validates for a writer's own capabilities: with all of them the HLSL writer would be given what it cannot write.
fn module(source: &Source, capabilities: Capabilities) -> Result<(naga::Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(&source.wgsl).map_err(|error| error.emit_to_string(&source.wgsl))?;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    // Subgroup operations are optional in some writers' sets, but each of them can write them.
    validator.subgroup_stages(naga::valid::ShaderStages::all()).subgroup_operations(naga::valid::SubgroupOperationSet::all());
    let info = validator.validate(&module).map_err(|error| error.emit_to_string(&source.wgsl))?;
    let constants = source.constants.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    let (module, info) =
        naga::back::pipeline_constants::process_overrides(&module, &info, None, &constants).map_err(|e| format!("{e:?}"))?;
    Ok((module.into_owned(), info.into_owned()))
}

/// Matrix units are reached by SPIR-V and MSL only; the latter has squares of 8.
fn has_matrix_units(source: &Source) -> bool {
    source.wgsl.contains("enable wgpu_cooperative_matrix;")
}

/// GL has none, and DX12 has it from shader model 6.2 on.
fn has_f16(source: &Source) -> bool {
    source.wgsl.contains("enable f16;")
}

fn is_subgroup_form(source: &Source) -> bool {
    source.wgsl.contains("subgroup")
}

/// What checks a language: a program that takes one file, and the Debian package that holds it.
struct Checker {
    program: &'static str,
    package: &'static str,
    arguments: &'static [&'static str],
    /// The option that names a file for what it makes, where it makes something.
    output: Option<&'static str>,
}

const SPIRV_VAL: Checker =
    Checker { program: "spirv-val", package: "spirv-tools", arguments: &["--target-env", "vulkan1.1"], output: None };
/// Matrix units need the memory model of a later Vulkan.
const MATRIX_SPIRV_VAL: Checker = Checker { arguments: &["--target-env", "vulkan1.3"], ..SPIRV_VAL };
const GLSLANG: Checker = Checker {
    program: "glslangValidator",
    package: "glslang-tools",
    // Subgroups need a SPIR-V that has them, though the code is for OpenGL.
    arguments: &["--target-env", "opengl", "--target-env", "spirv1.3"],
    output: Some("-o"),
};

impl Checker {
    /// Where the program is missing that is said, and is a failure where the caller asks for it by `MINILM_SHADER_COMPILERS`.
    fn installed(&self) -> bool {
        let installed = Command::new(self.program).arg("--version").output().is_ok();
        let message = format!("{} is not installed (Debian: {}): what it would check is not checked", self.program, self.package);
        assert!(installed || std::env::var_os("MINILM_SHADER_COMPILERS").is_none(), "{message}");
        if !installed {
            println!("{message}");
        }
        installed
    }

    /// Whether it is of 2024 or later: those of before do not know matrix units.
    fn is_recent(&self) -> bool {
        let Ok(output) = Command::new(self.program).arg("--version").output() else { return false };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let year = said.split(['v', '.']).find_map(|part| part.parse::<u32>().ok().filter(|year| *year > 2000));
        let is_recent = year.is_some_and(|year| year >= 2024);
        if !is_recent {
            println!("{} is of before 2024 and does not know matrix units: those forms are only translated", self.program);
        }
        is_recent
    }

    fn check(&self, file: &Path) -> Result<(), String> {
        let mut command = Command::new(self.program);
        command.args(self.arguments).arg(file);
        if let Some(option) = self.output {
            command.arg(option).arg(file.with_extension("out"));
        }
        let output = command.output().map_err(|error| error.to_string())?;
        let said = [output.stdout, output.stderr].concat();
        if output.status.success() { Ok(()) } else { Err(format!("{}: {}", self.program, String::from_utf8_lossy(&said))) }
    }

    /// Checks all files, on every core; returns those that fail.
    fn check_all(&self, files: &[(String, PathBuf)]) -> Vec<String> {
        let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some((name, file)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.check(file) {
                            failures.lock().unwrap().push(format!("{name}: {error}"));
                        }
                    }
                });
            }
        });
        failures.into_inner().unwrap()
    }
}

/// Runs `translate` on every form and `checker` on every different text, and reports all that fail. The texts are written to a folder:
/// the one that `MINILM_SHADER_FOLDER` names keeps them.
fn for_all(
    extension: &str,
    checker: Option<Checker>,
    can: impl Fn(&Source) -> bool,
    translate: impl Fn(&Source) -> Result<Vec<u8>, String>,
) {
    let sources: Vec<Source> = all_sources().into_iter().filter(can).collect();
    let (mut failures, mut texts) = (Vec::new(), BTreeMap::new());
    for source in &sources {
        let name = || format!("{} {:?}", source.kernel, source.constants);
        match translate(source) {
            Ok(text) if text.is_empty() => failures.push(format!("{}: nothing was written", name())),
            Ok(text) => drop(texts.entry(text).or_insert_with(|| (source.kernel, name()))),
            Err(error) => failures.push(format!("{}: {error}", name())),
        }
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("MINILM_SHADER_FOLDER").map_or(temporary.path().to_path_buf(), PathBuf::from);
    let write = |(index, (text, (kernel, name))): (usize, (&Vec<u8>, &(&str, String)))| {
        let file = folder.join(format!("{kernel}-{index}.{extension}"));
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (name.clone(), file)
    };
    let files: Vec<_> = texts.iter().enumerate().map(write).collect();
    println!("{extension}: {} forms, {} different texts", sources.len(), files.len());
    if let Some(checker) = checker.filter(Checker::installed) {
        let refused = checker.check_all(&files);
        println!("{}: {} of {} passed", checker.program, files.len() - refused.len(), files.len());
        failures.extend(refused);
    }
    assert!(failures.is_empty(), "{extension}: {} failed\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_shader_keeps_to_the_limits_that_every_adapter_has() {
    let limits = wgpu::Limits::default();
    let mut most = 0;
    // Forms on matrix units are offered only where they fit.
    for source in all_sources().into_iter().filter(|source| !has_matrix_units(source)) {
        let (module, _) = module(&source, Capabilities::all()).unwrap();
        let bytes = |space: fn(naga::AddressSpace) -> bool| {
            let sizes = module.global_variables.iter().filter(|(_, variable)| space(variable.space));
            sizes.map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx())).collect::<Vec<u32>>()
        };
        let shared: u32 = bytes(|space| space == naga::AddressSpace::WorkGroup).iter().map(|size| size.next_multiple_of(16)).sum();
        let buffers = bytes(|space| matches!(space, naga::AddressSpace::Storage { .. })).len() as u32;
        let lanes: u32 = module.entry_points[0].workgroup_size.iter().product();
        let found = [shared, buffers, lanes];
        let allowed = [
            limits.max_compute_workgroup_storage_size,
            limits.max_storage_buffers_per_shader_stage,
            limits.max_compute_invocations_per_workgroup,
        ];
        assert!(found.iter().zip(allowed).all(|(found, allowed)| *found <= allowed), "{} {:?}: {found:?}", source.kernel, source.constants);
        most = most.max(shared);
    }
    assert!(most > 8192, "workgroup memory was counted");
}

#[test]
fn every_shader_becomes_spir_v() {
    for_all("spv", Some(SPIRV_VAL), |source| !has_matrix_units(source), spirv);
    for_all("spv", MATRIX_SPIRV_VAL.is_recent().then_some(MATRIX_SPIRV_VAL), has_matrix_units, spirv);
}

fn spirv(source: &Source) -> Result<Vec<u8>, String> {
    let (module, info) = module(source, spv::supported_capabilities())?;
    let options = spv::Options {
        lang_version: (1, 3),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        ..Default::default()
    };
    let words = spv::write_vec(&module, &info, &options, None).map_err(|error| error.to_string())?;
    Ok(without_strides_in_workgroup_memory(&words).into_iter().flat_map(u32::to_le_bytes).collect())
}

/// naga gives arrays in workgroup memory the layout that they would have in a buffer. Drivers do not care, but validators do since 2025.
fn without_strides_in_workgroup_memory(words: &[u32]) -> Vec<u32> {
    const HEADER: usize = 5;
    const TYPE_POINTER: u32 = 32;
    const DECORATE: u32 = 71;
    const WORKGROUP: u32 = 4;
    const ARRAY_STRIDE: u32 = 6;
    let mut instructions: Vec<&[u32]> = Vec::new();
    let mut rest = &words[HEADER..];
    while let Some(first) = rest.first() {
        let (instruction, others) = rest.split_at((first >> 16) as usize);
        instructions.push(instruction);
        rest = others;
    }
    let is = |instruction: &[u32], code: u32| instruction[0] & 0xffff == code;
    let shared: Vec<u32> = instructions.iter().filter(|i| is(i, TYPE_POINTER) && i[2] == WORKGROUP).map(|i| i[3]).collect();
    instructions.retain(|i| !(is(i, DECORATE) && i[2] == ARRAY_STRIDE && shared.contains(&i[1])));
    [&words[..HEADER], &instructions.concat()].concat()
}

#[test]
fn every_shader_becomes_msl() {
    for_all(
        "metal",
        None,
        |source| !source.wgsl.contains("coop_mat16x16"),
        |source| {
            let (module, info) = module(source, msl::supported_capabilities())?;
            let mut resources = msl::EntryPointResources { sizes_buffer: Some(30), ..Default::default() };
            for (_, variable) in module.global_variables.iter() {
                let Some(binding) = variable.binding else { continue };
                let target = msl::BindTarget { buffer: Some(binding.binding as u8), mutable: true, ..Default::default() };
                resources.resources.insert(binding, target);
            }
            let options = msl::Options {
                lang_version: (2, 4),
                per_entry_point_map: [("main".to_string(), resources)].into(),
                fake_missing_bindings: false,
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            };
            msl::write_string(&module, &info, &options, &Default::default())
                .map(|(text, _)| text.into_bytes())
                .map_err(|error| error.to_string())
        },
    );
}

#[test]
fn every_shader_becomes_hlsl() {
    for_all(
        "hlsl",
        None,
        |source| !has_matrix_units(source),
        |source| {
            let (module, info) = module(source, hlsl::supported_capabilities())?;
            // The baseline runs on shader model 5.1; subgroups need 6.0, f16 6.2.
            let shader_model = match (has_f16(source), is_subgroup_form(source)) {
                (true, _) => hlsl::ShaderModel::V6_2,
                (_, true) => hlsl::ShaderModel::V6_0,
                _ => hlsl::ShaderModel::V5_1,
            };
            let options = hlsl::Options { shader_model, zero_initialize_workgroup_memory: false, ..Default::default() };
            let mut text = String::new();
            hlsl::Writer::new(&mut text, &options, &Default::default()).write(&module, &info, None).map_err(|error| error.to_string())?;
            Ok(text.into_bytes())
        },
    );
}

#[test]
fn every_shader_becomes_glsl() {
    for_all(
        "comp",
        Some(GLSLANG),
        |source| !has_f16(source),
        |source| {
            let (module, info) = module(source, glsl::supported_capabilities())?;
            let options = glsl::Options {
                version: if is_subgroup_form(source) {
                    glsl::Version::Desktop(450)
                } else {
                    glsl::Version::Embedded { version: 310, is_webgl: false }
                },
                zero_initialize_workgroup_memory: false,
                binding_map: module.global_variables.iter().filter_map(|(_, v)| v.binding).map(|b| (b, b.binding as u8)).collect(),
                ..Default::default()
            };
            let pipeline = glsl::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into(), multiview: None };
            let mut text = String::new();
            glsl::Writer::new(&mut text, &module, &info, &options, &pipeline, Default::default())
                .and_then(|mut writer| writer.write())
                .map_err(|error| error.to_string())?;
            Ok(text.into_bytes())
        },
    );
}
