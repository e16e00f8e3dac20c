//! What users of `jwt_authn` rely on around the gate, in a real Envoy: filter state, routes that depend on claims,
//! settings per route, tokens cut out of the request, gRPC and HEAD.

use claimgate_testbed::{Algorithm, Answer, Builder, Gate, Key, key_set, unix_time};
use serde_json::{Value, json};

const ISSUER: &str = "https://idp.example.com/";

fn key() -> Key {
    Key::new(Algorithm::ES256, "ec")
}

fn token(sub: &str) -> String {
    key().sign(&json!({ "iss": ISSUER, "sub": sub, "exp": unix_time() + 600, "list": ["a", 1] }))
}

fn gate(provider: Value, more: Value) -> Builder {
    let mut corp = json!({ "issuer": ISSUER, "local_jwks": { "inline": key_set(&[&key()]) } });
    let mut configuration = json!({});
    for (into, from) in [(&mut corp, provider), (&mut configuration, more)] {
        into.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
    }
    configuration["providers"] = json!({ "corp": corp });
    Gate::plugin(&configuration).concurrency(1)
}

#[track_caller]
fn rejected(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status, answer.reason().as_deref()), (status, Some(reason)), "{}", answer.text());
}

#[test]
fn filter_state_is_read_by_rbac_and_the_access_log() {
    let states = json!([{ "key": "jwt_sub", "claim_name": "sub" }, { "key": "jwt_list", "claim_path": ["list"] }]);
    let gate = gate(json!({ "claim_to_filter_state": states }), json!({}))
        .behind(json!({
            "name": "rbac",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
                "rules": { "policies": { "alice": {
                    "permissions": [{ "any": true }],
                    "principals": [{ "filter_state": { "key": "wasm.jwt_sub", "string_match": { "exact": "alice" } } }],
                } } },
            },
        }))
        .log_field("sub", "%FILTER_STATE(wasm.jwt_sub:PLAIN)%")
        .log_field("list", "%FILTER_STATE(wasm.jwt_list:PLAIN)%")
        .start()
        .unwrap();
    assert_eq!(gate.get("/a").bearer(&token("alice")).send().status, 200);
    assert_eq!(gate.get("/b").bearer(&token("bob")).send().status, 403);
    let log = gate.access_log();
    let line = |path: &str| log.iter().find(|line| line["path"] == path).unwrap();
    assert_eq!((&line("/a")["sub"], &line("/a")["list"]), (&json!("alice"), &json!("[\"a\",1]")));
    assert_eq!(line("/a")["reason"], "ok");
    assert_eq!(line("/b")["details"], "rbac_access_denied_matched_policy[none]");
    assert_eq!(gate.trap(), None);
}

#[test]
fn a_route_may_depend_on_a_claim() {
    let settings = json!({
        "claim_to_headers": [{ "header_name": "x-user", "claim_name": "sub" }], "clear_route_cache": true,
    });
    let gold = json!({ "match": { "prefix": "/", "headers": [{ "name": "x-user", "string_match": { "exact": "alice" } }] },
        "direct_response": { "status": 202 } });
    let routes = json!([gold, { "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }]);
    let open = json!({ "rules": [{ "match": { "path": "/open" } },
        { "match": { "prefix": "/" }, "requires": { "provider_name": "corp" } }] });
    let gate = gate(settings, open).routes(routes).start().unwrap();
    assert_eq!(gate.get("/").bearer(&token("alice")).send().status, 202);
    assert_eq!(gate.get("/").bearer(&token("bob")).send().status, 200);
    assert_eq!(gate.get("/").header("x-user", "alice").bearer(&token("bob")).send().status, 200, "spoofed");
    assert_eq!(gate.get("/open").header("X-USER", "alice").send().status, 200, "spoofed on a path that is open");
    assert_eq!(gate.trap(), None);
}

#[test]
fn settings_per_route() {
    let route = |path: &str, metadata: Value| {
        json!({ "match": { "prefix": path }, "route": { "cluster": "upstream" },
            "metadata": { "filter_metadata": { "claimgate": metadata } } })
    };
    let routes = json!([
        route("/off", json!({ "disabled": true })),
        route("/on", json!({ "disabled": false })),
        route("/text", json!({ "disabled": "true" })),
        route("/admin", json!({ "requirement": "admin" })),
        route("/unknown", json!({ "requirement": "nobody" })),
        route("/number", json!({ "requirement": 7 })),
        route("/other", json!({ "colour": "red" })),
        { "match": { "prefix": "/" }, "route": { "cluster": "upstream" } },
    ]);
    let admin = json!({ "admin": { "provider_name": "corp", "claims": [{ "claim_name": "sub", "equals": "root" }] } });
    let settings = json!({ "claim_to_headers": [{ "header_name": "x-user", "claim_name": "sub" }] });
    let gate = gate(settings, json!({ "requirement_map": admin })).routes(routes).start().unwrap();

    let off = gate.get("/off").header("x-user", "spoofed").send();
    assert_eq!(off.status, 200);
    assert_eq!(off.echo.unwrap().header("x-user"), None, "also where the gate is off");
    for path in ["/on", "/text", "/other", "/"] {
        rejected(&gate.get(path).send(), 401, "header_missing");
        assert_eq!(gate.get(path).bearer(&token("alice")).send().status, 200, "{path}");
    }
    rejected(&gate.get("/admin").bearer(&token("alice")).send(), 403, "claim_mismatch");
    assert_eq!(gate.get("/admin").bearer(&token("root")).send().status, 200);
    rejected(&gate.get("/unknown").bearer(&token("root")).send(), 403, "claim_mismatch");
    rejected(&gate.get("/number").bearer(&token("root")).send(), 403, "claim_mismatch");
    assert_eq!(gate.trap(), None);
}

#[test]
fn a_token_ends_at_the_gate_wherever_it_was() {
    let settings = json!({ "from_headers": [{ "name": "x-jwt", "value_prefix": "jwt " }], "from_params": ["t"],
        "from_cookies": ["session"] });
    let gate = gate(settings, json!({})).start().unwrap();
    let token = token("alice");
    let echo = gate.get(&format!("/a?x=%2F&t={token}&y=+")).header("x-jwt-other", "1").send().echo.unwrap();
    assert_eq!(echo.path, "/a?x=%2F&y=+");
    let echo = gate.get("/a").header("cookie", format!("a=1; session={token}; b=2")).send().echo.unwrap();
    assert_eq!(echo.headers_named("cookie"), ["a=1; b=2"]);
    let echo = gate.get("/a").header("X-JWT", format!("jwt {token}")).send().echo.unwrap();
    assert_eq!(echo.header("x-jwt"), None);
    let both = gate.get(&format!("/a?t={token}")).header("x-jwt", format!("jwt {token}")).send();
    rejected(&both, 400, "token_ambiguous");
    assert_eq!(gate.trap(), None);
}

#[test]
fn grpc_head_and_the_other_forms_of_an_answer() {
    let start = |more: Value| gate(json!({}), more).start().unwrap();
    let grpc = |gate: &Gate, token: Option<&str>| {
        let request = gate.request("POST", "/shop.Orders/List").header("content-type", "application/grpc");
        let answer = token.into_iter().fold(request, |request, token| request.bearer(token)).send();
        let header = |name| answer.header(name).map(str::to_owned);
        (answer.status, header("grpc-status"), header("grpc-message"))
    };
    let plain = start(json!({}));
    let (status, code, message) = grpc(&plain, None);
    assert_eq!((status, code.as_deref()), (200, Some("16")));
    assert_eq!(message.as_deref(), Some("header_missing: the request has no Authorization header"));
    assert_eq!(grpc(&plain, Some(&token("alice"))).1, None, "the upstream's own answer");
    let head = plain.request("HEAD", "/").send();
    assert_eq!((head.status, head.body.len()), (401, 0));
    assert_eq!(head.header("www-authenticate"), Some(r#"Bearer realm="127.0.0.1""#));

    let stripped = start(json!({ "strip_failure_response": true })).get("/").send();
    assert_eq!((stripped.status, stripped.body.len(), stripped.header("www-authenticate")), (401, 0, None));
    let text = start(json!({ "error_format": "text" })).get("/").send();
    assert_eq!((text.status, text.text().as_str()), (401, "Jwt is missing"));
    assert_eq!(plain.trap(), None);
}

#[test]
fn a_preflight_passes_only_as_one() {
    let gate = gate(json!({}), json!({ "bypass_cors_preflight": true })).start().unwrap();
    let ask = |method: &str| {
        gate.request(method, "/").header("origin", "https://shop").header("access-control-request-method", "GET").send()
    };
    assert_eq!(ask("OPTIONS").status, 200);
    rejected(&ask("GET"), 401, "header_missing");
    assert_eq!(gate.trap(), None);
}
