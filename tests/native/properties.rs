//! Tokens made by another library (`jsonwebtoken`) are accepted if the policy says so, and otherwise refused for the
//! reasons that it names: each of them, and no other. The policy is told a second time here, in its own words.

use claimgate_testbed::Algorithm::{ES256, EdDSA, HS256};
use claimgate_testbed::Key;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::gate::{Gate, ISSUER, NOW, bearer};

/// What a provider demands.
#[derive(Clone, Debug)]
struct Policy {
    audiences: Vec<&'static str>,
    token_types: Vec<&'static str>,
    require_expiration: bool,
    skew: f64,
    max_lifetime: Option<f64>,
    max_age: Option<f64>,
}

/// What an issuer, or somebody else, signs. Times count from now, in seconds.
#[derive(Clone, Debug)]
struct Token {
    algorithm: claimgate_testbed::Algorithm,
    forged: bool,
    typ: Option<&'static str>,
    iss: Option<&'static str>,
    aud: Value,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
}

/// Every rule that a token violates, in the order of reporting.
fn violated(policy: &Policy, token: &Token) -> Vec<&'static str> {
    let named: Vec<&str> = match &token.aud {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let typ = token.typ.map(|typ| typ.to_lowercase().trim_start_matches("application/").to_owned());
    let rules = [
        ("type_not_allowed", policy.token_types.is_empty() || typ.is_some_and(|t| policy.token_types.contains(&&*t))),
        ("algorithm_not_allowed", token.algorithm != HS256),
        ("issuer_mismatch", token.iss == Some(ISSUER)),
        ("signature_invalid", token.algorithm == HS256 || !token.forged),
        ("expiration_missing", token.exp.is_some() || !policy.require_expiration),
        ("token_expired", token.exp.is_none_or(|exp| exp + policy.skew > 0.0)),
        ("token_not_yet_valid", token.nbf.is_none_or(|nbf| nbf - policy.skew <= 0.0)),
        ("token_not_yet_valid", token.iat.is_none_or(|iat| iat - policy.skew <= 0.0)),
        ("lifetime_exceeded", policy.max_lifetime.is_none_or(|most| token.exp.is_some_and(|exp| exp < most))),
        ("lifetime_exceeded", policy.max_age.is_none_or(|most| token.iat.is_some_and(|iat| -iat <= most + policy.skew))),
        ("audience_mismatch", policy.audiences.is_empty() || named.iter().any(|aud| policy.audiences.contains(aud))),
    ];
    rules.into_iter().filter(|(_, holds)| !holds).map(|(reason, _)| reason).collect()
}

/// A moment near one of the boundaries: now, now and the skew, or the bounds on life and age.
fn moment() -> impl Strategy<Value = Option<f64>> {
    let near = select(vec![-1e6, -70.0, -60.0, -10.0, -5.0, 0.0, 5.0, 10.0, 60.0, 70.0, 1e6]);
    // Quarters of a second are exact in a double.
    proptest::option::weighted(0.9, (near, -8_i32..=8).prop_map(|(near, quarters)| near + f64::from(quarters) / 4.0))
}

fn policy() -> impl Strategy<Value = Policy> {
    (
        subsequence(vec!["orders", "billing"], 0..=2),
        subsequence(vec!["jwt", "at+jwt"], 0..=2),
        any::<bool>(),
        select(vec![0.0, 5.0, 60.0]),
        proptest::option::of(select(vec![10.0, 1e6])),
        proptest::option::of(select(vec![5.0, 1e6])),
    )
        .prop_map(|(audiences, token_types, require_expiration, skew, max_lifetime, max_age)| Policy {
            audiences,
            token_types,
            require_expiration,
            skew,
            max_lifetime,
            max_age,
        })
}

fn token() -> impl Strategy<Value = Token> {
    let aud = vec![
        json!("orders"),
        json!("Orders"),
        json!(["x", "billing"]),
        json!(["orders", "billing"]),
        json!([]),
        json!("orders billing"),
        Value::Null,
    ];
    (
        (select(vec![ES256, EdDSA, ES256, EdDSA, HS256]), proptest::bool::weighted(0.1)),
        select(vec![None, Some("JWT"), Some("application/at+jwt"), Some("AT+JWT"), Some("jose")]),
        select(vec![None, Some(ISSUER), Some(ISSUER), Some(ISSUER), Some("https://idp.example.com")]),
        select(aud),
        moment(),
        moment(),
        moment(),
    )
        .prop_map(|((algorithm, forged), typ, iss, aud, exp, nbf, iat)| Token {
            algorithm,
            forged,
            typ,
            iss,
            aud,
            exp,
            nbf,
            iat,
        })
}

fn signed(token: &Token) -> String {
    let mut header = json!({"alg": token.algorithm, "kid": format!("{:?}", token.algorithm)});
    if let Some(typ) = token.typ {
        header["typ"] = typ.into();
    }
    let mut claims = json!({"sub": "alice"});
    if let Some(iss) = token.iss {
        claims["iss"] = iss.into();
    }
    if !token.aud.is_null() {
        claims["aud"] = token.aud.clone();
    }
    for (name, time) in [("exp", token.exp), ("nbf", token.nbf), ("iat", token.iat)] {
        if let Some(time) = time {
            // Whole seconds as an integer, as most issuers write them.
            let time = NOW as f64 + time;
            claims[name] = if time.fract() == 0.0 { json!(time as u64) } else { json!(time) };
        }
    }
    let name = if token.forged { "somebody-else".to_owned() } else { format!("{:?}", token.algorithm) };
    Key::new(token.algorithm, &name).sign_with_header(&header, &claims)
}

fn gate(policy: &Policy) -> Gate {
    let keys = [ES256, EdDSA].map(|algorithm| Key::new(algorithm, &format!("{algorithm:?}")));
    let mut settings = json!({
        "audiences": policy.audiences,
        "token_types": policy.token_types,
        "require_expiration": policy.require_expiration,
        "clock_skew_seconds": policy.skew as u64,
    });
    for (name, seconds) in [("max_lifetime", policy.max_lifetime), ("max_age", policy.max_age)] {
        if let Some(seconds) = seconds {
            settings[name] = format!("{seconds}s").into();
        }
    }
    Gate::new(&keys.each_ref(), settings)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..Default::default() })]

    #[test]
    fn a_token_is_accepted_if_and_only_if_the_policy_says_so(policy in policy(), token in token()) {
        let mut expected = violated(&policy, &token);
        expected.dedup();
        let found = gate(&policy).reasons(&bearer(&signed(&token)));
        let mut found: Vec<&str> = found.split(' ').collect();
        found.dedup();
        prop_assert_eq!(found, if expected.is_empty() { vec!["ok"] } else { expected });
    }

    #[test]
    fn nothing_of_an_accepted_token_can_be_changed(place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let policy = Policy { audiences: vec!["orders"], token_types: vec![], require_expiration: true, skew: 0.0,
            max_lifetime: None, max_age: None };
        let token = Token { algorithm: ES256, forged: false, typ: Some("JWT"), iss: Some(ISSUER), aud: json!("orders"),
            exp: Some(60.0), nbf: None, iat: Some(0.0) };
        let token = signed(&token);
        let mut gate = gate(&policy);
        gate.check(&token, "ok");
        let mut changed = token.into_bytes();
        let place = place.index(changed.len());
        changed[place] ^= 1 << bit;
        let request = claimgate::Request::new([("authorization", [b"Bearer ".to_vec(), changed].concat())]);
        prop_assert_ne!(gate.reasons(&request), "ok");
    }
}

/// At each boundary, to a quarter of a second: the moment itself, and those beside it.
#[test]
fn boundaries() {
    for skew in [0.0, 1.0, 60.0, 86400.0] {
        let policy = Policy {
            audiences: vec![],
            token_types: vec![],
            require_expiration: true,
            skew,
            max_lifetime: None,
            max_age: Some(100.0),
        };
        let mut gate = gate(&policy);
        let mut check = |exp: f64, nbf: f64, iat: f64, expected: &str| {
            let token = Token {
                algorithm: ES256,
                forged: false,
                typ: None,
                iss: Some(ISSUER),
                aud: Value::Null,
                exp: Some(exp),
                nbf: Some(nbf),
                iat: Some(iat),
            };
            assert_eq!(gate.reasons(&bearer(&signed(&token))), expected, "{token:?}, skew {skew}");
        };
        check(-skew + 0.25, 0.0, 0.0, "ok");
        check(-skew, 0.0, 0.0, "token_expired");
        check(-skew - 0.25, 0.0, 0.0, "token_expired");
        check(60.0, skew - 0.25, 0.0, "ok");
        check(60.0, skew, 0.0, "ok");
        check(60.0, skew + 0.25, 0.0, "token_not_yet_valid");
        check(60.0, 0.0, skew, "ok");
        check(60.0, 0.0, skew + 0.25, "token_not_yet_valid");
        check(60.0, 0.0, -skew - 100.0, "ok");
        check(60.0, 0.0, -skew - 100.25, "lifetime_exceeded");
    }
}
