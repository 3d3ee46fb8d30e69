//! Matrix products in every form and arithmetic, what quantises for them, and what follows a sum.

use std::collections::HashMap;

use super::common::compare::{Bound, Table};
use super::common::gpu::{gpu, poisoned, read, storage};
use super::{BOUND, CANARIES, batch, batch_of, header, pad, run, scaled, stored, transpose, unpad, values, wide};
use minilm::checkpoint::Activation;
use minilm::gpu::Count;
use minilm::kernels::matmul::{self, Matmul};
use minilm::kernels::quantize::{self, Quantize};
use minilm::kernels::{Arithmetic, Operands, Sharing, Variant, WeightFormat, padded};
use minilm::reference;

#[test]
fn matmul_equals_the_reference() {
    let gpu = gpu();
    let mut table = Table::new("matmul");
    let (gelu, tanh_gelu) = (Some(Activation::Gelu), Some(Activation::GeluTanh));
    let cases = [
        // tokens, inner, outer, activation, residual
        (1, 8, 8, None, false),
        (1, 1, 1, None, true),
        (7, 30, 50, gelu, false),
        (8, 96, 32, tanh_gelu, true),
        (9, 80, 200, Some(Activation::Relu), false),
        (15, 200, 80, None, true),
        (16, 36, 128, Some(Activation::Tanh), false),
        (17, 33, 129, gelu, true),
        (31, 64, 4, None, false),
        (33, 384, 384, None, true),
        (65, 384, 132, gelu, false),
        (12, 1536, 384, None, true),
    ];
    for (i, (tokens, inner, outer, activation, residual)) in cases.into_iter().enumerate() {
        let seed = i as u64 * 10;
        let x = scaled(values(seed + 1, tokens * inner), 2.0);
        let matrix = scaled(values(seed + 2, outer * inner), 1.5 / (inner as f32).sqrt());
        let bias = values(seed + 3, outer);
        let added = values(seed + 4, tokens * outer);
        let mut transposed = transpose(&matrix, inner);
        transposed.resize(padded(inner) * outer, 0.0);
        let rows = [Count::Tokens, Count::Texts, Count::Selected][i % 3];
        let batch = batch_of(tokens, rows);
        assert_eq!(rows.of(&batch.header), tokens as u32);
        let added_buffer = storage(&gpu, &pad(&added, outer));
        // Each kind of operand meets the shapes that matter.
        for operands in [Operands::ALL[i % 3], Operands::ALL[3 + i % 2]] {
            let weight = stored(&gpu, operands.weights, &transposed, outer);
            let meant = transpose(&weight.values[..inner * outer], outer);
            let (x, x_buffer) = match operands.arithmetic {
                Arithmetic::F32 => (wide(&x), storage(&gpu, &pad(&x, inner))),
                Arithmetic::F16 => (x.iter().map(|x| half::f16::from_f32(*x).to_f64()).collect(), storage(&gpu, &pad(&x, inner))),
                Arithmetic::Int8 => {
                    let (meant, words) = quantize::quantized(&x, inner);
                    (meant, storage(&gpu, &words))
                }
            };
            let expected = reference::matmul(&x, &meant, &wide(&bias), activation, residual.then_some(&*wide(&added)));
            let kernel = Matmul { inner, outer, operands, activation, residual, rows };
            let (mut baseline, mut found) = (Vec::new(), HashMap::new());
            for variant in kernel.variants(&gpu) {
                // Of the largest tiles, which lavapipe takes seconds to compile, one case of each three.
                if variant.tile.vectors() > 32 && i % 3 != 1 {
                    continue;
                }
                let case = format!("{variant} {operands} [{tokens}, {inner}] x [{inner}, {outer}] {activation:?} residual {residual}");
                let y = poisoned(&gpu, (tokens + CANARIES) * padded(outer));
                let buffers = matmul::Buffers {
                    batch: &header(&gpu, &batch),
                    x: &x_buffer,
                    weight: &weight.buffer,
                    scale: weight.scale.as_ref(),
                    bias: &storage(&gpu, &pad(&bias, outer)),
                    residual: residual.then_some(&added_buffer),
                    y: &y,
                };
                run(&gpu, vec![kernel.step(&gpu, &[(u32::MAX, variant)], &buffers).unwrap()], &batch);
                let actual = unpad(&mut table, &case, &read(&gpu, &y), tokens, outer);
                // One rounding of a sum that stays near 1 for each product, up and down by chance: their root, and twice that for the largest
                // of thousands.
                let bound = Bound::new(BOUND.absolute.max(2.0 * (inner as f64).sqrt() * 2f64.powi(-24)), BOUND.relative);
                table.close(&case, &actual, &expected, bound);
                // A batch's size chooses the variant: a text must not notice. Matrix units add up in an order of their own.
                let bits: Vec<u32> = actual.iter().map(|value| value.to_bits()).collect();
                // Loaded ahead it is the same sum, on matrix units too.
                let same = found.entry((variant.sharing, variant.tile.ahead())).or_insert_with(|| bits.clone());
                table.check(&case, bits == *same, "the bits are not those of the tile that is not loaded ahead");
                if variant == Variant::default() {
                    baseline = bits;
                } else if !matches!(variant.sharing, Sharing::Cooperative { .. }) {
                    table.check(&case, bits == baseline, "the bits are not those of the first variant");
                }
            }
        }
    }
    // Numbers become the nearest of f16; beyond f16 there is none, and no other must come of it.
    let operands = Operands::ALL[3];
    let kernel = Matmul { inner: 8, outer: 8, operands, activation: None, residual: false, rows: Count::Tokens };
    // Between two numbers of f16, above, below and at the middle; subnormal ones; the largest.
    let nearest = [1.000_488_3f32, 1.000_488_4, -1.000_488_2, 1.001_464_8, 0.1, -3.3e-5, 8.94e-8, 2.9e-8, 65_503.0, -65_504.0];
    let alone = |x: f32| [x, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let beyond = [65_504.0, 1.0, 70_000.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    for (x, variant) in nearest.map(alone).iter().chain([&beyond]).flat_map(|x| kernel.variants(&gpu).into_iter().map(move |v| (x, v))) {
        let y = poisoned(&gpu, 8);
        let buffers = matmul::Buffers {
            batch: &header(&gpu, &batch_of(1, Count::Tokens)),
            x: &storage(&gpu, x),
            weight: &storage(&gpu, &[0x3c00_3c00u32; 32]), // ones
            scale: None,
            bias: &storage(&gpu, &[0.0f32; 8]),
            residual: None,
            y: &y,
        };
        run(&gpu, vec![kernel.step(&gpu, &[(u32::MAX, variant)], &buffers).unwrap()], &batch_of(1, Count::Tokens));
        let (found, expected) = (read(&gpu, &y), half::f16::from_f32(x[0]).to_f32());
        let is_right = |value: &f32| if *x == beyond { !value.is_finite() } else { *value == expected };
        // Matrix units convert as the driver does.
        if *x == beyond || !matches!(variant.sharing, Sharing::Cooperative { .. }) {
            table.check(format!("{variant} {x:?} in f16"), found.iter().all(is_right), format!("{found:?}"));
        }
    }
    table.finish();
}

#[test]
fn quantize_keeps_numbers_in_eight_bits_a_scale_for_each_group() {
    let gpu = gpu();
    let mut table = Table::new("quantize");
    for (rows, inner) in [(1, 1), (3, 30), (9, 64), (65, 96), (8, 1536)] {
        let case = format!("[{rows}, {inner}]");
        let mut x = scaled(values(inner as u64, rows * inner), 3.0);
        x[0] = -0.0;
        let batch = batch_of(rows, Count::Tokens);
        let y = poisoned(&gpu, rows * quantize::row_words(inner));
        let buffers = quantize::Buffers { batch: &header(&gpu, &batch), x: &storage(&gpu, &pad(&x, inner)), y: &y };
        run(&gpu, vec![Quantize { inner, rows: Count::Tokens }.step(&gpu, &buffers).unwrap()], &batch);
        let found = read(&gpu, &y);
        for (row, (x, words)) in x.chunks_exact(inner).zip(found.chunks_exact(quantize::row_words(inner))).enumerate() {
            for (x, words) in x.chunks(WeightFormat::GROUP).zip(words.chunks_exact(1 + WeightFormat::GROUP / 2)) {
                let largest = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                table.close(format!("{case} scale of row {row}"), &words[..1], &[f64::from(largest) / 16256.0], BOUND);
                let bytes: Vec<i8> = words[1..].iter().flat_map(|word| word.to_bits().to_le_bytes()).map(|byte| byte as i8).collect();
                let (upper, lower) = bytes.split_at(WeightFormat::GROUP);
                let whole: Vec<f32> = upper.iter().zip(lower).map(|(upper, lower)| 128.0 * f32::from(*upper) + f32::from(*lower)).collect();
                let meant: Vec<f32> = whole[..x.len()].iter().map(|whole| whole * words[0]).collect();
                // Half a step, and what the division loses.
                table.close(format!("{case} row {row}"), &meant, &wide(x), Bound::absolute(f64::from(words[0]) * 0.51));
                table.check(format!("{case} row {row}"), whole[x.len()..].iter().all(|whole| *whole == 0.0), "padding is not zero");
            }
        }
    }
    // What is no number must not turn into one.
    let batch = batch_of(2, Count::Tokens);
    let y = poisoned(&gpu, 2 * quantize::row_words(4));
    let x = [1.0, f32::NAN, 2.0, 3.0, f32::INFINITY, 0.0, 0.0, 0.0];
    let buffers = quantize::Buffers { batch: &header(&gpu, &batch), x: &storage(&gpu, &x), y: &y };
    run(&gpu, vec![Quantize { inner: 4, rows: Count::Tokens }.step(&gpu, &buffers).unwrap()], &batch);
    for row in read(&gpu, &y).chunks_exact(quantize::row_words(4)) {
        table.check("not finite", !row[0].is_finite(), format!("the scale is {}", row[0]));
    }
    table.finish();
}

#[test]
fn activations_hold_over_their_whole_range() {
    let gpu = gpu();
    let mut table = Table::new("activation");
    // A product with 1 and a bias of 0 leaves the activation alone.
    let x: Vec<f32> = (-400..=400).map(|i| i as f32 / 20.0).chain([-1e4, 1e4, -1e-6, 1e-6, 3e38, -3e38]).collect();
    let tokens = x.len();
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Tanh] {
        let batch = batch(&[tokens], 10, 1, 0);
        let y = poisoned(&gpu, tokens * 4);
        let mut one = vec![0.0f32; 16];
        one[0] = 1.0;
        let buffers = matmul::Buffers {
            batch: &header(&gpu, &batch),
            x: &storage(&gpu, &pad(&x, 1)),
            weight: &storage(&gpu, &one),
            bias: &storage(&gpu, &[0.0f32; 4]),
            scale: None,
            residual: None,
            y: &y,
        };
        let kernel = Matmul {
            inner: 1,
            outer: 1,
            operands: WeightFormat::F32.into(),
            activation: Some(activation),
            residual: false,
            rows: Count::Tokens,
        };
        run(&gpu, vec![kernel.step(&gpu, &[(u32::MAX, Variant::default())], &buffers).unwrap()], &batch);
        let actual = unpad(&mut table, "padding", &read(&gpu, &y), tokens, 1);
        let expected: Vec<f64> = x.iter().map(|&x| reference::activate(Some(activation), x as f64)).collect();
        table.close(format!("{activation:?}"), &actual, &expected, Bound::new(1e-6, 1e-6));
    }
    table.finish();
}
