//! A wall clock that stands still, for an Envoy that is to see tokens at the time for which they were made.

use std::path::PathBuf;

use crate::plugin::{in_workspace, run, target_directory};

/// Builds the library that is loaded into Envoy before the C library, for this moment in seconds since the epoch.
///
/// # Errors
/// What the compiler printed: there is such a library for Linux on x86-64 and AArch64 only.
pub(crate) fn stopped_at(seconds: u64) -> Result<PathBuf, String> {
    let library = target_directory()?.join(format!("clock-{seconds}.so"));
    let scratch = tempfile::tempdir_in(library.parent().ok_or("no target directory")?).map_err(|e| e.to_string())?;
    let built = scratch.path().join("clock.so");
    run(in_workspace("rustc")
        .args(["--edition", "2024", "--crate-type", "cdylib", "-C", "opt-level=2", "-o"])
        .arg(&built)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/preload/clock.rs"))
        .env("CLAIMGATE_CLOCK", seconds.to_string()))?;
    // In one step: another process may be loading it.
    std::fs::rename(&built, &library).map_err(|error| error.to_string())?;
    Ok(library)
}
