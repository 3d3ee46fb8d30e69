//! Kernels that go over rows one by one: embedding, layer norm, pooling, normalising, digests.

use super::common::compare::{Bound, Table};
use super::common::gpu::{gpu, poisoned, read, storage};
use super::{BOUND, CANARIES, batch, batch_of, pad, parts, run, unpad, values, wide};
use minilm::checkpoint::Pooling;
use minilm::gpu::Count;
use minilm::kernels::digest::{self, BlockDigests, Digest};
use minilm::kernels::embedding::{self, Embedding};
use minilm::kernels::layer_norm::{self, LayerNorm};
use minilm::kernels::normalize::{self, Normalize};
use minilm::kernels::pooling::{self, PooledRows};
use minilm::kernels::{Variant, WeightFormat, padded};
use minilm::reference;

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
