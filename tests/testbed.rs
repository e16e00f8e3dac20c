//! The test bed proves itself, without the plugin: with no filter, and with Envoy's own `jwt_authn`.

use claimgate_testbed::{
    Algorithm, Behaviour, Gate, Issuer, Key, encode_part, eventually, key_set, tampered, unix_time, unsecured,
};
use serde_json::{Value, json};

#[track_caller]
fn check(gate: &Gate, token: &str, status: u16) {
    let answer = gate.get("/").bearer(token).send();
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.echo.is_some(), status == 200, "only the upstream echoes");
}

#[test]
fn a_request_passes_as_it_was_sent() {
    let gate = Gate::open().start().unwrap();
    let answer = gate
        .request("PUT", "/a/%62?c=d&c=e")
        .header("x-twice", "1")
        .header("x-twice", "2")
        .header("x-bytes", b"\xff\xfe")
        .body("body")
        .send();
    let echo = answer.echo.unwrap();
    assert_eq!((answer.status, echo.method.as_str(), echo.path.as_str()), (200, "PUT", "/a/%62?c=d&c=e"));
    assert_eq!(echo.headers_named("x-twice"), ["1", "2"]);
    assert_eq!(echo.body.as_deref(), Some("body"));
    let received = gate.upstream().received();
    assert!(received[0].headers.contains(&("x-bytes".to_owned(), b"\xff\xfe".to_vec())));

    assert_eq!(gate.get("/large").header("x-large", vec![b'a'; 90 << 10]).send().status, 200);
    let raw = gate.raw(b"GET /raw HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(raw.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&raw));
    let raw = gate.raw(b"\x00 / HTTP/1.1\r\n\r\n");
    assert!(raw.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&raw));

    let log = gate.access_log();
    let expected = json!({ "status": 200, "details": "via_upstream", "reason": null, "method": "GET", "path": "/raw" });
    let line = log.iter().find(|line| line["path"] == "/raw").unwrap();
    assert!(expected.as_object().unwrap().iter().all(|(name, value)| line[name] == *value), "{line}");
    assert_eq!(log.len(), 4);
    assert!(gate.stat("cluster.upstream.upstream_rq_200").is_some_and(|count| count == 3));
    assert!(gate.prometheus().contains("envoy_server_live"));
    assert_eq!(gate.trap(), None);
}

#[test]
fn tokens_of_every_algorithm_are_sound() {
    use Algorithm::*;
    let algorithms = [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384, HS512];
    let keys: Vec<Key> = algorithms.iter().map(|&algorithm| Key::new(algorithm, &format!("{algorithm:?}"))).collect();
    let set = key_set(&keys.iter().collect::<Vec<_>>());
    let gate = native(json!({ "inline_string": set.to_string() }), None);
    let claims = claims();
    for key in &keys {
        check(&gate, &key.sign(&claims), 200);
        check(&gate, &tampered(&key.sign(&claims)), 401);
    }
}

#[test]
fn forged_tokens_are_refused_by_another_verifier_too() {
    let (key, claims) = (Key::new(Algorithm::RS256, "a"), claims());
    let gate = native(json!({ "inline_string": key_set(&[&key]).to_string() }), None);
    check(&gate, &key.sign(&claims), 200);
    check(&gate, &unsecured(&claims), 401);
    check(&gate, &Key::from_secret(Algorithm::HS256, "a", key.public_pem().as_bytes()).sign(&claims), 401);
    check(&gate, &Key::new(Algorithm::RS256, "b").with_kid("a").sign(&claims), 401);
    check(&gate, &key.clone().with_algorithm(Algorithm::PS256).sign(&claims), 401);
    check(&gate, &key.sign_with_header(&json!({ "alg": "RS256", "kid": "unknown" }), &claims), 401);
    check(&gate, &key.sign_bytes(b"{", b"\0\xff"), 401);
    check(&gate, &format!("{}.", encode_part(b"{}")), 401);
}

#[test]
fn the_issuer_fails_as_told() {
    let (old, new) = (Key::new(Algorithm::ES256, "old"), Key::new(Algorithm::ES256, "new"));
    let claims = claims();
    let issuer = Issuer::start(&[&old]);
    issuer.behave(Behaviour::Hang);
    let gate = native(json!(null), Some(&issuer));

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| gate.get("/").bearer(&old.sign(&claims)).send());
        eventually("the issuer is asked for its keys", || (issuer.fetches() == 1).then_some(()));
        issuer.send_headers(&[("etag", "\"1\"")]);
        issuer.behave(Behaviour::Serve);
        assert_eq!(waiting.join().unwrap().status, 200);
    });
    assert!(issuer.received()[0].header("host").is_some());
    assert_eq!(issuer.url(), format!("http://{}/jwks.json", issuer.addr()));

    let client = |behaviour: Behaviour| {
        issuer.behave(behaviour);
        native(json!(null), Some(&issuer)).get("/").bearer(&new.sign(&claims)).send().status
    };
    issuer.publish(&[&new]);
    assert_eq!(client(Behaviour::Status(500)), 401);
    assert_eq!(client(Behaviour::Body(b"garbage".to_vec())), 401);
    assert_eq!(client(Behaviour::SlowBody), 401, "after the fetch's time limit");
    let fetches = issuer.fetches();
    assert_eq!(client(Behaviour::Refuse), 401);
    assert_eq!(issuer.fetches(), fetches);
    assert_eq!(client(Behaviour::Serve), 200);
}

#[test]
fn a_refused_configuration_is_told_by_envoy() {
    let error = Gate::native(&json!({ "no_such_field": 1 })).start().err().unwrap();
    assert!(error.log.contains("no_such_field"), "{error}");
}

#[test]
fn requests_run_in_parallel_and_in_order() {
    let gate = Gate::open().start().unwrap();
    let paths = gate.in_parallel(4, 200, |client, number| client.get(&format!("/{number}")).send().echo.unwrap().path);
    assert_eq!(paths, (0..200).map(|number| format!("/{number}")).collect::<Vec<_>>());
    assert_eq!(gate.upstream().received().len(), 200);
}

#[test]
fn listeners_stand_beside_each_other() {
    let key = Key::new(Algorithm::ES256, "key");
    let provider = json!({ "local_jwks": { "inline_string": key_set(&[&key]).to_string() } });
    let configuration = json!({
        "providers": { "corp": provider },
        "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "corp" } }],
    });
    let gate = Gate::native(&configuration).beside(Gate::open()).concurrency(1).start().unwrap();
    let refused = gate.get("/").send();
    assert_eq!((refused.status, refused.details()), (401, Some("jwt_authn_access_denied{Jwt_is_missing}")));
    let passed = gate.listener(1).get("/").send();
    assert_eq!((passed.status, passed.details()), (200, None));
    assert_eq!(gate.upstream().take_received().len(), 1);
    assert_eq!(gate.upstream().take_received(), []);
    check(&gate, &key.sign(&claims()), 200);
}

fn claims() -> Value {
    json!({ "iss": "https://idp.example.com/", "sub": "alice", "exp": unix_time() + 600 })
}

fn native(local: Value, issuer: Option<&Issuer>) -> Gate {
    let mut provider = json!({ "issuer": "https://idp.example.com/" });
    match issuer {
        None => provider["local_jwks"] = local,
        Some(issuer) => {
            let uri = json!({ "uri": issuer.url(), "cluster": "idp", "timeout": "1s" });
            provider["remote_jwks"] = json!({ "http_uri": uri });
        }
    }
    let rule = json!({ "match": { "prefix": "/" }, "requires": { "provider_name": "corp" } });
    let gate = Gate::native(&json!({ "providers": { "corp": provider }, "rules": [rule] }));
    issuer.iter().fold(gate, |gate, issuer| gate.cluster("idp", issuer.addr())).start().unwrap()
}
