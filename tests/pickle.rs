//! `pytorch_model.bin`: the tensors of a pickle are those of the same model in safetensors, and nothing that a file may hold runs,
//! panics or gets past the checks.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::compare::{Bound, Table};
use common::fixture;
use common::golden::Golden;
use common::gpu::gpu;
use common::torch_file::{Directory, Pickle, Tensor, records, zip};
use minilm::checkpoint::{Checkpoint, Dtype, Tensors, quantize};
use minilm::{Embedder, FeatureExtractor, Input, Pooling};
use serde_json::json;

/// How the tensors of a fixture are written.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// A storage for each, row by row.
    Plain,
    /// Matrices column by column, as they are after a conversion from TensorFlow.
    Transposed,
    /// All in one storage, and matrices twice as wide, of which they are the left half.
    Shared,
}

/// The tensors of a safetensors file, all in F32 and I64, as a pickle and storages.
fn from_safetensors(path: &Path, layout: Layout) -> (Vec<Tensor>, Vec<Vec<u8>>) {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (mut tensors, mut storages, mut shared) = (Vec::new(), Vec::new(), Vec::new());
    for (name, view) in file.iter() {
        let (class, size) = if view.dtype() == safetensors::Dtype::F32 { ("FloatStorage", 4) } else { ("LongStorage", 8) };
        let mut tensor = Tensor::new(name, class, &storages.len().to_string(), view.shape());
        let mut data = view.data().to_vec();
        if let (&[rows, columns], "FloatStorage") = (view.shape(), class) {
            let number = |row: usize, column: usize| &view.data()[(row * columns + column) * size..][..size];
            if layout == Layout::Transposed {
                data = (0..rows * columns).flat_map(|i| number(i % rows, i / rows)).copied().collect();
                tensor.strides = vec![1, rows as i64];
            } else if layout == Layout::Shared {
                let half = |row| &view.data()[row * columns * size..][..columns * size];
                data = (0..rows).flat_map(|row| [half(row), &vec![0xff; columns * size]].concat()).collect();
                tensor.strides = vec![2 * columns as i64, 1];
                tensor.numbers *= 2;
            }
        }
        if layout == Layout::Shared && class == "FloatStorage" {
            (tensor.offset, tensor.key) = ((shared.len() / size) as i64, "shared".into());
            shared.extend(data);
        } else {
            storages.push(data);
        }
        tensors.push(tensor);
    }
    for tensor in tensors.iter_mut().filter(|tensor| tensor.key == "shared") {
        (tensor.key, tensor.numbers) = (storages.len().to_string(), shared.len() as i64 / 4);
    }
    storages.push(shared);
    (tensors, storages)
}

/// The state dict as torch writes it: an `OrderedDict` with `_metadata`.
fn state_dict(pickle: &mut Pickle, tensors: &[Tensor]) {
    pickle.ordered_dict();
    // Torch sets up to a thousand items at a time.
    tensors.chunks(7).fold(pickle, Pickle::items).metadata();
}

/// A copy of a folder with its weights as `pytorch_model.bin`.
fn with_pickle(folder: &Path, layout: Layout, write: impl FnOnce(&[Tensor]) -> Vec<u8>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let (tensors, storages) = from_safetensors(&folder.join("model.safetensors"), layout);
    fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    let layout = |directory: &mut Directory| directory.zip64 = layout == Layout::Shared;
    fs::write(copy.path().join("pytorch_model.bin"), zip(&records(write(&tensors), &storages), layout)).unwrap();
    copy
}

fn pickled(folder: &Path, layout: Layout) -> tempfile::TempDir {
    with_pickle(folder, layout, |tensors| {
        let mut pickle = Pickle::new(2);
        state_dict(&mut pickle, tensors);
        pickle.stop()
    })
}

/// What a pickle makes of the tensors, and the layout of their numbers.
type Written = (&'static str, Layout, fn(&[Tensor]) -> Vec<u8>);

const WRITTEN: &[Written] = &[
    ("protocol 2", Layout::Plain, |tensors| {
        let mut pickle = Pickle::new(2);
        state_dict(&mut pickle, tensors);
        pickle.stop()
    }),
    ("protocol 4", Layout::Plain, |tensors| {
        let mut pickle = Pickle::new(4);
        state_dict(&mut pickle, tensors);
        pickle.stop()
    }),
    ("a dict", Layout::Plain, |tensors| Pickle::new(2).put(b"}").items(tensors).stop()),
    ("item by item", Layout::Plain, |tensors| {
        let mut pickle = Pickle::new(2);
        tensors.iter().fold(pickle.put(b"}"), |pickle, tensor| pickle.text(&tensor.name).tensor(tensor).put(b"s")).stop()
    }),
    ("a checkpoint of a training", Layout::Plain, |tensors| {
        let mut pickle = Pickle::new(2);
        pickle.put(b"}(").text("epoch").int(3).text("state_dict");
        state_dict(&mut pickle, tensors);
        // Numbers, None, and lists of an optimizer beside it.
        pickle.text("loss").put(b"G\x3f\xf0\0\0\0\0\0\0").text("best").put(b"N").text("steps").int(1 << 40);
        pickle.text("groups").put(b"](").int(1).tensor(&tensors[0]).put(b"e").int(-7).put(b"a").put(b"u").stop()
    }),
    ("under `model`", Layout::Plain, |tensors| Pickle::new(2).put(b"}").text("model").put(b"}").items(tensors).put(b"s").stop()),
    ("parameters", Layout::Plain, |tensors| {
        let mut pickle = Pickle::new(2);
        pickle.put(b"}(");
        for tensor in tensors {
            let trained = if tensor.class == "FloatStorage" { 0x88 } else { 0x89 };
            pickle.text(&tensor.name).import("torch._utils", "_rebuild_parameter").put(b"(").tensor(tensor).put(&[trained]).ordered_dict();
            pickle.put(b"tR");
        }
        pickle.put(b"u").stop()
    }),
    ("column by column", Layout::Transposed, |tensors| Pickle::new(2).put(b"}").items(tensors).stop()),
    ("one storage, zip64", Layout::Shared, |tensors| Pickle::new(2).put(b"}").items(tensors).stop()),
];

#[test]
fn tensors_of_a_pickle_are_those_of_safetensors() {
    let mut table = Table::new("pytorch_model.bin");
    let original = fixture("tiny-bert-legacy-names");
    let expected = Tensors::open(&original).unwrap();
    for (case, layout, write) in WRITTEN {
        let folder = with_pickle(&original, *layout, write);
        let tensors = Tensors::open(folder.path()).unwrap_or_else(|error| panic!("{case}: {error}"));
        table.equal(case, &tensors.names().collect::<Vec<_>>(), &expected.names().collect::<Vec<_>>());
        for name in expected.names() {
            match (tensors.get(name), expected.get(name)) {
                (Ok(tensor), Ok(expected)) => {
                    let case = format!("{case}: {name}");
                    table.equal(&case, tensor.shape, expected.shape);
                    table.equal(&case, &tensor.values().unwrap(), &expected.values().unwrap());
                    let last = expected.rows() - 1;
                    let mut rows = [vec![0.0; tensor.columns()], vec![0.0; tensor.columns()]];
                    tensor.read_row(last, &mut rows[0]).unwrap();
                    expected.read_row(last, &mut rows[1]).unwrap();
                    table.equal(&case, &rows[0], &rows[1]);
                }
                // The positions are integers, which only matters where somebody asks for them.
                (Err(error), Err(_)) => {
                    let message = error.to_string();
                    table.check(case, name.ends_with("position_ids") && message.contains("stored as I64"), message);
                }
                (tensor, _) => table.fail(case, format!("{name}: {tensor:?}")),
            }
        }
    }
    table.finish();
}

#[test]
fn shards_of_pickles_are_read() {
    let original = fixture("tiny-bert-legacy-names");
    let folder = pickled(&original, Layout::Plain);
    fs::rename(folder.path().join("pytorch_model.bin"), folder.path().join("pytorch_model-00001-of-00001.bin")).unwrap();
    let expected = Tensors::open(&original).unwrap();
    let map: BTreeMap<_, _> = expected.names().map(|name| (name, "pytorch_model-00001-of-00001.bin")).collect();
    fs::write(folder.path().join("pytorch_model.bin.index.json"), json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    let tensors = Tensors::open(folder.path()).unwrap();
    assert!(tensors.path().ends_with("pytorch_model.bin.index.json") && tensors.names().eq(expected.names()));
    let name = expected.names().find(|name| name.ends_with("word_embeddings.weight")).unwrap();
    assert_eq!(tensors.get(name).unwrap().values().unwrap(), expected.get(name).unwrap().values().unwrap());

    // Safetensors come first where a folder has both.
    fs::copy(original.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    assert!(Tensors::open(folder.path()).unwrap().path().ends_with("model.safetensors"));
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    fs::remove_file(folder.path().join("pytorch_model-00001-of-00001.bin")).unwrap();
    let error = Tensors::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("00001.bin: there is no such file, but pytorch_model.bin.index.json names it"), "{error}");
}

#[test]
fn models_in_pickles_give_the_same_bits() {
    let original = fixture("tiny-bert-legacy-names");
    let golden = Golden::open(&original);
    let inputs = || golden.cases.iter().map(|case| Input { text: &case.text, pair: case.text_pair.as_deref() });
    let rows = |folder: &Path| {
        let hidden = FeatureExtractor::builder().gpu(gpu()).from_dir(folder).unwrap().features(inputs()).unwrap();
        let embeddings = Embedder::builder().gpu(gpu()).from_dir(folder).unwrap().embed(inputs()).unwrap();
        (hidden.iter().map(|features| features.as_slice().to_vec()).collect::<Vec<_>>(), embeddings.as_slice().to_vec())
    };
    let expected = rows(&original);
    for layout in [Layout::Plain, Layout::Transposed, Layout::Shared] {
        let folder = pickled(&original, layout);
        assert!(rows(folder.path()) == expected, "other numbers than from safetensors");
        let (output, expected) = (folder.path().join("from-pickle"), folder.path().join("from-safetensors"));
        assert_eq!(quantize(folder.path(), &output).unwrap().tensors_quantized, quantize(&original, &expected).unwrap().tensors_quantized);
        assert!(!output.join("pytorch_model.bin").exists());
        let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
        assert!(weights(&output) == weights(&expected), "other weights than from safetensors");
    }
}

#[test]
fn a_file_of_torch_meets_its_goldens() {
    let Some(folder) = common::reference("tiny-minilmv2-bert-l2-h128") else { return };
    let (golden, mut table) = (Golden::open(&folder), Table::new("a file of torch 2.15"));
    let inputs = || golden.cases.iter().map(|case| Input { text: &case.text, pair: case.text_pair.as_deref() });
    let extractor = FeatureExtractor::builder().gpu(gpu()).max_length(golden.max_length).from_dir(&folder).unwrap();
    for (case, features) in golden.cases.iter().zip(extractor.features(inputs()).unwrap()) {
        if let Some(hidden) = golden.hidden(case) {
            table.close(&case.id, features.as_slice(), &hidden.values, Bound::absolute(golden.atol("last_hidden_state")));
        }
    }
    for (output, pooling, normalize) in
        [("mean", Pooling::Mean, false), ("mean_normalized", Pooling::Mean, true), ("cls", Pooling::Cls, false)]
    {
        let builder = Embedder::builder().gpu(gpu()).max_length(golden.max_length).pooling(pooling).normalize(normalize);
        let rows = builder.from_dir(&folder).unwrap().embed(inputs()).unwrap();
        table.close(output, rows.as_slice(), &golden.tensor(output).values, Bound::absolute(golden.atol(output)));
    }
    table.finish();
    let error = Checkpoint::open(&folder).unwrap().tensors().get("embeddings.position_ids").unwrap_err().to_string();
    assert!(error.contains("stored as I64"), "{error}");
}

/// The class of a storage, what its numbers are called, and the bytes of 1 and -10 or of anything.
const TYPES: [(&str, &str, &[u8]); 10] = [
    ("FloatStorage", "F32", &[0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc1]),
    ("HalfStorage", "F16", &[0, 0x3c, 0, 0xc9]),
    ("BFloat16Storage", "BF16", &[0x80, 0x3f, 0x20, 0xc1]),
    ("DoubleStorage", "F64", &[0; 16]),
    ("LongStorage", "I64", &[0; 16]),
    ("IntStorage", "I32", &[0; 8]),
    ("ShortStorage", "I16", &[0; 4]),
    ("CharStorage", "I8", &[0; 2]),
    ("ByteStorage", "U8", &[0; 2]),
    ("BoolStorage", "BOOL", &[0; 2]),
];

#[test]
fn numbers_of_every_type_have_their_name() {
    let tensor = |(i, (class, ..)): (usize, &(&'static str, _, _))| Tensor::new(class, class, &i.to_string(), &[2]);
    let mut tensors: Vec<_> = TYPES.iter().enumerate().map(tensor).collect();
    // A number by itself has no dimensions, and no numbers need no bytes.
    tensors.extend([Tensor::new("scalar", "FloatStorage", "0", &[]), Tensor::new("none", "FloatStorage", "10", &[0, 4])]);
    (tensors[10].numbers, tensors[10].offset) = (2, 1);
    // What torch says of the step from one row to the next means nothing where there is one row.
    tensors.push(Tensor::new("one row", "FloatStorage", "0", &[1, 1, 2]));
    tensors[12].strides = vec![9, 5, 1];
    let data: Vec<_> = TYPES.iter().map(|(_, _, data)| data.to_vec()).chain([Vec::new()]).collect();
    let folder = tempfile::tempdir().unwrap();
    let pickle = Pickle::new(2).put(b"}").items(&tensors).stop();
    fs::write(folder.path().join("pytorch_model.bin"), zip(&records(pickle, &data), |_| ())).unwrap();

    let tensors = Tensors::open(folder.path()).unwrap();
    for (name, stored, _) in TYPES {
        match tensors.get(name) {
            Ok(tensor) => assert_eq!((tensor.values().unwrap(), format!("{:?}", tensor.dtype)), (vec![1.0, -10.0], stored.to_owned())),
            Err(error) if stored == "I8" => assert!(error.to_string().contains("`CharStorage.scale` is missing"), "{error}"),
            Err(error) => assert!(error.to_string().contains(&format!("`{name}` is stored as {stored}, expected F32")), "{error}"),
        }
    }
    let [scalar, none, one_row] = ["scalar", "none", "one row"].map(|name| tensors.get(name).unwrap());
    assert_eq!((scalar.dtype, scalar.values().unwrap()), (Dtype::F32, vec![-10.0]));
    assert_eq!((none.shape, none.values().unwrap()), (&[0, 4][..], vec![]));
    assert_eq!((one_row.shape, one_row.values().unwrap()), (&[1, 1, 2][..], vec![1.0, -10.0]));
}
