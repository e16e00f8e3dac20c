//! Test vectors that nobody on this project made, each set whole: `README.md` beside this file says where they are from.
//!
//! One line is printed for each suite, and one for each reason why a case goes another way than its source says. What
//! such a case is, and what the gate makes of it, is listed in `exceptions/`: a case that is not listed fails the
//! suite, and so does an entry that no longer tells what happens.
#![allow(clippy::disallowed_methods, reason = "`clippy.toml` says what the core must not call")]

mod attacks;
mod envoy;
mod gate;
mod keys;
mod primitives;
mod suite;
mod tokens;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let trial = |name: &str, run: fn() -> Result<(), Failed>| Trial::test(name, run);
    let mut trials = vec![
        trial("attacks", attacks::natively),
        trial("attacks_through_envoy", envoy::through_envoy),
        trial("attacks_in_the_readme", attacks::choices_are_documented),
        trial("tokens_of_wycheproof", || tokens::verify("jws_wycheproof")),
        trial("tokens_of_rfcs", || tokens::verify("jws_rfc")),
        trial("tokens_of_libraries", || tokens::verify("jws_libs")),
        trial("keys_of_wycheproof", keys::of_wycheproof),
        trial("keys_of_rfcs", keys::of_rfcs),
        trial("ed25519_speccheck", primitives::ed25519_speccheck),
    ];
    trials.extend(primitives::ALGORITHMS.map(|alg| Trial::test(format!("raw_{alg}"), move || primitives::verify(alg))));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
