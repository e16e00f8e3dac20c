//! Any sequence of events keeps the key store's rules:
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz keystore`.
#![no_main]

#[path = "../../native/keystore_driver.rs"]
mod keystore_driver;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| keystore_driver::drive(bytes));
