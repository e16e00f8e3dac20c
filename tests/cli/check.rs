//! `claimgate check`: what a configuration allows and seldom means.

use std::collections::{BTreeMap, BTreeSet};

use claimgate_testbed::{Algorithm, Key, key_set};
use serde_json::{Value, json};

use crate::desk::{Desk, file};

/// A provider that nothing is to be said against, with some members changed.
fn provider(changes: Value) -> Value {
    let mut provider = json!({"issuer": "https://idp.example.com/", "audiences": ["orders"], "remote_jwks":
        {"http_uri": {"uri": "https://idp.example.com/jwks", "cluster": "idp"}}});
    merge(&mut provider, changes);
    provider
}

/// A configuration of one such provider, with some members changed.
fn configuration(changes: Value) -> Value {
    let mut configuration = json!({"providers": {"corp": provider(json!({}))}});
    merge(&mut configuration, changes);
    configuration
}

fn merge(members: &mut Value, changes: Value) {
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(members.as_object_mut().expect("an object").remove(name)),
            value => members[name] = value.clone(),
        }
    }
}

/// A rule for everything, behind others.
fn rules(first: Value) -> Value {
    json!({"rules": [first, {"match": {"prefix": "/"}, "requires": {"provider_name": "corp"}}]})
}

/// What is warned of: by rule, the paths.
#[track_caller]
fn warnings(configuration: &Value) -> Vec<(String, String)> {
    let desk = Desk::new();
    desk.put("gate.json", &configuration.to_string());
    let output = desk.run(&["check", "--format", "json", "gate.json"], "");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["error"], Value::Null, "{configuration}");
    let warnings = answer["warnings"].as_array().expect("a list");
    assert_eq!(output.status.code(), Some(i32::from(!warnings.is_empty())), "{answer}");
    let text = |warning: &Value, name: &str| warning[name].as_str().expect("a string").to_owned();
    warnings.iter().map(|warning| (text(warning, "rule"), text(warning, "path"))).collect()
}

#[track_caller]
fn warns(seen: &mut BTreeSet<String>, configuration: Value, rule: &str, path: &str) {
    assert_eq!(warnings(&configuration), [(rule.to_owned(), path.to_owned())], "{configuration}");
    seen.insert(rule.to_owned());
}

#[test]
fn each_rule_warns_of_its_own() {
    let mut seen = BTreeSet::new();
    let mut one = |changes, rule: &str, field: &str| {
        let configuration = configuration(json!({"providers": {"corp": provider(changes)}}));
        warns(&mut seen, configuration, rule, &format!("providers.corp.{field}"));
    };
    one(json!({"issuer": null}), "issuer-unchecked", "issuer");
    let issuers = json!(["https://a.example/{tenant}/", {"issuer": "https://b.example/{tenant}/", "values": ["x"]}]);
    one(json!({"issuer": null, "issuers": issuers}), "issuer-open", "issuers[0]");
    one(json!({"audiences": []}), "audience-unchecked", "audiences");
    one(json!({"algorithms": ["HS256"]}), "shared-secret", "algorithms");
    one(json!({"require_expiration": false}), "no-expiration", "require_expiration");
    one(json!({"clock_skew_seconds": 121}), "long-clock-skew", "clock_skew_seconds");
    one(json!({"max_token_bytes": 16385}), "large-tokens", "max_token_bytes");
    one(json!({"from_params": ["token"]}), "token-in-query", "from_params");
    let http = json!({"http_uri": {"uri": "http://idp/jwks", "cluster": "idp"}});
    one(json!({"remote_jwks": http}), "keys-over-http", "remote_jwks.http_uri.uri");
    let stale = json!({"http_uri": {"uri": "https://idp/jwks", "cluster": "idp"}, "stale_for": "86401s"});
    one(json!({"remote_jwks": stale}), "long-stale", "remote_jwks.stale_for");
    let mut keys = key_set(&[&Key::new(Algorithm::ES256, "k1")]);
    keys["keys"].as_array_mut().expect("a list").push(json!({"kty": "EC", "crv": "P-192"}));
    one(json!({"remote_jwks": null, "local_jwks": {"inline": keys}}), "skipped-key", "local_jwks keys[1]");
    let mut private = key_set(&[&Key::new(Algorithm::ES256, "k1")]);
    private["keys"][0]["d"] = "AA".into();
    let inline = json!({"inline_string": private.to_string()});
    one(json!({"remote_jwks": null, "local_jwks": inline}), "private-key", "local_jwks keys[0]");
    let headers =
        json!([{"header_name": "x-user", "claim_name": "sub"}, {"header_name": "X-User", "claim_name": "name"}]);
    one(json!({"claim_to_headers": headers}), "same-header", "claim_to_headers[1].header_name");

    let mut whole = |changes, rule: &str, path: &str| warns(&mut seen, configuration(changes), rule, path);
    let two = json!({"corp": provider(json!({})), "other": provider(json!({}))});
    let mut unused = rules(json!({"match": {"path": "/healthz"}}));
    unused["providers"] = two;
    whole(unused, "unused-provider", "providers.other");
    let mut unused = rules(json!({"match": {"path": "/healthz"}}));
    unused["requirement_map"] = json!({"any": {"provider_name": "corp"}});
    whole(unused, "unused-requirement", "requirement_map.any");
    let last = json!({"match": {"path": "/admin"}, "requires": {"provider_name": "corp"}});
    let all = json!({"match": {"prefix": "/"}, "requires": {"provider_name": "corp"}});
    whole(json!({"rules": [all, last]}), "shadowed-rule", "rules[1]");
    whole(rules(json!({"match": {"prefix": "/public"}})), "open-prefix", "rules[0]");
    let only = json!([{"match": {"prefix": "/api"}, "requires": {"provider_name": "corp"}}]);
    whole(json!({"rules": only}), "open-unmatched", "unmatched");
    let missing = json!({"match": {"prefix": "/x"}, "requires": {"allow_missing": {}}});
    whole(rules(missing), "missing-passes", "rules[0].requires");
    let failed = json!({"requirements": [{"provider_name": "corp"}, {"allow_missing_or_failed": {}}]});
    let failed = json!({"match": {"prefix": "/x"}, "requires": {"requires_any": failed}});
    whole(rules(failed), "failed-passes", "rules[0].requires");
    whole(json!({"error_format": "none"}), "silent-refusal", "error_format");
    whole(json!({"strip_failure_response": true}), "silent-refusal", "strip_failure_response");
    whole(json!({"status_path": "/keys"}), "public-status", "status_path");
    whole(json!({"mode": "shadow"}), "shadow-mode", "mode");
    let shadow = json!({"match": {"prefix": "/x"}, "requires": {"provider_name": "corp"}, "mode": "shadow"});
    whole(rules(shadow), "shadow-mode", "rules[0]");

    assert_eq!(seen, documented().into_keys().collect::<BTreeSet<_>>(), "each rule that there is was tried");
}

/// The rules that `--help` lists, with what it says of them.
fn documented() -> BTreeMap<String, String> {
    let help = Desk::new().answer(&["check", "--help"], 0);
    let rules = help.lines().skip_while(|line| !line.contains("--allow")).take_while(|line| !line.contains("--format"));
    let rule =
        |line: &str| line.trim().strip_prefix("- ")?.split_once(':').map(|(a, b)| (a.to_owned(), b.trim().to_owned()));
    rules.filter_map(rule).collect()
}

#[test]
fn the_readme_names_each_rule() {
    let readme = file("README.md");
    let lines = readme.lines().skip_while(|line| !line.starts_with("| rule |")).skip(2);
    let rows: Vec<&str> = lines.take_while(|line| line.starts_with("| `")).collect();
    let expected: BTreeSet<String> =
        documented().into_iter().map(|(rule, help)| format!("| `{rule}` | {help} |")).collect();
    assert!(expected.len() > 20, "{expected:?}");
    assert_eq!(rows.iter().map(|row| (*row).to_owned()).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn what_is_not_warned_of() {
    let quiet = |configuration: Value| assert_eq!(warnings(&configuration), [], "{configuration}");
    quiet(configuration(json!({})));
    quiet(configuration(rules(json!({"match": {"path": "/healthz"}}))));
    quiet(configuration(
        json!({"providers": {"corp": provider(json!({"require_expiration": false, "max_age": "60s"}))}}),
    ));
    let elsewhere = json!({"provider_and_audiences": {"provider_name": "corp", "audiences": ["orders"]}});
    quiet(configuration(json!({"providers": {"corp": provider(json!({"audiences": []}))},
        "rules": [{"match": {"prefix": "/"}, "requires": elsewhere}]})));
    let requires = json!({"provider_name": "corp"});
    let shadow = |first: Value, second: Value| {
        quiet(configuration(json!({"unmatched": "deny", "rules": [{"match": first, "requires": requires},
            {"match": second, "requires": requires}]})));
    };
    shadow(json!({"path_separated_prefix": "/a"}), json!({"prefix": "/a"}));
    shadow(json!({"path_separated_prefix": "/a"}), json!({"prefix": "/ab"}));
    shadow(json!({"prefix": "/a", "headers": [{"name": "x"}]}), json!({"prefix": "/a"}));
    shadow(json!({"prefix": "/a", "case_sensitive": false}), json!({"prefix": "/b"}));
    shadow(json!({"path": "/a"}), json!({"prefix": "/a"}));
    shadow(json!({"safe_regex": {"regex": "/a.*"}}), json!({"prefix": "/a"}));
    shadow(json!({"prefix": "/"}), json!({"connect_matcher": {}}));
}

#[test]
fn what_a_rule_covers() {
    let requires = json!({"provider_name": "corp"});
    for (first, second) in [
        (json!({"prefix": "/a"}), json!({"path_separated_prefix": "/a"})),
        (json!({"prefix": "/a"}), json!({"prefix": "/ab", "headers": [{"name": "x"}]})),
        (json!({"prefix": "/"}), json!({"safe_regex": {"regex": "/a"}})),
        (json!({"path_separated_prefix": "/a"}), json!({"path": "/a"})),
        (json!({"path_separated_prefix": "/a"}), json!({"prefix": "/a/"})),
        (json!({"path": "/a"}), json!({"path": "/a"})),
    ] {
        let configuration = configuration(json!({"unmatched": "deny", "rules": [
            {"match": first, "requires": requires}, {"match": second, "requires": requires}]}));
        let shadowed = ("shadowed-rule".to_owned(), "rules[1]".to_owned());
        assert_eq!(warnings(&configuration), [shadowed], "{configuration}");
    }
}

#[test]
fn for_people_and_silenced_one_by_one() {
    let desk = Desk::new();
    let changes = json!({"providers": {"corp": provider(json!({"audiences": [], "clock_skew_seconds": 300}))}});
    desk.put("gate.json", &configuration(changes).to_string());
    assert_eq!(
        desk.answer(&["check", "gate.json"], 1),
        "\
gate.json: providers.corp.audiences: a token that was issued for another service passes [audience-unchecked]
    cure: name this service in `audiences`
gate.json: providers.corp.clock_skew_seconds: a token passes for 300 s after its end [long-clock-skew]
    cure: keep clocks in step and set `clock_skew_seconds` to 120 at most
gate.json: 2 warnings
"
    );
    let one = desk.answer(&["check", "--allow", "audience-unchecked", "gate.json"], 1);
    assert!(one.ends_with("gate.json: 1 warning\n") && !one.contains("audience-unchecked"), "{one}");
    let none = desk.answer(&["check", "--allow", "audience-unchecked", "--allow", "long-clock-skew", "gate.json"], 0);
    assert_eq!(none, "gate.json: no warnings\n");
    assert!(desk.trouble(&["check", "--allow", "audience", "gate.json"]).contains("invalid value 'audience'"));
}

#[test]
fn a_configuration_that_the_gate_refuses() {
    let desk = Desk::new();
    desk.put("gate.json", r#"{"providers": {"corp": {"isuer": "https://idp.example.com/"}}}"#);
    let expected = "providers.corp.isuer: unknown field `isuer`, did you mean `issuer`?";
    assert_eq!(desk.trouble(&["check", "gate.json"]), format!("claimgate: gate.json: {expected}\n"));
    let answer: Value =
        serde_json::from_str(&desk.answer(&["check", "--format", "json", "gate.json"], 2)).expect("JSON");
    assert_eq!(answer, json!({"file": "gate.json", "error": expected, "warnings": []}));
    desk.put("gate.yaml", "providers:\n  corp:\n    issuer: https://idp.example.com/\n");
    let trouble = desk.trouble(&["check", "gate.yaml"]);
    assert!(trouble.contains("the configuration is not JSON") && trouble.contains("YAML file"), "{trouble}");
    assert!(desk.trouble(&["check", "none.json"]).contains("none.json: No such file"));
}
