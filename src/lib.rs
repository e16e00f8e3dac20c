//! A JWT gate for Envoy, Istio and NGINX.
//!
//! Untrusted bytes go in at one end, one [`Decision`] comes out at the other, and nothing in between knows a host, a
//! clock or a socket:
//!
//! ```text
//! Request ─extract─▶ compact ─jws─▶ UnverifiedJws ─┐
//!               KeyStore ─lookup─▶ VerifyingKey ─signature─▶ VerifiedJws
//! VerifiedJws ─claims─▶ ClaimsSet ─policy(now)─▶ [Violation…] ─decide─▶ Decision ─reply─▶ Effects
//! ```
//!
//! The plugin (`filter`, WebAssembly only) and the command line are thin shells around [`decide()`] and [`explain()`].

// The shipped code cannot panic: a trap kills a worker's virtual machine. Tests may.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::disallowed_methods,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

// In the order of the flow: a module uses only modules above it. `tests/architecture.rs` holds that.
pub mod limits;
mod time;
mod budget;
mod brake;
mod rejection;
mod json;
mod request;
mod matcher;
mod extract;
mod jws;
mod jwk;
mod signature;
mod keystore;
mod parking;
mod claims;
mod token_cache;
mod policy;
mod config;
mod decide;
mod reply;
mod observe;
#[cfg(target_family = "wasm")]
mod filter;

pub use brake::{Brake, Braked, Cost, Rates};
pub use budget::Budget;
pub use config::raw::{self, RawConfig};
pub use config::{Config, ConfigError, ErrorFormat, HostCrypto, Mode, Provider, Requirement, Rule};
pub use decide::{
    Allow, Because, Credential, Decision, Explanation, Judgement, KeyTrial, Need, Rejection, Report, SignatureStage,
    State, TrialResult, decide, explain, judge,
};
pub use jwk::{JwkSetError, KeyNote};
pub use jws::{Algorithm, JoseHeader, UnverifiedJws};
pub use keystore::{
    Address, Discovery, Event, Fetch, FetchError, FetchId, Hint, IssuerId, KeyStore, Lookup, Remote, Response,
    SharedSet, SharedState, Source, Status, Want,
};
pub use observe::{
    DecisionCounters, Level, Line, LogGate, cost_counters, event_counter, event_line, gauges, omitted_line,
    rejection_line, status,
};
pub use parking::{Parked, Parking};
pub use policy::{Comparison, Expected, Found};
pub use rejection::{Reason, Violation};
pub use reply::{Effects, Forwarded, LocalReply, json_reply, reject, reply};
pub use request::{Request, RouteSetting};
pub use signature::{Crypto, KeySet, NoCandidate, Portable, VerifiedJws, VerifyingKey};
pub use time::UnixTime;
pub use token_cache::Tally;
