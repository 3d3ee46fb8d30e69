//! Every kernel, in every form that the adapter offers, against the plain loops of `minilm::reference`, over awkward shapes. Outputs
//! are NaN before, and what is beyond an output's end must stay so.

mod common;

use std::collections::HashMap;

use common::compare::{Bound, Table};
use common::gpu::{gpu, poisoned, read, storage};
use minilm::batch::{Batch, Bounds, Sequence};
use minilm::checkpoint::weights::RELATIVE_RANGE;
use minilm::checkpoint::{Activation, Pooling};
use minilm::gpu::{Count, Gpu, Plan, Step};
use minilm::kernels::attention::{self, Attention};
use minilm::kernels::digest::{self, BlockDigests, Digest};
use minilm::kernels::embedding::{self, Embedding, Part, part_uniform};
use minilm::kernels::gather::{self, Gather};
use minilm::kernels::layer_norm::{self, LayerNorm};
use minilm::kernels::matmul::{self, Matmul};
use minilm::kernels::normalize::{self, Normalize};
use minilm::kernels::pooling::{self, PooledRows};
use minilm::kernels::quantize::{self, Quantize};
use minilm::kernels::top_k::{self, TopK};
use minilm::kernels::vocabulary::{self, Vocabulary};
use minilm::kernels::{Arithmetic, Operands, Sharing, Variant, WeightFormat, padded};
use minilm::{reference, wgpu};

/// Rows after the last that a kernel may write.
const CANARIES: usize = 3;

/// Values in [-1, 1) that look random and are the same in every run.
fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn scaled(values: Vec<f32>, scale: f32) -> Vec<f32> {
    values.into_iter().map(|value| value * scale).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value as f64).collect()
}

/// Rows of `columns` values, each padded with zeros.
fn pad(values: &[f32], columns: usize) -> Vec<f32> {
    let row = |row: &[f32]| [row, &vec![0.0; padded(columns) - columns]].concat();
    values.chunks_exact(columns).flat_map(row).collect()
}

/// Takes the padding off `rows` rows. What was padded must be zero, and the canaries behind must be untouched.
fn unpad(table: &mut Table, case: &str, values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let (written, canaries) = values.split_at(rows * padded(columns));
    table.check(case, canaries.iter().all(|value| value.is_nan()), "something was written beyond the last row");
    let padding = written.chunks_exact(padded(columns)).flat_map(|row| &row[columns..]);
    table.check(case, padding.into_iter().all(|value| *value == 0.0), "the padding of a row is not zero");
    written.chunks_exact(padded(columns)).flat_map(|row| &row[..columns]).copied().collect()
}

/// A batch of texts with these lengths; ids and types are whatever comes, and every third token is selected.
fn batch(lengths: &[usize], vocabulary: usize, types: usize, position_offset: usize) -> Batch {
    let ids: Vec<Vec<u32>> = lengths.iter().map(|&n| (0..n).map(|i| ((i * 7919 + n) % vocabulary) as u32).collect()).collect();
    let type_ids: Vec<Vec<u32>> = lengths.iter().map(|&n| (0..n).map(|i| ((i * 3 + n) % types) as u32).collect()).collect();
    let selected: Vec<Vec<u32>> = lengths.iter().map(|&n| (0..n as u32).step_by(3).rev().collect()).collect();
    let texts = ids.iter().zip(&type_ids).zip(&selected);
    let sequences: Vec<Sequence> = texts.map(|((ids, type_ids), selected)| Sequence { ids, type_ids, selected }).collect();
    let bounds = Bounds {
        vocabulary,
        token_types: types,
        default_type: 0,
        position_offset,
        padding: None,
        max_tokens: usize::MAX,
        max_selected: usize::MAX,
    };
    Batch::pack(&sequences, &(0..lengths.len()).collect::<Vec<_>>(), &bounds)
}

/// A batch with so many rows of a kind, and other numbers of the other kinds.
fn batch_of(count: usize, rows: Count) -> Batch {
    match rows {
        Count::Texts => batch(&vec![2; count], 10, 1, 0),
        Count::Selected => batch(&[3 * count - 1], 10, 1, 0),
        _ => batch(&[count], 10, 1, 0),
    }
}

fn run(gpu: &Gpu, steps: Vec<Step>, batch: &Batch) {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    Plan::new(gpu, steps).unwrap().record(&mut encoder, &batch.header);
    gpu.queue().submit([encoder.finish()]);
    assert_eq!(gpu.rejected(), [], "the simplest form ran in the place of these");
}

fn header(gpu: &Gpu, batch: &Batch) -> wgpu::Buffer {
    storage(gpu, &[batch.header])
}

/// A matrix of `rows` rows, [padded], as the GPU holds it, its scales, and the numbers that it then stands for.
struct Stored {
    buffer: wgpu::Buffer,
    scale: Option<wgpu::Buffer>,
    values: Vec<f64>,
}

/// Stores a matrix `[rows, columns]` with a scale for each column of a group of rows, where there are scales.
fn stored(gpu: &Gpu, format: WeightFormat, values: &[f32], columns: usize) -> Stored {
    let (rows, width) = (values.len() / columns, padded(columns));
    let index = |row: usize, column: usize| row / WeightFormat::GROUP * width + column;
    let place = |at: usize| index(at / columns, at % columns);
    let mut most = vec![0.0f32; index(rows - 1, width - 1) + 1];
    values.iter().enumerate().for_each(|(at, value)| most[place(at)] = most[place(at)].max(value.abs()));
    let (scale, inverse): (Vec<f32>, Vec<f32>) = most.iter().map(|most| WeightFormat::scale(*most)).unzip();
    let mut words = vec![0; rows * format.words(columns)];
    for (four, (words, values)) in
        words.chunks_exact_mut(4 * format.words(columns)).zip(pad(values, columns).chunks_exact(4 * width)).enumerate()
    {
        format.pack_rows(values, &inverse[index(4 * four, 0)..][..width], words);
    }
    let values = values.iter().enumerate().map(|(at, value)| format.meant(*value, inverse[place(at)], scale[place(at)])).collect();
    Stored { buffer: storage(gpu, &words), scale: format.is_scaled().then(|| storage(gpu, &scale)), values }
}

/// A table of words in parts of so many rows, and the numbers that it then stands for.
fn parts(gpu: &Gpu, format: WeightFormat, word: &[f32], columns: usize, part_rows: usize) -> (Vec<Part>, Vec<f64>) {
    let mut all = Vec::new();
    let parts = word.chunks(part_rows * columns).enumerate().map(|(i, values)| {
        let (words, values) = format.store_rows(values, columns);
        let rows = values.len() / columns;
        all.extend(values);
        Part { range: storage(gpu, &part_uniform(i * part_rows, rows)), word: storage(gpu, &words), rows }
    });
    (parts.collect(), all)
}

/// `[rows, columns]` of `[columns, rows]`.
fn transpose<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    let rows = values.len() / columns;
    (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
}

/// As most kernels are one product and one sum per value, errors grow with the magnitude and the number of terms.
const BOUND: Bound = Bound::new(2e-6, 2e-6);

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

#[test]
fn layer_norm_equals_the_reference() {
    let gpu = gpu();
    let mut table = Table::new("layer_norm");
    // Offsets far from zero: a variance by E[x^2] - E[x]^2 in f32 fails here.
    let cases = [(1, 8, 0.0), (3, 1, 0.0), (5, 30, 100.0), (2, 63, 1.0), (9, 96, -5.0), (4, 384, 50.0), (3, 1281, 0.0)];
    let variants = Variant::reductions(Variant::subgroup(&gpu));
    for (variant, (tokens, hidden, offset)) in variants.into_iter().flat_map(|variant| cases.map(|case| (variant, case))) {
        let case = format!("{variant} [{tokens}, {hidden}] around {offset}");
        let x: Vec<f32> = values(1, tokens * hidden).into_iter().map(|value| value + offset).collect();
        let (weight, bias) = (values(2, hidden), values(3, hidden));
        let y = poisoned(&gpu, (tokens + CANARIES) * padded(hidden));
        let norm = [&storage(&gpu, &pad(&weight, hidden)), &storage(&gpu, &pad(&bias, hidden))];
        let buffers = layer_norm::Buffers { x: &storage(&gpu, &pad(&x, hidden)), norm, y: &y };
        let step = LayerNorm { hidden, epsilon: 1e-5, rows: Count::Tokens }.step(&gpu, variant, &buffers).unwrap();
        run(&gpu, vec![step], &batch(&[tokens], 10, 1, 0));
        let expected = reference::layer_norm(&wide(&x), &wide(&weight), &wide(&bias), 1e-5);
        let actual = unpad(&mut table, &case, &read(&gpu, &y), tokens, hidden);
        // The input itself has an error of offset * 2^-24, which the norm magnifies to the size of a value.
        table.close(&case, &actual, &expected, Bound::new(2e-6 * (1.0 + offset.abs() as f64), 2e-6));
    }
    table.finish();
}

#[test]
fn embedding_equals_the_reference_whole_and_in_parts() {
    let gpu = gpu();
    let mut table = Table::new("embedding");
    let cases = [(8, 2, 0, 50), (30, 1, 2, 50), (96, 2, 0, 7), (33, 3, 2, 1)];
    let forms =
        Variant::reductions(Variant::subgroup(&gpu)).into_iter().flat_map(|variant| WeightFormat::ALL.map(|format| (variant, format)));
    for ((variant, weights), (hidden, types, position_offset, part_rows)) in forms.flat_map(|form| cases.map(|case| (form, case))) {
        let case = format!("{variant} {weights:?} hidden {hidden}, {types} types, positions from {position_offset}, parts of {part_rows}");
        let (vocabulary, positions) = (50, 40);
        let batch = batch(&[1, 13, 38], vocabulary, types, position_offset);
        let tokens = batch.ids.len();
        let (word, position) = (values(1, vocabulary * hidden), values(2, positions * hidden));
        let (token_type, weight, bias) = (values(3, types * hidden), values(4, hidden), values(5, hidden));
        let (parts, word) = parts(&gpu, weights, &word, hidden, part_rows);
        let y = poisoned(&gpu, (tokens + CANARIES) * padded(hidden));
        let buffers = embedding::Buffers {
            ids: &storage(&gpu, &batch.ids),
            places: &storage(&gpu, &batch.places),
            position: &storage(&gpu, &pad(&position, hidden)),
            token_type: &storage(&gpu, &pad(&token_type, hidden)),
            norm: [&storage(&gpu, &pad(&weight, hidden)), &storage(&gpu, &pad(&bias, hidden))],
            y: &y,
        };
        run(&gpu, Embedding { hidden, epsilon: 1e-12, weights }.steps(&gpu, variant, &parts, &buffers).unwrap(), &batch);
        let place = |(id, place): (&u32, &u32)| (*id as usize, (place & 0xff_ffff) as usize, (place >> 24) as usize);
        let wanted: Vec<_> = batch.ids.iter().zip(&batch.places).map(place).collect();
        let (position, token_type) = (wide(&position), wide(&token_type));
        let tables = reference::Tables { word: &word, position: &position, token_type: &token_type };
        let expected = reference::embedding(&wanted, tables, &wide(&weight), &wide(&bias), 1e-12);
        let actual = unpad(&mut table, &case, &read(&gpu, &y), tokens, hidden);
        table.close(&case, &actual, &expected, BOUND);
    }
    table.finish();
}

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

#[test]
fn pooling_equals_the_reference() {
    let gpu = gpu();
    let mut table = Table::new("pooling");
    for pooling in Pooling::ALL {
        for (hidden, lengths) in [(8, &[1][..]), (30, &[5, 1, 17]), (96, &[2, 64]), (385, &[3])] {
            let case = format!("{pooling:?} hidden {hidden} texts of {lengths:?}");
            let batch = batch(lengths, 10, 1, 0);
            let x = values(7, lengths.iter().sum::<usize>() * hidden);
            // Two poolings next to one another: the first is always the maximum.
            let columns = 2 * hidden;
            let pooled = poisoned(&gpu, (lengths.len() + CANARIES) * padded(columns));
            let buffers =
                pooling::Buffers { offsets: &storage(&gpu, &batch.offsets), x: &storage(&gpu, &pad(&x, hidden)), pooled: &pooled };
            let step = |column, pooling| PooledRows { hidden, pooling, column, columns }.step(&gpu, &buffers).unwrap();
            run(&gpu, vec![step(0, Pooling::Max), step(hidden, pooling)], &batch);
            let actual = unpad(&mut table, &case, &read(&gpu, &pooled), lengths.len(), columns);
            let [first, second] = [Pooling::Max, pooling].map(|pooling| reference::pooling(&wide(&x), lengths, pooling));
            let rows = first.chunks(hidden).zip(second.chunks(hidden));
            let expected: Vec<f64> = rows.flat_map(|(first, second)| [first, second].concat()).collect();
            table.close(&case, &actual, &expected, BOUND);
        }
    }
    table.finish();
}

#[test]
fn normalize_equals_the_reference() {
    let gpu = gpu();
    let mut table = Table::new("normalize");
    for (rows, width, columns) in [(1, 8, 8), (3, 30, 30), (2, 384, 64), (5, 385, 7), (2, 1, 1)] {
        let case = format!("[{rows}, {width}] to {columns} columns");
        let mut x = values(3, rows * width);
        x[..width].fill(0.0); // a row of zeros stays zero
        let y = poisoned(&gpu, (rows + CANARIES) * padded(columns));
        let kernel = Normalize { columns, stride: padded(width), rows: Count::Texts };
        let step = kernel.step(&gpu, &normalize::Buffers { x: &storage(&gpu, &pad(&x, width)), y: &y }).unwrap();
        run(&gpu, vec![step], &batch_of(rows, Count::Texts));
        let actual = unpad(&mut table, &case, &read(&gpu, &y), rows, columns);
        table.close(&case, &actual, &reference::normalize(&wide(&x), width, columns), BOUND);
    }
    table.finish();
}

/// On the device block by block, and on the host piece by piece.
#[test]
fn digests_equal_the_reference() {
    let gpu = gpu();
    let mut table = Table::new("digest");
    for count in [4, 5, 1000, 16_383, 16_384, 16_385, 50_000] {
        let words: Vec<u32> = values(7, count).iter().map(|value| value.to_bits()).collect();
        let kernel = BlockDigests { words: count };
        let y = poisoned(&gpu, kernel.values() + CANARIES);
        let step = kernel.step(&gpu, &digest::Buffers { x: &storage(&gpu, &words), y: &y }).unwrap();
        run(&gpu, vec![step], &batch_of(1, Count::Texts));
        let found = read(&gpu, &y);
        let (found, canaries) = found.split_at(kernel.values());
        table.check(count, canaries.iter().all(|value| value.is_nan()), "something was written beyond the last block");
        let blocks = words.chunks(16_384).enumerate();
        let expected: Vec<f64> = blocks.flat_map(|(block, words)| reference::digest(words, block * 16_384)).collect();
        table.close(count, found, &expected, Bound::absolute(0.0));

        let [low, high] = reference::digest(&words, 0);
        let (mut whole, mut pieces) = (Digest::default(), Digest::default());
        whole.add(&words);
        words.chunks(777).for_each(|piece| pieces.add(piece));
        table.equal(count, &[whole.value(), pieces.value(), BlockDigests::total(found)], &[low as u32 + ((high as u32) << 16); 3]);
        // A bit, a place and a length count.
        let changes: [fn(&mut Vec<u32>); 3] = [|words| words[3] ^= 1 << 31, |words| words.swap(1, 2), |words| words.push(0)];
        for change in changes {
            let (mut other, mut digest) = (words.clone(), Digest::default());
            change(&mut other);
            digest.add(&other);
            table.check(count, digest != whole, "another buffer has the same digest");
        }
    }
    table.finish();
}

#[test]
fn gather_takes_the_selected_rows() {
    let gpu = gpu();
    let mut table = Table::new("gather");
    for (width, lengths) in [(8, &[1][..]), (30, &[5, 1, 17]), (385, &[3, 2])] {
        let case = format!("width {width} texts of {lengths:?}");
        let batch = batch(lengths, 10, 1, 0);
        let x = values(5, batch.ids.len() * width);
        let y = poisoned(&gpu, (batch.selected.len() + CANARIES) * padded(width));
        let buffers = gather::Buffers { selected: &storage(&gpu, &batch.selected), x: &storage(&gpu, &pad(&x, width)), y: &y };
        run(&gpu, vec![Gather { width }.step(&gpu, &buffers).unwrap()], &batch);
        let actual = unpad(&mut table, &case, &read(&gpu, &y), batch.selected.len(), width);
        let expected: Vec<f32> = batch.selected.iter().flat_map(|&token| &x[token as usize * width..][..width]).copied().collect();
        table.equal(&case, &actual, &expected);
    }
    table.finish();
}

#[test]
fn vocabulary_equals_the_reference_whole_and_in_parts() {
    let gpu = gpu();
    let mut table = Table::new("vocabulary");
    let cases = [(1, 8, 50, 50), (4, 30, 129, 40), (5, 96, 64, 64), (9, 33, 200, 1)];
    for (weights, (rows, width, vocabulary, part_rows)) in
        WeightFormat::ALL.into_iter().flat_map(|weights| cases.map(|case| (weights, case)))
    {
        let case = format!("{weights:?} [{rows}, {width}] x {vocabulary} words in parts of {part_rows}");
        let batch = batch_of(rows, Count::Selected);
        let (x, word, bias) = (values(1, rows * width), values(2, vocabulary * width), values(3, vocabulary));
        let (parts, word) = parts(&gpu, weights, &word, width, part_rows);
        let logits = poisoned(&gpu, (rows + CANARIES) * vocabulary);
        let buffers = vocabulary::Buffers {
            batch: &header(&gpu, &batch),
            x: &storage(&gpu, &pad(&x, width)),
            bias: &storage(&gpu, &bias),
            logits: &logits,
        };
        run(&gpu, Vocabulary { width, vocabulary, weights }.steps(&gpu, &parts, &buffers).unwrap(), &batch);
        let all = read(&gpu, &logits);
        let (actual, canaries) = all.split_at(rows * vocabulary);
        table.check(&case, canaries.iter().all(|value| value.is_nan()), "something was written beyond the last row");
        table.close(&case, actual, &reference::matmul(&wide(&x), &word, &wide(&bias), None, None), Bound::new(2e-5, 2e-6));
    }
    table.finish();
}

#[test]
fn top_k_equals_the_reference() {
    let gpu = gpu();
    let mut table = Table::new("top k");
    for (rows, vocabulary, top) in [(1, 1, 1), (2, 50, 50), (3, 1000, 5), (2, 257, 100)] {
        let case = format!("{top} of [{rows}, {vocabulary}]");
        let mut logits = scaled(values(1, rows * vocabulary), 20.0);
        logits.iter_mut().step_by(7).for_each(|value| *value = 19.5); // equals: the first comes first
        let kernel = TopK { vocabulary, top };
        let best = poisoned(&gpu, (rows + CANARIES) * kernel.columns());
        let step = kernel.step(&gpu, &top_k::Buffers { logits: &storage(&gpu, &logits), best: &best }).unwrap();
        run(&gpu, vec![step], &batch_of(rows, Count::Selected));
        let all = read(&gpu, &best);
        let (written, canaries) = all.split_at(rows * kernel.columns());
        table.check(&case, canaries.iter().all(|value| value.is_nan()), "something was written beyond the last row");
        for (found, row) in written.chunks(kernel.columns()).zip(logits.chunks(vocabulary)) {
            let (expected, total) = reference::top_k(&wide(row), top);
            let (columns, values): (Vec<f32>, Vec<f32>) = expected.iter().map(|&(column, value)| (column as f32, value as f32)).unzip();
            table.equal(&case, &found[..top], &columns);
            table.equal(&case, &found[top..2 * top], &values);
            table.close(&case, &found[2 * top..], &[total], Bound::new(1e-5, 1e-6));
        }
    }
    table.finish();
}

#[test]
fn bindings_are_checked_by_name() {
    let gpu = gpu();
    let pipeline = gpu.pipeline(LayerNorm { hidden: 8, epsilon: 1e-5, rows: Count::Tokens }.source(Variant::default())).unwrap();
    let buffer = storage(&gpu, &[0.0f32; 8]);
    let missing = pipeline.bind(&gpu, &[("x", &buffer)]).unwrap_err().to_string();
    assert_eq!(missing, "kernel `layer_norm`: no buffer is bound to the variable `weight`");
    let unknown = pipeline.bind(&gpu, &[("z", &buffer)]).unwrap_err().to_string();
    assert_eq!(unknown, "kernel `layer_norm`: the shader has no variable `z`");
}
