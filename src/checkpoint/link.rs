//! Links of a model folder, which must not lead out of it: a folder from a stranger could otherwise have any file of this machine read, and
//! copied by [`quantize`](super::quantize()).

use std::path::Path;

use crate::{Error, Result};

/// Refuses a file or folder that is a link to somewhere outside of the folder that it lies in. The cache of Hugging Face keeps the files of
/// `snapshots/<revision>` as links into `blobs`, which belong to the model.
pub(super) fn check(path: &Path) -> Result<()> {
    if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What leads nowhere is not there.
    let (Ok(target), Ok(folder)) = (path.canonicalize(), folder.canonicalize()) else { return Ok(()) };
    let snapshots = folder.ancestors().find(|folder| folder.ends_with("snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|model| model.join("blobs"));
    if target.starts_with(&folder) || blobs.is_some_and(|blobs| target.starts_with(blobs)) {
        return Ok(());
    }
    let problem = format!("is a link to {}, expected nothing outside of its folder: put a copy in its place", target.display());
    Err(Error::checkpoint(path, problem))
}
