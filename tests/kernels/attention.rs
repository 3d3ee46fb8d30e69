//! Attention in every form, in f32 and in f16.

use std::collections::HashMap;

use super::common::compare::{Bound, Table};
use super::common::gpu::{gpu, poisoned, read, storage};
use super::{CANARIES, batch, header, pad, run, scaled, unpad, values, wide};
use minilm::checkpoint::weights::RELATIVE_RANGE;
use minilm::kernels::attention::{self, Attention};
use minilm::kernels::{Sharing, padded};
use minilm::{reference, wgpu};

#[test]
fn attention_equals_the_reference_within_each_text() {
    let gpu = gpu();
    let mut table = Table::new("attention");
    let cases: [(usize, usize, &[usize], f32); 13] = [
        // heads, head_dim, lengths of texts, size of the scores; every second case has a bias by distance
        (1, 8, &[1], 1.0),
        (5, 16, &[31, 1, 32, 33, 2], 1.0),
        (2, 10, &[5, 40], 1.0),
        (3, 32, &[3, 4, 5, 100], 1.0),
        (4, 64, &[64, 65], 30.0), // scores of some hundreds: exp overflows unless the maximum is subtracted
        (2, 64, &[70, 7], 1.0),
        (1, 100, &[9], 1.0),
        (2, 128, &[33, 6], 1.0),
        (1, 12, &[300], 1.0), // distances beyond the range of the bias
        (12, 36, &[17, 16, 15, 48, 8, 96, 47], 4.0),
        (1, 8, &[4099, 5], 1.0),
        (3, 1, &[35, 6], 1.0), // heads of less than a vector
        (2, 7, &[12, 33], 1.0),
    ];
    let has_f16 = gpu.device().features().contains(wgpu::Features::SHADER_F16);
    for (half, (i, (heads, head_dim, lengths, size))) in
        [false, true].into_iter().flat_map(|half| cases.into_iter().enumerate().map(move |case| (half, case)))
    {
        let tokens: usize = lengths.iter().sum();
        let mut qkv = scaled(values(1, tokens * 3 * heads * head_dim), size);
        let mut bias = (i % 2 == 0).then(|| values(2, heads * (2 * RELATIVE_RANGE + 1)));
        if size > 1.0 {
            // Halves, whose products and sums are exact in f32, as is the scale of 1/8: large scores bring no error of their own.
            qkv.iter_mut().chain(bias.iter_mut().flatten()).for_each(|value| *value = (*value * 2.0).round() / 2.0);
        }
        if half {
            // Then only the softmax's weights are rounded.
            qkv.iter_mut().for_each(|value| *value = half::f16::from_f32(*value).to_f32());
        }
        let expected = reference::attention(&wide(&qkv), lengths, heads, head_dim, bias.as_deref().map(wide).as_deref());
        // A weight of f16 is off by up to one in 2048, in 1024 where the driver cuts off: so is each value's share, which is at most `size`.
        let bound = if half { Bound::new(1e-3 * size as f64, 2e-6) } else { Bound::new(2e-6 * size as f64, 2e-6) };
        let bias_buffer = bias.as_ref().map(|bias| storage(&gpu, bias));
        let kernel = Attention { heads, head_dim, bias: bias.is_some(), half };
        let mut bits_of: HashMap<(Sharing, u32), Vec<u32>> = HashMap::new();
        for variant in kernel.variants(&gpu).into_iter().filter(|variant| kernel.rounds(*variant) == half && (has_f16 || !half)) {
            let name = if half { " in f16" } else { "" };
            let case = format!("{variant}{name}, {heads} heads of {head_dim}, texts of {lengths:?}, scores x {size}");
            let attend = |lengths: &[usize], qkv: &[f32]| {
                let batch = batch(lengths, 10, 1, 0);
                let context = poisoned(&gpu, (batch.ids.len() + CANARIES) * heads * padded(head_dim));
                let buffers = attention::Buffers {
                    batch: &header(&gpu, &batch),
                    offsets: &storage(&gpu, &batch.offsets),
                    qkv: &storage(&gpu, &pad(qkv, head_dim)),
                    bias: bias_buffer.as_ref(),
                    context: &context,
                };
                run(&gpu, vec![kernel.step(&gpu, variant, &buffers).unwrap()], &batch);
                read(&gpu, &context)
            };
            let all = attend(lengths, &qkv);
            // A row of the comparison is one head of one token.
            let (written, canaries) = all.split_at(tokens * heads * padded(head_dim));
            let actual = unpad(&mut table, &case, written, tokens * heads, head_dim);
            table.check(&case, canaries.iter().all(|value| value.is_nan()), "something was written beyond the last token");
            table.close(&case, &actual, &expected, bound);
            // The last text, which begins anywhere, has the bits that it has alone.
            let last = lengths[lengths.len() - 1];
            let alone = attend(&[last], &qkv[(tokens - last) * 3 * heads * head_dim..]);
            let written = &written[(tokens - last) * heads * padded(head_dim)..];
            let same = written.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
            table.check(&case, same, "the last text alone has other bits");
            if variant.sharing == Sharing::Workgroup || half {
                let bits: Vec<u32> = all.iter().map(|value| value.to_bits()).collect();
                let first = bits_of.entry((variant.sharing, variant.tile.columns4)).or_insert_with(|| bits.clone());
                table.check(&case, bits == *first, "the bits are not those of another tile with blocks as large");
            }
        }
    }
    table.finish();
}

#[test]
fn what_f16_cannot_hold_is_no_number_in_attention() {
    let gpu = gpu();
    if !gpu.device().features().contains(wgpu::Features::SHADER_F16) {
        return println!("{} has no f16", gpu.info().name);
    }
    let (heads, head_dim, lengths) = (2, 8, [40, 3]);
    let kernel = Attention { heads, head_dim, bias: false, half: true };
    for variant in kernel.variants(&gpu).into_iter().filter(|variant| kernel.rounds(*variant)) {
        // In a query of one token, or in a key or a value of all: of the first head of the first text.
        for part in 0..3 {
            let batch = batch(&lengths, 10, 1, 0);
            let mut qkv = values(1, batch.ids.len() * 3 * heads * head_dim);
            qkv[(7 * 3 + part) * heads * head_dim] = -7e4;
            let context = poisoned(&gpu, batch.ids.len() * heads * head_dim);
            let buffers = attention::Buffers {
                batch: &header(&gpu, &batch),
                offsets: &storage(&gpu, &batch.offsets),
                qkv: &storage(&gpu, &qkv),
                bias: None,
                context: &context,
            };
            run(&gpu, vec![kernel.step(&gpu, variant, &buffers).unwrap()], &batch);
            let context = read(&gpu, &context);
            for (row, values) in context.chunks_exact(head_dim).enumerate() {
                let (token, head) = (row / heads, row % heads);
                let meant = head == 0 && if part == 0 { token == 7 } else { token < lengths[0] };
                // A value has an effect on its own column only.
                let found = if part == 2 { values[0].is_nan() } else { values.iter().all(|value| value.is_nan()) };
                assert_eq!(found, meant, "{variant}, part {part}, token {token}, head {head}: {values:?}");
                assert!(meant || values.iter().all(|value| value.is_finite()));
            }
        }
    }
}
