//! Rules on claims, issuers, subjects, types and lifetimes, and claims that become headers.

use claimgate::{Decision, Reason};
use claimgate_testbed::{Algorithm::ES256, Key};
use serde_json::{Value, json};

use crate::gate::{Gate, ISSUER, NOW, bearer, claims_with};

fn key() -> Key {
    Key::new(ES256, "k")
}

#[track_caller]
fn check(settings: Value, changes: Value, expected: &str) {
    let token = key().sign(&claims_with(changes.clone()));
    let found = Gate::new(&[&key()], settings.clone()).reasons(&bearer(&token));
    assert_eq!(found, expected, "{settings} {changes}");
}

/// A rule on the claim `c`, held against each of these values.
#[track_caller]
fn rule(demand: Value, yes: &[Value], no: &[Value]) {
    let mut rule = json!({"claim_name": "c"});
    crate::gate::merge(&mut rule, demand);
    for (values, expected) in [(yes, "ok"), (no, "claim_mismatch")] {
        for value in values {
            check(json!({"claims": [rule]}), json!({"c": value}), expected);
        }
    }
}

#[test]
fn operators_and_shapes() {
    let absent = Value::Null;
    let object = json!({"a": "a"});
    let nested = json!([["a"]]);
    rule(
        json!({"any_of": ["a", 1, true]}),
        &[json!("a"), json!(1), json!(1.0), json!(true), json!(["x", "a"]), json!([1])],
        &[
            absent.clone(),
            json!("b"),
            json!("a b"),
            json!("1"),
            json!(false),
            json!([]),
            object.clone(),
            nested.clone(),
        ],
    );
    rule(
        json!({"all_of": ["a", "b"]}),
        &[json!(["b", "a", "c"])],
        &[absent.clone(), json!("a"), json!("a b"), json!(["a"]), object.clone(), nested.clone()],
    );
    rule(
        json!({"none_of": ["a", "b"]}),
        &[absent.clone(), json!("c"), json!(["c"]), json!([]), json!(1)],
        &[json!("a"), json!(["c", "b"]), object.clone(), nested],
    );
    rule(json!({"equals": "a"}), &[json!("a")], &[absent.clone(), json!(["a"]), json!("A"), object.clone()]);
    rule(json!({"equals": 1}), &[json!(1), json!(1.0)], &[json!("1"), json!(true)]);
    rule(json!({"equals": ["a", "b"]}), &[json!(["a", "b"])], &[json!(["b", "a"]), json!("a")]);
    rule(
        json!({"matches": "a+|b"}),
        &[json!("aa"), json!(["x", "b"])],
        &[absent.clone(), json!("ab"), json!(1), json!([1, "b"]), object.clone()],
    );
    rule(
        json!({"exists": true}),
        &[json!("a"), json!([]), json!(false), object.clone()],
        std::slice::from_ref(&absent),
    );
    rule(json!({"exists": false}), &[absent], &[json!(0), object]);
}

#[test]
fn scopes_are_lists_however_they_are_written() {
    for claim in ["scope", "scp", "permissions"] {
        let reason = if claim == "permissions" { "claim_mismatch" } else { "scope_insufficient" };
        let settings = |demand: Value| {
            let mut rule = json!({"claim_name": claim});
            crate::gate::merge(&mut rule, demand);
            json!({"claims": [rule]})
        };
        for value in [json!("read write"), json!(["read", "write"]), json!("write  read ")] {
            check(settings(json!({"all_of": ["read", "write"]})), json!({claim: value}), "ok");
            check(settings(json!({"any_of": ["admin", "read"]})), json!({claim: value}), "ok");
            check(settings(json!({"any_of": ["rea", "read write"]})), json!({claim: value}), reason);
            check(settings(json!({"none_of": ["read"]})), json!({claim: value}), reason);
        }
        check(settings(json!({"equals": "a b"})), json!({claim: ["a", "b"]}), "ok");
        check(settings(json!({"any_of": ["a"]})), json!({}), reason);
    }
}

#[test]
fn what_is_missing_from_the_scope_is_said() {
    let demand = |operator: &str| json!({"claims": [{"claim_name": "scope", operator: ["read", "write"]}]});
    for (operator, scope, expected) in [
        ("all_of", json!("read"), Some("write")),
        ("all_of", json!("x"), Some("read write")),
        ("any_of", json!("x"), Some("read write")),
        ("any_of", json!(null), Some("read write")),
        ("none_of", json!("read"), None),
    ] {
        let token = key().sign(&claims_with(json!({"scope": scope})));
        match Gate::new(&[&key()], demand(operator)).decide(&bearer(&token)) {
            Decision::Reject(rejection) => {
                assert_eq!(rejection.reason(), Reason::ScopeInsufficient);
                assert_eq!(rejection.violations[0].scope.as_deref(), expected, "{operator} {scope}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn claims_are_found_by_path() {
    let deep = json!({"realm_access": {"roles": ["admin"]}, "https://example.com/roles": ["ops"], "a.b": {"c": 1}});
    let path = |path: Value| json!({"claims": [{"claim_path": path, "any_of": ["admin", "ops", 1]}]});
    check(json!({"claims": [{"claim_name": "realm_access.roles", "any_of": ["admin"]}]}), deep.clone(), "ok");
    check(path(json!(["realm_access", "roles"])), deep.clone(), "ok");
    check(path(json!([{"key": "https://example.com/roles"}])), deep.clone(), "ok");
    check(path(json!(["a.b", {"key": "c"}])), deep.clone(), "ok");
    check(path(json!(["realm_access", "role"])), deep.clone(), "claim_mismatch");
    check(path(json!(["realm_access", "roles", "x"])), deep, "claim_mismatch");
}

#[test]
fn a_rule_may_demand_more_than_its_provider() {
    let key = key();
    let mut gate = Gate::of(json!({
        "providers": {"corp": {"issuer": ISSUER, "local_jwks": {"inline": claimgate_testbed::key_set(&[&key])}}},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "corp",
            "claims": [{"claim_name": "scope", "any_of": ["orders:read"]}]}}],
    }));
    assert_eq!(gate.reasons(&bearer(&key.sign(&claims_with(json!({"scope": "orders:read"}))))), "ok");
    assert_eq!(gate.reasons(&bearer(&key.sign(&claims_with(json!({"scope": "orders:write"}))))), "scope_insufficient");
    // A bad token is told so before what it may.
    let expired = key.sign(&claims_with(json!({"exp": 1})));
    assert_eq!(gate.reasons(&bearer(&expired)), "token_expired scope_insufficient");
}

#[test]
fn several_issuers_and_templates() {
    let settings = json!({"issuer": null, "issuers": [ISSUER, "https://login.example.com/{tid}/v2.0",
        {"issuer": "https://b/{t}", "values": ["x"]}]});
    for (iss, expected) in [
        (ISSUER, "ok"),
        ("https://login.example.com/9188040d/v2.0", "ok"),
        ("https://b/x", "ok"),
        ("https://b/y", "issuer_mismatch"),
        ("https://login.example.com//v2.0", "issuer_mismatch"),
        ("https://login.example.com/{tid}/v2.0", "issuer_mismatch"),
        ("https://login.example.com/a/b/v2.0", "issuer_mismatch"),
    ] {
        check(settings.clone(), json!({"iss": iss}), expected);
    }
}

#[test]
fn subjects() {
    let subject = |matcher: Value| json!({"subjects": matcher});
    check(subject(json!({"exact": "alice"})), json!({}), "ok");
    check(subject(json!({"prefix": "spiffe://prod/"})), json!({}), "subject_mismatch");
    check(subject(json!({"suffix": "ICE", "ignore_case": true})), json!({}), "ok");
    check(subject(json!({"contains": "lic"})), json!({}), "ok");
    check(subject(json!({"safe_regex": {"regex": "a.*"}})), json!({}), "ok");
    check(subject(json!({"safe_regex": {"regex": "a"}})), json!({}), "subject_mismatch");
    check(subject(json!({"prefix": ""})), json!({"sub": null}), "subject_mismatch");
}

#[test]
fn lifetimes() {
    check(json!({"require_expiration": false}), json!({"exp": null}), "ok");
    check(json!({"require_expiration": false}), json!({"exp": 1}), "token_expired");
    check(json!({"max_lifetime": "601s"}), json!({}), "ok");
    check(json!({"max_lifetime": "600s"}), json!({}), "lifetime_exceeded");
    check(json!({"max_lifetime": "600s", "require_expiration": false}), json!({"exp": null}), "lifetime_exceeded");
    check(json!({"max_age": "100s"}), json!({"iat": NOW - 160}), "ok");
    check(json!({"max_age": "100s"}), json!({"iat": NOW - 161}), "lifetime_exceeded");
    check(json!({"max_age": "100s"}), json!({"iat": null}), "lifetime_exceeded");
    check(json!({"max_age": "100s"}), json!({"iat": NOW + 61}), "token_not_yet_valid");
}

#[test]
fn token_types() {
    let key = key();
    let mut gate = Gate::new(&[&key], json!({"token_types": ["at+jwt", "application/x/y"]}));
    for (typ, expected) in [
        (json!("at+jwt"), "ok"),
        (json!("AT+JWT"), "ok"),
        (json!("application/at+jwt"), "ok"),
        (json!("application/X/y"), "ok"),
        (json!("x/y"), "type_not_allowed"),
        (json!("JWT"), "type_not_allowed"),
        (json!("application/application/at+jwt"), "type_not_allowed"),
        (Value::Null, "type_not_allowed"),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "k", "typ": typ});
        header.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        assert_eq!(gate.reasons(&bearer(&key.sign_with_header(&header, &claims_with(json!({}))))), expected, "{typ}");
    }
}

#[test]
fn claims_become_headers_without_losing_a_digit() {
    let key = key();
    let payload = format!(
        r#"{{"iss":"{ISSUER}","aud":"orders","exp":{},"big":123456789012345678901234567890,"frac":1.50,"neg":-7,
            "list":["a", 2, true],"comma":["a,b"],"deep":[["a"]],"obj":{{"k": [1e2]}},"empty":[]}}"#,
        NOW + 60
    );
    let token = key.sign_bytes(br#"{"alg":"ES256","kid":"k"}"#, payload.as_bytes());
    let header = |claim: &str, format: Value| json!({"header_name": "h", "claim_name": claim, "format": format});
    for (claim, format, expected) in [
        ("big", json!("json"), Ok("123456789012345678901234567890")),
        ("frac", json!("base64_json"), Ok("1.50")),
        ("neg", json!("comma"), Ok("-7")),
        ("list", json!("base64_json"), Ok("WyJhIiwyLHRydWVd")),
        ("list", json!("json"), Ok(r#"["a",2,true]"#)),
        ("list", json!("comma"), Ok("a,2,true")),
        ("empty", json!("comma"), Ok("")),
        ("obj", json!("json"), Ok(r#"{"k":[1e2]}"#)),
        ("obj", json!("comma"), Err("an object cannot be written as a list")),
        ("deep", json!("comma"), Err("an item cannot be written in a list with commas")),
        ("comma", json!("comma"), Err("an item cannot be written in a list with commas")),
    ] {
        let allow = Gate::new(&[&key], json!({"claim_to_headers": [header(claim, format)]})).allows(&bearer(&token));
        match expected {
            Ok(value) => assert_eq!(allow.set, [("h".to_owned(), value.as_bytes().to_vec())], "{claim}"),
            Err(why) => assert_eq!((allow.set, allow.omitted), (vec![], vec![("h".to_owned(), why)]), "{claim}"),
        }
    }
    let state =
        json!({"claim_to_filter_state": [{"key": "u", "claim_name": "iss"}, {"key": "l", "claim_name": "list"}]});
    let allow = Gate::new(&[&key], state).allows(&bearer(&token));
    let expected = [("u".to_owned(), ISSUER.to_owned()), ("l".to_owned(), r#"["a",2,true]"#.to_owned())];
    assert_eq!(allow.states, expected);
}
