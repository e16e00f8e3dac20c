//! The gate in a real Envoy: what the wiring does to requests. What a token is worth is decided by tables elsewhere;
//! here one case per reason proves that the answer arrives.

use std::collections::{BTreeMap, HashSet};

use claimgate_testbed::{
    Algorithm, Answer, Behaviour, Builder, Carrier, Gate, Issuer, Key, Received, Request, encode_part, eventually,
    key_set, tampered, unix_time, unsecured,
};
use serde_json::{Value, json};

// ---- outcomes ----

#[test]
fn every_reason_arrives() {
    let (rsa, ec) = (Key::new(Algorithm::RS256, "rsa"), Key::new(Algorithm::ES256, "ec"));
    let issuer = Issuer::start(&[&rsa]);
    issuer.behave(Behaviour::Status(500));
    let mut configuration = inline(&[&rsa, &ec]);
    configuration["environment"] = "staging".into();
    configuration["providers"]["strict"] = json!({
        "issuer": ISSUER, "local_jwks": { "inline": key_set(&[&ec]) }, "token_types": ["at+jwt"], "max_age": "600s",
        "subjects": { "exact": "alice" }, "claims": [
            { "claim_name": "scope", "all_of": ["orders:read"] }, { "claim_name": "tier", "any_of": ["gold"] }],
    });
    configuration["providers"]["down"] = json!({ "issuer": ISSUER, "remote_jwks": {
        "http_uri": { "uri": issuer.url(), "cluster": "idp" } } });
    for provider in ["down", "strict"] {
        let rule = json!({ "match": { "prefix": format!("/{provider}/") }, "requires": { "provider_name": provider } });
        configuration["rules"].as_array_mut().unwrap().insert(0, rule);
    }
    let snippet: Value = serde_saphyr::from_str(include_str!("../envoy/stats_tags.yaml")).unwrap();
    let gate = Gate::plugin(&configuration).cluster("idp", issuer.addr()).stats_config(snippet["stats_config"].clone());
    let gate = start(gate);
    let bed = Rejections::new(&gate);
    let honest = |name: &str, value: Value| rsa.sign(&claims_with(name, value));
    let valid = rsa.sign(&claims());
    let public_as_secret = Key::from_secret(Algorithm::HS256, "rsa", rsa.public_pem().as_bytes());
    let now = unix_time();

    bed.check_header(None, "header_missing");
    bed.check_header(Some(""), "header_missing");
    bed.check_header(Some("Basic YWxpY2U6c2VjcmV0"), "header_missing");
    bed.check_header(Some("Bearer"), "header_missing");
    bed.check_header(Some(&format!("NotBearer {valid}")), "header_missing");
    bed.check_header(Some(&format!("Bearer {valid}, Bearer {valid}")), "token_ambiguous");
    bed.check(bed.request().bearer(&valid).bearer(&valid), "token_ambiguous");

    bed.check_token(&honest("padding", "x".repeat(8192).into()), "token_too_large");
    bed.check_token("not-a-token", "token_malformed");
    bed.check_token(&format!("{valid}."), "token_malformed");
    bed.check_token(&format!("{valid}="), "token_malformed");
    bed.check_token(&valid.replacen('.', " .", 1), "token_malformed");
    bed.check_token(&rsa.sign_bytes(br#"{"alg":"RS256","kid":"rsa"}"#, b"[]"), "token_malformed");
    bed.check_token(&rsa.sign_bytes(br#"{"alg":"RS256","kid":"rsa"}"#, b"\xff"), "token_malformed");
    bed.check_token(&rsa.sign_bytes(br#"{"alg":"RS256","alg":"RS256"}"#, b"{}"), "token_malformed");

    bed.check_token(&unsecured(&claims()), "algorithm_not_allowed");
    bed.check_token(&public_as_secret.sign(&claims()), "algorithm_not_allowed");
    bed.check_token(&rsa.sign_with_header(&json!({ "alg": "RS257" }), &claims()), "algorithm_not_allowed");
    bed.check_token(&honest("iss", "https://idp.example.com".into()), "issuer_mismatch");
    bed.check_token(&honest("iss", Value::Null), "issuer_mismatch");
    bed.check_token(&rsa.clone().with_kid("rotated").sign(&claims()), "key_not_found");
    bed.check_token(&rsa.clone().with_kid("ec").sign(&claims()), "key_mismatch");
    bed.check_token(&tampered(&valid), "signature_invalid");
    bed.check_token(&Key::new(Algorithm::RS256, "rogue").with_kid("rsa").sign(&claims()), "signature_invalid");

    bed.check_token(&honest("exp", "soon".into()), "claim_malformed");
    bed.check_token(&honest("nbf", json!([1])), "claim_malformed");
    bed.check_token(&honest("exp", Value::Null), "expiration_missing");
    bed.check_token(&honest("exp", (now - 3600).into()), "token_expired");
    bed.check_token(&honest("nbf", (now + 3600).into()), "token_not_yet_valid");
    bed.check_token(&honest("iat", (now + 3600).into()), "token_not_yet_valid");
    bed.check_token(&honest("aud", "billing".into()), "audience_mismatch");
    bed.check_token(&honest("aud", Value::Null), "audience_mismatch");
    bed.check_token(&tampered(&honest("aud", "billing".into())), "signature_invalid");
    bed.check_token(
        &rsa.sign_with_header(&json!({ "alg": "RS256", "kid": "rsa", "crit": ["exp"] }), &claims()),
        "crit_unsupported",
    );

    let strict = |typ: &str, changes: Value| {
        let mut claims = claims();
        let good = json!({ "iat": now, "scope": "openid orders:read", "tier": "gold" });
        for changes in [good, changes] {
            claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        }
        ec.sign_with_header(&json!({ "alg": "ES256", "kid": "ec", "typ": typ }), &claims)
    };
    bed.check_at("/strict", &strict("jwt", json!({})), "type_not_allowed");
    bed.check_at("/strict", &strict("at+jwt", json!({ "iat": now - 3600 })), "lifetime_exceeded");
    bed.check_at("/strict", &strict("at+jwt", json!({ "sub": "mallory" })), "subject_mismatch");
    bed.check_at("/strict", &strict("at+jwt", json!({ "scope": "openid" })), "scope_insufficient");
    bed.check_at("/strict", &strict("at+jwt", json!({ "tier": "a-value-that-is-not-shown" })), "claim_mismatch");
    bed.check_at("/down", &valid, "jwks_unavailable");
    let fine = strict("application/AT+JWT", json!({}));
    bed.finish();
    assert_eq!(gate.get("/strict/").bearer(&fine).send().status, 200);

    // None of these may be taken for another.
    let allowed = |token: &str| gate.get("/allowed").bearer(token).send().status;
    assert_eq!(allowed(&valid), 200);
    assert!(!gate.log().contains("a-value-that-is-not-shown"));
    assert_eq!(allowed(&ec.sign(&claims())), 200);
    assert_eq!(allowed(&rsa.sign_with_header(&json!({ "alg": "RS256" }), &claims())), 200, "without a kid");
    assert_eq!(gate.get("/allowed").header("authorization", format!("bEARER {valid}")).send().status, 200);
    let ok = gate.access_log().into_iter().find(|line| line["path"] == "/allowed").unwrap();
    assert_eq!((&ok["details"], &ok["reason"]), (&json!("via_upstream"), &json!("ok")));
}

#[test]
fn every_algorithm_is_accepted() {
    use Algorithm::*;
    let algorithms = [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];
    let keys: Vec<Key> = algorithms.iter().map(|&algorithm| Key::new(algorithm, &format!("{algorithm:?}"))).collect();
    let gate = start(Gate::plugin(&inline(&keys.iter().collect::<Vec<_>>())));
    for key in &keys {
        assert_eq!(gate.get("/").bearer(&key.sign(&claims())).send().status, 200, "{}", key.kid());
        assert_eq!(reason(&gate, &tampered(&key.sign(&claims()))), "signature_invalid", "{}", key.kid());
    }
    finish(&gate);
}

#[test]
fn symmetric_algorithms_only_when_listed() {
    let key = Key::new(Algorithm::HS256, "shared");
    let mut configuration = inline(&[&key]);
    configuration["providers"]["corp"]["algorithms"] = json!(["HS256"]);
    let gate = start(Gate::plugin(&configuration));
    assert_eq!(gate.get("/").bearer(&key.sign(&claims())).send().status, 200);
    assert_eq!(reason(&gate, &tampered(&key.sign(&claims()))), "signature_invalid");
    assert_eq!(reason(&gate, &key.with_algorithm(Algorithm::HS512).sign(&claims())), "algorithm_not_allowed");
    let asymmetric = Key::new(Algorithm::ES256, "shared").sign(&claims());
    assert_eq!(reason(&gate, &asymmetric), "algorithm_not_allowed");
    finish(&gate);
}

#[test]
fn a_rejection_is_one_line_of_json() {
    let key = Key::new(Algorithm::ES256, "ec");
    let gate = start(Gate::plugin(&inline(&[&key])));
    let mut claims = claims_with("aud", json!(["billing"]));
    claims["exp"] = (unix_time() - 3600).into();
    claims["jti"] = "token-1".into();
    let answer = gate.get("/orders?access=secret").header("host", HOST).bearer(&key.sign(&claims)).send();
    assert_eq!(answer.reason().as_deref(), Some("token_expired"));

    let event = eventually("the rejection is logged", || {
        gate.events().into_iter().find(|event| event["reason"] == "token_expired")
    });
    let expected = json!({
        "others": ["audience_mismatch"], "provider": "corp", "kid": "ec", "alg": "ES256", "keys": ["ec"],
        "iss_token": ISSUER, "iss_expected": [ISSUER], "aud_token": ["billing"], "aud_expected": ["orders"],
        "jti": "token-1", "method": "GET", "host": HOST, "path": "/orders",
    });
    for (name, value) in expected.as_object().unwrap() {
        let single = value.as_array().and_then(|list| list.first());
        assert!(event[name] == *value || single == Some(&event[name]), "`{name}` in {event}");
    }
    assert!(event["event"].is_string(), "{event}");
    assert!(event["expired_seconds"].as_i64().is_some_and(|seconds| seconds >= 3600), "{event}");
    assert_eq!(event["request_id"], gate.access_log()[0]["request_id"]);
    assert!(!gate.log().contains("access=secret"));
    finish(&gate);
}

// ---- annotations ----

#[test]
fn claims_become_headers() {
    let key = Key::new(Algorithm::ES256, "ec");
    let mut configuration = inline(&[&key]);
    let provider = &mut configuration["providers"]["corp"];
    provider["forward_payload_header"] = "x-payload".into();
    provider["claim_to_headers"] = json!([
        { "header_name": "x-user", "claim_name": "sub" },
        { "header_name": "X-Level", "claim_name": "level" },
        { "header_name": "x-admin", "claim_name": "admin" },
        { "header_name": "x-absent", "claim_name": "absent" },
    ]);
    let mut claims = claims();
    claims["level"] = 7.into();
    claims["admin"] = false.into();
    let token = key.sign(&claims);

    let gate = start(Gate::plugin(&configuration));
    let spoofed = ["x-user", "x-level", "x-admin", "x-absent", "x-payload"];
    let request = spoofed.iter().fold(gate.get("/"), |request, name| request.header(name, "1").header(name, "2"));
    let echo = request.header("x-other", "kept").bearer(&token).send().echo.unwrap();
    assert_eq!(echo.headers_named("x-user"), ["alice"]);
    assert_eq!(echo.headers_named("x-level"), ["7"]);
    assert_eq!(echo.headers_named("x-admin"), ["false"]);
    assert_eq!(echo.headers_named("x-absent"), Vec::<&str>::new());
    assert_eq!(echo.headers_named("x-payload"), [token.split('.').nth(1).unwrap()]);
    assert_eq!(echo.headers_named("x-other"), ["kept"]);
    assert_eq!(echo.headers_named("authorization"), Vec::<&str>::new(), "`forward` is not set");
    finish(&gate);
}

#[test]
fn the_token_is_forwarded_when_told() {
    let key = Key::new(Algorithm::ES256, "ec");
    let mut configuration = inline(&[&key]);
    configuration["providers"]["corp"]["forward"] = true.into();
    let gate = start(Gate::plugin(&configuration));
    let token = key.sign(&claims());
    let echo = gate.get("/").bearer(&token).send().echo.unwrap();
    assert_eq!(echo.headers_named("authorization"), [format!("Bearer {token}")]);
    finish(&gate);
}

#[test]
fn managed_headers_never_come_from_outside() {
    let key = Key::new(Algorithm::ES256, "ec");
    let mut configuration = inline(&[&key]);
    configuration["providers"]["corp"]["claim_to_headers"] = json!([{ "header_name": "x-user", "claim_name": "sub" }]);
    configuration["providers"]["corp"]["forward_payload_header"] = "x-payload".into();
    configuration["providers"]["other"] = json!({
        "issuer": "https://other.example.com/",
        "local_jwks": { "inline_string": key_set(&[&key]).to_string() },
        "claim_to_headers": [{ "header_name": "x-partner", "claim_name": "sub" }],
    });
    configuration["rules"] = json!([
        { "match": { "prefix": "/public" } },
        { "match": { "path": "/orders" }, "requires": { "provider_name": "corp" } },
    ]);
    let gate = start(Gate::plugin(&configuration));
    let spoof = |path: &str| {
        let request =
            ["x-user", "X-Payload", "x-partner"].iter().fold(gate.get(path), |r, name| r.header(name, "admin"));
        request.header("x-user", b"\xff")
    };
    let managed = |answer: Answer| {
        let echo = answer.echo.unwrap();
        ["x-user", "x-payload", "x-partner"].map(|name| echo.headers_named(name).join(","))
    };
    let token = key.sign(&claims());
    let payload = token.split('.').nth(1).unwrap();
    assert_eq!(managed(spoof("/orders").bearer(&token).send()), ["alice", payload, ""]);
    assert_eq!(managed(spoof("/public").send()), ["", "", ""], "an open path");
    assert_eq!(managed(spoof("/public").bearer(&token).send()), ["", "", ""], "an open path, with a token");
    assert_eq!(managed(spoof("/unmatched").send()), ["", "", ""], "a path without a rule");
    assert_eq!(spoof("/orders").send().status, 401);
    assert_eq!(gate.upstream().received().len(), 4, "a rejected request goes nowhere");
    finish(&gate);
}

// ---- configuration ----

/// As in the documentation, word for word.
const MINIMAL: &str = r#"{"providers": {"corp": {"issuer": "https://idp.example.com/", "audiences": ["orders"],
  "remote_jwks": {"http_uri": {"uri": "https://idp.example.com/jwks.json", "cluster": "idp", "timeout": "2s"}}}}}"#;

#[track_caller]
fn check_minimal(carrier: Carrier) {
    let key = Key::new(Algorithm::RS256, "rsa");
    let issuer = Issuer::start(&[&key]);
    let gate = start(Gate::plugin_text(MINIMAL).carrier(carrier).cluster("idp", issuer.addr()));
    assert_eq!(gate.get("/").bearer(&key.sign(&claims())).send().status, 200);
    assert_eq!(gate.get("/").send().status, 401, "without rules, every request needs a token");
    let fetch = &issuer.received()[0];
    assert_eq!((fetch.method.as_str(), fetch.path.as_str()), ("GET", "/jwks.json"));
    assert_eq!(fetch.header("host"), Some("idp.example.com"));
    finish(&gate);
}

#[test]
fn the_minimal_configuration_works_as_a_string() {
    check_minimal(Carrier::StringValue);
}

/// Envoy hands over the serialised `google.protobuf.Struct`, and not JSON as its documentation says.
#[test]
fn the_minimal_configuration_works_as_a_struct() {
    check_minimal(Carrier::Struct);
}

#[test]
fn a_bad_configuration_is_refused_with_path_and_cure() {
    let key = Key::new(Algorithm::ES256, "ec");
    let good = inline(&[&key]);
    let with = |pointer: &str, value: Value| {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let mut configuration = good.clone();
        configuration.pointer_mut(parent).unwrap()[field] = value;
        configuration.to_string()
    };
    #[track_caller]
    fn check(configuration: &str, expected: &[&str]) {
        let Err(error) = Gate::plugin_text(configuration).start() else { panic!("accepted: {configuration}") };
        for words in expected {
            assert!(error.log.contains(words), "`{words}` is not in:\n{}", error.log);
        }
    }
    check("{\"providers\": ", &["JSON"]);
    check(&with("/providers/corp/isuer", "x".into()), &["providers.corp", "`isuer`", "`issuer`"]);
    check(&with("/providers/corp/audiences", 5.into()), &["providers.corp.audiences"]);
    check(
        &with("/providers/corp/payload_in_metadata", "x".into()),
        &["providers.corp.payload_in_metadata", "`claim_to_headers`"],
    );
    check(
        &with("/providers/corp/local_jwks", json!({ "inline_string": "{\"keys\":[]}" })),
        &["providers.corp.local_jwks"],
    );
    let rules = json!([{ "match": { "prefix": "/" }, "requires": { "provider_name": "crop" } }]);
    check(&with("/rules", rules), &["rules[0].requires.provider_name", "`crop`", "`corp`"]);
}

#[test]
fn one_bad_key_among_good_ones_is_skipped() {
    let key = Key::new(Algorithm::ES256, "good");
    let mut set = key_set(&[&key]);
    let broken = json!({ "kty": "RSA", "kid": "broken", "alg": "RS256", "n": "!!", "e": "AQAB" });
    set["keys"].as_array_mut().unwrap().insert(0, broken);
    let mut configuration = inline(&[]);
    configuration["providers"]["corp"]["local_jwks"]["inline_string"] = set.to_string().into();
    let gate = start(Gate::plugin(&configuration));
    assert_eq!(gate.get("/").bearer(&key.sign(&claims())).send().status, 200);
    eventually("the skipped key is logged", || gate.events().into_iter().find(|event| event["kid"] == "broken"));
    finish(&gate);
}

// ---- fetched keys ----

#[test]
fn requests_wait_for_the_first_keys() {
    const REQUESTS: usize = 8;
    const WORKERS: usize = 2;
    let key = Key::new(Algorithm::ES256, "ec");
    let issuer = Issuer::start(&[&key]);
    issuer.behave(Behaviour::Hang);
    let gate = remote(&issuer, &json!({}), WORKERS);
    let token = key.sign(&claims());
    std::thread::scope(|scope| {
        let waiting = scope
            .spawn(|| gate.in_parallel(REQUESTS, REQUESTS, |client, _| client.get("/").bearer(&token).send().status));
        eventually("every request waits, and the issuer is asked", || {
            let active = gate.stat("http.gate.downstream_rq_active");
            (active == Some(REQUESTS as u64) && issuer.fetches() > 0).then_some(())
        });
        issuer.behave(Behaviour::Serve);
        assert_eq!(waiting.join().unwrap(), [200; REQUESTS]);
    });
    // Each worker fetches for itself, and so does the instance that Envoy keeps on its main thread.
    assert!(issuer.fetches() <= WORKERS + 1, "{} fetches for {REQUESTS} requests", issuer.fetches());
    finish(&gate);
}

#[test]
fn no_more_requests_wait_than_allowed() {
    const REQUESTS: usize = 300;
    const PARKED: usize = 256;
    let key = Key::new(Algorithm::ES256, "ec");
    let issuer = Issuer::start(&[&key]);
    issuer.behave(Behaviour::Hang);
    let gate = remote(&issuer, &json!({}), 1);
    let token = key.sign(&claims());
    let answers = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| gate.in_parallel(REQUESTS, REQUESTS, |client, _| client.get("/").bearer(&token).send()));
        eventually("those for whom there is no room are answered", || {
            let answered = gate.stat("http.gate.downstream_rq_5xx");
            (answered >= Some((REQUESTS - PARKED) as u64)).then_some(())
        });
        issuer.behave(Behaviour::Serve);
        waiting.join().unwrap()
    });
    let (allowed, unavailable): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(unavailable.len() >= REQUESTS - PARKED, "{} of {REQUESTS}", unavailable.len());
    assert!(!allowed.is_empty(), "those who wait are served");
    unavailable.into_iter().for_each(check_unavailable);
    finish(&gate);
}

#[test]
fn an_outage_is_never_a_bad_token() {
    let key = Key::new(Algorithm::ES256, "ec");
    let failures = [Behaviour::Refuse, Behaviour::Status(500), Behaviour::Body(b"{\"keys\":[]}".to_vec())];
    for failure in failures {
        let issuer = Issuer::start(&[&key]);
        issuer.behave(failure);
        let gate = remote(&issuer, &json!({}), 2);
        for token in [key.sign(&claims()), tampered(&key.sign(&claims()))] {
            check_unavailable(&gate.get("/").bearer(&token).send());
        }
        assert_eq!(gate.get("/").send().reason().as_deref(), Some("header_missing"), "needs no key to tell");

        issuer.behave(Behaviour::Serve);
        let token = key.sign(&claims());
        eventually("the gate recovers", || (gate.get("/").bearer(&token).send().status == 200).then_some(()));
        finish(&gate);
    }
}

#[test]
fn keys_outlive_a_failing_issuer() {
    let key = Key::new(Algorithm::ES256, "ec");
    let issuer = Issuer::start(&[&key]);
    // One worker: each fetches for itself, and a second one might not have, yet.
    let gate = remote(&issuer, &json!({ "cache_duration": "1s" }), 1);
    let token = key.sign(&claims());
    assert_eq!(gate.get("/").bearer(&token).send().status, 200);
    issuer.behave(Behaviour::Status(500));
    let before = issuer.fetches();
    eventually("refreshes fail", || (issuer.fetches() >= before + 3).then_some(()));
    for _ in 0..8 {
        assert_eq!(gate.get("/").bearer(&token).send().status, 200);
    }
    finish(&gate);
}

// ---- hostile input ----

#[test]
fn hostile_bytes_get_an_answer() {
    let key = Key::new(Algorithm::ES256, "ec");
    let gate = start(Gate::plugin(&inline(&[&key])));
    let valid = key.sign(&claims());
    for (bytes, reason) in hostile_values(&key) {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let answer = gate.get("/").header("authorization", &bytes).send();
        assert_eq!(answer.reason().as_deref(), Some(reason), "{start}");
        let answer = gate.get("/").header("x-other", &bytes).bearer(&valid).send();
        assert_eq!(answer.status, 200, "in a header that is not the gate's: {start}");
    }
    for head in ["GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost:\r\n", "GET /\u{1}\u{fffd} HTTP/1.1\r\nhost: a\r\n"] {
        let bytes = format!("{head}authorization: Bearer {valid}\r\nconnection: close\r\n\r\n");
        assert!(gate.raw(bytes.as_bytes()).starts_with(b"HTTP/1.1 "), "{head:?}");
    }
    // More header lines than the 1,024 pairs that Envoy lets a plugin write at once.
    let lines = "x: y\r\n".repeat(3000);
    let bytes = format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}authorization: Basic x\r\nconnection: close\r\n\r\n");
    let answer = gate.raw(bytes.as_bytes());
    assert!(answer.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(gate.get("/").bearer(&valid).send().status, 200);
    finish(&gate);
}

#[test]
fn ten_thousand_mixed_requests() {
    const REQUESTS: usize = 10_000;
    let keys = [Key::new(Algorithm::RS256, "rsa"), Key::new(Algorithm::ES256, "ec"), Key::new(Algorithm::EdDSA, "ed")];
    let issuer = Issuer::start(&keys.each_ref());
    let gate = remote(&issuer, &json!({ "cache_duration": "1s" }), 2);

    let mut requests: Vec<(Vec<u8>, Option<&str>)> = Vec::new();
    let mut tokens = Vec::new();
    let mut send = |token: String, reason| {
        requests.push((format!("Bearer {token}").into_bytes(), reason));
        tokens.push(token);
    };
    for key in &keys {
        let valid = key.sign(&claims());
        send(tampered(&valid), Some("signature_invalid"));
        send(valid, None);
        send(key.sign(&claims_with("exp", 1.into())), Some("token_expired"));
        send(key.sign(&claims_with("aud", "billing".into())), Some("audience_mismatch"));
        send(key.sign(&claims_with("iss", "https://other.example.com/".into())), Some("issuer_mismatch"));
        send(key.sign_bytes(b"{\"alg\":\"RS256\"", b"{}"), Some("token_malformed"));
    }
    send(unsecured(&claims()), Some("algorithm_not_allowed"));
    let hostile = hostile_values(&keys[1]).into_iter().filter(|(bytes, _)| bytes.len() < 16 << 10);
    requests.extend(hostile.map(|(bytes, reason)| (bytes, Some(reason))));

    let answers = gate.in_parallel(8, REQUESTS, |client, number| {
        client.get("/").header("authorization", &requests[number % requests.len()].0).send()
    });
    for (number, answer) in answers.iter().enumerate() {
        let (_, expected) = &requests[number % requests.len()];
        assert_eq!(answer.reason().as_deref(), *expected, "request {number}: {}", answer.text());
        assert_eq!(answer.echo.is_some(), expected.is_none(), "request {number}");
    }
    for worker in ["worker_0", "worker_1"] {
        let connections = gate.stat(&format!("listener.127.0.0.1_0.{worker}.downstream_cx_total"));
        assert!(connections > Some(0), "{worker} had nothing to do");
    }
    let replies = answers.iter().filter(|answer| answer.echo.is_none());
    check_no_leak(&gate, &tokens, replies);
    finish(&gate);
}

/// One verification of each class in a second is the gate's own: whoever gets more was verified by Envoy.
#[test]
fn envoy_verifies_what_it_can() {
    use Algorithm::*;
    let algorithms = [RS256, RS384, RS512, ES256, ES384, PS256, EdDSA];
    let keys: Vec<Key> = algorithms.iter().map(|&algorithm| Key::new(algorithm, &format!("{algorithm:?}"))).collect();
    let mut configuration = inline(&keys.iter().collect::<Vec<_>>());
    configuration["providers"]["corp"]["jwt_cache_config"] = json!({ "jwt_cache_size": 0 });
    configuration["verifications_per_second"] = json!({ "light": 1, "medium": 1, "heavy": 1 });
    let gate = start(Gate::plugin(&configuration).concurrency(1));
    // Braked sooner or later: a second may pass between two requests on a busy machine.
    let is_braked = |gate: &Gate, token: &str| {
        let answers = (0..500).map(|_| gate.get("/").bearer(token).send());
        answers
            .inspect(|answer| assert!(matches!(answer.status, 200 | 503), "{}", answer.text()))
            .any(|a| a.status == 503)
    };
    for key in &keys[..5] {
        let token = key.sign(&claims());
        for _ in 0..10 {
            assert_eq!(gate.get("/").bearer(&token).send().status, 200, "{}", key.kid());
            assert_eq!(reason(&gate, &tampered(&token)), "signature_invalid", "{}", key.kid());
        }
    }
    assert!(!gate.stats().contains("claimgate_host_crypto_failed"));
    for key in &keys[5..] {
        assert!(is_braked(&gate, &key.sign(&claims())), "{}", key.kid());
    }
    eventually("the brake is counted", || {
        gate.stats().contains("claimgate_verification_braked.;cost=light;").then_some(())
    });
    finish(&gate);

    configuration["host_crypto"] = "off".into();
    let gate = start(Gate::plugin(&configuration).concurrency(1));
    for key in &keys {
        assert!(is_braked(&gate, &key.sign(&claims())), "{}", key.kid());
    }
    finish(&gate);
}

#[test]
fn a_token_is_verified_once_by_each_worker() {
    let key = Key::new(Algorithm::EdDSA, "ed");
    let gate = start(Gate::plugin(&inline(&[&key])).concurrency(1));
    let token = key.sign(&claims());
    for _ in 0..10 {
        assert_eq!(gate.get("/").bearer(&token).send().status, 200);
    }
    for (result, count) in [("hit", 9), ("miss", 1)] {
        let stat = format!("claimgate_token_cache.;result={result};: {count}");
        eventually(&stat, || gate.stats().contains(&stat).then_some(()));
    }
    finish(&gate);
}

/// What the upstream receives of a request, but for what Envoy itself makes up for each.
fn seen_upstream(gate: &Gate, requests: &[Vec<u8>]) -> Vec<String> {
    let _before = gate.upstream().take_received();
    for request in requests {
        let answer = gate.raw(request);
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    let varies =
        |name: &str| ["x-request-id", "x-forwarded-", "x-envoy-"].iter().any(|prefix| name.starts_with(prefix));
    let written = |request: Received| {
        let headers = request.headers.iter().filter(|(name, _)| !varies(name));
        let lines = headers.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)));
        format!("{} {}\n{}\n", request.method, request.path, lines.collect::<Vec<_>>().join("\n"))
    };
    gate.upstream().take_received().into_iter().map(written).collect()
}

#[test]
fn a_shadow_changes_no_byte() {
    let (key, issuer) = (Key::new(Algorithm::ES256, "ec"), Issuer::start(&[]));
    issuer.behave(Behaviour::Status(500));
    let mut configuration = inline(&[&key]);
    configuration["mode"] = "shadow".into();
    configuration["providers"]["corp"]["claim_to_headers"] = json!([{ "header_name": "x-user", "claim_name": "sub" }]);
    configuration["providers"]["corp"]["from_params"] = json!(["access_token"]);
    configuration["providers"]["corp"]["from_headers"] =
        json!([{ "name": "authorization", "value_prefix": "Bearer " }]);
    configuration["providers"]["corp"]["from_cookies"] = json!(["session"]);
    configuration["providers"]["down"] = json!({ "issuer": ISSUER, "remote_jwks": {
        "http_uri": { "uri": issuer.url(), "cluster": "idp" } } });
    let rule = json!({ "match": { "prefix": "/down" }, "requires": { "provider_name": "down" } });
    configuration["rules"].as_array_mut().unwrap().insert(0, rule);
    let good = key.sign(&claims());
    let request = |target: &str, headers: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: {HOST}\r\n{headers}connection: close\r\n\r\n").into_bytes()
    };
    let requests = [
        request("/?a=%26b&&c", "x-user: spoofed\r\nX-User: twice\r\n"),
        request("/", &format!("authorization: Bearer {good}\r\nx-user: spoofed\r\n")),
        request(&format!("/?x=1&access_token={good}&y"), ""),
        request("/", &format!("cookie: a=b; session={good};  c=d\r\n")),
        request("/", &format!("authorization: Bearer {}\r\n", tampered(&good))),
        request(&format!("/?access_token={good}"), &format!("authorization: Bearer {good}\r\n")),
        request("/down", &format!("authorization: bEARER {good}\r\n")),
    ];
    let gate = Gate::plugin(&configuration).cluster("idp", issuer.addr());
    let gate = start(gate);
    let shadow = seen_upstream(&gate, &requests);
    let open = start(Gate::open());
    assert_eq!(shadow, seen_upstream(&open, &requests));
    assert_eq!(shadow.len(), requests.len());
    let told: Vec<String> =
        gate.access_log().iter().map(|line| line["reason"].as_str().unwrap_or("-").to_owned()).collect();
    let expected = ["header_missing", "ok", "ok", "ok", "signature_invalid", "token_ambiguous", "jwks_unavailable"];
    assert_eq!(told, expected);
    eventually("the shadow's counters", || {
        let stats = gate.stats();
        let counts = |text: &str| stats.lines().any(|line| line.contains(text));
        (counts("claimgate_shadow_rejected.;reason=signature_invalid;.;provider=corp;: 1")
            && counts("claimgate_shadow_allowed.;provider=corp;: 3")
            && !counts("claimgate_rejected")
            && !counts("claimgate_allowed"))
        .then_some(())
    });
    let lines: Vec<Value> = gate.events().into_iter().filter(|event| event["event"] == "shadow_rejected").collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    finish(&gate);
}

#[test]
fn metrics_have_labels() {
    let snippet = include_str!("../envoy/stats_tags.yaml");
    let snippet: Value = serde_saphyr::from_str(snippet).unwrap();
    let (key, other) = (Key::new(Algorithm::ES256, "ec"), Key::new(Algorithm::ES256, "other"));
    let issuer = Issuer::start(&[&key]);
    let corp = json!({ "issuer": "https://idp.example.com/", "remote_jwks": { "http_uri": {
        "uri": issuer.url(), "cluster": "idp", "timeout": "2s" } } });
    let rules = json!([
        { "match": { "path": "/open" } },
        { "match": { "path": "/maybe" }, "requires": { "allow_missing": {} } },
        { "match": { "prefix": "/a" }, "requires": { "provider_name": "corp.eu" } },
    ]);
    let configuration = json!({ "providers": { "corp.eu": corp }, "rules": rules, "bypass_cors_preflight": true });
    let gate = Gate::plugin(&configuration).cluster("idp", issuer.addr()).stats_config(snippet["stats_config"].clone());
    let gate = start(gate);
    let ask = |path: &str| assert_eq!(gate.get(path).send().status, 200, "{path}");
    for path in ["/open", "/open", "/maybe", "/elsewhere"] {
        ask(path);
    }
    for _ in 0..3 {
        assert_eq!(gate.get("/a").bearer(&key.sign(&claims())).send().status, 200);
    }
    assert_eq!(gate.get("/a").send().status, 401);
    assert_eq!(gate.get("/a").bearer(&other.sign(&claims())).send().status, 401);
    let cors = gate.request("OPTIONS", "/a").header("origin", "x").header("access-control-request-method", "GET");
    assert_eq!(cors.send().status, 200);

    let value = |name: &str| {
        let page = gate.prometheus();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.and_then(|value| value.parse::<u64>().ok())
    };
    for (name, expected) in [
        (r#"claimgate_allowed{provider="corp.eu"}"#, 3),
        (r#"claimgate_allowed{provider="none"}"#, 1),
        (r#"claimgate_verified{provider="corp.eu",kid="ec"}"#, 3),
        (r#"claimgate_rejected{reason="header_missing",provider="corp.eu"}"#, 1),
        (r#"claimgate_rejected{reason="key_not_found",provider="corp.eu"}"#, 1),
        (r#"claimgate_bypassed{why="no_requirement"}"#, 2),
        (r#"claimgate_bypassed{why="unmatched"}"#, 1),
        (r#"claimgate_bypassed{why="preflight"}"#, 1),
        (r#"claimgate_jwks_fetch{provider="corp.eu",outcome="fetched"}"#, 1),
        (r#"claimgate_jwks_fetch{provider="corp.eu",outcome="unchanged"}"#, 1),
        (r#"claimgate_jwks_keys{provider="corp.eu"}"#, 1),
        (r#"claimgate_jwks_stale{provider="corp.eu"}"#, 0),
    ] {
        eventually(name, || (value(name) == Some(expected)).then_some(()));
    }
    assert!(value(r#"claimgate_jwks_age_seconds{provider="corp.eu"}"#).is_some());
    finish(&gate);
}

// ---- helpers ----

/// Sends requests to one gate and checks what a rejection looks like: the reply at once, the access log at the end.
struct Rejections<'g> {
    gate: &'g Gate,
    expected: std::cell::RefCell<Vec<(String, u16, String)>>,
    sent: std::cell::RefCell<(Vec<String>, Vec<Answer>)>,
}

impl<'g> Rejections<'g> {
    fn new(gate: &'g Gate) -> Self {
        Rejections { gate, expected: Default::default(), sent: Default::default() }
    }

    /// A path of its own names the request in the access log.
    fn request(&self) -> Request<'g> {
        self.gate.get(&format!("{}?query=secret", self.path(""))).header("host", HOST)
    }

    fn path(&self, prefix: &str) -> String {
        format!("{prefix}/{}", self.expected.borrow().len())
    }

    #[track_caller]
    fn check_at(&self, prefix: &str, token: &str, reason: &str) {
        self.sent.borrow_mut().0.push(token.to_owned());
        let path = self.path(prefix);
        let request = self.gate.get(&format!("{path}?query=secret")).header("host", HOST).bearer(token);
        self.check_answer(path, request, reason);
    }

    #[track_caller]
    fn check_token(&self, token: &str, reason: &str) {
        self.sent.borrow_mut().0.push(token.to_owned());
        self.check(self.request().bearer(token), reason);
    }

    #[track_caller]
    fn check_header(&self, authorization: Option<&str>, reason: &str) {
        let request =
            authorization.iter().fold(self.request(), |request, value| request.header("authorization", value));
        self.check(request, reason);
    }

    #[track_caller]
    fn check(&self, request: Request<'_>, reason: &str) {
        self.check_answer(self.path(""), request, reason);
    }

    #[track_caller]
    fn check_answer(&self, path: String, request: Request<'_>, reason: &str) {
        let answer = request.send();
        let (status, error) = match reason {
            "header_missing" => (401, None),
            "token_ambiguous" => (400, Some("error=\"invalid_request\"")),
            "scope_insufficient" | "claim_mismatch" => (403, Some("error=\"insufficient_scope\"")),
            "jwks_unavailable" => (503, None),
            _ => (401, Some("error=\"invalid_token\"")),
        };
        let body = answer.json();
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
        assert_eq!(body["reason"], reason, "{body}");
        assert_eq!((answer.status, &body["status"]), (status, &json!(status)), "{body}");
        assert_eq!(body["type"], format!("urn:claimgate:reason:{reason}"));
        assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");

        let challenge = answer.header("www-authenticate");
        // A client can do nothing about an outage.
        assert_eq!(challenge.is_some(), status != 503);
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
        if let Some(challenge) = challenge {
            assert!(challenge.starts_with(&format!("Bearer realm=\"{HOST}\"")), "{challenge}");
            assert_eq!(challenge.contains("error="), error.is_some(), "{challenge}");
            assert!(error.is_none_or(|error| challenge.contains(error)), "{challenge}");
            assert_eq!(challenge.contains("scope=\"orders:read\""), reason == "scope_insufficient", "{challenge}");
            assert!(!challenge.contains("secret"), "{challenge}");
        }
        self.expected.borrow_mut().push((path, status, reason.to_owned()));
        self.sent.borrow_mut().1.push(answer);
    }

    #[track_caller]
    fn finish(self) {
        let log = self.gate.access_log();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (path, status, reason) in self.expected.borrow().iter() {
            let with_query = format!("{path}?query=secret");
            let line = log.iter().find(|line| line["path"] == with_query).expect("every request is in the access log");
            assert_eq!(line["status"], *status, "{line}");
            assert_eq!(line["details"], format!("claimgate{{{reason}}}"), "{line}");
            assert_eq!(line["reason"], *reason, "{line}");
            *counts.entry(reason.clone()).or_default() += 1;
            let event = eventually("the rejection is logged", || {
                self.gate.events().into_iter().find(|event| event["path"] == *path && event["event"] == "rejected")
            });
            assert_eq!((&event["reason"], &event["environment"]), (&json!(reason), &json!("staging")), "{event}");
            assert_eq!(event["request_id"], line["request_id"]);
            assert!(event["detail"].is_string(), "{event}");
        }
        for reason in claimgate::Reason::ALL.into_iter().filter(|reason| *reason != claimgate::Reason::TokenRevoked) {
            let expected = counts.get(reason.as_str()).copied().unwrap_or_default();
            assert!(expected > 0, "{reason} was not provoked");
            let label = format!("reason=\"{reason}\"");
            eventually(&format!("{expected} in the counter of {reason}"), || {
                let page = self.gate.prometheus();
                let lines =
                    page.lines().filter(|line| line.starts_with("claimgate_rejected{") && line.contains(&label));
                let counted = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
                (counted == expected).then_some(())
            });
        }
        assert_eq!(self.gate.upstream().received().len(), 0, "a rejected request goes nowhere");
        let (tokens, answers) = self.sent.into_inner();
        check_no_leak(self.gate, &tokens, answers.iter());
        finish(self.gate);
    }
}

/// No 16 consecutive characters of a token may appear anywhere that an operator or a caller can read.
#[track_caller]
fn check_no_leak<'a>(gate: &Gate, tokens: &[String], replies: impl Iterator<Item = &'a Answer>) {
    const LENGTH: usize = 16;
    let pieces: HashSet<&[u8]> = tokens.iter().flat_map(|token| token.as_bytes().windows(LENGTH)).collect();
    let check = |what: &str, text: &[u8]| {
        if let Some(piece) = text.windows(LENGTH).find(|window| pieces.contains(window)) {
            panic!("a piece of a token in {what}: {}", String::from_utf8_lossy(piece));
        }
    };
    check("the log", gate.log().as_bytes());
    check("the metrics", gate.stats().as_bytes());
    check("Prometheus' page", gate.prometheus().as_bytes());
    for line in gate.access_log() {
        check("the access log", line.to_string().as_bytes());
    }
    for reply in replies {
        check("a body", &reply.body);
        reply.headers.iter().for_each(|(name, value)| check(name, value));
    }
}

#[track_caller]
fn check_unavailable(answer: &Answer) {
    assert_eq!((answer.status, answer.reason().as_deref()), (503, Some("jwks_unavailable")), "{}", answer.text());
    let retry_after = answer.header("retry-after").and_then(|value| value.parse::<u32>().ok());
    assert!(retry_after.is_some_and(|seconds| seconds > 0), "{:?}", answer.header("retry-after"));
}

#[track_caller]
fn finish(gate: &Gate) {
    assert_eq!(gate.trap(), None);
}

#[track_caller]
fn reason(gate: &Gate, token: &str) -> String {
    let answer = gate.get("/").bearer(token).send();
    answer.reason().unwrap_or_else(|| panic!("{}: {}", answer.status, answer.text()))
}

#[track_caller]
fn start(builder: Builder) -> Gate {
    builder.start().unwrap()
}

/// Every request needs a token of one provider, `corp`, with these keys.
fn inline(keys: &[&Key]) -> Value {
    json!({
        "providers": { "corp": {
            "issuer": ISSUER,
            "audiences": ["orders"],
            "local_jwks": { "inline_string": key_set(keys).to_string() },
        } },
        "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "corp" } }],
    })
}

/// The same with keys from `issuer`. The fetch may take long: a test ends a wait, not the clock.
#[track_caller]
fn remote(issuer: &Issuer, settings: &Value, concurrency: usize) -> Gate {
    let mut configuration = inline(&[]);
    let provider = configuration["providers"]["corp"].as_object_mut().unwrap();
    provider.remove("local_jwks");
    let mut remote_jwks = json!({ "http_uri": { "uri": issuer.url(), "cluster": "idp", "timeout": "20s" } });
    remote_jwks.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    provider.insert("remote_jwks".into(), remote_jwks);
    start(Gate::plugin(&configuration).cluster("idp", issuer.addr()).concurrency(concurrency))
}

/// Values of the `Authorization` header, none of them good, and the reason for each.
fn hostile_values(key: &Key) -> Vec<(Vec<u8>, &'static str)> {
    let header = br#"{"alg":"ES256","kid":"ec"}"#;
    let deep = |depth: usize, open: &str, close: &str| {
        format!("{{\"a\":{}{}}}", open.repeat(depth), close.repeat(depth)).into_bytes()
    };
    let bearer = |token: &str| [b"Bearer ", token.as_bytes()].concat();
    let signed = |header: &[u8], payload: &[u8]| bearer(&key.sign_bytes(header, payload));
    vec![
        (b"\xff\xfe\xfd".to_vec(), "header_missing"),
        (b"Bearer\ta.b.c".to_vec(), "header_missing"),
        (b"Bearer \xff\xfe.\x80.\xc3".to_vec(), "token_malformed"),
        (b"Bearer a.b.c,,,,".to_vec(), "token_ambiguous"),
        (bearer(&"a".repeat(90 << 10)), "token_too_large"),
        (bearer(&".".repeat(5000)), "token_malformed"),
        (bearer(&"a.".repeat(2500)), "token_malformed"),
        (bearer("AAAA.AAAA.AAAA"), "token_malformed"),
        (bearer(&format!("{}.{}.", encode_part(b"\0\0\0"), encode_part(b"\0"))), "token_malformed"),
        (signed(header, b"{\"sub\":\"\0\"}"), "token_malformed"),
        (signed(header, &deep(2000, "[", "]")), "token_malformed"),
        (signed(header, &deep(800, "{\"a\":", "}")), "token_malformed"),
        (signed(header, &deep(8000, "[", "]")), "token_too_large"),
        (signed(&deep(2000, "[", "]"), b"{}"), "token_malformed"),
        (signed(b"", b""), "token_malformed"),
        (signed(br#"{"alg":5,"kid":{},"crit":[]}"#, b"{}"), "token_malformed"),
        (signed(header, br#"{"exp":1e400,"iat":-1e400}"#), "token_malformed"),
        (signed(header, br#"{"iss":"\ud800"}"#), "token_malformed"),
        (signed(header, b"{}"), "issuer_mismatch"),
        (signed(header, br#"{"iss":"https://idp.example.com/","exp":99999999999999999999999999}"#), "claim_malformed"),
        (signed(header, br#"{"iss":"https://idp.example.com/","exp":"\u0000"}"#), "claim_malformed"),
    ]
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "alice", "aud": "orders", "exp": unix_time() + 3600 })
}

/// The honest claims with one changed; `null` leaves it out.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    claims
}

const ISSUER: &str = "https://idp.example.com/";
const HOST: &str = "orders.example.com";
