//! What a client sees of a rejection, to the letter.

use claimgate::{Effects, LocalReply, Request, reply};
use claimgate_testbed::{Algorithm::ES256, Key, key_set};
use serde_json::{Value, json};

use crate::gate::{Gate, ISSUER, NOW};

fn gate(settings: Value) -> Gate {
    let mut configuration = json!({"providers": {"corp": {"issuer": ISSUER,
        "local_jwks": {"inline": key_set(&[&Key::new(ES256, "k")])},
        "claims": [{"claim_name": "scope", "all_of": ["orders:read", "orders:write"]}]}}});
    crate::gate::merge(&mut configuration, settings);
    Gate::of(configuration)
}

#[track_caller]
fn rejected(settings: Value, headers: &[(&str, &str)]) -> LocalReply {
    let mut gate = gate(settings);
    let request = Request::new(
        [(":path", "/?access=secret"), (":authority", "shop.example.com:8443")]
            .iter()
            .chain(headers)
            .map(|(n, v)| (*n, *v)),
    );
    let decision = gate.decide(&request);
    match reply(&request, &gate.config, decision) {
        Effects::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

fn headers(reply: &LocalReply) -> Vec<(&str, &str)> {
    reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn without_a_token_there_is_no_error_code() {
    let reply = rejected(json!({}), &[]);
    assert_eq!((reply.status, reply.grpc_status), (401, None));
    assert_eq!((reply.details.as_str(), reply.outcome), ("claimgate{header_missing}", "header_missing"));
    assert_eq!(
        headers(&reply),
        [
            ("www-authenticate", r#"Bearer realm="shop.example.com""#),
            ("cache-control", "no-store"),
            ("content-type", "application/problem+json"),
        ]
    );
    assert_eq!(
        serde_json::from_str::<Value>(&reply.body).expect("JSON"),
        json!({"type": "urn:claimgate:reason:header_missing", "title": "No token was presented", "status": 401,
            "detail": "the request has no Authorization header", "reason": "header_missing"})
    );
}

#[test]
fn a_scope_that_is_missing_is_named() {
    let token = Key::new(ES256, "k").sign(&json!({"iss": ISSUER, "exp": NOW + 60, "scope": "orders:read"}));
    let reply = rejected(json!({}), &[("authorization", &format!("Bearer {token}"))]);
    assert_eq!(reply.status, 403);
    let challenge = "Bearer realm=\"shop.example.com\", error=\"insufficient_scope\", error_description=\"scope_insufficient: \
                     `scope` lacks 1 of the values that are expected\", scope=\"orders:write\"";
    assert_eq!(headers(&reply)[0], ("www-authenticate", challenge));
}

#[test]
fn scopes_of_several_rules_are_named_together() {
    let rules = json!({"rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "corp",
        "claims": [{"claim_name": "scope", "matches": "x"}, {"claim_name": "scope", "any_of": ["orders:write", "a"]}]}}]});
    let token = Key::new(ES256, "k").sign(&json!({"iss": ISSUER, "exp": NOW + 60, "scope": "none"}));
    let reply = rejected(rules, &[("authorization", &format!("Bearer {token}"))]);
    assert!(headers(&reply)[0].1.ends_with("scope=\"orders:read orders:write a\""), "{}", headers(&reply)[0].1);
}

#[test]
fn forms_of_the_body() {
    let (bad, grpc) = (("authorization", "Bearer a.b"), ("content-type", "application/grpc"));
    let text = rejected(json!({"error_format": "text"}), &[bad]);
    assert_eq!(text.body, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections");
    assert!(headers(&text).contains(&("content-type", "text/plain")));
    let none = rejected(json!({"error_format": "none"}), &[bad]);
    assert_eq!((none.body.as_str(), headers(&none).len()), ("", 2));
    let stripped = rejected(json!({"strip_failure_response": true}), &[bad]);
    assert_eq!((stripped.body.as_str(), headers(&stripped)), ("", vec![("cache-control", "no-store")]));
    assert_eq!(stripped.details, "claimgate{token_malformed}");
    let grpc = rejected(json!({}), &[bad, grpc]);
    assert_eq!(
        (grpc.grpc_status, grpc.body.as_str()),
        (Some(16), "token_malformed: the token has 2 segments, three were expected")
    );
}

#[test]
fn grpc_statuses() {
    let grpc = ("content-type", "application/grpc+proto");
    let token = Key::new(ES256, "k").sign(&json!({"iss": ISSUER, "exp": NOW + 60}));
    let good = format!("Bearer {token}");
    assert_eq!(rejected(json!({}), &[grpc]).grpc_status, Some(16));
    assert_eq!(rejected(json!({}), &[grpc, ("authorization", &good)]).grpc_status, Some(7));
    assert_eq!(rejected(json!({}), &[grpc, ("authorization", "Bearer a, Bearer b")]).grpc_status, Some(3));
    let remote = json!({"providers": {"corp": {"remote_jwks": {"http_uri": {"uri": "https://x/", "cluster": "c"}}}}});
    let mut outage = Gate::of(remote);
    let now = claimgate::UnixTime::from_secs(NOW);
    let fetch = outage.state.keys.poll_fetch(now).expect("a fetch is due");
    outage.state.keys.handle_response(fetch.id, claimgate::Response::Failed, now);
    let request = Request::new([(":path", "/"), grpc, ("authorization", &good)]);
    let decision = outage.decide(&request);
    let Effects::Reply(reply) = reply(&request, &outage.config, decision.clone()) else { panic!("{decision:?}") };
    assert_eq!((reply.status, reply.grpc_status), (503, Some(14)));
    assert_eq!(headers(&reply), [("retry-after", "1"), ("cache-control", "no-store")]);
}

#[test]
fn the_realm_is_the_host_alone() {
    for (authority, realm) in [
        ("shop.example.com:8443", "shop.example.com"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("127.0.0.1", "127.0.0.1"),
        ("a\"b\\c,d?token", "abcdtoken"),
        ("", ""),
    ] {
        let mut gate = gate(json!({}));
        let request = Request::new([(":authority", authority)]);
        let decision = gate.decide(&request);
        let Effects::Reply(reply) = reply(&request, &gate.config, decision.clone()) else { panic!("{decision:?}") };
        assert_eq!(headers(&reply)[0].1, format!("Bearer realm=\"{realm}\""));
    }
}

#[test]
fn the_challenge_names_the_resource_s_metadata() {
    let url = "https://shop.example.com/.well-known/oauth-protected-resource";
    let challenge = |settings: Value, headers: &[(&str, &str)]| rejected(settings, headers).headers.remove(0).1;
    let settings = json!({"resource_metadata": url});
    assert_eq!(
        challenge(settings.clone(), &[]),
        format!("Bearer realm=\"shop.example.com\", resource_metadata=\"{url}\"")
    );
    let malformed = challenge(settings, &[("authorization", "Bearer x")]);
    assert!(malformed.ends_with(&format!(", resource_metadata=\"{url}\"")), "{malformed}");
}
