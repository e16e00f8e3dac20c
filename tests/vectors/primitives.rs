//! Signatures over any octets, through the verifying key itself.

use claimgate::{Algorithm, KeySet};
use libtest_mimic::Failed;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::suite::{ACCEPT, REFUSE, Suite, read};

/// The algorithms of the files `raw_*.json`.
pub const ALGORITHMS: [&str; 18] = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "ES256K",
    "EdDSA",
    "Ed448",
    "HS256",
    "HS384",
    "HS512",
    "ML-DSA-44",
    "ML-DSA-65",
    "ML-DSA-87",
];

/// Wycheproof's signatures under one algorithm.
pub fn verify(alg: &str) -> Result<(), Failed> {
    #[derive(Deserialize)]
    struct File {
        keys: Vec<Value>,
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        id: String,
        key: usize,
        msg: String,
        sig: String,
        expected: String,
    }
    let File { keys, cases } = read(&format!("data/raw_{alg}.json"));
    // One set for each key: which of several is meant is not the matter here.
    let sets: Vec<KeySet> = keys.iter().map(key_set).collect();
    let mine: std::collections::BTreeSet<&str> = cases.iter().map(|case| &*case.id).collect();
    let mut suite = Suite::new(&format!("raw {alg}"), "raw", |id| mine.contains(id));
    for case in &cases {
        let verifies = verifies(&sets[case.key], alg, &octets(&case.msg), &octets(&case.sig));
        let expected = if case.expected == ACCEPT { ACCEPT } else { REFUSE };
        suite.case(&case.id, expected, if verifies { ACCEPT } else { REFUSE });
    }
    let unusable = sets.iter().filter(|set| set.keys().is_empty()).count();
    if unusable > 0 {
        suite.note(format!("{unusable} of {} keys verify nothing", sets.len()));
    }
    suite.finish()
}

/// Twelve signatures on which implementations of Ed25519 disagree. The source gives no verdict; expected is that of RFC
/// 8032 §5.1.7 by the letter: the equation with its cofactor, `S` below the order, and encodings that are canonical.
pub fn ed25519_speccheck() -> Result<(), Failed> {
    #[derive(Deserialize)]
    struct Case {
        message: String,
        pub_key: String,
        signature: String,
    }
    let mut suite = Suite::new("ed25519-speccheck", "ed25519_speccheck", |_| true);
    for (number, case) in read::<Vec<Case>>("data/ed25519_speccheck.json").iter().enumerate() {
        use base64::Engine as _;
        let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(octets(&case.pub_key));
        let set = key_set(&json!({"kty": "OKP", "crv": "Ed25519", "x": x}));
        let verifies = verifies(&set, "EdDSA", &octets(&case.message), &octets(&case.signature));
        let expected = if number < FIRST_MALFORMED { ACCEPT } else { REFUSE };
        suite.case(&number.to_string(), expected, if verifies { ACCEPT } else { REFUSE });
    }
    suite.finish()
}

/// The first whose `S` is too large; behind it are those whose points are not canonical.
const FIRST_MALFORMED: usize = 6;

fn key_set(jwk: &Value) -> KeySet {
    KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes(), 1).expect("a JWK Set")
}

fn verifies(set: &KeySet, alg: &str, message: &[u8], signature: &[u8]) -> bool {
    match (Algorithm::from_name(alg), set.keys()) {
        (Some(alg), [key]) => key.verify(alg, message, signature),
        _ => false,
    }
}

fn octets(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2);
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
    digits.map(|pair| octet(pair).expect("hexadecimal")).collect()
}
