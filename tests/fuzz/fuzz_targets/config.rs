//! Whatever is given as configuration: `cargo +nightly fuzz run --fuzz-dir tests/fuzz config`.
#![no_main]

#[allow(dead_code, reason = "there is one driver for each target")]
#[path = "../../native/driver.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driver::config(bytes));
