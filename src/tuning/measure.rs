//! Times the variants of each kernel at a model's shapes.

use std::collections::HashMap;

use super::{BUCKETS, Choice, Kernel};
use crate::checkpoint::EncoderConfig;
use crate::error::{Error, Result};
use crate::gpu::check::{Check, Measured};
use crate::gpu::{Count, Form, Gpu};
use crate::kernels::attention::Attention;
use crate::kernels::layer_norm::LayerNorm;
use crate::kernels::matmul::Matmul;
use crate::kernels::{Arithmetic, Operands, Variant, padded};
use crate::parallel;

/// Rows at which each of [`BUCKETS`] is measured; fewer in the last on software adapters, which take long.
const ROWS: [usize; 3] = [12, 128, 1024];
const ROWS_IN_SOFTWARE: usize = 256;

/// How often variants are measured again, since what else the machine does may have slowed one of them down: of products those that took
/// less than so many times the least.
const AGAIN: usize = 2;
const NEAR: f64 = 1.5;

/// Tokens of the texts that attention is measured at: mixed, as most batches are.
const LENGTHS: [usize; 15] = [128, 64, 64, 32, 32, 32, 32, 16, 16, 16, 16, 16, 16, 16, 16];

/// The shapes of a layer's matrix products, inner and outer, each once.
pub fn shapes(config: &EncoderConfig) -> Vec<[usize; 2]> {
    let (hidden, context) = (config.hidden, config.heads * padded(config.head_dim()));
    let mut shapes = vec![[hidden, 3 * context], [context, hidden], [hidden, config.intermediate], [config.intermediate, hidden]];
    shapes.sort_unstable();
    shapes.dedup();
    shapes
}

/// The fastest variant of each kernel at each shape.
pub fn all(gpu: &Gpu, config: &EncoderConfig, operands: Operands) -> Result<Vec<Choice>> {
    let subgroup = Variant::subgroup(gpu);
    let mut choices = Vec::new();
    for shape in shapes(config) {
        choices.extend(matmul(gpu, shape, operands)?);
    }
    let half = operands.arithmetic == Arithmetic::F16;
    let attention = Attention { heads: config.heads, head_dim: config.head_dim(), bias: false, half };
    let one = |kernel, shape, operands, variant, seconds: f64| Choice {
        kernel,
        shape,
        operands,
        up_to: u32::MAX,
        variant,
        nanoseconds: (seconds * 1e9) as u64,
    };
    let shape = [attention.heads, attention.head_dim];
    let best = fastest(gpu, &attention.variants(gpu), |v| attention.form(gpu, v), &attention.check_of(&LENGTHS))?;
    choices.extend(best.map(|(variant, seconds)| one(Kernel::Attention, shape, attention.operands(), variant, seconds)));
    let norm = LayerNorm { hidden: config.hidden, epsilon: config.layer_norm_eps, rows: Count::Tokens };
    let best = fastest(gpu, &Variant::reductions(subgroup), |v| norm.form(gpu, v), &norm.check())?;
    choices.extend(best.map(|(variant, seconds)| one(Kernel::LayerNorm, [config.hidden, 1], Operands::default(), variant, seconds)));
    Ok(choices)
}

/// A variant that gives right results, and the least time that it took for each of [`BUCKETS`].
struct Timed {
    variant: Variant,
    form: Form,
    /// Of its bits at all sizes.
    digest: u64,
    seconds: [f64; 3],
}

/// A winner for each bucket, all of them among variants that give the same bits.
fn matmul(gpu: &Gpu, [inner, outer]: [usize; 2], operands: Operands) -> Result<Vec<Choice>> {
    let kernel = Matmul { inner, outer, operands, activation: None, residual: false, rows: Count::Tokens };
    let in_software = gpu.info().device_type == wgpu::DeviceType::Cpu;
    let checks = ROWS.map(|rows| kernel.check(if in_software { rows.min(ROWS_IN_SOFTWARE) } else { rows }));
    let mut timed = timed(gpu, &kernel, &checks)?;
    let least = |timed: &[Timed]| [0, 1, 2].map(|bucket| timed.iter().map(|one| one.seconds[bucket]).fold(f64::INFINITY, f64::min));
    for _ in 0..AGAIN {
        let least = least(&timed);
        for one in &mut timed {
            for (seconds, (least, check)) in one.seconds.iter_mut().zip(least.iter().zip(&checks)) {
                if *seconds < NEAR * least
                    && let Some(measured) = tried(gpu, &one.form, check)?
                {
                    *seconds = seconds.min(measured.seconds);
                }
            }
        }
    }
    let least = least(&timed);
    let mut families: HashMap<u64, Vec<Timed>> = HashMap::new();
    for one in timed {
        families.entry(one.digest).or_default().push(one);
    }
    let best =
        |family: &[Timed], bucket: usize| family.iter().map(|one| (one.variant, one.seconds[bucket])).min_by(|a, b| a.1.total_cmp(&b.1));
    // What counts is the ratio in each bucket, not the seconds, of which the last has nearly all.
    let loss = |family: &[Timed]| -> f64 {
        (0..3).map(|bucket| best(family, bucket).map_or(f64::INFINITY, |(_, seconds)| seconds / least[bucket])).sum()
    };
    let family = families.values().min_by(|a, b| loss(a).total_cmp(&loss(b)));
    let family =
        family.ok_or_else(|| Error::Kernel { kernel: "matmul", problem: "no variant gives right results: run `minilm doctor`".into() })?;
    let choice = |bucket: usize| {
        let (variant, seconds) = best(family, bucket)?;
        Some(Choice {
            kernel: Kernel::Matmul,
            shape: [inner, outer],
            operands,
            up_to: BUCKETS[bucket],
            variant,
            nanoseconds: (seconds * 1e9) as u64,
        })
    };
    Ok((0..3).filter_map(choice).collect())
}

/// All variants of a product that give right results.
fn timed(gpu: &Gpu, kernel: &Matmul, checks: &[Check; 3]) -> Result<Vec<Timed>> {
    let offered = kernel.variants(gpu).into_iter().map(|variant| Ok((variant, kernel.form(gpu, variant)?))).collect::<Result<Vec<_>>>()?;
    // Compiled on all cores; what does not compile says so again below.
    parallel::map(&offered, parallel::cores(), |(_, form)| _ = form.pipeline.vetted(gpu, form.grid, None));
    let mut timed = Vec::new();
    for (variant, form) in offered {
        let Some(measured) = checks.iter().map(|check| tried(gpu, &form, check)).collect::<Result<Option<Vec<_>>>>()? else { continue };
        let digest = measured.iter().fold(0, |all: u64, one| all.rotate_left(21) ^ one.digest);
        let seconds = [0, 1, 2].map(|bucket| measured[bucket].seconds);
        timed.push(Timed { variant, form, digest, seconds });
    }
    Ok(timed)
}

/// Nothing where no form gives right results.
fn fastest(gpu: &Gpu, offered: &[Variant], form: impl Fn(Variant) -> Result<Form>, check: &Check) -> Result<Option<(Variant, f64)>> {
    let mut best: Option<(Variant, f64)> = None;
    for &variant in (0..=AGAIN).flat_map(|_| offered) {
        if let Some(Measured { seconds, .. }) = tried(gpu, &form(variant)?, check)?
            && best.is_none_or(|(_, least)| seconds < least)
        {
            best = Some((variant, seconds));
        }
    }
    Ok(best)
}

/// Nothing for a form that does not compile or is wrong.
fn tried(gpu: &Gpu, form: &Form, check: &Check) -> Result<Option<Measured>> {
    match check.measure(gpu, form) {
        Ok(measured) => Ok(Some(measured)),
        Err(error @ Error::Kernel { .. }) => {
            log::warn!("left out of the choice, {}: {error}", form.variant);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
