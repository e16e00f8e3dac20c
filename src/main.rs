//! The command line: a thin shell around the library. It opens no socket.

#[cfg(not(target_family = "wasm"))]
mod cli;

#[cfg(target_family = "wasm")]
fn main() {}

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    cli::main()
}
