//! The inputs of the fuzz targets in `fuzz/corpus`, each run as the fuzzer runs it: no panic, no hang, and no more memory than four times
//! the input and 64 MiB.

#[path = "fuzz/entries.rs"]
mod entries;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

/// A build for tests on a busy machine takes a few milliseconds for the slowest input.
const LONGEST: Duration = Duration::from_secs(10);

/// Files of megabytes that are made to take as much memory as they can, by target.
#[test]
fn large_inputs_take_no_more_memory_than_small_ones_may() {
    entries::report_escaped_panics_only();
    let repeated = |start: &str, part: &str, count: usize, end: &str| [start, &part.repeat(count), end].concat().into_bytes();
    let numbered = |count: usize, part: &dyn Fn(usize) -> String| (0..count).map(part).collect::<Vec<_>>().join(",");
    let safetensors = |header: String| [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let tensor = r#""dtype":"U8","shape":[0],"data_offsets":[0,0]"#;
    let short = |i: usize| format!(r#""{i:x}":{{{tensor}}}"#);
    let text = |i: usize| format!(r#""{i:x}":"""#);
    let ones = "1,".repeat(2_000_000);
    let longest = 512 << 10;
    let inputs: Vec<(&str, Vec<u8>)> = vec![
        ("safetensors", safetensors(format!("{{{}}}", numbered(75_000, &short)))),
        ("safetensors", safetensors(format!(r#"{{"__metadata__":{{{}}}}}"#, numbered(400_000, &text)))),
        ("safetensors", safetensors(format!(r#"{{"a":{{"dtype":"U8","shape":[{ones}1],"data_offsets":[0,1]}}}}"#))),
        ("safetensors", safetensors(format!(r#"{{"a":{}"#, "[".repeat(4_000_000)))),
        ("index", format!(r#"{{"weight_map":{{{}}}}}"#, numbered(300_000, &|i| format!(r#""{i:x}":"a.safetensors""#))).into_bytes()),
        ("index", format!(r#"{{"weight_map":{{{}}}}}"#, numbered(200_000, &|i| format!(r#""{i:x}":"{i:x}""#))).into_bytes()),
        ("config", repeated("[", "{},", 1 << 20, "0]")),
        ("config", repeated("[", "0,", 4 << 20, "0]")),
        ("config", repeated("[", "[],", 200_000, "0]")),
        ("config", repeated("[", "{\"\":0},", 50_000, "0]")),
        ("config", repeated("", "[", 8 << 20, "")),
        ("config", repeated(r#"{"model_type":""#, "a", 8 << 20, "\"}")),
        ("modules", repeated("[", r#"{"type":"Transformer","path":""},"#, 40_000, "{}]")),
        ("modules", repeated(r#"[{"type":""#, "a", 8 << 20, "\"}]")),
        ("pickle", b"}".repeat(longest)),
        ("pickle", [b"}".to_vec(), b"\x94".repeat(longest - 1)].concat()),
        ("pickle", [b"}".repeat(longest / 2), b"\x94".repeat(longest / 2)].concat()),
        ("pickle", b")".repeat(longest)),
        ("pickle", [b")".to_vec(), b"\x85".repeat(longest - 1)].concat()),
        ("pickle", b"(".repeat(longest)),
        ("pickle", [b"}".to_vec(), b"NNs".repeat(longest / 4)].concat()),
        ("pickle", [b"}(".to_vec(), b"N".repeat(longest - 8), b"u.".to_vec()].concat()),
        ("tokenizer_json", repeated("[", "{},", 1 << 20, "0]")),
        ("tokenizer_json", repeated(r#"{"model":"#, "[", 8 << 20, "")),
        ("tokenizer_json", repeated(r#"{"model":{"vocab":[[""#, "a", 8 << 20, "\",0]]}}")),
        // A file that ends in the middle of its only piece.
        ("vocabulary", [vec![3, 10, 0xff, 0xff, 0xff, 0x7f, 10, 0xf0, 0xff, 0xff, 0x7f], vec![b'a'; 8 << 20]].concat()),
    ];
    for (i, (target, input)) in inputs.iter().enumerate() {
        let start = Instant::now();
        assert!(catch_unwind(|| entries::run(target, input)).is_ok(), "input {i}");
        assert!(start.elapsed() < LONGEST, "input {i} took {:?}", start.elapsed());
    }
}

#[test]
fn inputs_that_fuzzing_found_do_no_harm() {
    // Backtraces would take memory, and the library's own panics are no failures.
    entries::report_escaped_panics_only();
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut failed = Vec::new();
    for (target, _) in entries::TARGETS {
        let files: Vec<_> = fs::read_dir(corpora.join(target)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() > 1, "{target} has {} inputs", files.len());
        for file in files {
            let (input, start) = (fs::read(&file).unwrap(), Instant::now());
            let harmless = catch_unwind(|| entries::run(target, &input)).is_ok();
            if !harmless || start.elapsed() > LONGEST {
                failed.push(format!("{} after {:?}", file.display(), start.elapsed()));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
