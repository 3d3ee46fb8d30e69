//! Small files of the folders that tests make.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// A JSON file; one that cannot be read panics with its path.
pub fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(folder.join(name), bytes).unwrap();
}

/// A folder with some files of another one.
pub fn copy(folder: &Path, files: &[&str]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in files {
        fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    copy
}

/// A folder of `fixtures/families` whose classifier has these labels.
pub fn with_labels(folder: &Path, labels: [&str; 3]) -> tempfile::TempDir {
    let copy = copy(folder, &["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    let mut config: serde_json::Value = read_json(&copy.path().join("config.json"));
    config["id2label"] = serde_json::json!({"0": labels[0], "1": labels[1], "2": labels[2]});
    write(copy.path(), "config.json", config.to_string());
    copy
}
