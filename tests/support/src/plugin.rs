//! The plugin, built as a user builds it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// Builds the plugin with `cargo wasm`, once per process, and tells where it is.
///
/// # Errors
/// What cargo or rustup printed.
pub fn plugin() -> Result<PathBuf, String> {
    static PLUGIN: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PLUGIN.get_or_init(build).clone()
}

/// Builds the plugin that `examples/bench` compares with, once per process, and tells where it is. All of it for speed,
/// whatever the profile says of ours.
///
/// # Errors
/// What cargo or rustup printed.
pub fn bench_plugin() -> Result<PathBuf, String> {
    static PLUGIN: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || {
        add_target()?;
        run(cargo()
            .args(["build", "--package", "claimgate-bench-plugin", "--release", "--target", WASM_TARGET])
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"))?;
        Ok(target_directory()?.join(WASM_TARGET).join("release").join("claimgate_bench_plugin.wasm"))
    };
    PLUGIN.get_or_init(build).clone()
}

/// Cargo's target directory for this workspace, wherever the user has put it.
///
/// # Errors
/// What cargo printed.
pub fn target_directory() -> Result<PathBuf, String> {
    let metadata = run(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|error| format!("`cargo metadata`: {error}"))?;
    metadata["target_directory"].as_str().map(PathBuf::from).ok_or_else(|| "`cargo metadata` names no target".into())
}

/// Runs a command to its end.
///
/// # Errors
/// The command and what it printed, unless it succeeded.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{command:?} failed ({}):\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr)))
    }
}

fn build() -> Result<PathBuf, String> {
    add_target()?;
    run(cargo().arg("wasm"))?;
    Ok(target_directory()?.join(WASM_TARGET).join("release").join("claimgate.wasm"))
}

/// `rust-toolchain.toml` asks for the target, but rustup may be told not to install anything by itself.
fn add_target() -> Result<(), String> {
    let sysroot = run(in_workspace("rustc").args(["--print", "sysroot"]))?;
    if Path::new(&sysroot).join("lib/rustlib").join(WASM_TARGET).exists() {
        return Ok(());
    }
    run(in_workspace("rustup").args(["target", "add", WASM_TARGET])).map(drop)
}

fn cargo() -> Command {
    let mut command = in_workspace(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Flags meant for the machine of the tests (coverage, another linker, `-D warnings`) are not meant for the plugin.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn in_workspace(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(WORKSPACE);
    command
}

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const WASM_TARGET: &str = "wasm32-wasip1";
