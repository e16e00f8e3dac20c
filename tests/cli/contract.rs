//! `claimgate test`: cases that users keep beside their configuration.

use serde_json::{Value, json};

use crate::desk::{Desk, file};

/// A desk with a configuration, and a contract of one case.
fn contract(case: Value) -> Desk {
    let desk = Desk::new();
    let provider = json!({"issuer": "https://idp/", "audiences": ["orders"],
        "remote_jwks": {"http_uri": {"uri": "https://idp/jwks", "cluster": "idp"}},
        "claim_to_headers": [{"header_name": "x-user", "claim_name": "sub"}],
        "claim_to_filter_state": [{"key": "user", "claim_name": "sub"}]});
    desk.put("gate.json", &json!({"providers": {"corp": provider}}).to_string());
    let claims = json!({"iss": "https://idp/", "aud": "orders", "sub": "alice", "exp": "now+5m"});
    let contract = json!({"configuration": "gate.json", "keys": {"k1": {"alg": "EdDSA"}}, "key_sets": {"corp": ["k1"]},
        "tokens": {"good": {"key": "k1", "claims": claims}}, "cases": [case]});
    desk.put("contract.json", &contract.to_string());
    desk
}

const RUN: [&str; 2] = ["test", "contract.json"];

#[track_caller]
fn holds(case: Value) {
    assert!(contract(case).answer(&RUN, 0).ends_with("1 cases, all as expected\n"));
}

#[track_caller]
fn differs(case: Value, expected: &str) {
    let answer = contract(case).answer(&RUN, 1);
    let differences: Vec<&str> = answer.lines().map(str::trim).filter(|line| line.starts_with(['-', '+'])).collect();
    assert_eq!(differences.join("\n"), expected, "{answer}");
}

#[track_caller]
fn trouble(case: Value, expected: &str) {
    let trouble = contract(case).trouble(&RUN);
    assert!(trouble.starts_with("claimgate: contract.json: ") && trouble.contains(expected), "{trouble}");
}

#[test]
fn the_example_holds_and_covers_what_it_promises() {
    let desk = Desk::new();
    desk.put("gate.json", &file("examples/contract/gate.json"));
    desk.put("contract.yaml", &file("examples/contract/contract.yaml"));
    let answer = desk.answer(&["test", "contract.yaml"], 0);
    assert!(answer.ends_with("30 cases, all as expected\n"), "{answer}");
    let overlap = desk.answer(&["test", "--only", "overlap", "contract.yaml"], 0);
    assert!(overlap.ends_with("2 cases, all as expected\n"), "{overlap}");

    // A configuration that says something else is found out.
    desk.put(
        "gate.json",
        &file("examples/contract/gate.json").replace("\"clock_skew_seconds\": 30", "\"clock_skew_seconds\": 29"),
    );
    let answer = desk.answer(&["test", "--only", "29 seconds late", "contract.yaml"], 1);
    assert_eq!(
        answer,
        "\
FAIL  29 seconds late, within the skew
      - reason: ok
      + reason: token_expired
      token_expired: expired 29 s ago, 29 s allowed
1 cases, 1 is not as expected (- expected, + found)
"
    );
}

#[test]
fn what_can_be_expected() {
    holds(json!({"name": "n", "token": "good", "expect": {"outcome": "allow", "reason": "ok"}}));
    holds(
        json!({"name": "n", "token": "good", "expect": {"reason": "ok", "headers": {"X-User": "alice", "x-other": null},
        "removed": ["authorization"], "filter_state": {"user": "alice", "other": null}}}),
    );
    holds(
        json!({"name": "n", "token": {"like": "good", "claims": {"exp": null, "aud": "x"}}, "expect": {"status": 401,
        "outcome": "reject", "reasons": ["expiration_missing", "audience_mismatch"]}}),
    );
    differs(json!({"name": "n", "expect": {"outcome": "allow"}}), "- outcome: allow\n+ outcome: reject");
    differs(
        json!({"name": "n", "token": "good", "expect": {"reason": "token_expired", "status": 401}}),
        "- reason: token_expired\n+ reason: ok\n- status: 401\n+ status: none",
    );
    differs(
        json!({"name": "n", "expect": {"reason": "header_missing", "status": 403}}),
        "- status: 403\n+ status: 401",
    );
    differs(
        json!({"name": "n", "token": "good", "expect": {"reason": "ok", "headers": {"x-user": "bob", "x-a": "1"}}}),
        "- headers.x-a: 1\n+ headers.x-a: none\n- headers.x-user: bob\n+ headers.x-user: alice",
    );
    differs(
        json!({"name": "n", "token": "good", "expect": {"reason": "ok", "removed": ["cookie"]}}),
        "- removed.cookie: true\n+ removed.cookie: false",
    );
    differs(
        json!({"name": "n", "token": "good", "expect": {"reason": "ok", "filter_state": {"user": null}}}),
        "- filter_state.user: none\n+ filter_state.user: alice",
    );
    differs(
        json!({"name": "n", "token": {"like": "good", "claims": {"aud": "x", "iss": "x"}}, "expect":
        {"reason": "issuer_mismatch", "reasons": ["issuer_mismatch"]}}),
        "- reasons: issuer_mismatch\n+ reasons: issuer_mismatch, audience_mismatch",
    );
}

#[test]
fn what_can_be_asked() {
    let ok = json!({"reason": "ok"});
    let missing = json!({"reason": "header_missing"});
    holds(json!({"name": "n", "token": "good", "request": {"path": "/?access_token={token}"}, "expect": ok}));
    holds(json!({"name": "n", "token": "good", "request": {"headers": {"X-Token": "{token}"}}, "expect": missing}));
    holds(
        json!({"name": "n", "token": "good", "request": {"headers": {"authorization": ["Bearer {token}", "Bearer {token}"]}},
        "expect": {"reason": "token_ambiguous"}}),
    );
    holds(
        json!({"name": "n", "request": {"headers": {"authorization": "Bearer a.b"}}, "expect": {"reason": "token_malformed"}}),
    );
    holds(json!({"name": "n", "request": {"route": {"disabled": true}}, "expect": ok}));
    holds(json!({"name": "n", "request": {"route": {"requirement": "x"}}, "expect": {"reason": "claim_mismatch"}}));
    // The moment of a case moves its claims along; an absolute time stays.
    holds(json!({"name": "n", "at": "now+1h", "token": "good", "expect": ok}));
    let fixed = json!({"like": "good", "claims": {"exp": 1_800_000_000}});
    holds(json!({"name": "n", "token": fixed, "expect": ok}));
    holds(json!({"name": "n", "at": "now+60s", "token": fixed, "expect": {"reason": "token_expired"}}));
    holds(json!({"name": "n", "at": "2027-01-15T08:00:59Z", "token": fixed, "expect": ok}));
    holds(json!({"name": "n", "key_sets": {"corp": null}, "token": "good", "expect": {"reason": "jwks_unavailable"}}));
    holds(
        json!({"name": "n", "token": {"like": "good", "header": {"alg": "none"}}, "expect": {"reason": "algorithm_not_allowed"}}),
    );
    holds(
        json!({"name": "n", "token": {"like": "good", "header": {"crit": ["x"]}}, "expect": {"reason": "crit_unsupported"}}),
    );
}

#[test]
fn keys_may_be_given() {
    for alg in ["ES256", "RS256", "HS256"] {
        let desk = contract(json!({"name": "n", "token": "good", "expect": {"reason": "ok"}}));
        desk.answer(&["keygen", "--alg", alg, "--kid", "own", "--key", "k.json", "--jwks", "jwks.json"], 0);
        let change = |name: &str, change: &dyn Fn(&mut Value)| {
            let mut json: Value = serde_json::from_str(&desk.take(name)).expect("JSON");
            change(&mut json);
            desk.put(name, &json.to_string());
        };
        change("contract.json", &|contract| {
            contract["keys"]["k1"] = json!({"file": "k.json"});
            contract["key_sets"]["corp"] = json!({"file": "jwks.json"});
        });
        change("gate.json", &|gate| gate["providers"]["corp"]["algorithms"] = json!([alg]));
        desk.answer(&RUN, 0);
        // Keys in the configuration are replaced as those that are fetched.
        change("gate.json", &|gate| {
            let corp = gate["providers"]["corp"].as_object_mut().expect("a provider");
            corp.remove("remote_jwks");
            let inline = json!({"keys": [{"kty": "oct", "k": "0".repeat(43), "kid": "another"}]});
            corp.insert("local_jwks".to_owned(), json!({"inline": inline}));
        });
        desk.answer(&RUN, 0);
    }
}

#[test]
fn for_machines() {
    let desk = contract(
        json!({"name": "late", "token": {"like": "good", "claims": {"exp": "now-1h"}}, "expect": {"reason": "ok"}}),
    );
    let answer: Value =
        serde_json::from_str(&desk.answer(&["test", "--format", "json", "contract.json"], 1)).expect("JSON");
    assert_eq!(
        answer,
        json!({"cases": [{"name": "late", "as_expected": false, "why": ["token_expired: expired 3600 s ago, 60 s allowed"],
            "differences": [{"what": "reason", "expected": "ok", "found": "token_expired"}]}]})
    );
}

#[test]
fn cases_that_make_no_sense() {
    let expect = json!({"reason": "ok"});
    trouble(json!({"name": "n", "expect": {"reason": "token_expried"}}), "did you mean `token_expired`?");
    trouble(json!({"name": "n", "expect": {}}), "case `n`: `expect` has neither `outcome` nor `reason`");
    trouble(json!({"name": "n", "expect": {"outcome": "reject", "reason": "ok"}}), "`ok` is no reason to reject");
    trouble(json!({"name": "n", "expect": {"outcome": "allow", "reason": "token_expired"}}), "is no reason to allow");
    trouble(json!({"name": "n", "token": "god", "expect": expect}), "there is no token `god`, did you mean `good`?");
    trouble(json!({"name": "n", "token": {"key": "k2"}, "expect": expect}), "there is no key `k2`, did you mean `k1`?");
    trouble(json!({"name": "n", "key_sets": {"crop": null}, "expect": expect}), "did you mean `corp`?");
    trouble(json!({"name": "n", "key_sets": {"corp": []}, "expect": expect}), "no usable key in the set");
    trouble(json!({"name": "n", "at": "noon", "expect": expect}), "`noon`: seconds since 1970");
    trouble(json!({"name": "n", "token": {"claims": {"exp": "now+5x"}}, "expect": expect}), "`exp`: `now+5x`");
    trouble(json!({"name": "n", "tokn": "good", "expect": expect}), "unknown field `tokn`");
    let desk = contract(json!({"name": "n", "expect": expect}));
    assert!(desk.trouble(&["test", "--only", "m", "contract.json"]).contains("no case to run"));
    desk.put("gate.json", "{}");
    assert!(desk.trouble(&RUN).contains("gate.json: missing field `providers`"));
    desk.put("contract.json", r#"{"configuration": {"providers": {}}, "cases": []}"#);
    assert!(desk.trouble(&RUN).contains("configuration: providers: no provider"));
    let one = r#""claims": {}, "like""#;
    desk.put(
        "contract.json",
        &format!(
            r#"{{"configuration": "g.json", "tokens": {{"a": {{{one}: "b"}}, "b": {{{one}: "a"}}}},
        "cases": [{{"name": "n", "token": "a", "expect": {{"reason": "ok"}}}}]}}"#
        ),
    );
    desk.put("g.json", &contract(json!(null)).take("gate.json"));
    assert!(desk.trouble(&RUN).contains("more than 16 tokens start from each other"));
}
