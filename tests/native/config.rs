//! Configurations: what is accepted, and what is said of the rest.

use claimgate::{Config, RawConfig};
use claimgate_testbed::{Algorithm, Key, key_set};
use serde_json::{Value, json};

/// A configuration with this provider.
fn with(provider: Value) -> Value {
    json!({"providers": {"corp": provider}})
}

fn remote() -> Value {
    json!({"issuer": "https://idp.example.com/", "audiences": ["orders"], "remote_jwks": {"http_uri": {
        "uri": "https://idp.example.com/jwks.json", "cluster": "idp", "timeout": "2s"}}})
}

fn changed(mut configuration: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = configuration.pointer_mut(parent).expect("the pointer leads somewhere");
    parent.as_object_mut().expect("an object").insert(name.to_owned(), value);
    configuration
}

#[track_caller]
fn refused(configuration: &Value, expected: &str) {
    refused_text(&configuration.to_string(), expected);
}

#[track_caller]
fn refused_text(configuration: &str, expected: &str) {
    let error = Config::parse(configuration.as_bytes()).map(|_| ()).expect_err("a bad configuration was accepted");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_contract_s_minimal_configuration() {
    let minimal = r#"{"providers": {"corp": {"issuer": "https://idp.example.com/", "audiences": ["orders"],
  "remote_jwks": {"http_uri": {"uri": "https://idp.example.com/jwks.json", "cluster": "idp", "timeout": "2s"}}}}}"#;
    let (config, sources) = Config::parse(minimal.as_bytes()).expect("the contract's example");
    assert_eq!(sources.len(), 1);
    assert!(!config.is_managed("x-user"));
}

#[test]
fn what_is_not_a_configuration() {
    refused_text("", "the configuration is empty, a JSON object with `providers` was expected");
    refused_text("providers: {}", "the configuration is not JSON: expected value at line 1 column 1");
    refused_text("[]", "invalid type: sequence, expected an object");
    refused_text("1", "invalid type: integer `1`, expected an object");
    refused_text(r#"{"mode":"x"}"#, "mode: unknown variant `x`, expected `enforce` or `shadow`");
    refused_text(r#"{"mode":{"x":null}}"#, "mode: unknown variant `x`, expected `enforce` or `shadow`");
    refused_text(r#"{"mode":{"shadow":1}}"#, "mode.shadow: invalid type: integer `1`, expected unit");
    refused_text(r#"{"mode":1.5}"#, "mode: invalid type: floating point `1.5`, expected string or map");
    refused_text(
        r#"{"rules":[{"match":{"path":null,"headers":[{}]}}]}"#,
        "rules[0].match.headers[0]: missing field `name`",
    );
    refused_text("{}", "missing field `providers`");
    refused_text(
        r#"{"providers": {}, "providers": {}}"#,
        "the configuration is not JSON: duplicate member `providers` at line 1 column 34",
    );
    refused(&json!({"providers": {}}), "providers: no provider, at least one was expected");
    refused_text(&" ".repeat(1024 * 1024 + 1), "1048577 bytes, at most 1048576 were expected");
}

#[test]
fn unknown_fields_are_refused_with_the_nearest_name() {
    refused(
        &changed(with(remote()), "/providers/corp/audience", json!("x")),
        "providers.corp.audience: unknown field `audience`, did you mean `audiences`?",
    );
    refused(
        &changed(with(remote()), "/xyz", json!(1)),
        "xyz: unknown field `xyz`, known are `providers`, `rules`, `requirement_map`, `unmatched`, \
         `bypass_cors_preflight`, `strip_failure_response`, `error_format`, `stat_prefix`, \
         `status_path`, `mode`, `environment`, `resource_metadata`, `log_claims`, `host_crypto`, \
         `verifications_per_second`",
    );
    refused(
        &changed(with(remote()), "/providers/corp/remote_jwks/http_uri/urI", json!("x")),
        "providers.corp.remote_jwks.http_uri.urI: unknown field `urI`, did you mean `uri`?",
    );
}

#[test]
fn what_a_wasm_filter_cannot_do_is_said() {
    refused(
        &changed(with(remote()), "/providers/corp/payload_in_metadata", json!("x")),
        "providers.corp.payload_in_metadata: `payload_in_metadata` is not available here: a WebAssembly filter cannot \
         write dynamic metadata: use `claim_to_headers` or `forward_payload_header`",
    );
    refused(
        &with(json!({"local_jwks": {"filename": "/etc/jwks.json"}})),
        "providers.corp.local_jwks.filename: `filename` is not available here: a WebAssembly filter cannot read files: \
         use `inline`, `inline_string` or `remote_jwks`",
    );
    refused(
        &changed(with(remote()), "/filter_state_rules", json!({})),
        "filter_state_rules: `filter_state_rules` is not available here: a WebAssembly filter cannot select by filter \
         state: use `rules`",
    );
}

#[test]
fn wrong_values_are_refused_with_what_was_expected() {
    let at = |pointer: &str, value: Value| changed(with(remote()), &format!("/providers/corp{pointer}"), value);
    refused(&at("/issuer", json!(1)), "providers.corp.issuer: invalid type: integer `1`, expected a string");
    refused(
        &at("/audiences", json!(["a", 1])),
        "providers.corp.audiences[1]: invalid type: integer `1`, expected a string",
    );
    refused(&at("/audiences", json!([""])), "providers.corp.audiences[0]: empty, an audience was expected");
    refused(
        &at("/clock_skew_seconds", json!(86401)),
        "providers.corp.clock_skew_seconds: found 86401, at most 86400 was expected",
    );
    refused(
        &at("/algorithms", json!(["RS265"])),
        "providers.corp.algorithms[0]: unknown algorithm `RS265`, did you mean `RS256`?",
    );
    refused(
        &at("/algorithms", json!([])),
        "providers.corp.algorithms: empty, which allows no token: name an algorithm or leave the field out",
    );
    refused(&at("/max_token_bytes", json!(0)), "providers.corp.max_token_bytes: found 0, 1 to 65536 was expected");
    refused(
        &at("/remote_jwks/http_uri/uri", json!("/jwks.json")),
        "providers.corp.remote_jwks.http_uri.uri: found `/jwks.json`, an http or https URI was expected",
    );
    refused(
        &at("/remote_jwks/http_uri/cluster", json!("")),
        "providers.corp.remote_jwks.http_uri.cluster: empty, the name of a cluster was expected",
    );
    for duration in
        ["2", "2ms", "-2s", "+2s", "s", ".s", "1.2.3s", "0s", "0.0s", "1e3s", "99999999999s", "18446744073709551616s"]
    {
        refused(
            &at("/remote_jwks/cache_duration", json!(duration)),
            &format!(
                "providers.corp.remote_jwks.cache_duration: found `{duration}`, a duration in seconds such as `600s` or \
                 `0.5s` was expected"
            ),
        );
    }
    refused(
        &at("/claim_to_headers", json!([{"header_name": "a b", "claim_name": "sub"}])),
        "providers.corp.claim_to_headers[0].header_name: found `a b`, a header's name was expected",
    );
    refused(
        &at("/claim_to_headers", json!([{"header_name": ":path", "claim_name": "sub"}])),
        "providers.corp.claim_to_headers[0].header_name: found `:path`, a header's name was expected",
    );
    refused(
        &at("/forward_payload_header", json!("Authorization")),
        "providers.corp.forward_payload_header: `authorization` has a meaning of its own in HTTP, use another header",
    );
    refused(
        &at("/claim_to_headers", json!([{"header_name": "x", "claim_name": "a..b"}])),
        "providers.corp.claim_to_headers[0].claim_name: found `a..b`, a claim's name, or the names \
         that lead to it, were expected",
    );
}

#[test]
fn an_object_is_no_list_of_its_fields() {
    let at = |pointer: &str, value: Value| changed(with(remote()), &format!("/providers/corp{pointer}"), value);
    let sequence = "invalid type: sequence, expected";
    refused(&with(json!(["https://idp.example.com/"])), &format!("providers.corp: {sequence} an object"));
    refused(
        &at("/remote_jwks/http_uri", json!(["https://idp.example.com/jwks.json", "idp", "2s"])),
        &format!("providers.corp.remote_jwks.http_uri: {sequence} an object"),
    );
    refused(
        &at("/from_headers", json!([["x-token", ""]])),
        &format!("providers.corp.from_headers[0]: {sequence} an object"),
    );
    refused(
        &at("/issuers", json!([["https://idp.example.com/{t}", ["a"]]])),
        &format!("providers.corp.issuers[0]: {sequence} a string, or an object with `issuer` and `values`"),
    );
    refused(
        &at("/claims", json!([{"claim_path": [["sub"]], "exists": true}])),
        &format!("providers.corp.claims[0].claim_path[0]: {sequence} a name, or an object with `key`"),
    );
    refused(
        &at("/claims", json!([{"claim_path": [{"key": 7}], "exists": true}])),
        "providers.corp.claims[0].claim_path[0].key: invalid type: integer `7`, expected a string",
    );
    refused(
        &at("/issuers", json!([{"issuer": "https://idp.example.com/{t}", "valves": ["a"]}])),
        "providers.corp.issuers[0].valves: unknown field `valves`, did you mean `values`?",
    );
}

#[test]
fn rules_name_providers_that_exist() {
    let rules = |rules: Value| changed(with(remote()), "/rules", rules);
    refused(
        &rules(json!([{"match": {"prefix": "/"}, "requires": {"provider_name": "crop"}}])),
        "rules[0].requires.provider_name: unknown provider `crop`, did you mean `corp`?",
    );
    let one_path =
        "exactly one of `prefix`, `path`, `safe_regex`, `path_separated_prefix` and `connect_matcher` was expected";
    refused(&rules(json!([{"match": {}}])), &format!("rules[0].match: {one_path}"));
    refused(
        &rules(json!([{"match": {"prefix": "/"}}, {"match": {"prefix": "/", "path": "/"}}])),
        &format!("rules[1].match: {one_path}"),
    );
    refused(&rules(json!([{}])), "rules[0]: missing field `match`");
}

#[test]
fn keys_in_pem() {
    let (p256, rsa) = (include_str!("pem/p256.pem"), include_str!("pem/rsa_certificate.pem"));
    let pem = |pem: Value| with(json!({"local_jwks": {"pem": pem}}));
    for good in [json!(p256), json!([p256, rsa])] {
        Config::parse(pem(good).to_string().as_bytes()).expect("public keys in PEM");
    }
    let private = "a private key, which does not belong here: a public key was expected";
    let key = p256.replace("PUBLIC", "PRIVATE");
    refused(&pem(json!(key)), &format!("providers.corp.local_jwks.pem: {private}"));
    refused(&pem(json!([p256, key])), &format!("providers.corp.local_jwks.pem[1]: {private}"));
    refused(&pem(json!([])), "providers.corp.local_jwks.pem: 0 keys, 1 to 4096 were expected");
    refused(
        &pem(json!(7)),
        "providers.corp.local_jwks.pem: invalid type: integer `7`, expected a public key in PEM, or a list of them",
    );
    refused(
        &with(json!({"local_jwks": {"pem": p256, "inline": {"keys": []}}})),
        "providers.corp.local_jwks: one of `inline`, `inline_string`, `inline_bytes` and `pem` was expected",
    );
}

#[test]
fn keys_in_the_configuration_must_be_usable() {
    let inline = |set: Value| with(json!({"local_jwks": {"inline": set}}));
    refused(
        &with(json!({})),
        "providers.corp: no keys: one of `remote_jwks`, `oidc_discovery` and `local_jwks` was expected",
    );
    refused(
        &changed(with(remote()), "/providers/corp/local_jwks", json!({"inline": {"keys": []}})),
        "providers.corp: more than one of `remote_jwks`, `oidc_discovery` and `local_jwks`, one was expected",
    );
    refused(
        &with(json!({"local_jwks": {}})),
        "providers.corp.local_jwks: one of `inline`, `inline_string`, `inline_bytes` and `pem` was expected",
    );
    refused(
        &inline(json!({"keys": []})),
        "providers.corp.local_jwks.inline: no usable key, at least one was expected: the set is empty",
    );
    refused(
        &inline(json!({"keys": [{"kty": "oct", "k": "c2hvcnQ"}, {"kty": "EC"}]})),
        "providers.corp.local_jwks.inline: no usable key, at least one was expected: keys[0]: the secret has 5 bytes, at \
         least 32 were expected (RFC 7518 §3.2); keys[1]: `crv` is missing",
    );
    refused(
        &with(json!({"local_jwks": {"inline_string": "{"}})),
        "providers.corp.local_jwks.inline_string: not a JWK Set: EOF while parsing an object at line 1 column 1",
    );
    refused(
        &with(json!({"local_jwks": {"inline_bytes": "*"}})),
        "providers.corp.local_jwks.inline_bytes: not base64, as proto-JSON writes bytes",
    );
    // One bad key among good ones is no reason to refuse.
    let mut set = key_set(&[&Key::new(Algorithm::ES256, "good"), &Key::new(Algorithm::ES256, "bad")]);
    set["keys"][1]["crv"] = "P-192".into();
    Config::parse(inline(set).to_string().as_bytes()).expect("one bad key spoils no other");
}

#[test]
fn a_secret_in_the_configuration_is_not_repeated() {
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ";
    for set in [
        json!({"keys": secret}),
        json!({"keys": [{"kty": "oct", "k": secret}]}),
        json!({"keys": [{"kty": "oct", "k": [secret]}]}),
        json!(secret),
    ] {
        for jwks in [json!({"inline_string": set.to_string()}), json!({"inline": set})] {
            let configuration = with(json!({"local_jwks": jwks})).to_string();
            let error =
                Config::parse(configuration.as_bytes()).expect_err("a bad configuration was accepted").to_string();
            assert!(!error.contains(secret), "{error}");
        }
    }
}

#[test]
fn a_struct_on_the_wire_is_read_as_json_is() {
    use prost::Message as _;
    let mut configuration = with(remote());
    configuration["providers"]["corp"]["clock_skew_seconds"] = json!(30);
    configuration["providers"]["corp"]["forward"] = json!(true);
    configuration["rules"] = json!([{"match": {"prefix": "/"}, "requires": {"provider_name": "corp"}}]);
    let prost_types::value::Kind::StructValue(members) = on_the_wire(&configuration) else { panic!("an object") };
    let binary = members.encode_to_vec();
    let (from_binary, from_json) = (RawConfig::parse(&binary), RawConfig::parse(configuration.to_string().as_bytes()));
    assert_eq!(format!("{from_binary:?}"), format!("{from_json:?}"));
    assert!(from_json.is_ok());
    let cut = Config::parse(&binary[..binary.len() - 1]).map(|_| ()).expect_err("a broken document was accepted");
    assert!(cut.to_string().starts_with("the configuration is not JSON: "), "{cut}");
}

fn on_the_wire(value: &Value) -> prost_types::value::Kind {
    use prost_types::value::Kind;
    let wrap = |value| prost_types::Value { kind: Some(on_the_wire(value)) };
    match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().expect("a number")),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue { values: items.iter().map(wrap).collect() }),
        Value::Object(members) => Kind::StructValue(prost_types::Struct {
            fields: members.iter().map(|(name, value)| (name.clone(), wrap(value))).collect(),
        }),
    }
}
