//! The model that examples and the program use when none is named.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Names the folder of the default model.
const VARIABLE: &str = "MINILM_MODEL";

/// Where the project keeps a small model for its examples.
const IN_PROJECT: &str = "examples/models/e5-small-multilingual-19k-int8";

/// The folder that the variable `MINILM_MODEL` names; else the model among the project's examples, looked for in the working
/// directory, in the executable's folder, and in the folders above them.
///
/// # Errors
/// [`Error::Input`] when there is no such folder; it says where it was looked for and how to name a model.
pub fn default_model() -> Result<PathBuf> {
    if let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        return match named.is_dir() {
            true => Ok(named),
            false => Err(Error::input(format!("{VARIABLE} names {}, which is not a folder: let it name a model folder", named.display()))),
        };
    }
    let starts = [env::current_dir().ok(), executable_folder()];
    starts.iter().flatten().find_map(|start| look_upwards(start)).ok_or_else(|| {
        let places: Vec<_> = starts.iter().flatten().map(|start| start.display().to_string()).collect();
        Error::input(format!(
            "no model was named, and {IN_PROJECT} was found neither in {} nor above: name a model folder (with `--model` on the command \
             line), or let the variable {VARIABLE} name one",
            places.join(" nor in ")
        ))
    })
}

/// Where the executable lies, links followed: one on the PATH may be a link into the project.
fn executable_folder() -> Option<PathBuf> {
    env::current_exe().ok()?.canonicalize().ok()?.parent().map(Path::to_owned)
}

fn look_upwards(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|folder| folder.join(IN_PROJECT)).find(|folder| folder.is_dir())
}
