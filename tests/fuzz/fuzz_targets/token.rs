//! Whatever stands where a token is expected: `cargo +nightly fuzz run --fuzz-dir tests/fuzz token`.
#![no_main]

#[allow(dead_code, reason = "there is one driver for each target")]
#[path = "../../native/driver.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    driver::token(bytes, 97);
});
