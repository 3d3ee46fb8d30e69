//! Every shader in every form, without a GPU: valid, and translated to the language of each platform.

use minilm::gpu::Source;
use minilm::kernels::all_sources;
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

fn is_subgroup_form(source: &Source) -> bool {
    source.wgsl.contains("subgroup")
}

/// Runs `translate` on every form and reports all that fail.
fn for_all(language: &str, translate: impl Fn(&Source) -> Result<usize, String>) {
    let sources = all_sources();
    let mut failures = Vec::new();
    for source in &sources {
        match translate(source) {
            Ok(written) if written > 0 => {}
            Ok(_) => failures.push(format!("{}: nothing was written", source.kernel)),
            Err(error) => failures.push(format!("{} {:?}: {error}", source.kernel, source.constants)),
        }
    }
    assert!(failures.is_empty(), "{language}: {} of {} failed\n{}", failures.len(), sources.len(), failures.join("\n"));
}

#[test]
fn every_shader_becomes_spir_v() {
    for_all("SPIR-V", |source| {
        let (module, info) = module(source, spv::supported_capabilities())?;
        let options = spv::Options { lang_version: (1, 3), ..Default::default() };
        spv::write_vec(&module, &info, &options, None).map(|words| words.len()).map_err(|error| error.to_string())
    });
}

#[test]
fn every_shader_becomes_msl() {
    for_all("MSL", |source| {
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
            ..Default::default()
        };
        msl::write_string(&module, &info, &options, &Default::default()).map(|(text, _)| text.len()).map_err(|error| error.to_string())
    });
}

#[test]
fn every_shader_becomes_hlsl() {
    for_all("HLSL", |source| {
        let (module, info) = module(source, hlsl::supported_capabilities())?;
        // The baseline runs on shader model 5.1; subgroups need 6.0.
        let shader_model = if is_subgroup_form(source) { hlsl::ShaderModel::V6_0 } else { hlsl::ShaderModel::V5_1 };
        let options = hlsl::Options { shader_model, ..Default::default() };
        let mut text = String::new();
        hlsl::Writer::new(&mut text, &options, &Default::default()).write(&module, &info, None).map_err(|error| error.to_string())?;
        Ok(text.len())
    });
}

#[test]
fn every_shader_becomes_glsl() {
    for_all("GLSL", |source| {
        let (module, info) = module(source, glsl::supported_capabilities())?;
        let options = glsl::Options {
            version: if is_subgroup_form(source) {
                glsl::Version::Desktop(450)
            } else {
                glsl::Version::Embedded { version: 310, is_webgl: false }
            },
            binding_map: module.global_variables.iter().filter_map(|(_, v)| v.binding).map(|b| (b, b.binding as u8)).collect(),
            ..Default::default()
        };
        let pipeline = glsl::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into(), multiview: None };
        let mut text = String::new();
        glsl::Writer::new(&mut text, &module, &info, &options, &pipeline, Default::default())
            .and_then(|mut writer| writer.write())
            .map_err(|error| error.to_string())?;
        Ok(text.len())
    });
}
