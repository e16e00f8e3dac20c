//! What the gate decides on a token held against one provider.

use claimgate::{Because, Credential, Decision, Effects, Portable, Reason, Request, UnixTime, explain, reply};
use claimgate_testbed::Algorithm::{
    ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
};
use claimgate_testbed::{Key, key_set, tampered, unsecured};
use serde_json::{Value, json};

use crate::gate::{Gate, ISSUER, NOW, bearer, claims, claims_with, request};

fn rsa() -> Key {
    Key::new(RS256, "rsa-1")
}

#[test]
fn every_algorithm_verifies() {
    for alg in [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384, HS512] {
        let key = Key::new(alg, "k");
        let name = serde_json::to_value(alg).expect("an algorithm has a name");
        Gate::new(&[&key], json!({"algorithms": [name]})).check(&key.sign(&claims()), "ok");
        Gate::new(&[&key], json!({"algorithms": [name]})).check(&tampered(&key.sign(&claims())), "signature_invalid");
    }
}

#[test]
fn eddsa_has_two_names() {
    let key = Key::new(EdDSA, "k");
    let names = ["EdDSA", "Ed25519"];
    for (listed, own) in names.into_iter().flat_map(|listed| names.map(|own| (listed, own))) {
        let mut set = key_set(&[&key]);
        set["keys"][0]["alg"] = own.into();
        let mut gate = Gate::with_set(set, json!({"algorithms": [listed]}));
        for name in names {
            gate.check(&key.sign_with_header(&json!({"alg": name, "kid": "k"}), &claims()), "ok");
        }
    }
}

#[test]
fn symmetric_keys_only_by_allow_list() {
    let key = Key::new(HS256, "k");
    Gate::new(&[&key], json!({})).check(&key.sign(&claims()), "algorithm_not_allowed");
}

#[test]
fn the_token_does_not_choose_how_it_is_verified() {
    let rsa = rsa();
    let mut gate = Gate::new(&[&rsa], json!({}));
    gate.check(&unsecured(&claims()), "algorithm_not_allowed");
    for none in ["None", "NONE", "nOnE", "", "RS256 ", "rs256", "RS1", "HS256\u{0}"] {
        gate.check(&rsa.sign_with_header(&json!({"alg": none, "kid": "rsa-1"}), &claims()), "algorithm_not_allowed");
    }
    // RS256 → HS256 with the public key as the secret, also where HS256 is allowed.
    let confused = Key::from_secret(HS256, "rsa-1", rsa.public_pem().as_bytes()).sign(&claims());
    gate.check(&confused, "algorithm_not_allowed");
    Gate::new(&[&rsa], json!({"algorithms": ["RS256", "HS256"]})).check(&confused, "key_mismatch");
    // A key that names one algorithm verifies no other.
    let mut set = key_set(&[&rsa]);
    set["keys"][0]["alg"] = "RS256".into();
    Gate::with_set(set, json!({})).check(&rsa.with_algorithm(PS256).sign(&claims()), "key_mismatch");
}

#[test]
fn a_token_brings_no_key() {
    let (rsa, attacker) = (rsa(), Key::new(RS256, "attacker"));
    let mut gate = Gate::new(&[&rsa], json!({}));
    for (member, value) in [
        ("jwk", attacker.public_jwk()),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("x5u", json!("https://attacker.example/x5u.pem")),
        ("x5c", json!(["AAAA"])),
    ] {
        let mut header = json!({"alg": "RS256"});
        header[member] = value;
        gate.check(&attacker.sign_with_header(&header, &claims()), "signature_invalid");
    }
}

#[test]
fn extensions_are_not_understood() {
    let rsa = rsa();
    let mut gate = Gate::new(&[&rsa], json!({}));
    for extension in [json!({"crit": ["exp"]}), json!({"crit": []}), json!({"crit": "exp"}), json!({"b64": true})] {
        let mut header = json!({"alg": "RS256", "kid": "rsa-1"});
        crate::gate::merge(&mut header, extension);
        gate.check(&rsa.sign_with_header(&header, &claims()), "crit_unsupported");
    }
}

#[test]
fn keys_are_found_by_name() {
    let (first, second) = (Key::new(RS256, "rsa-1"), Key::new(RS256, "rsa-2"));
    let mut gate = Gate::new(&[&first, &second], json!({}));
    let sign = |key: &Key, header: Value| key.sign_with_header(&header, &claims());
    gate.check(&sign(&second, json!({"alg": "RS256", "kid": "rsa-2"})), "ok");
    gate.check(&sign(&second, json!({"alg": "RS256", "kid": "rsa-1"})), "signature_invalid");
    gate.check(&sign(&second, json!({"alg": "RS256", "kid": "rsa-3"})), "key_not_found");
    gate.check(&sign(&second, json!({"alg": "RS256"})), "ok");
    gate.check(&sign(&second, json!({"alg": "ES256"})), "key_not_found");
    gate.check(&sign(&second, json!({"alg": "ES256", "kid": "rsa-1"})), "key_mismatch");
    // A key without a name serves tokens of any name, unless a key of that name is there.
    let mut set = key_set(&[&first, &second]);
    set["keys"][0].as_object_mut().expect("a key is an object").remove("kid");
    let mut gate = Gate::with_set(set, json!({}));
    gate.check(&sign(&first, json!({"alg": "RS256", "kid": "any"})), "ok");
    gate.check(&sign(&first, json!({"alg": "RS256", "kid": "rsa-2"})), "signature_invalid");
}

#[test]
fn a_key_that_may_not_verify_says_so() {
    let rsa = rsa();
    for (member, value, why) in [
        ("use", json!("enc"), "`use` is `enc`"),
        ("key_ops", json!(["encrypt"]), "`key_ops` does not hold `verify`"),
        ("alg", json!("RSA-OAEP"), "`alg` is `RSA-OAEP`"),
        ("e", json!("Ag"), "exponent is not an odd number"),
    ] {
        let mut set = key_set(&[&rsa, &Key::new(ES256, "ec-1")]);
        set["keys"][0][member] = value;
        match Gate::with_set(set, json!({})).decide(&bearer(&rsa.sign(&claims()))) {
            Decision::Reject(rejection) => {
                assert_eq!(rejection.reason(), Reason::KeyMismatch);
                assert!(rejection.detail().contains(why), "{}", rejection.detail());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn tries_are_bounded() {
    // Nine keys without a name, of which the ninth signed: eight are tried.
    let keys: Vec<Key> = (0..9).map(|i| Key::new(ES256, &format!("ec-{i}"))).collect();
    let mut set = key_set(&keys.iter().collect::<Vec<_>>());
    for key in set["keys"].as_array_mut().expect("keys are an array") {
        key.as_object_mut().expect("a key is an object").remove("kid");
    }
    let mut gate = Gate::with_set(set, json!({}));
    gate.check(&keys[7].sign_with_header(&json!({"alg": "ES256"}), &claims()), "ok");
    gate.check(&keys[8].sign_with_header(&json!({"alg": "ES256"}), &claims()), "signature_invalid");
}

#[test]
fn claims_are_held_against_the_policy() {
    let rsa = rsa();
    let mut gate = Gate::new(&[&rsa], json!({}));
    let mut check = |changes: Value, expected: &str| gate.check(&rsa.sign(&claims_with(changes)), expected);
    check(json!({}), "ok");
    check(json!({"aud": ["billing", "orders"]}), "ok");
    check(json!({"iss": "https://idp.example.com"}), "issuer_mismatch");
    check(json!({"iss": null}), "issuer_mismatch");
    check(json!({"iss": 1}), "issuer_mismatch claim_malformed");
    check(json!({"aud": "billing"}), "audience_mismatch");
    check(json!({"aud": "https://orders"}), "audience_mismatch");
    check(json!({"aud": []}), "audience_mismatch");
    check(json!({"aud": null}), "audience_mismatch");
    check(json!({"aud": {"orders": 1}}), "claim_malformed audience_mismatch");
    check(json!({"aud": ["orders", 1]}), "claim_malformed audience_mismatch");
    check(json!({"exp": null}), "expiration_missing");
    check(json!({"exp": "1900000000"}), "claim_malformed");
    check(json!({"exp": -1}), "claim_malformed");
    check(json!({"exp": 0}), "token_expired");
    check(json!({"sub": 1}), "claim_malformed");
    check(json!({"jti": []}), "claim_malformed");
    check(json!({"iss": "x", "aud": "y", "exp": 1}), "issuer_mismatch token_expired audience_mismatch");
}

#[test]
fn clocks_may_differ_by_the_skew_and_no_more() {
    let rsa = rsa();
    for (skew, settings) in
        [(60, json!({})), (0, json!({"clock_skew_seconds": 0})), (5, json!({"clock_skew_seconds": 5}))]
    {
        let mut gate = Gate::new(&[&rsa], settings);
        let mut check = |changes: Value, expected: &str| gate.check(&rsa.sign(&claims_with(changes)), expected);
        check(json!({"exp": NOW - skew + 1}), "ok");
        check(json!({"exp": NOW - skew}), "token_expired");
        check(json!({"nbf": NOW + skew}), "ok");
        check(json!({"nbf": NOW + skew + 1}), "token_not_yet_valid");
        check(json!({"iat": NOW + skew}), "ok");
        check(json!({"iat": NOW + skew + 1}), "token_not_yet_valid");
        check(json!({"exp": (NOW - skew) as f64 + 0.5}), "ok");
    }
}

#[test]
fn an_unverified_token_is_reported_on_and_not_believed() {
    let (rsa, attacker) = (rsa(), Key::new(RS256, "attacker").with_kid("rsa-1"));
    let mut gate = Gate::new(&[&rsa], json!({}));
    let forged = attacker.sign(&claims_with(json!({"aud": "billing", "exp": 1})));
    gate.check(&forged, "signature_invalid token_expired audience_mismatch");
    let now = UnixTime::from_secs(NOW);
    let report = explain(&bearer(&forged), &gate.config, &gate.state, &Portable, now).report;
    assert_eq!((report.aud_token, report.aud_expected), (vec!["billing".to_owned()], vec!["orders".to_owned()]));
    assert_eq!(report.keys, ["rsa-1"]);
}

#[test]
fn size_and_form() {
    let rsa = rsa();
    let mut gate = Gate::new(&[&rsa], json!({"max_token_bytes": 1024}));
    let sized = |padding: usize| rsa.sign(&claims_with(json!({"pad": "x".repeat(padding)})));
    let padding = (1..1024).rev().find(|n| sized(*n).len() <= 1024).expect("a token that just fits");
    gate.check(&sized(padding), "ok");
    gate.check(&sized(padding + 3), "token_too_large");
    gate.check("a.b", "token_malformed");
    gate.check(&format!("{}.", rsa.sign(&claims())), "token_malformed");
    gate.check(&rsa.sign_bytes(br#"{"alg":"RS256","kid":"rsa-1"}"#, b"[]"), "token_malformed");
    gate.check(&rsa.sign_bytes(br#"{"alg":"RS256","alg":"RS256"}"#, b"{}"), "token_malformed");
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    gate.check(&rsa.sign_bytes(br#"{"alg":"RS256","kid":"rsa-1"}"#, deep.as_bytes()), "token_malformed");
    assert_eq!(gate.reasons(&request(&[])), "header_missing");
    assert_eq!(gate.reasons(&request(&[("authorization", "Basic YTpi")])), "header_missing");
    assert_eq!(
        gate.reasons(&request(&[("authorization", "Bearer a"), ("authorization", "Bearer b")])),
        "token_ambiguous"
    );
}

#[test]
fn bytes_of_any_kind_get_a_reason() {
    let mut gate = Gate::new(&[&rsa()], json!({}));
    for value in [
        b"Bearer \xff\xfe.\x80.\x00".to_vec(),
        b"Bearer \xc3\x28".to_vec(),
        [b"Bearer ".as_slice(), &b".".repeat(8000)].concat(),
        [b"Bearer ".as_slice(), &b"\x00".repeat(8000)].concat(),
    ] {
        let reasons = gate.reasons(&Request::new([("authorization", value)]));
        assert_eq!(reasons, "token_malformed");
    }
}

#[test]
fn an_accepted_token_annotates_the_request() {
    let rsa = rsa();
    let mut gate = Gate::new(
        &[&rsa],
        json!({"forward_payload_header": "X-Payload", "claim_to_headers": [
            {"header_name": "X-User", "claim_name": "sub"},
            {"header_name": "x-dept", "claim_name": "org.dept"},
            {"header_name": "x-level", "claim_name": "level"},
            {"header_name": "x-admin", "claim_name": "admin"},
            {"header_name": "x-roles", "claim_name": "roles"},
            {"header_name": "x-null", "claim_name": "null"},
            {"header_name": "x-empty", "claim_name": "empty"},
            {"header_name": "x-absent", "claim_name": "sub.nothing"},
            {"header_name": "x-bad", "claim_name": "bad"},
        ]}),
    );
    let token = rsa.sign_bytes(
        br#"{"alg":"RS256","kid":"rsa-1"}"#,
        format!(
            r#"{{"iss":"{ISSUER}","aud":"orders","exp":{},"sub":"alice","org":{{"dept":"ä"}},"level":9007199254740993,
            "admin":true,"roles":["a","b"],"null":null,"empty":"","bad":"a\r\nx-admin: true"}}"#,
            NOW + 60
        )
        .as_bytes(),
    );
    let spoofed = [("authorization", format!("Bearer {token}")), ("X-USER", "mallory".into()), ("x-bad", "1".into())];
    let spoofed: Vec<(&str, &str)> = spoofed.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let allow = gate.allows(&request(&spoofed));
    let credential = Credential { provider: "corp".to_owned(), kid: Some("rsa-1".to_owned()) };
    assert_eq!(allow.because, Because::Verified(vec![credential]));
    assert_eq!(allow.remove, ["x-user", "x-bad", "authorization"]);
    let payload = token.split('.').nth(1).expect("a token has a payload");
    let set: Vec<(&str, String)> =
        allow.set.iter().map(|(n, v)| (n.as_str(), String::from_utf8(v.clone()).expect("text"))).collect();
    assert_eq!(
        set,
        [
            ("x-payload", payload.to_owned()),
            ("x-user", "alice".to_owned()),
            ("x-dept", "ä".to_owned()),
            ("x-level", "9007199254740993".to_owned()),
            ("x-admin", "true".to_owned()),
            ("x-roles", "WyJhIiwiYiJd".to_owned()),
        ]
    );
    assert_eq!(allow.omitted, [("x-bad".to_owned(), "the claim holds control characters")]);
}

#[test]
fn the_token_stays_only_if_asked_to() {
    let rsa = rsa();
    let token = rsa.sign(&claims());
    let mut keep =
        Gate::new(&[&rsa], json!({"forward": true, "forward_payload_header": "p", "pad_forward_payload_header": true}));
    let allow = keep.allows(&bearer(&token));
    assert_eq!(allow.remove, Vec::<String>::new());
    let (_, value) = &allow.set[0];
    assert!(value.len() % 4 == 0, "padded to a multiple of four");
    assert_eq!(Gate::new(&[&rsa], json!({})).allows(&bearer(&token)).remove, ["authorization"]);
}

#[test]
fn a_claim_too_long_for_a_header_is_left_out() {
    let rsa = rsa();
    let settings = json!({"max_token_bytes": 65536, "claim_to_headers": [{"header_name": "x", "claim_name": "long"}]});
    let mut gate = Gate::new(&[&rsa], settings);
    let mut with = |bytes: usize| gate.allows(&bearer(&rsa.sign(&claims_with(json!({"long": "x".repeat(bytes)})))));
    assert_eq!(with(8192).omitted, []);
    assert_eq!(with(8193).omitted, [("x".to_owned(), "the claim is too long for a header")]);
    assert_eq!(with(8193).set, []);
}

#[test]
fn the_first_rule_that_matches_counts() {
    let rsa = rsa();
    let provider = json!({"issuer": ISSUER, "local_jwks": {"inline": key_set(&[&rsa])},
        "claim_to_headers": [{"header_name": "x-user", "claim_name": "sub"}]});
    let mut gate = Gate::of(json!({
        "providers": {"corp": provider},
        "rules": [
            {"match": {"path": "/healthz"}},
            {"match": {"prefix": "/public/"}},
            {"match": {"prefix": "/api"}, "requires": {"provider_name": "corp"}},
        ],
    }));
    let at = |path: &str| Request::new([(":path", path), ("x-user", "mallory")]);
    for (path, expected) in [
        ("/healthz", Some(Because::NoRequirement)),
        ("/healthz?x=/api", Some(Because::NoRequirement)),
        ("/healthz/", Some(Because::Unmatched)),
        ("/public/api", Some(Because::NoRequirement)),
        ("/publi", Some(Because::Unmatched)),
        ("/api", None),
        ("/api/v1?x=1", None),
        ("/apis", None),
        ("/API", Some(Because::Unmatched)),
        ("/other?/api", Some(Because::Unmatched)),
    ] {
        match (gate.decide(&at(path)), expected) {
            (Decision::Allow(allow), Some(because)) => {
                assert_eq!(allow.because, because, "{path}");
                assert_eq!(allow.remove, ["x-user"], "{path}: spoofed headers go on every path");
            }
            (Decision::Reject(rejection), None) => assert_eq!(rejection.reason(), Reason::HeaderMissing, "{path}"),
            (decision, _) => panic!("{path}: {decision:?}"),
        }
    }
}

#[test]
fn without_rules_one_of_the_providers_must_be_satisfied() {
    let (a, b) = (Key::new(ES256, "a"), Key::new(ES256, "b"));
    let provider = |issuer: &str, key: &Key, audience: &str| json!({"issuer": issuer, "audiences": [audience], "local_jwks": {"inline": key_set(&[key])}});
    let mut gate = Gate::of(json!({"providers": {
        "a": provider("https://a", &a, "x"), "a2": provider("https://a", &a, "y"), "b": provider("https://b", &b, "x")}}));
    let mut check = |key: &Key, changes: Value, expected: &str| gate.check(&key.sign(&claims_with(changes)), expected);
    check(&a, json!({"iss": "https://a", "aud": "x"}), "ok");
    check(&a, json!({"iss": "https://a", "aud": "y"}), "ok");
    check(&a, json!({"iss": "https://a", "aud": "z"}), "audience_mismatch");
    check(&b, json!({"iss": "https://b", "aud": "x"}), "ok");
    // A key of one issuer signs for no other.
    check(&b.clone().with_kid("a"), json!({"iss": "https://a", "aud": "x"}), "signature_invalid");
    check(&a, json!({"iss": "https://c", "aud": "x"}), "issuer_mismatch");
    assert_eq!(gate.reasons(&request(&[])), "header_missing");
    gate.check(&unsecured(&claims_with(json!({"iss": "https://c"}))), "algorithm_not_allowed issuer_mismatch");
}

#[test]
fn nobody_is_told_more_than_the_reason() {
    let rsa = rsa();
    let mut gate = Gate::new(&[&rsa], json!({}));
    let secret = "a-claim-that-nobody-shall-see";
    let hostile = claims_with(json!({"iss": secret, "aud": secret, "sub": secret, "jti": secret, "exp": 1}));
    let tokens = [rsa.sign(&hostile), tampered(&rsa.sign(&hostile)), unsecured(&hostile), format!("{secret}.x.y")];
    for token in tokens {
        let request = bearer(&token);
        let decision = gate.decide(&request);
        let Effects::Reply(reply) = reply(&request, &gate.config, decision.clone()) else { panic!("{decision:?}") };
        let shown = format!("{reply:?}");
        assert!(!shown.contains(secret), "{shown}");
        assert!(
            token.as_bytes().windows(16).all(|w| !shown.contains(std::str::from_utf8(w).expect("ASCII"))),
            "{shown}"
        );
    }
}
