//! A directory to work in, and the commands that run there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A file of this repository.
pub fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A directory that goes away when it is dropped.
pub struct Desk(tempfile::TempDir);

impl Desk {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    pub fn take(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `claimgate` with this on its standard input.
    pub fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_claimgate"))
            .current_dir(self.0.path())
            .args(arguments)
            .env_remove("CLICOLOR_FORCE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        // A command that does not read its input may have ended before it is written.
        let _unread = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        child.wait_with_output().expect("the binary ends")
    }

    /// What a command prints that ends with this status.
    #[track_caller]
    pub fn answer(&self, arguments: &[&str], status: i32) -> String {
        let output = self.run(arguments, "");
        let (answer, trouble) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{answer}\n{trouble}");
        answer
    }

    /// What a command says that could not tell.
    #[track_caller]
    pub fn trouble(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, "");
        assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("", Some(2)), "{arguments:?}");
        text(&output.stderr)
    }
}
