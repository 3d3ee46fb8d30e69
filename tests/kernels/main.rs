//! Every kernel, in every form that the adapter offers, against the plain loops of `minilm::reference`, over awkward shapes. Outputs
//! are NaN before, and what is beyond an output's end must stay so; inputs lie between NaN.

mod attention;
#[path = "../common/mod.rs"]
mod common;
mod products;
mod rows;
mod vocabulary;

use common::compare::{Bound, Table};
use common::gpu::{gpu, storage};
use minilm::batch::{Batch, Bounds, Sequence};
use minilm::gpu::{Count, Gpu, Plan, Slice, Step};
use minilm::kernels::embedding::{Part, part_uniform};
use minilm::kernels::layer_norm::LayerNorm;
use minilm::kernels::{Variant, WeightFormat, padded};

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

fn header(gpu: &Gpu, batch: &Batch) -> Slice {
    storage(gpu, &[batch.header])
}

/// A matrix of `rows` rows, [padded], as the GPU holds it, its scales, and the numbers that it then stands for.
struct Stored {
    buffer: Slice,
    scale: Option<Slice>,
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
fn bindings_are_checked_by_name() {
    let gpu = gpu();
    let pipeline = gpu.pipeline(LayerNorm { hidden: 8, epsilon: 1e-5, rows: Count::Tokens }.source(Variant::default())).unwrap();
    let buffer = storage(&gpu, &[0.0f32; 8]);
    let missing = pipeline.bind(&gpu, &[("x", &buffer)]).unwrap_err().to_string();
    assert_eq!(missing, "kernel `layer_norm`: no buffer is bound to the variable `weight`");
    let unknown = pipeline.bind(&gpu, &[("z", &buffer)]).unwrap_err().to_string();
    assert_eq!(unknown, "kernel `layer_norm`: the shader has no variable `z`");
}
