//! The core, natively and through its public API: most tests are here, and none takes a second.

mod gate;

mod cache;
mod claims;
mod config;
mod decide;
mod driver;
mod fuzzed;
mod keys;
mod keystore;
mod keystore_driver;
mod lines;
mod properties;
mod reply;
mod requirements;
mod shadow;
