//! The test bed: a real Envoy with the plugin between a client, an issuer and an upstream.
//!
//! ```text
//! Client ──▶ Gate (Envoy + claimgate.wasm) ──▶ Upstream (echoes what it received)
//!                      │
//!                      └── fetches keys ──▶ Issuer (serves them, or fails as told)
//! ```
//!
//! The API is synchronous: each server runs a small runtime of its own. All of it listens on free ports of 127.0.0.1,
//! and all of it stops when its value is dropped, also while a failed test unwinds. Envoy is found or fetched by
//! [`envoy_binary`] and the plugin built by [`plugin`], so that a test needs no set-up by hand.
//!
//! Tokens come from `jsonwebtoken`, a library that the plugin does not use, so that the two cannot share a mistake.
//!
//! A broken bed (no free port, no Python) panics or returns the reason: it is never a test's outcome.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "`clippy.toml` says what the core must not call")]

mod client;
mod clock;
pub mod drills;
mod envoy;
mod gate;
mod issuer;
mod keys;
mod plugin;
mod server;
mod upstream;
mod wait;

pub use client::{Answer, Client, Echo, Request};
pub use envoy::{ENVOY_VERSION, envoy_binary};
pub use gate::{Builder, Carrier, Gate, StartError};
pub use issuer::{Behaviour, Issuer};
pub use jsonwebtoken::Algorithm;
pub use keys::{Key, encode_part, key_set, tampered, unix_time, unsecured};
pub use plugin::{bench_plugin, plugin, run, target_directory};
pub use server::Received;
pub use upstream::Upstream;
pub use wait::eventually;
