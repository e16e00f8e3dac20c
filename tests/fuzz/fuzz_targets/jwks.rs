//! Whatever an issuer serves as its key set: `cargo +nightly fuzz run --fuzz-dir tests/fuzz jwks`.
#![no_main]

#[allow(dead_code, reason = "there is one driver for each target")]
#[path = "../../native/driver.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driver::jwks(bytes));
