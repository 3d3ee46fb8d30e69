//! What the fuzz targets and the test of their corpora run: one function a target, which puts the bytes where the crate reads them and
//! uses whatever it makes of them.

// Each target uses one of them.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use minilm::Sequence;
use minilm::batch::{Batch, Bounds, Capacity, sort, split};
use minilm::checkpoint::{Checkpoint, EncoderConfig, SentenceSettings, Side, Tensors, Tokenizer};

#[path = "../common/torch_file.rs"]
mod torch_file;

/// A target: its name, and what it does with an input in a folder of its own.
pub type Target = (&'static str, fn(&Path, &[u8]));

pub const TARGETS: [Target; 8] = [
    ("safetensors", safetensors),
    ("index", index),
    ("config", config),
    ("tokenizer_json", tokenizer_json),
    ("vocabulary", vocabulary),
    ("pickle", pickle),
    ("modules", modules),
    ("batch", batch),
];

/// Memory that an input may take beside four times its own.
const BESIDE_INPUT: usize = 64 << 20;

/// Separates files in an input that stands for several.
const NEXT_FILE: u8 = 0;

/// Runs an input through a target.
///
/// # Panics
/// The crate panics, or takes more than four times the input and 64 MiB of memory.
pub fn run(target: &str, data: &[u8]) {
    let (_, entry) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let before = Memory::start();
    in_folder(target, |folder| entry(folder, data));
    let grown = Memory::most() - before;
    let allowed = (4 * data.len() + BESIDE_INPUT) as isize;
    if grown > allowed {
        let problem = format!("{target}: {grown} bytes of memory for an input of {}, expected at most {allowed}", data.len());
        eprintln!("{problem}");
        panic!("{problem}");
    }
}

/// Panics that the crate catches itself, as those of the tokenizers library, end no run.
pub fn report_escaped_panics_only() {
    thread_local!(static LAST: RefCell<String> = const { RefCell::new(String::new()) });
    std::panic::set_hook(Box::new(|info| {
        let message = info.to_string();
        // This one ends the process at once.
        if message.contains("unsafe precondition") {
            eprintln!("{message}");
        }
        LAST.with(|last| *last.borrow_mut() = message);
    }));
    ESCAPED.set(Some(|| LAST.with(|last| eprintln!("{}", last.borrow()))));
}

thread_local! {
    static ESCAPED: Cell<Option<fn()>> = const { Cell::new(None) };
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// A folder that lies in memory where the system has such a place; it stays for the inputs to come.
fn in_folder(target: &str, use_it: impl FnOnce(&Path)) {
    let path = FOLDER.with(|folder| {
        let mut folder = folder.borrow_mut();
        let folder = folder.get_or_insert_with(|| {
            let shared = Path::new("/dev/shm");
            let folder = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
            folder.unwrap()
        });
        folder.path().join(target)
    });
    if !path.exists() {
        prepare(target, &path);
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| use_it(&path))) {
        if let Some(report) = ESCAPED.get() {
            report();
        }
        std::panic::resume_unwind(panic);
    }
}

/// What a model folder holds beside the file that is damaged.
fn prepare(target: &str, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let tensor = |name: &str, rows: usize, columns: usize| (name.to_owned(), [rows, columns]);
    match target {
        "index" => {
            write(folder, "a.safetensors", &weights(&[tensor("a", 2, 2), tensor("b", 1, 3)]));
            write(folder, "b.safetensors", &weights(&[tensor("b", 1, 3), tensor("c", 1, 1)]));
        }
        "config" => {
            write(folder, "vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n");
            write(folder, "model.safetensors", &weights(&[tensor("embeddings.word_embeddings.weight", 8, 16)]));
        }
        _ => {}
    }
}

/// A file of tensors of zeros.
fn weights(tensors: &[(String, [usize; 2])]) -> Vec<u8> {
    let (mut header, mut end) = (Vec::new(), 0);
    for (name, [rows, columns]) in tensors {
        let start = end;
        end += 4 * rows * columns;
        header.push(format!(r#""{name}":{{"dtype":"F32","shape":[{rows},{columns}],"data_offsets":[{start},{end}]}}"#));
    }
    let header = format!("{{{}}}", header.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; end]].concat()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    fs::write(folder.join(name), bytes).unwrap();
}

/// The parts of an input as files; one that the input has no part for is not there.
fn write_parts(folder: &Path, names: &[&str], data: &[u8]) {
    let mut parts = data.splitn(names.len(), |&byte| byte == NEXT_FILE);
    for name in names {
        match parts.next() {
            Some(part) => write(folder, name, part),
            None => drop(fs::remove_file(folder.join(name))),
        }
    }
}

fn safetensors(folder: &Path, data: &[u8]) {
    write(folder, "model.safetensors", data);
    read_tensors(folder);
}

/// Bytes that are no zip archive are the pickle of one.
fn pickle(folder: &Path, data: &[u8]) {
    if data.starts_with(b"PK") {
        write(folder, "pytorch_model.bin", data);
    } else {
        let numbers = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0_f32].map(f32::to_le_bytes).concat();
        write(folder, "pytorch_model.bin", &torch_file::zip(&torch_file::records(data.to_vec(), &[numbers]), |_| ()));
    }
    read_tensors(folder);
}

fn index(folder: &Path, data: &[u8]) {
    write(folder, "model.safetensors.index.json", data);
    read_tensors(folder);
}

fn read_tensors(folder: &Path) {
    let Some(tensors) = accepted(Tensors::open(folder)) else { return };
    for name in tensors.names() {
        let Some(tensor) = accepted(tensors.get(name)) else { continue };
        if accepted(tensor.values()).is_some() && tensor.rows() > 0 {
            let mut row = vec![0.0; tensor.columns()];
            accepted(tensor.read_row(tensor.rows() - 1, &mut row));
        }
    }
}

fn config(folder: &Path, data: &[u8]) {
    write(folder, "config.json", data);
    // Most inputs end here, before the other files are read.
    let Some(config) = accepted(EncoderConfig::open(folder.join("config.json"))) else { return };
    assert!(config.head_dim() * config.heads == config.hidden && config.max_tokens() > 0 && config.types() > 0);
    let Some(mut checkpoint) = accepted(Checkpoint::open(folder)) else { return };
    checkpoint.tasks();
    (0..3).for_each(|index| drop(checkpoint.heads.label(index)));
    accepted(checkpoint.encoder().map(drop));
    accepted(checkpoint.classifier().map(drop));
    accepted(checkpoint.masked().map(drop));
    accepted(checkpoint.choose_language("en"));
}

fn tokenizer_json(folder: &Path, data: &[u8]) {
    write(folder, "tokenizer.json", data);
    tokenize(folder);
}

/// The first byte chooses the class of tokenizer, which says what files follow.
fn vocabulary(folder: &Path, data: &[u8]) {
    const SETTINGS: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];
    let Some((class, data)) = data.split_first() else { return };
    let (class, files): (_, &[&str]) = match class % 5 {
        0 => ("bert", &["vocab.txt"]),
        1 => ("mpnet", &["vocab.txt"]),
        2 => ("roberta", &["vocab.json", "merges.txt"]),
        3 => ("xlm-roberta", &["sentencepiece.bpe.model"]),
        _ => ("camembert", &["sentencepiece.bpe.model"]),
    };
    for file in ["vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model"].iter().chain(&SETTINGS) {
        let _ = fs::remove_file(folder.join(file));
    }
    write(folder, "config.json", format!(r#"{{"model_type":"{class}"}}"#).as_bytes());
    match files {
        // It has zero bytes of its own.
        [model] if model.ends_with(".model") => write(folder, model, data),
        _ => write_parts(folder, &[files, &SETTINGS].concat(), data),
    }
    tokenize(folder);
}

fn tokenize(folder: &Path) {
    let Some(tokenizer) = accepted(Tokenizer::open(folder)) else { return };
    let text = "A b, ab  abc\u{e9}\u{4e00} [MASK]<mask></s>\n\u{1f600}";
    for length in [8, 64] {
        accepted(tokenizer.encode(text, None, length));
        accepted(tokenizer.encode(text, Some("b a"), length));
    }
    accepted(tokenizer.encode("", None, 8));
    if let Some((encoding, sources)) = accepted(tokenizer.encode_with_sources(text, Some("b a"), 64)) {
        assert_eq!(encoding.ids.len(), sources.len());
        assert!(sources.iter().all(|source| [text, "b a"].iter().any(|text| text.get(source.bytes.clone()).is_some())));
        tokenizer.pieces(&encoding.ids);
    }
    accepted(tokenizer.windows("b a", Some(text), 16, 2, Side::Second));
}

fn modules(folder: &Path, data: &[u8]) {
    for module in ["1_Pooling", "2_Dense"] {
        fs::create_dir_all(folder.join(module)).unwrap();
    }
    let files =
        ["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "sentence_bert_config.json", "config_sentence_transformers.json"];
    write_parts(folder, &files, data);
    let Some(settings) = accepted(SentenceSettings::open(folder)) else { return };
    accepted(settings.prompt("query", folder));
}

/// Texts of any ids, some of which the model can take, are packed without loss.
fn batch(_: &Path, data: &[u8]) {
    let Some((settings, data)) = data.split_first_chunk::<8>() else { return };
    let [vocabulary, types, offset, padding, length, selected, texts, tokens] = settings.map(usize::from);
    let bounds = Bounds {
        vocabulary: vocabulary << 4,
        token_types: types,
        default_type: types.saturating_sub(1) as u32,
        position_offset: offset,
        padding: (padding > 0).then_some(padding as u32),
        max_tokens: length,
        max_selected: selected,
    };
    // What a text has lies in the bytes before it: how many ids, whether types, how many selected; an id takes two bytes, or four.
    let (mut numbers, mut shapes) = (Vec::new(), Vec::new());
    let mut rest = data;
    while let Some((&[ids, more], after)) = rest.split_first_chunk::<2>() {
        let size = if more & 1 == 0 { 2 } else { 4 };
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte));
        let count =
            [usize::from(ids), if more & 2 == 0 { 0 } else { usize::from(ids) ^ usize::from(more >> 7) }, usize::from(more >> 2 & 7)];
        let taken = after.chunks(size).take(count.iter().sum());
        let start = numbers.len();
        numbers.extend(taken.map(number));
        numbers.resize(start + count.iter().sum::<usize>(), 0);
        rest = after.get(size * (numbers.len() - start)..).unwrap_or_default();
        shapes.push((start, count));
    }
    let sequence = |&(start, [ids, types, selected]): &(usize, [usize; 3])| {
        let (ids, rest) = numbers[start..].split_at(ids);
        let (type_ids, rest) = rest.split_at(types);
        Sequence { ids, type_ids, selected: &rest[..selected] }
    };
    let sequences = shapes.iter().map(sequence);
    let sequences: Vec<_> = sequences.enumerate().filter(|(i, sequence)| accepted(bounds.check(*i, sequence)).is_some()).collect();
    let sequences: Vec<_> = sequences.into_iter().map(|(_, sequence)| sequence).collect();
    let capacity = Capacity { tokens: tokens.max(length), texts: texts.max(1), selected: selected.max(1) };
    let mut seen = vec![false; sequences.len()];
    let mut order = Vec::new();
    sort(&sequences, &mut order);
    for members in split(&sequences, &order, capacity) {
        let batch = Batch::pack(&sequences, members, &bounds);
        assert!(batch.ids.len() <= capacity.tokens && members.len() <= capacity.texts && batch.selected.len() <= capacity.selected);
        assert_eq!((batch.places.len(), batch.offsets.len(), batch.texts.len()), (batch.ids.len(), members.len() + 1, members.len()));
        for (i, &member) in members.iter().enumerate() {
            assert!(!std::mem::replace(&mut seen[member], true), "text {member} is in two batches");
            let tokens = batch.offsets[i].token as usize..batch.offsets[i + 1].token as usize;
            assert_eq!(&batch.ids[tokens.clone()], sequences[member].ids);
            let selected = batch.selected_offsets[i] as usize..batch.selected_offsets[i + 1] as usize;
            assert!(batch.selected[selected].iter().all(|&at| tokens.contains(&(at as usize))));
            let most = bounds.position_offset + bounds.max_tokens;
            let types = bounds.token_types.max(1);
            assert!(batch.places[tokens].iter().all(|place| (place & 0xff_ffff) as usize <= most && ((place >> 24) as usize) < types));
        }
    }
    assert!(seen.iter().all(|&seen| seen));
}

/// What the crate made of an input. However long the names in it are, a message is not.
fn accepted<T>(result: minilm::Result<T>) -> Option<T> {
    match result {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            let message = error.to_string();
            assert!(message.chars().count() < 2600, "a long error: {message}");
            None
        }
    }
}

/// Counts what this thread allocates, by itself and not with those of other tests.
pub struct Memory;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

impl Memory {
    /// Bytes in use, from which on the most is counted.
    pub fn start() -> isize {
        MOST.set(NOW.get());
        NOW.get()
    }

    pub fn most() -> isize {
        MOST.get()
    }

    fn add(bytes: isize) {
        // A thread that is ending counts no more.
        let _ = NOW.try_with(|now| {
            now.set(now.get() + bytes);
            let _ = MOST.try_with(|most| most.set(most.get().max(now.get())));
        });
    }
}

#[global_allocator]
static ALLOCATOR: Memory = Memory;

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::add(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there for a moment.
        Self::add(size as isize);
        Self::add(-(layout.size() as isize));
        unsafe { System.realloc(pointer, layout, size) }
    }
}
