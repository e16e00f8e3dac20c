//! Log lines, to the letter.

use claimgate::{Decision, Request, UnixTime, explain, rejection_line};
use claimgate_testbed::{Algorithm::ES256, Key, key_set};
use serde_json::{Value, json};

use crate::gate::{Gate, ISSUER, NOW, bearer, claims_with, merge};

fn key() -> Key {
    Key::new(ES256, "k1")
}

/// The line of a request that is rejected. The key set's name depends on the keys, which are new each time.
#[track_caller]
fn line(settings: Value, request: &Request) -> Value {
    let mut configuration = json!({"providers": {"corp": {"issuer": ISSUER, "audiences": ["orders"],
        "algorithms": ["ES256"], "local_jwks": {"inline": key_set(&[&key(), &Key::new(ES256, "k2")])}}}});
    merge(&mut configuration, settings);
    let mut gate = Gate::of(configuration);
    let Decision::Reject(rejection) = gate.decide(request) else { panic!("allowed") };
    let now = UnixTime::from_secs(NOW);
    let report = explain(request, &gate.config, &gate.state, &claimgate::Portable, now).report;
    let line = rejection_line(request, &gate.config, &rejection, &report, Some("192.0.2.1:5000"), 3, now);
    let mut line: Value = serde_json::from_str(&line.text).expect("a line is JSON");
    if let Some(name) = line.as_object_mut().and_then(|members| members.remove("key_set")) {
        assert!(name.as_str().is_some_and(|name| name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit())));
    }
    line
}

#[test]
fn a_line_has_both_sides_of_each_comparison() {
    let claims = claims_with(json!({"exp": NOW - 97, "aud": "web", "jti": "t-1", "tenant": "acme", "secret": "x"}));
    let settings = json!({"environment": "staging", "log_claims": ["tenant", "absent"]});
    assert_eq!(
        line(settings, &bearer(&key().sign(&claims))),
        json!({
            "event": "rejected", "environment": "staging", "reason": "token_expired", "others": ["audience_mismatch"],
            "detail": "expired 97 s ago, 60 s allowed", "provider": "corp", "kid": "k1", "alg": "ES256",
            "keys": ["k1", "k2"], "iss_token": ISSUER, "iss_expected": ISSUER, "aud_token": "web",
            "aud_expected": "orders", "token_age_seconds": 60, "expired_seconds": 97, "jti": "t-1",
            "claims": {"tenant": "acme"}, "client": "192.0.2.1:5000", "method": "GET",
            "host": "shop.example.com:8443", "path": "/orders", "suppressed": 3,
        })
    );
}

#[test]
fn what_is_not_known_is_left_out() {
    let malformed = line(json!({}), &bearer("a.b"));
    assert_eq!(malformed["reason"], "token_malformed");
    assert_eq!(malformed["token_sha256"].as_str().map(str::len), Some(16));
    for absent in ["environment", "kid", "alg", "iss_token", "aud_token", "jti", "claims", "others"] {
        assert_eq!(malformed[absent], Value::Null, "{absent}");
    }
}

#[test]
fn an_algorithm_that_is_refused_is_named_beside_those_that_are_not() {
    let key = Key::new(claimgate_testbed::Algorithm::RS256, "k1");
    let line = line(json!({}), &bearer(&key.sign(&claims_with(json!({})))));
    assert_eq!(line["detail"], "`alg` is RS256, one of ES256 was expected");
}

#[test]
fn a_flood_of_lines_stays_short() {
    let long = "x".repeat(5000);
    let line =
        line(json!({"log_claims": ["long"]}), &bearer(&key().sign(&claims_with(json!({"iss": long, "long": long})))));
    assert!(line.to_string().len() < 3000);
}
