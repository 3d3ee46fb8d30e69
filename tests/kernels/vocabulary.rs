//! From selected tokens to the best words.

use super::common::compare::{Bound, Table};
use super::common::gpu::{gpu, poisoned, read, storage};
use super::{CANARIES, batch, batch_of, header, pad, parts, run, scaled, unpad, values, wide};
use minilm::gpu::Count;
use minilm::kernels::gather::{self, Gather};
use minilm::kernels::top_k::{self, TopK};
use minilm::kernels::vocabulary::{self, Vocabulary};
use minilm::kernels::{WeightFormat, padded};
use minilm::reference;

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
