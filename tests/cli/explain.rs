//! `claimgate explain`: the same decision as the gate's, told on the command line, with its exit status.

use std::path::Path;
use std::process::Command;

use claimgate_testbed::{Algorithm, Key, key_set};
use serde_json::{Value, json};

use crate::desk::{Desk, file, text};

const AT: &str = "2027-01-15T08:00:00Z";
const NOW: u64 = 1_800_000_000;

const EXPLAIN: [&str; 5] = ["explain", "--config", "config.json", "--at", AT];
const WITH_KEYS: [&str; 4] = ["--jwks", "corp=jwks.json", "--token-file", "-"];

/// A desk with a configuration and a key set, and the key.
fn desk() -> (Desk, Key) {
    let (desk, key) = (Desk::new(), Key::new(Algorithm::ES256, "k1"));
    configure(&desk, &json!({}), &json!({}));
    desk.put("jwks.json", &key_set(&[&key]).to_string());
    (desk, key)
}

/// Writes the configuration, with more members in the provider and beside it.
fn configure(desk: &Desk, provider: &Value, beside: &Value) {
    let mut corp = json!({"issuer": "https://auth.example.com", "audiences": ["web-prod"], "algorithms": ["ES256", "RS256"],
        "remote_jwks": {"http_uri": {"uri": "https://auth.example.com/jwks", "cluster": "idp"}}});
    let merge = |members: &mut Value, more: &Value| {
        let more = more.as_object().expect("an object").clone();
        members.as_object_mut().expect("an object").extend(more);
    };
    merge(&mut corp, provider);
    let mut configuration = json!({"providers": {"corp": corp}});
    merge(&mut configuration, beside);
    desk.put("config.json", &configuration.to_string());
}

fn claims(iss: &str, aud: &str) -> Value {
    json!({"iss": iss, "aud": aud, "iat": NOW - 60, "exp": NOW + 600, "sub": "alice"})
}

fn good() -> Value {
    claims("https://auth.example.com", "web-prod")
}

/// The story that the README tells: its command, run where it says, prints what it says.
#[test]
fn the_readme_shows_what_is_printed() {
    let readme = file("README.md");
    let mut shown = 0;
    for block in readme.split("\n```console\n$ claimgate ").skip(1) {
        let (command, rest) = block.split_once('\n').expect("a command");
        let expected = rest.split("\n```").next().expect("its output");
        let output = Command::new(env!("CARGO_BIN_EXE_claimgate"))
            .args(command.split_whitespace())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .output()
            .expect("the binary runs");
        assert_eq!(text(&output.stdout).trim_end(), expected, "claimgate {command}");
        shown += 1;
    }
    assert!(shown >= 3, "{shown} commands: is the README read rightly?");
}

#[test]
fn a_token_of_another_environment() {
    let (desk, key) = desk();
    let token = key.sign(&claims("https://auth.staging.example.com", "web-staging"));
    let output = desk.run(&[EXPLAIN.as_slice(), &WITH_KEYS].concat(), &token);
    let answer = text(&output.stdout);
    assert!(answer.starts_with("rejected with 401: The token comes from an issuer that is not accepted\n"), "{answer}");
    assert!(
        answer.ends_with(
            "\
iss_token    = https://auth.staging.example.com
iss_expected = https://auth.example.com
aud_token    = web-staging
aud_expected = web-prod
signature    = pass
result       = issuer_mismatch, audience_mismatch
"
        ),
        "{answer}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_accepted_token_in_json_and_with_a_trailing_newline() {
    let (desk, key) = desk();
    let token = format!("{}\n", key.sign(&good()));
    let output = desk.run(&[EXPLAIN.as_slice(), &WITH_KEYS, &["--json"]].concat(), &token);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&answer["decision"], &answer["result"]), (&json!("allow"), &json!(["ok"])));
    assert_eq!((&answer["signature"], &answer["mode"]), (&json!("pass"), &json!("enforce")));
    let trial = json!({"kid": "k1", "algs": ["ES256"], "result": "pass", "why": null});
    assert_eq!(answer["key_trials"], json!([trial]));
    let exp = json!({"name": "exp", "token": NOW + 600, "expected": {"after": NOW - 60}, "reason": null});
    assert!(answer["claims"].as_array().expect("a list").contains(&exp), "{answer}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_header_line_instead_of_a_file() {
    let (desk, key) = desk();
    let header = format!("Authorization: Bearer {}", key.sign(&good()));
    let answer = desk.answer(&[EXPLAIN.as_slice(), &["--jwks", "corp=jwks.json", "--header", &header]].concat(), 0);
    assert!(answer.starts_with("allowed: its token is good\n"), "{answer}");
    assert!(
        answer.contains("\nremoves      = authorization\n") && answer.ends_with("\nresult       = ok\n"),
        "{answer}"
    );
}

/// What the text says of a token, with more members in the provider and in the claims.
#[track_caller]
fn says(provider: Value, more: Value, expected: &[&str]) {
    let (desk, key) = desk();
    configure(&desk, &provider, &json!({}));
    let mut claims = good();
    for (name, value) in more.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.as_object_mut().expect("claims").retain(|_, value| !value.is_null());
    let output = desk.run(&[EXPLAIN.as_slice(), &WITH_KEYS].concat(), &key.sign(&claims));
    let answer = text(&output.stdout);
    for line in expected {
        assert!(answer.lines().any(|other| other.trim() == *line), "{line} is not in\n{answer}");
    }
}

#[test]
fn claim_by_claim() {
    says(
        json!({}),
        json!({"exp": NOW - 120}),
        &[
            "token_expired: expired 120 s ago, 60 s allowed",
            "exp_token    = 2027-01-15T07:58:00Z (120 s ago)",
            "exp_expected = after 2027-01-15T07:59:00Z",
            "signature    = pass",
        ],
    );
    says(
        json!({"max_lifetime": "300s"}),
        json!({}),
        &["exp_expected = after 2027-01-15T07:59:00Z, up to 2027-01-15T08:05:00Z"],
    );
    says(json!({}), json!({"exp": null}), &["exp_token    = (none)", "result       = expiration_missing"]);
    says(json!({}), json!({"exp": "soon"}), &["exp_token    = (a string)", "result       = claim_malformed"]);
    says(
        json!({}),
        json!({"nbf": NOW + 61}),
        &["nbf_token    = 2027-01-15T08:01:01Z (in 61 s)", "nbf_expected = up to 2027-01-15T08:01:00Z"],
    );
    says(
        json!({"max_age": "30s"}),
        json!({"iat": NOW - 91}),
        &["iat_expected = after 2027-01-15T07:58:30Z, up to 2027-01-15T08:01:00Z", "result       = lifetime_exceeded"],
    );
    says(
        json!({"subjects": {"suffix": "@corp"}}),
        json!({}),
        &["sub_token    = alice", "sub_expected = what ends with @corp"],
    );
    says(json!({"token_types": ["at+jwt"]}), json!({}), &["typ_token    = JWT", "typ_expected = at+jwt"]);
    says(
        json!({"claims": [{"claim_name": "scope", "all_of": ["a", "b"]}]}),
        json!({"scope": "a c"}),
        &[
            "scope_token  = a c",
            "scope_expected = all of a, b",
            "to be accepted: a token that was asked for the scope `b`",
        ],
    );
    says(
        json!({"claims": [{"claim_path": ["org", "id"], "matches": "[0-9]+"}]}),
        json!({"org": {"id": [7, "x"]}}),
        &["org.id_token = 7, x", "org.id_expected = what matches [0-9]+"],
    );
    says(
        json!({"algorithms": ["RS256"]}),
        json!({}),
        &[
            "algorithm_not_allowed: `alg` is ES256, one of RS256 was expected",
            "alg_expected = RS256",
            "key          = k1 (ES256): not tried, the token's `alg` is not allowed",
            "signature    = not checked",
        ],
    );
}

#[test]
fn which_key_was_tried_and_why_others_were_not() {
    let (desk, key) = desk();
    let unusable = json!({"kty": "EC", "crv": "P-192", "kid": "k4"});
    let (old, rsa) = (Key::new(Algorithm::ES256, "k0"), Key::new(Algorithm::RS256, "k2"));
    let mut keys = key_set(&[&old, &key, &rsa]);
    keys["keys"].as_array_mut().expect("a list").push(unusable);
    desk.put("jwks.json", &keys.to_string());
    let lines = |token: &str| -> Vec<String> {
        let answer = text(&desk.run(&[EXPLAIN.as_slice(), &WITH_KEYS].concat(), token).stdout);
        answer.lines().filter_map(|line| line.strip_prefix("key          = ")).map(str::to_owned).collect()
    };
    let unusable = "k4: not tried, cannot be used: `crv` is `P-192`";
    let found = lines(&key.sign(&good()));
    assert_eq!(
        found[..3],
        ["k0 (ES256): not tried, `kid` is another", "k1 (ES256): pass", "k2 (RS256): not tried, does not fit ES256"]
    );
    assert!(found[3].starts_with(unusable), "{found:?}");
    let stranger = Key::new(Algorithm::ES256, "stranger").with_kid("k1");
    assert_eq!(lines(&stranger.sign(&good()))[1], "k1 (ES256): fail");
    let unknown = lines(&key.with_kid("k9").sign(&good()));
    assert_eq!(unknown[1], "k1 (ES256): not tried, `kid` is another");
}

#[test]
fn a_decision_that_is_not_carried_out() {
    let (desk, key) = desk();
    configure(&desk, &json!({}), &json!({"mode": "shadow"}));
    let output = desk.run(&[EXPLAIN.as_slice(), &WITH_KEYS].concat(), &key.sign(&claims("x", "web-prod")));
    let first = text(&output.stdout).lines().next().map(str::to_owned);
    let expected = "rejected with 401: The token comes from an issuer that is not accepted \
                    (shadow mode: the request goes on as it came)";
    assert_eq!(first.as_deref(), Some(expected));
}

#[test]
fn without_keys_it_cannot_tell() {
    let (desk, key) = desk();
    let output = desk.run(&[EXPLAIN.as_slice(), &["--token-file", "-"]].concat(), &key.sign(&good()));
    let answer = text(&output.stdout);
    assert!(answer.ends_with("signature    = not checked\nresult       = jwks_unavailable\n"), "{answer}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn keys_in_the_configuration_are_there_and_can_be_replaced() {
    let (desk, key) = desk();
    let (inline, other) = (key_set(&[&Key::new(Algorithm::ES256, "other")]), key.sign(&good()));
    let provider = json!({"issuer": "https://auth.example.com", "local_jwks": {"inline": inline}});
    desk.put("config.json", &json!({"providers": {"corp": provider}}).to_string());
    let result = |arguments: &[&str]| {
        let answer = text(&desk.run(&[EXPLAIN.as_slice(), arguments].concat(), &other).stdout);
        answer.lines().last().map(str::to_owned)
    };
    assert_eq!(result(&["--token-file", "-"]).as_deref(), Some("result       = key_not_found"));
    assert_eq!(result(&WITH_KEYS).as_deref(), Some("result       = ok"));
}

#[test]
fn trouble_is_told_and_exits_with_2() {
    let (desk, _) = desk();
    desk.put("empty.json", r#"{"keys":[]}"#);
    let trouble = |arguments: &[&str], expected: &str| {
        let trouble = desk.trouble(&[&["explain", "--config", "config.json"], arguments].concat());
        assert_eq!(trouble, format!("claimgate: {expected}\n"));
    };
    trouble(&["--token-file", "none.jwt"], "none.jwt: No such file or directory (os error 2)");
    trouble(&["--jwks", "crop=jwks.json"], "the configuration has no provider `crop`, did you mean `corp`?");
    trouble(&["--jwks", "jwks.json"], "--jwks jwks.json: PROVIDER=FILE was expected");
    trouble(&["--jwks", "corp=empty.json"], "the key set given for `corp`: no usable key in the set");
    trouble(&["--header", "nonsense"], "--header: 'Name: value' was expected");
    let times = "--at `noon`: seconds since 1970, a time such as 2026-01-02T03:04:05Z or now+5m was expected";
    trouble(&["--at", "noon"], times);
    desk.put("config.json", r#"{"providers":{}}"#);
    trouble(&[], "config.json: providers: no provider, at least one was expected");
}

#[test]
fn what_a_token_says_does_nothing_to_a_terminal() {
    let (desk, key) = desk();
    let token = key.sign(&claims("\u{1b}[2J\r\nresult       = ok", "web-prod"));
    let answer = text(&desk.run(&[EXPLAIN.as_slice(), &WITH_KEYS].concat(), &token).stdout);
    assert!(!answer.contains(['\u{1b}', '\r']), "{answer:?}");
    assert_eq!(answer.lines().filter(|line| line.starts_with("result")).count(), 1);
}

/// No part of a token is ever printed, whatever becomes of it.
#[test]
fn no_token_is_printed() {
    let (desk, key) = desk();
    configure(&desk, &json!({"forward_payload_header": "x-payload"}), &json!({}));
    let expired = key.sign(&json!({"iss": "https://auth.example.com", "exp": 1}));
    for token in [key.sign(&good()), expired, format!("{}x", key.sign(&good())), "a.b.c.d".repeat(40)] {
        for json in [[].as_slice(), &["--json"]] {
            let output = desk.run(&[EXPLAIN.as_slice(), &WITH_KEYS, json].concat(), &token);
            let printed = text(&output.stdout) + &text(&output.stderr);
            let part = token.as_bytes().windows(16).find(|part| printed.as_bytes().windows(16).any(|p| p == *part));
            assert_eq!(part, None, "{printed}");
        }
    }
}
