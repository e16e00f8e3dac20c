//! Tokens made by another library (`jsonwebtoken`) are accepted if the policy says so, and otherwise refused for the
//! reasons that it names: each of them, and no other. The policy is told a second time here, in its own words.

use claimgate_testbed::Algorithm::{ES256, EdDSA, HS256};
use claimgate_testbed::Key;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::gate::{Gate, ISSUER, NOW, bearer};

/// Times, and how long something takes, count in quarters of a second: a double holds them exactly.
const SECOND: i64 = 4;

/// What a provider demands.
#[derive(Clone, Debug)]
struct Policy {
    audiences: Vec<&'static str>,
    token_types: Vec<&'static str>,
    require_expiration: bool,
    skew: i64,
    max_lifetime: Option<i64>,
    max_age: Option<i64>,
}

/// What an issuer, or somebody else, signs. Times count from now.
#[derive(Clone, Debug)]
struct Token {
    algorithm: claimgate_testbed::Algorithm,
    forged: bool,
    typ: Option<&'static str>,
    iss: Option<&'static str>,
    aud: Value,
    exp: Option<i64>,
    nbf: Option<i64>,
    iat: Option<i64>,
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
        ("token_expired", token.exp.is_none_or(|exp| exp + policy.skew > 0)),
        ("token_not_yet_valid", token.nbf.is_none_or(|nbf| nbf - policy.skew <= 0)),
        ("token_not_yet_valid", token.iat.is_none_or(|iat| iat - policy.skew <= 0)),
        ("lifetime_exceeded", policy.max_lifetime.is_none_or(|most| token.exp.is_some_and(|exp| exp < most))),
        (
            "lifetime_exceeded",
            policy.max_age.is_none_or(|most| token.iat.is_some_and(|iat| -iat <= most + policy.skew)),
        ),
        ("audience_mismatch", policy.audiences.is_empty() || named.iter().any(|aud| policy.audiences.contains(aud))),
    ];
    rules.into_iter().filter(|(_, holds)| !holds).map(|(reason, _)| reason).collect()
}

/// A moment near one of the boundaries: now, give or take the skew, or the bounds on life and age.
fn moment() -> impl Strategy<Value = Option<i64>> {
    let near = select(vec![-1_000_000, -70, -60, -10, -5, 0, 5, 10, 60, 70, 1_000_000]);
    proptest::option::weighted(0.9, (near, -8_i64..=8).prop_map(|(near, quarters)| near * SECOND + quarters))
}

fn policy() -> impl Strategy<Value = Policy> {
    (
        subsequence(vec!["orders", "billing"], 0..=2),
        subsequence(vec!["jwt", "at+jwt"], 0..=2),
        any::<bool>(),
        select(vec![0, 5 * SECOND, 60 * SECOND]),
        proptest::option::of(select(vec![10 * SECOND, 1_000_000 * SECOND])),
        proptest::option::of(select(vec![5 * SECOND, 1_000_000 * SECOND])),
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
            let time = NOW.cast_signed() * SECOND + time;
            claims[name] = if time % SECOND == 0 { json!(time / SECOND) } else { json!(time as f64 / SECOND as f64) };
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
        "clock_skew_seconds": policy.skew / SECOND,
    });
    for (name, time) in [("max_lifetime", policy.max_lifetime), ("max_age", policy.max_age)] {
        if let Some(time) = time {
            settings[name] = format!("{}s", time / SECOND).into();
        }
    }
    Gate::new(&keys.each_ref(), settings)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..Default::default() })]

    #[test]
    fn a_token_is_accepted_if_and_only_if_the_policy_says_so(policy in policy(), token in token()) {
        let mut expected = violated(&policy, &token);
        expected.dedup();
        let found = gate(&policy).reasons(&bearer(&signed(&token)));
        let mut found: Vec<&str> = found.split(' ').collect();
        found.dedup();
        prop_assert_eq!(found, if expected.is_empty() { vec!["ok"] } else { expected });
    }
}

#[test]
fn nothing_of_an_accepted_token_can_be_changed() {
    let policy = Policy {
        audiences: vec!["orders"],
        token_types: vec![],
        require_expiration: true,
        skew: 0,
        max_lifetime: None,
        max_age: None,
    };
    let token = Token {
        algorithm: ES256,
        forged: false,
        typ: Some("JWT"),
        iss: Some(ISSUER),
        aud: json!("orders"),
        exp: Some(60 * SECOND),
        nbf: None,
        iat: Some(0),
    };
    let token = signed(&token);
    let mut gate = gate(&policy);
    gate.check(&token, "ok");
    for bit in 0..token.len() * 8 {
        let mut changed = token.clone().into_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        let request = claimgate::Request::new([("authorization", [b"Bearer ".to_vec(), changed].concat())]);
        assert_ne!(gate.reasons(&request), "ok", "bit {bit}");
    }
}

/// At each boundary, to a quarter of a second: the moment itself, and those beside it.
#[test]
fn boundaries() {
    for skew in [0, 1, 60, 86400].map(|seconds| seconds * SECOND) {
        let policy = Policy {
            audiences: vec![],
            token_types: vec![],
            require_expiration: true,
            skew,
            max_lifetime: None,
            max_age: Some(100 * SECOND),
        };
        let mut gate = gate(&policy);
        let mut check = |exp: i64, nbf: i64, iat: i64, expected: &str| {
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
        check(-skew + 1, 0, 0, "ok");
        check(-skew, 0, 0, "token_expired");
        check(-skew - 1, 0, 0, "token_expired");
        check(SECOND, skew - 1, 0, "ok");
        check(SECOND, skew, 0, "ok");
        check(SECOND, skew + 1, 0, "token_not_yet_valid");
        check(SECOND, 0, skew, "ok");
        check(SECOND, 0, skew + 1, "token_not_yet_valid");
        check(SECOND, 0, -skew - 100 * SECOND, "ok");
        check(SECOND, 0, -skew - 100 * SECOND - 1, "lifetime_exceeded");
    }
}
