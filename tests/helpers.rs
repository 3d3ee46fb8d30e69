//! The tests' own tools: the generator of weights gives the bits that the golden outputs were made with, and no comparison passes
//! what it should not.

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::compare::{Bound, Table, cosine, worst};
use common::golden::{Golden, read_tensors, triples};
use common::synthetic::{Model, Values, model_folder_in};

/// Tensor, shape, and bits at the first, one middle and the last index, as NumPy computes them.
type Bits = (&'static str, &'static [usize], [(usize, u32); 3]);

#[rustfmt::skip]
const BITS: [Bits; 14] = [
    ("embeddings.word_embeddings.weight", &[30522, 384], [(0, 0xBD894E3A), (10450557, 0x3D8D46B7), (11720447, 0xBD017173)]),
    ("embeddings.LayerNorm.weight", &[384], [(0, 0x3F426D42), (131, 0x3F4F6404), (383, 0x3F62E6E4)]),
    ("encoder.layer.11.attention.self.query.weight", &[384, 384], [(0, 0x3AB24196), (93988, 0xBD175334), (147455, 0x3D061C44)]),
    ("encoder.layer.3.attention.self.key.bias", &[384], [(0, 0xBD426F8D), (354, 0xBDA78AD3), (383, 0xBD7A67C7)]),
    ("encoder.layer.0.intermediate.dense.weight", &[1536, 384], [(0, 0xBC54363C), (555788, 0x3D8E8551), (589823, 0x3D8E7195)]),
    ("encoder.layer.7.output.dense.weight", &[384, 1536], [(0, 0xBCD64E9B), (30415, 0xBCED8068), (589823, 0xBCB16E4D)]),
    ("encoder.layer.5.output.LayerNorm.bias", &[384], [(0, 0x3DC910A2), (239, 0xBD194C90), (383, 0xBCF0B120)]),
    ("pooler.dense.weight", &[768, 768], [(0, 0x3D117309), (261151, 0x3C41E933), (589823, 0x3C783990)]),
    ("embeddings.token_type_embeddings.weight", &[1, 768], [(0, 0xBD30F1F0), (665, 0x3D131EB0), (767, 0x3CDE2BC0)]),
    ("encoder.layer.2.attention.self.key.weight", &[768, 768], [(0, 0x3D8C59DA), (54373, 0xBB3653BD), (589823, 0xBBD186F1)]),
    ("attentions.15.q_lin.weight", &[1280, 1280], [(0, 0xBD128BE3), (328942, 0xBA82BE95), (1638399, 0x3CBF2908)]),
    ("layer_norm1.0.weight", &[1280], [(0, 0x3F5DC10C), (232, 0x3F5BD076), (1279, 0x3F73E5CC)]),
    ("ffns.4.lin2.weight", &[1280, 5120], [(0, 0x3C756F07), (3118829, 0xBC7612A2), (6553599, 0xBB8A7E18)]),
    ("position_embeddings.weight", &[512, 1280], [(0, 0xBCEB050D), (491855, 0x3CCA3900), (655359, 0x3D0D8353)]),
];

/// Tensor, shape, and FNV-1a 64 over the bits of all its values, a value at a time.
const CHECKSUMS: [(&str, &[usize], u64); 4] = [
    ("embeddings.LayerNorm.weight", &[384], 0x67F0_7A73_3408_87D4),
    ("encoder.layer.11.attention.self.query.weight", &[384, 384], 0x3DE8_88FD_85FF_68E6),
    ("encoder.layer.3.attention.self.key.bias", &[384], 0xC59D_908A_873E_6B9F),
    ("layer_norm1.0.weight", &[1280], 0xA971_1DB2_BBE6_2C3C),
];

#[test]
fn generated_weights_have_the_bits_of_the_reference() {
    let mut table = Table::new("synthetic weights");
    for (name, shape, expected) in BITS {
        let values = Values::new(name, shape);
        for (index, bits) in expected {
            let found = values.at(index).to_bits();
            table.check(format_args!("{name}[{index}]"), found == bits, format_args!("{found:#010X}, expected {bits:#010X}"));
        }
    }
    for (name, shape, expected) in CHECKSUMS {
        let (values, count) = (Values::new(name, shape), shape.iter().product());
        let add = |hash: u64, index| (hash ^ u64::from(values.at(index).to_bits())).wrapping_mul(0x0100_0000_01B3);
        let found = (0..count).fold(0xCBF2_9CE4_8422_2325, add);
        table.check(name, found == expected, format_args!("checksum {found:#018X}, expected {expected:#018X}"));
    }
    table.finish();
}

#[test]
fn synthetic_models_add_up() {
    let mut table = Table::new("synthetic.json");
    for model in Model::load_all() {
        let parameters: usize = model.tensors.values().map(|shape| shape.iter().product::<usize>()).sum();
        table.check(&model.name, parameters == model.parameters, "the shapes do not give the number of parameters");
        for text in &model.texts {
            table.check(&model.name, text.last_hidden_state_first_8.len() == text.ids.len(), "not one row a token");
        }
    }
    table.finish();
}

/// A model of a few tensors, one of them longer than what a thread writes at a time.
fn small_model() -> Model {
    let shapes = [("embeddings.word_embeddings.weight", vec![700, 384]), ("x.LayerNorm.weight", vec![3]), ("y.key.weight", vec![5, 7])];
    let tensors = shapes.map(|(name, shape)| (name.to_owned(), shape)).into();
    let config = serde_json::json!({"model_type": "bert", "pad_token_id": 0});
    Model { name: "small".to_owned(), dtype: "float64".to_owned(), config, parameters: 268_838, tensors, texts: Vec::new() }
}

#[test]
fn written_weights_are_the_generated_ones() {
    let (root, model) = (tempfile::tempdir().unwrap(), small_model());
    let folder = model_folder_in(root.path(), &model).unwrap();
    let tensors = read_tensors(&folder.join("model.safetensors"));
    let mut table = Table::new("written weights");
    table.check("names", tensors.keys().eq(model.tensors.keys()), "differ");
    for (name, shape) in &model.tensors {
        let (found, values) = (&tensors[name], Values::new(name, shape));
        let expected: Vec<_> = (0..found.values.len()).map(|index| values.at(index)).collect();
        table.equal(name, &found.shape, shape);
        table.equal(name, &found.values, &expected);
    }
    table.finish();
}

#[test]
fn a_written_model_is_kept_and_a_damaged_one_replaced() {
    let (root, model) = (tempfile::tempdir().unwrap(), small_model());
    let weights = root.path().join("small/model.safetensors");
    let written = || {
        model_folder_in(root.path(), &model).unwrap();
        fs::metadata(&weights).unwrap()
    };
    let first = written();
    assert_eq!(written().modified().unwrap(), first.modified().unwrap(), "written again");
    fs::OpenOptions::new().write(true).open(&weights).unwrap().set_len(first.len() - 4).unwrap();
    assert_eq!(written().len(), first.len(), "a cut file was kept");
    fs::write(root.path().join("small/config.json"), "{").unwrap();
    assert!(!model.is_written(&root.path().join("small")));
    written();
    assert!(model.is_written(&root.path().join("small")));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "something else was left behind");
}

#[test]
fn every_golden_opens() {
    let mut table = Table::new("goldens");
    for entry in fs::read_dir("tests/fixtures").unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("golden.json").is_file() {
            continue;
        }
        let golden = Golden::open(&folder);
        let hidden = golden.tensor("mean").columns();
        for name in ["mean", "mean_normalized", "cls"] {
            table.equal(folder.display(), &golden.tensor(name).shape, &[golden.cases.len(), hidden]);
            table.check(folder.display(), golden.atol(name) > 0.0, "no bound");
        }
        // The mean in golden.safetensors is the mean of the hidden states there: rows belong to the cases that they are read for.
        for (index, case) in golden.cases.iter().enumerate() {
            let Some(states) = golden.hidden(case) else { continue };
            let name = format!("{} {}", folder.display(), case.id);
            table.equal(&name, &states.shape, &[case.n_tokens, hidden]);
            let sum = |column| states.rows().map(|row| f64::from(row[column])).sum::<f64>();
            let mean: Vec<_> = (0..hidden).map(|column| sum(column) / case.n_tokens as f64).collect();
            table.close(&name, &mean, golden.tensor("mean").row(index), Bound::absolute(1e-6));
        }
    }
    table.finish();
    assert_eq!(triples("tests/fixtures/e5-small-multilingual-19k-f16").len(), 12);
}

/// Whether a table with this one check passes.
fn passes(check: impl FnOnce(&mut Table)) -> bool {
    let run = || {
        let mut table = Table::new("expected to fail");
        check(&mut table);
        table.finish();
    };
    catch_unwind(AssertUnwindSafe(run)).is_ok()
}

#[test]
fn comparisons_can_fail() {
    const BOUND: Bound = Bound::new(0.1, 0.01);
    let close = |actual: &[f32], expected: &[f64]| passes(|table| table.close("case", actual, expected, BOUND));
    assert!(close(&[1.0, 10.15], &[1.0, 10.0]));
    assert!(close(&[0.0], &[0.1]));
    assert!(!close(&[1.0, 10.25], &[1.0, 10.0]));
    assert!(!close(&[1.0], &[1.0, 2.0]));
    assert!(!close(&[], &[]));
    assert!(!close(&[f32::NAN], &[1.0]));
    assert!(!close(&[1.0], &[f64::NAN]));
    assert!(!close(&[f32::NAN], &[f64::NAN]));
    assert!(!close(&[f32::INFINITY], &[f64::INFINITY]));
    assert!(!close(&[1.0], &[f64::INFINITY]));
    let exact = |actual: f32| passes(|table| table.close("case", &[actual], &[1.0_f64], Bound::absolute(0.0)));
    assert!(exact(1.0));
    assert!(!exact(1.000_001));
    assert!(!exact(f32::NAN));

    assert!(passes(|table| table.equal("case", &[1, 2], &[1, 2])));
    assert!(!passes(|table| table.equal("case", &[1, 2], &[1, 3])));
    assert!(!passes(|table| table.equal("case", &[1, 2], &[1])));
    assert!(passes(|table| table.same_bits("case", &[0.0, 1.0], &[0.0, 1.0])));
    assert!(!passes(|table| table.same_bits("case", &[-0.0, 1.0], &[0.0, 1.0])));
    assert!(!passes(|table| table.same_bits("case", &[f64::NAN], &[f64::NAN])));
    assert!(!passes(|table| table.same_bits("case", &[0.0], &[0.0, 1.0])));
    assert!(passes(|table| table.at_least("case", 0.5, 0.5)));
    assert!(!passes(|table| table.at_least("case", f64::NAN, 0.5)));
    assert!(passes(|table| table.at_most("case", 0.5, 0.5)));
    assert!(!passes(|table| table.at_most("case", f64::NAN, 0.5)));
    assert!(!passes(|table| table.fail("case", "could not run")));
    assert!(!passes(|_| {}), "a table without cases passes");
    assert!(catch_unwind(|| drop(Table::new("dropped"))).is_err(), "a table that is not finished passes");
}

#[test]
fn a_table_reports_every_failure() {
    let mut table = Table::new("three");
    table.close("a", &[1.0_f32, 2.0, 2.5], &[1.0_f32, 3.0, 4.0], Bound::absolute(0.5));
    table.close("b", &[1.0_f32], &[1.0_f32], Bound::absolute(0.5));
    table.equal("c", &[1], &[2]);
    let message = *catch_unwind(AssertUnwindSafe(|| table.finish())).unwrap_err().downcast::<String>().unwrap();
    for part in
        ["three: 2 failures in 3", "a: 2 of 3 elements outside", "first at 1", "worst at 2: 2.5e0, expected 4e0", "c: 1 at 0, expected 2"]
    {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn the_worst_element_is_found() {
    let found = worst(&[1.0_f32, 2.0, -5.0], &[1.5_f64, 2.0, -4.0]);
    assert_eq!((found.index, found.actual, found.expected, found.difference), (2, -5.0, -4.0, 1.0));
    assert_eq!(worst(&[9.0_f32, f32::NAN], &[0.0_f32, 0.0]).difference, f64::INFINITY);
}

#[test]
fn cosines() {
    assert_eq!(cosine(&[3.0_f32, 4.0], &[6.0_f64, 8.0]), 1.0);
    assert_eq!(cosine(&[1.0_f32, 0.0], &[0.0_f32, 2.0]), 0.0);
    assert!(cosine(&[0.0_f32], &[1.0_f32]).is_nan());
    assert!(cosine(&[f32::NAN, 1.0], &[1.0_f32, 1.0]).is_nan());
}
