//! Load from `wrk`, and what a process spent on it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use claimgate_testbed::{run, target_directory};
use serde::Deserialize;

/// The load generator, and the directory with its script and the tokens.
pub struct Wrk {
    program: PathBuf,
    libraries: Option<PathBuf>,
    directory: tempfile::TempDir,
    /// Headers that each request has besides `Host` and `Authorization`.
    headers: usize,
}

/// Tokens that requests carry in turn.
pub struct Tokens(PathBuf);

/// What one run of the load generator saw.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Load {
    pub requests: u64,
    microseconds: u64,
    /// Half of the answers came within this many µs.
    pub p50: u64,
    /// 99 of 100 answers came within this many µs.
    pub p99: u64,
    /// Answers of status 400 or above.
    refused: u64,
    /// Requests without an answer.
    broken: u64,
}

impl Load {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 * 1e6 / self.microseconds as f64
    }
}

impl Wrk {
    /// `wrk` on `PATH`, else Debian's package unpacked under cargo's target directory.
    ///
    /// # Errors
    /// What can be done.
    pub fn find(headers: usize) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::write(directory.path().join(SCRIPT), include_str!("wrk.lua")).map_err(|error| error.to_string())?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(program) = std::env::split_paths(&path).map(|path| path.join("wrk")).find(|path| path.is_file()) {
            return Ok(Self { program, libraries: None, directory, headers });
        }
        let root = from_debian().map_err(|error| {
            format!("no `wrk` on PATH (`apt-get install wrk`), and to unpack Debian's package failed:\n{error}")
        })?;
        let libraries = fs::read_dir(root.join("usr/lib")).map_err(|error| error.to_string())?;
        let libraries = libraries.flatten().map(|entry| entry.path()).next();
        Ok(Self { program: root.join("usr/bin/wrk"), libraries, directory, headers })
    }

    /// Keeps tokens for requests.
    pub fn tokens(&self, name: &str, tokens: &[String]) -> Tokens {
        let file = self.directory.path().join(name);
        fs::write(&file, tokens.join("\n")).expect("can write");
        Tokens(file)
    }

    /// Sends requests on [`CONNECTIONS`] connections for whole seconds, the first one with token number `first`.
    ///
    /// # Errors
    /// If a request was refused or not answered: what that costs is not what is measured.
    pub fn run(&self, at: SocketAddr, path: &str, tokens: &Tokens, first: u64, seconds: u64) -> Result<Load, String> {
        let mut command = Command::new(&self.program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
            .args(["--threads", "1", "--connections", CONNECTIONS, "--duration", &format!("{seconds}s"), "--script"])
            .arg(self.directory.path().join(SCRIPT))
            .args([&format!("http://{at}{path}"), "--"])
            .arg(&tokens.0)
            .args([first.to_string(), self.headers.to_string()]);
        let printed = run(&mut command)?;
        let line = printed.lines().find(|line| line.starts_with('{'));
        let load: Option<Load> = line.and_then(|line| serde_json::from_str(line).ok());
        let load = load.ok_or_else(|| format!("wrk printed no result:\n{printed}"))?;
        if load.refused + load.broken > 0 {
            return Err(format!("{} of {} requests refused, {} broken", load.refused, load.requests, load.broken));
        }
        Ok(load)
    }
}

/// User and system time that a process has used until now, to 10 ms.
pub fn cpu(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process lives");
    // The name in parentheses may hold spaces; behind it, fields 14 and 15 of proc(5) are the twelfth and thirteenth.
    let fields = stat.rsplit_once(')').expect("a name in parentheses").1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Memory that a process holds, in bytes.
pub fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5) promises it");
    let kib = line.trim().trim_end_matches(" kB").trim();
    kib.parse::<u64>().expect("a number") * 1024
}

/// Unpacks beside the final place and renames, so that another process sees all of it or nothing.
fn from_debian() -> Result<PathBuf, String> {
    let tools = target_directory()?.join("tools");
    let home = tools.join("wrk");
    if home.is_dir() {
        return Ok(home);
    }
    let text = |error: std::io::Error| error.to_string();
    fs::create_dir_all(&tools).map_err(text)?;
    let scratch = tempfile::tempdir_in(&tools).map_err(text)?;
    eprintln!("fetching wrk from Debian ...");
    run(Command::new("apt-get").args(["download", "wrk", "libluajit-5.1-2"]).current_dir(scratch.path()))?;
    let unpacked = scratch.path().join("unpacked");
    for package in fs::read_dir(scratch.path()).map_err(text)?.flatten() {
        if package.path().extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").args([package.path(), unpacked.clone()]))?;
        }
    }
    is_runnable(&unpacked)?;
    fs::rename(&unpacked, &home).map_err(text)?;
    Ok(home)
}

fn is_runnable(root: &Path) -> Result<(), String> {
    let wrk = root.join("usr/bin/wrk");
    if wrk.is_file() { Ok(()) } else { Err(format!("`{}` is not in the package", wrk.display())) }
}

/// Enough that Envoy's one worker never waits for a request.
const CONNECTIONS: &str = "16";
const SCRIPT: &str = "wrk.lua";
/// `USER_HZ` of Linux.
const TICKS_PER_SECOND: u64 = 100;
