//! Which requests need what: matching, requirements and their nesting, places of tokens, spoofed headers.

use claimgate::{Because, Decision, Reason, Request, RouteSetting};
use claimgate_testbed::{Algorithm::ES256, Key, key_set, tampered};
use serde_json::{Value, json};

use crate::gate::{Gate, NOW};

const A: &str = "https://a/";
const B: &str = "https://b/";

fn key(name: &str) -> Key {
    Key::new(ES256, name)
}

/// A token of issuer `a` or `b`, for the audience `x`.
fn token(name: &str) -> String {
    key(name).sign(&json!({"iss": format!("https://{name}/"), "aud": "x", "sub": name, "exp": NOW + 600}))
}

fn expired(name: &str) -> String {
    key(name).sign(&json!({"iss": format!("https://{name}/"), "aud": "x", "sub": name, "exp": 1}))
}

/// Two providers: `a` reads `Authorization` and sets `x-a`, `b` reads `x-b-token` and sets `x-b`.
fn providers() -> Value {
    let header = |name: &str| json!([{"header_name": name, "claim_name": "sub"}]);
    json!({
        "a": {"issuer": A, "audiences": ["x"], "local_jwks": {"inline": key_set(&[&key("a")])},
              "claim_to_headers": header("x-a")},
        "b": {"issuer": B, "audiences": ["x"], "local_jwks": {"inline": key_set(&[&key("b")])},
              "claim_to_headers": header("x-b"), "from_headers": [{"name": "x-b-token"}]},
    })
}

/// A gate in which each request has this requirement.
fn requiring(requirement: Value) -> Gate {
    Gate::of(json!({"providers": providers(), "rules": [{"match": {"prefix": "/"}, "requires": requirement}]}))
}

fn with(headers: &[(&str, &str)]) -> Request {
    Request::new([(":path", "/")].iter().chain(headers).map(|(n, v)| (*n, *v)))
}

/// A request with these tokens in the places where `a` and `b` look, and headers that nobody may bring along.
fn tokens(a: Option<&str>, b: Option<&str>) -> Request {
    let mut headers = vec![(":path", "/".to_owned()), ("X-A", "spoofed".to_owned()), ("x-b", "spoofed".to_owned())];
    headers.extend(a.map(|token| ("authorization", format!("Bearer {token}"))));
    headers.extend(b.map(|token| ("x-b-token", token.to_owned())));
    Request::new(headers)
}

/// What became of a request: the first reason, or the headers that were set.
fn outcome(gate: &mut Gate, request: &Request) -> String {
    match gate.decide(request) {
        Decision::Reject(rejection) => rejection.reason().to_string(),
        Decision::Await(_) => "await".to_owned(),
        Decision::Allow(allow) => {
            for spoofed in ["x-a", "x-b"] {
                assert_eq!(request.has(spoofed), allow.remove.iter().any(|name| name == spoofed), "{spoofed}");
            }
            let set = allow.set.iter().map(|(n, v)| format!("{n}={}", String::from_utf8_lossy(v)));
            format!("ok {}", set.collect::<Vec<_>>().join(" ")).trim_end().to_owned()
        }
    }
}

#[test]
fn requirements() {
    let (a, b, bad, old) = (token("a"), token("b"), tampered(&token("a")), expired("a"));
    let other = key("a").sign(&json!({"iss": "https://c/", "aud": "x", "exp": NOW + 600}));
    let elsewhere = key("a").sign(&json!({"iss": A, "aud": "z", "exp": NOW + 600}));
    let [a, b, bad, old, other, elsewhere] = [&a, &b, &bad, &old, &other, &elsewhere].map(|t| Some(t.as_str()));
    let name = |name: &str| json!({"provider_name": name});
    let any = |list: Value| json!({"requires_any": {"requirements": list}});
    let all = |list: Value| json!({"requires_all": {"requirements": list}});
    let (missing, failed) = (json!({"allow_missing": {}}), json!({"allow_missing_or_failed": {}}));
    let extract = json!({"extract_only_without_validation": {}});

    for (requirement, cases) in [
        (json!({}), vec![(None, None, "ok"), (bad, None, "ok")]),
        (name("a"), vec![(a, None, "ok x-a=a"), (None, b, "header_missing"), (bad, None, "signature_invalid")]),
        (
            json!({"provider_and_audiences": {"provider_name": "a", "audiences": ["y"]}}),
            vec![(a, None, "audience_mismatch")],
        ),
        (
            json!({"provider_and_audiences": {"provider_name": "a", "audiences": []}}),
            vec![(a, None, "ok x-a=a"), (elsewhere, None, "audience_mismatch")],
        ),
        (
            any(json!([name("a"), name("b")])),
            vec![
                (a, None, "ok x-a=a"),
                (None, b, "ok x-b=b"),
                (bad, b, "ok x-b=b"),
                (a, b, "ok x-a=a"),
                (None, None, "header_missing"),
                (bad, None, "signature_invalid"),
                (old, None, "token_expired"),
                (other, None, "issuer_mismatch"),
                (None, a, "issuer_mismatch"),
            ],
        ),
        (
            all(json!([name("a"), name("b")])),
            vec![
                (a, b, "ok x-a=a x-b=b"),
                (a, None, "header_missing"),
                (bad, b, "signature_invalid"),
                (None, None, "header_missing"),
            ],
        ),
        (
            missing.clone(),
            vec![
                (None, None, "ok"),
                (a, None, "ok x-a=a"),
                (None, b, "ok x-b=b"),
                (bad, None, "signature_invalid"),
                (other, None, "issuer_mismatch"),
                (bad, b, "token_ambiguous"),
            ],
        ),
        (
            failed.clone(),
            vec![
                (bad, b, "ok"),
                (None, None, "ok"),
                (a, None, "ok x-a=a"),
                (bad, None, "ok"),
                (other, None, "ok"),
                (old, None, "ok"),
            ],
        ),
        (
            extract,
            vec![
                (None, None, "ok"),
                (a, None, "ok x-a=a"),
                (bad, None, "ok x-jwt-signature-verified=false"),
                (other, None, "ok x-jwt-signature-verified=false"),
            ],
        ),
        (
            any(json!([name("a"), missing])),
            vec![(None, None, "ok"), (a, None, "ok x-a=a"), (bad, None, "signature_invalid"), (None, b, "ok")],
        ),
        (
            any(json!([missing, missing])),
            vec![(None, None, "ok"), (a, None, "ok x-a=a"), (bad, None, "signature_invalid")],
        ),
        (any(json!([missing, failed])), vec![(None, None, "ok"), (None, b, "ok x-b=b"), (bad, None, "ok")]),
        (any(json!([name("a"), failed])), vec![(None, None, "ok"), (a, None, "ok x-a=a"), (bad, None, "ok")]),
        (
            any(json!([all(json!([name("a"), name("b")])), name("b")])),
            vec![(a, b, "ok x-a=a x-b=b"), (None, b, "ok x-b=b"), (a, None, "header_missing")],
        ),
        (
            all(json!([missing, name("b")])),
            vec![
                (None, b, "ok x-b=b"),
                (a, b, "token_ambiguous"),
                (a, None, "header_missing"),
                (bad, b, "token_ambiguous"),
            ],
        ),
    ] {
        let mut gate = requiring(requirement.clone());
        for (a, b, expected) in cases {
            assert_eq!(outcome(&mut gate, &tokens(a, b)), expected, "{requirement} a: {a:?} b: {b:?}");
        }
    }
}

#[test]
fn a_provider_that_names_the_issuer_speaks_for_it() {
    let mut providers = providers();
    // Takes tokens of any issuer and for any audience, if `a` or `c` has signed them.
    let anyone = json!({"local_jwks": {"inline": key_set(&[&key("a"), &key("c")])},
                        "claim_to_headers": [{"header_name": "x-b", "claim_name": "sub"}]});
    providers["anyone"] = anyone;
    let elsewhere =
        |iss: &str, name: &str| key(name).sign(&json!({"iss": iss, "aud": "z", "sub": "s", "exp": NOW + 600}));
    for requirement in [json!({"allow_missing": {}}), json!(null)] {
        let rule = json!([{"match": {"prefix": "/"}, "requires": requirement}]);
        let mut gate = match requirement.is_null() {
            true => Gate::of(json!({"providers": providers})),
            false => Gate::of(json!({"providers": providers, "rules": rule})),
        };
        let mut check = |token: &str, expected: &str| {
            assert_eq!(outcome(&mut gate, &tokens(Some(token), None)), expected, "{requirement}");
        };
        check(&token("a"), "ok x-a=a");
        check(&elsewhere(A, "a"), "audience_mismatch");
        check(&elsewhere("https://c/", "c"), "ok x-b=s");
        // `b` does not look there, so that it is no token of `b`.
        check(&elsewhere(B, "c"), "ok x-b=s");
    }
}

#[test]
fn a_token_that_nobody_issued_costs_no_signature_in_a_group() {
    let (other, decoy) = (key("a").sign(&json!({"iss": "https://c/", "exp": 1})), tampered(&token("a")));
    let mut gate = requiring(json!({"allow_missing": {}}));
    assert_eq!(gate.reasons(&tokens(Some(&other), None)), "issuer_mismatch");
    assert_eq!(gate.reasons(&tokens(Some(&decoy), None)), "signature_invalid");
}

#[test]
fn named_requirements_serve_rules_and_routes() {
    let mut gate = Gate::of(json!({
        "providers": providers(),
        "requirement_map": {"b": {"provider_name": "b"}, "nothing": {}},
        "rules": [{"match": {"path": "/b"}, "requirement_name": "b"},
                  {"match": {"prefix": "/"}, "requires": {"provider_name": "a"}}],
    }));
    let b = token("b");
    let at = |path: &str| Request::new([(":path", path), ("x-b-token", &b), ("x-a", "spoofed")]);
    assert_eq!(outcome(&mut gate, &at("/b")), "ok x-b=b");
    assert_eq!(outcome(&mut gate, &at("/")), "header_missing");
    let on = |setting| at("/").on_route(setting);
    assert_eq!(outcome(&mut gate, &on(RouteSetting::Requirement("b".into()))), "ok x-b=b");
    assert_eq!(outcome(&mut gate, &on(RouteSetting::Requirement("nothing".into()))), "ok");
    assert_eq!(outcome(&mut gate, &on(RouteSetting::Requirement("none".into()))), "claim_mismatch");
    assert_eq!(outcome(&mut gate, &on(RouteSetting::Disabled)), "ok");
}

#[test]
fn what_no_rule_matches() {
    let rules = json!([{"match": {"path": "/b"}, "requires": {"provider_name": "b"}}]);
    let gate = |unmatched: Value| Gate::of(json!({"providers": providers(), "rules": rules, "unmatched": unmatched}));
    let a = token("a");
    assert_eq!(outcome(&mut gate(json!("allow")), &tokens(None, None)), "ok");
    assert_eq!(gate(json!("allow")).allows(&tokens(Some(&a), None)).because, Because::Unmatched);
    assert_eq!(outcome(&mut gate(json!("deny")), &tokens(None, None)), "header_missing");
    assert_eq!(outcome(&mut gate(json!("deny")), &tokens(Some(&a), None)), "ok x-a=a");
    // No rule at all is not the same as an empty list of them.
    let mut none = Gate::of(json!({"providers": providers()}));
    assert_eq!(outcome(&mut none, &tokens(None, None)), "header_missing");
    let mut empty = Gate::of(json!({"providers": providers(), "rules": []}));
    assert_eq!(outcome(&mut empty, &tokens(None, None)), "ok");
}

#[test]
fn a_preflight_passes_if_asked_to() {
    let preflight = |method: &str, headers: &[(&str, &str)]| {
        Request::new(
            [(":path", "/"), (":method", method), ("x-a", "spoofed")].iter().chain(headers).map(|(n, v)| (*n, *v)),
        )
    };
    let cors = [("Origin", "https://shop"), ("Access-Control-Request-Method", "GET")];
    let gate = |bypass: bool| Gate::of(json!({"providers": providers(), "bypass_cors_preflight": bypass}));
    let allow = gate(true).allows(&preflight("OPTIONS", &cors));
    assert_eq!((allow.because, allow.remove), (Because::Preflight, vec!["x-a".to_owned()]));
    for (method, headers) in
        [("GET", cors.as_slice()), ("OPTIONS", &cors[..1]), ("OPTIONS", &[("origin", ""), cors[1]]), ("OPTIONS", &[])]
    {
        assert_eq!(gate(true).reasons(&preflight(method, headers)), "header_missing", "{method} {headers:?}");
    }
    assert_eq!(gate(false).reasons(&preflight("OPTIONS", &cors)), "header_missing");
}

#[test]
fn rules_match() {
    #[track_caller]
    fn check(matcher: Value, yes: &[&str], no: &[&str]) {
        let mut gate = Gate::of(json!({"providers": providers(),
            "rules": [{"match": matcher, "requires": {"provider_name": "a"}}]}));
        for (targets, expected) in [(yes, "header_missing"), (no, "ok")] {
            for target in targets {
                let (method, path) = target.split_once(' ').unwrap_or(("GET", target));
                let request =
                    Request::new([(":method", method), (":path", path), (":authority", "shop:80"), ("x-n", "5")]);
                assert_eq!(outcome(&mut gate, &request), expected, "{matcher} {target}");
            }
        }
    }
    check(json!({"prefix": "/a"}), &["/a", "/ab?x", "/a/b"], &["/", "/A", "/?/a", "/#/a"]);
    check(json!({"prefix": "/Ab", "case_sensitive": false}), &["/aB", "/ABC"], &["/b"]);
    check(json!({"path": "/a"}), &["/a", "/a?x", "/a#b"], &["/a/", "/ab", "/A"]);
    check(json!({"path": "/a", "case_sensitive": false}), &["/A"], &["/ab"]);
    check(json!({"safe_regex": {"google_re2": {}, "regex": "/a[0-9]+"}}), &["/a1?x"], &["/a", "/a1/", "/xa1"]);
    check(json!({"path_separated_prefix": "/a"}), &["/a", "/a/b", "/a?x"], &["/ab", "/"]);
    check(json!({"path_separated_prefix": "/a", "case_sensitive": false}), &["/A/b"], &["/Ab"]);
    check(json!({"connect_matcher": {}}), &["CONNECT /", "CONNECT "], &["GET /"]);
    let header = |header: Value| json!({"prefix": "/", "headers": [header]});
    check(header(json!({"name": ":method", "string_match": {"exact": "POST"}})), &["POST /"], &["GET /"]);
    check(header(json!({"name": "Host", "string_match": {"prefix": "SHOP", "ignore_case": true}})), &["/"], &[]);
    check(header(json!({"name": "X-N", "range_match": {"start": 5, "end": 6}})), &["/"], &[]);
    check(header(json!({"name": "x-n", "range_match": {"end": 5}})), &[], &["/"]);
    check(header(json!({"name": "x-none", "present_match": false})), &["/"], &[]);
    check(header(json!({"name": "x-n"})), &["/"], &[]);
    check(header(json!({"name": "x-n", "exact_match": "5", "invert_match": true})), &[], &["/"]);
    check(header(json!({"name": "x-no", "exact_match": "5", "invert_match": true})), &[], &["/"]);
    let missing =
        json!({"name": "x-no", "exact_match": "5", "invert_match": true, "treat_missing_header_as_empty": true});
    check(header(missing), &["/"], &[]);
    let query = |query: Value| json!({"prefix": "/", "query_parameters": [query]});
    check(query(json!({"name": "q"})), &["/?q", "/?a&q=1"], &["/", "/?a=q"]);
    check(query(json!({"name": "q", "present_match": false})), &["/"], &["/?q"]);
    check(query(json!({"name": "q", "string_match": {"suffix": "z"}})), &["/?q=yz&q=a"], &["/?q=a&q=z", "/"]);
}

#[test]
fn names_that_an_upstream_may_confuse_are_removed_too() {
    let mut gate = Gate::of(json!({"providers": {"a": {"local_jwks": {"inline": key_set(&[&key("a")])},
        "claim_to_headers": [{"header_name": "X-User-Id", "claim_name": "sub"}]}}, "rules": []}));
    let request = Request::new([
        ("x-user-id", "1"),
        ("X-USER-ID", "2"),
        ("X_User_Id", "3"),
        ("x-user_id", "4"),
        ("x-user%2did", "5"),
        ("x-userid", "6"),
        ("x-user-id2", "7"),
    ]);
    assert_eq!(gate.allows(&request).remove, ["x-user-id", "x_user_id", "x-user_id"]);
}

#[test]
fn a_token_is_cut_out_wherever_it_was() {
    let token = token("a");
    let gate = |forward: bool| {
        Gate::of(json!({"providers": {"a": {"issuer": A, "local_jwks": {"inline": key_set(&[&key("a")])},
            "forward": forward, "from_headers": [{"name": "X-Jwt", "value_prefix": "Token "}],
            "from_params": ["t"], "from_cookies": ["session"]}}}))
    };
    let places = [
        vec![(":path", "/".to_owned()), ("x-jwt", format!("Token {token}"))],
        vec![(":path", format!("/a?x=%20&t={token}&y"))],
        vec![(":path", "/".to_owned()), ("cookie", format!("a=1; session={token}; b=2"))],
        vec![(":path", "/".to_owned()), ("cookie", format!("session={token}"))],
    ];
    type Edits = (Vec<&'static str>, Vec<(&'static str, &'static str)>);
    let expected: [Edits; 4] = [
        (vec!["x-jwt"], vec![]),
        (vec![], vec![(":path", "/a?x=%20&y")]),
        (vec!["cookie"], vec![("cookie", "a=1; b=2")]),
        (vec!["cookie"], vec![]),
    ];
    for (headers, (remove, set)) in places.into_iter().zip(expected) {
        let allow = gate(false).allows(&Request::new(headers.clone()));
        assert_eq!(allow.remove, remove);
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("text");
        let found: Vec<(&str, String)> = allow.set.iter().map(|(n, v)| (n.as_str(), text(v))).collect();
        assert_eq!(found, set.into_iter().map(|(n, v)| (n, v.to_owned())).collect::<Vec<_>>());
        let kept = gate(true).allows(&Request::new(headers));
        assert_eq!((kept.remove, kept.set), (vec![], vec![]));
    }
}

#[test]
fn tokens_are_looked_for_where_configured_and_nowhere_else() {
    let token = token("a");
    let mut default = Gate::of(json!({"providers": {"a": providers()["a"]}}));
    let query = format!("/?access_token={token}");
    assert_eq!(outcome(&mut default, &with(&[(":path", "/")])), "header_missing");
    assert_eq!(outcome(&mut default, &Request::new([(":path", query.as_str())])), "ok :path=/ x-a=a");
    let both = Request::new([(":path", query), ("authorization", format!("Bearer {token}"))]);
    assert_eq!(outcome(&mut default, &both), "token_ambiguous");
    let mut header = requiring(json!({"provider_name": "b"}));
    assert_eq!(outcome(&mut header, &with(&[("authorization", &format!("Bearer {token}"))])), "header_missing");
    match header.decide(&with(&[])) {
        Decision::Reject(rejection) => {
            assert_eq!(rejection.reason(), Reason::HeaderMissing);
            assert_eq!(rejection.detail(), "the request holds no token in any of the places configured");
        }
        other => panic!("{other:?}"),
    }
}
