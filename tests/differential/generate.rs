//! Configurations and requests by the dozen, from one seed.
//!
//! The values come from small sets, so that rules and requests meet often, and lie on both sides of each border.

use claimgate_testbed::{Algorithm, Key, encode_part, tampered, unix_time, unsecured};
use fastrand::Rng;
use serde_json::{Map, Value, json};

use crate::case::Request;

/// Private keys: what a token needs beside the dice.
pub struct World {
    keys: Vec<Key>,
    rogue: Key,
}

impl World {
    pub fn new() -> Self {
        use Algorithm::{ES256, ES384, EdDSA, PS256, RS256};
        let algorithms = [(RS256, "rsa"), (ES256, "ec"), (ES384, "ec-384"), (EdDSA, "ed"), (PS256, "pss")];
        World {
            keys: algorithms.map(|(algorithm, kid)| Key::new(algorithm, kid)).into(),
            rogue: Key::new(ES256, "rogue"),
        }
    }

    /// The key of this name.
    pub fn key(&self, kid: &str) -> &Key {
        self.keys.iter().find(|key| key.kid() == kid).expect("a key of this name")
    }

    /// The claims of an honest token for `provider`.
    pub fn claims(&self, provider: &Value) -> Value {
        json!({
            "iss": provider["issuer"].as_str().unwrap_or("https://someone.example.com/"),
            "sub": "alice",
            "aud": provider["audiences"].get(0).cloned().unwrap_or("orders".into()),
            "iat": unix_time() - 10,
            "exp": unix_time() + 300,
        })
    }
}

// ---- configurations ----

/// A configuration that `jwt_authn` accepts.
pub fn configuration(rng: &mut Rng, world: &World) -> Value {
    let names = &["alpha", "beta", "gamma"][..rng.usize(1..=3)];
    // `jwt_authn` keeps its providers in no order: which of two with the same issuer it takes, nobody knows.
    let without_issuer = rng.usize(0..6);
    let mut providers = Map::new();
    for (number, name) in names.iter().enumerate() {
        providers.insert((*name).to_owned(), provider(rng, world, name, number != without_issuer));
    }
    let mut configuration = json!({ "providers": providers });

    let named = ["strict", "lax"];
    if rng.bool() {
        for name in named {
            configuration["requirement_map"][name] = requirement(rng, names, 2);
        }
    }
    let mapped = configuration["requirement_map"].is_object();
    let rules = (0..rng.usize(1..=5)).map(|_| {
        let mut rule = json!({ "match": route_match(rng) });
        match rng.u8(0..10) {
            0 => {}
            1 => rule["requires"] = json!({}),
            2 | 3 if mapped => rule["requirement_name"] = (*pick(rng, &named)).into(),
            _ => rule["requires"] = requirement(rng, names, 2),
        }
        rule
    });
    let mut rules: Vec<Value> = rules.collect();
    if rng.u8(0..4) > 0 {
        rules.push(json!({ "match": { "prefix": "/" }, "requires": requirement(rng, names, 2) }));
    }
    configuration["rules"] = rules.into();
    if rng.bool() {
        configuration["bypass_cors_preflight"] = rng.bool().into();
    }
    if rng.u8(0..4) == 0 {
        configuration["strip_failure_response"] = true.into();
    }
    if rng.u8(0..4) == 0 {
        configuration["stat_prefix"] = "differential".into();
    }
    configuration
}

fn provider(rng: &mut Rng, world: &World, name: &str, issuer: bool) -> Value {
    let mut provider = json!({ "local_jwks": { "inline_string": key_set(rng, world).to_string() } });
    if issuer {
        provider["issuer"] = format!("https://{name}.example.com/").into();
    }
    if rng.u8(0..3) > 0 {
        let audiences =
            [json!(["orders"]), json!(["billing", "orders"]), json!(["https://api.example.com/"]), json!(["api"])];
        provider["audiences"] = pick(rng, &audiences).clone();
    }
    if rng.bool() {
        provider["forward"] = rng.bool().into();
    }
    if rng.u8(0..3) == 0 {
        let places = rng.u8(1..8);
        if places & 1 != 0 {
            let header = || json!([{ "name": "X-Jwt" }]);
            let headers = [
                header(),
                json!([{ "name": "x-jwt", "value_prefix": "JWT " }]),
                json!([{ "name": "Authorization", "value_prefix": "Bearer " }]),
                json!([{ "name": "authorization", "value_prefix": "Token " }, { "name": "x-jwt" }]),
            ];
            provider["from_headers"] = pick(rng, &headers).clone();
        }
        if places & 2 != 0 {
            provider["from_params"] = pick(rng, &[json!(["jwt"]), json!(["access_token", "jwt"])]).clone();
        }
        if places & 4 != 0 {
            provider["from_cookies"] = pick(rng, &[json!(["session"]), json!(["id", "session"])]).clone();
        }
    }
    if rng.u8(0..3) == 0 {
        provider["forward_payload_header"] = (*pick(rng, &["x-payload", "X-Payload"])).into();
        if rng.bool() {
            provider["pad_forward_payload_header"] = rng.bool().into();
        }
    }
    if rng.u8(0..3) == 0 {
        provider["clock_skew_seconds"] = (*pick(rng, &[0, 1, 30, 120])).into();
    }
    if rng.u8(0..8) > 0 {
        provider["require_expiration"] = rng.bool().into();
    }
    if rng.u8(0..6) == 0 {
        provider["max_lifetime"] = (*pick(rng, &["200s", "600s", "7200s"])).into();
    }
    if rng.u8(0..4) == 0 {
        provider["subjects"] = string_matcher(rng, &["alice", "ali", "ice", "lic", "(alice|bob)"]);
    }
    if rng.u8(0..3) > 0 {
        provider["claim_to_headers"] = (0..rng.usize(1..=5)).map(|_| claim_to_header(rng)).collect();
    }
    if rng.u8(0..4) == 0 {
        provider["jwt_cache_config"] = json!({ "jwt_cache_size": 50 });
    }
    provider
}

fn key_set(rng: &mut Rng, world: &World) -> Value {
    let mut keys = world.keys.clone();
    rng.shuffle(&mut keys);
    keys.truncate(rng.usize(1..=3));
    let jwks = keys.iter().map(|key| {
        let mut jwk = key.public_jwk();
        let members = jwk.as_object_mut().expect("a JWK is an object");
        for name in ["alg", "use"] {
            if rng.u8(0..3) == 0 {
                members.remove(name);
            }
        }
        if rng.u8(0..6) == 0 {
            members.remove("kid");
        }
        jwk
    });
    json!({ "keys": jwks.collect::<Vec<_>>() })
}

fn claim_to_header(rng: &mut Rng) -> Value {
    let (header, claim) = *pick(rng, &CLAIM_HEADERS);
    let path = |keys: &[&str]| keys.iter().map(|key| json!({ "key": key })).collect::<Value>();
    match rng.u8(0..8) {
        0 => json!({ "header_name": "x-roles", "claim_path": path(&["https://example.com/roles"]) }),
        1 => json!({ "header_name": "x-deep", "claim_path": path(&["org", "unit", "name"]) }),
        _ => json!({ "header_name": header, "claim_name": claim }),
    }
}

fn requirement(rng: &mut Rng, providers: &[&str], depth: usize) -> Value {
    let provider = *pick(rng, providers);
    let several = |rng: &mut Rng| {
        let requirements = (0..rng.usize(2..=3)).map(|_| requirement(rng, providers, depth - 1));
        json!({ "requirements": requirements.collect::<Vec<_>>() })
    };
    match rng.u8(0..if depth > 0 { 16 } else { 10 }) {
        0..=4 => json!({ "provider_name": provider }),
        5 | 6 => {
            let audiences =
                [json!(["orders"]), json!(["billing", "api"]), json!([]), json!(["https://api.example.com"])];
            let audiences = pick(rng, &audiences);
            json!({ "provider_and_audiences": { "provider_name": provider, "audiences": audiences } })
        }
        7 => json!({ "allow_missing": {} }),
        8 => json!({ "allow_missing_or_failed": {} }),
        9 => json!({ "extract_only_without_validation": {} }),
        10..=13 => json!({ "requires_any": several(rng) }),
        _ => json!({ "requires_all": several(rng) }),
    }
}

fn route_match(rng: &mut Rng) -> Value {
    let mut found = match rng.u8(0..20) {
        0..=6 => {
            json!({ "prefix": pick(rng, &["/", "/api", "/api/", "/API", "/public", "/files/", "/api?", "/a%2Fb"]) })
        }
        7..=11 => json!({ "path": pick(rng, &["/", "/api", "/api/", "/API", "/public/info", "/files/1", "/a%2Fb"]) }),
        12..=15 => {
            let expressions = ["/files/[0-9]+", "/api(/v[12])?/.*", "/[a-z]+", "(?i)/API", "/(api|public)", r"/\w+/\d"];
            json!({ "safe_regex": { "regex": pick(rng, &expressions) } })
        }
        16..=18 => json!({ "path_separated_prefix": pick(rng, &["/api", "/API", "/public", "/files"]) }),
        _ => json!({ "connect_matcher": {} }),
    };
    if rng.u8(0..4) == 0 {
        found["case_sensitive"] = rng.bool().into();
    }
    if rng.u8(0..4) == 0 {
        found["headers"] = (0..rng.usize(1..=2)).map(|_| header_matcher(rng)).collect();
    }
    if rng.u8(0..5) == 0 {
        let matcher = |rng: &mut Rng| {
            let name = pick(rng, &["q", "Q", "empty"]);
            match rng.u8(0..3) {
                0 => json!({ "name": name }),
                1 => json!({ "name": name, "present_match": rng.bool() }),
                _ => json!({ "name": name, "string_match": string_matcher(rng, &["1", "a", "b", " ", "(1|ab)"]) }),
            }
        };
        found["query_parameters"] = (0..rng.usize(1..=2)).map(|_| matcher(rng)).collect();
    }
    found
}

fn header_matcher(rng: &mut Rng) -> Value {
    let mut matcher = match rng.u8(0..8) {
        0 => json!({ "name": ":method", "string_match": string_matcher(rng, &["GET", "P", "T", "E", "(GET|POST)"]) }),
        1 => {
            json!({ "name": ":authority", "string_match": { "suffix": pick(rng, &[".example.com", ".example.org"]) } })
        }
        2 => json!({ "name": ":path", "string_match": { "contains": pick(rng, &["?q=1", "api", "q"]) } }),
        3 => {
            json!({ "name": "x-number", "range_match": { "start": pick(rng, &[-5, 0, 5]), "end": pick(rng, &[6, 10]) } })
        }
        4 => json!({ "name": pick(rng, &["x-tenant", "X-Number"]), "present_match": rng.bool() }),
        5 => json!({ "name": pick(rng, &["x-tenant", "authorization"]) }),
        _ => json!({
            "name": pick(rng, &["x-tenant", "X-Tenant"]),
            "string_match": string_matcher(rng, &["acme", "ac", "me", "c", "(acme|umbrella).*"]),
        }),
    };
    if rng.u8(0..4) == 0 {
        matcher["invert_match"] = rng.bool().into();
    }
    if rng.u8(0..4) == 0 {
        matcher["treat_missing_header_as_empty"] = rng.bool().into();
    }
    matcher
}

/// A `StringMatcher` with one of five patterns: for the whole, the start, the end, the middle, an expression.
fn string_matcher(rng: &mut Rng, patterns: &[&str; 5]) -> Value {
    let kind = rng.usize(0..5);
    let mut matcher = match kind {
        4 => json!({ "safe_regex": { "regex": patterns[kind] } }),
        _ => json!({ (["exact", "prefix", "suffix", "contains"][kind]): patterns[kind] }),
    };
    // Not for expressions: the protocol says that it has no effect there.
    if kind < 4 && rng.u8(0..4) == 0 {
        matcher["ignore_case"] = rng.bool().into();
    }
    matcher
}

// ---- requests ----

/// A request that has to do with the configuration.
pub fn request(rng: &mut Rng, world: &World, configuration: &Value) -> Request {
    let methods = ["GET", "GET", "GET", "GET", "GET", "GET", "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT"];
    let method = *pick(rng, &methods);
    let mut query: Vec<String> = Vec::new();
    if rng.u8(0..3) == 0 {
        let pairs =
            ["q=1", "q=ab", "q", "q=", "Q=1", "empty=", "x=%20y", "x=a+b", "%71=1", "q=1&q=2", "x=%41", "a=%26b"];
        query.extend((0..rng.usize(1..=3)).map(|_| (*pick(rng, &pairs)).to_owned()));
    }
    let mut request = Request { method: method.to_owned(), path: String::new(), headers: Vec::new() };

    for (name, values) in [
        ("x-tenant", &["acme", "ACME", "umbrella corp", "me", ""][..]),
        ("x-number", &["5", "9", "10", "-3", "6x", "+6", " 7"][..]),
        ("content-type", &["application/json", "text/plain"][..]),
    ] {
        for _ in 0..*pick(rng, &[0, 0, 0, 1, 1, 1, 1, 2]) {
            request = request.header(name, *pick(rng, values));
        }
    }
    if method == "OPTIONS" {
        if rng.u8(0..5) > 0 {
            request = request.header("origin", *pick(rng, &["https://app.example.com", "https://app.example.com", ""]));
        }
        if rng.u8(0..5) > 0 {
            request = request.header("access-control-request-method", *pick(rng, &["POST", "POST", ""]));
        }
    }
    if rng.u8(0..3) == 0 {
        let names = [
            "x-sub",
            "X-Sub",
            "x_sub",
            "x-roles",
            "x-payload",
            "x-level",
            "x-deep",
            "x-org-id",
            "x_org-id",
            "x-jwt-signature-verified",
        ];
        for _ in 0..rng.usize(1..=3) {
            let name = pick(rng, &names);
            request = request.header(name, "mallory");
        }
    }

    let providers: Vec<&Value> = configuration["providers"].as_object().expect("providers").values().collect();
    for _ in 0..*pick(rng, &[0, 1, 1, 1, 1, 1, 1, 1, 1, 2]) {
        let provider = *pick(rng, &providers);
        let token = token(rng, world, provider);
        request = put(rng, request, &mut query, provider, &token);
    }
    rng.shuffle(&mut query);

    const PATHS: [&str; 20] = [
        "/",
        "/api",
        "/api/",
        "/api/v1/users",
        "/api/v3",
        "/apix",
        "/API",
        "/Api/v1",
        "/api;v=1",
        "/api//x",
        "/api/..",
        "/public",
        "/public/info",
        "/Public/info",
        "/files/1",
        "/files/22",
        "/files/x",
        "/files/1/2",
        "/a%2Fb",
        "/a/b",
    ];
    request.path = (*pick(rng, &PATHS)).to_owned();
    if !query.is_empty() || rng.u8(0..20) == 0 {
        request.path = format!("{}?{}", request.path, query.join("&"));
    }
    request
}

/// Puts a token where the provider looks for it, or beside that.
fn put(rng: &mut Rng, request: Request, query: &mut Vec<String>, provider: &Value, token: &str) -> Request {
    let texts = |name: &str| provider[name].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut places: Vec<Place> = Vec::new();
    for header in provider["from_headers"].as_array().into_iter().flatten() {
        let text = |name: &str| header[name].as_str().unwrap_or_default();
        places.push(Place::Header(text("name"), text("value_prefix")));
    }
    places.extend(texts("from_params").map(Place::Param));
    places.extend(texts("from_cookies").map(Place::Cookie));
    if places.is_empty() {
        let header = Place::Header("authorization", "Bearer ");
        places = vec![header, header, header, header, Place::Param("access_token")];
    }
    if rng.u8(0..30) == 0 {
        places = vec![Place::Header("authorization", "Bearer "), Place::Param("jwt"), Place::Cookie("session")];
    }
    match *pick(rng, &places) {
        Place::Header(name, prefix) => {
            let value = match rng.u8(0..40) {
                0 => format!("{}{token}", prefix.to_lowercase()),
                1 => format!("{}{token}", prefix.to_uppercase()),
                2 => format!("Not{prefix}{token}"),
                3 => format!("{prefix} {token}"),
                4 => format!("Basic abc, {prefix}{token}"),
                5 => format!("{prefix}\"{token}\""),
                6 => format!("{}{token}", prefix.trim_end()),
                7 => prefix.to_owned(),
                8 => format!("{prefix}{token},"),
                9 => token.to_owned(),
                _ => format!("{prefix}{token}"),
            };
            request.header(name, value)
        }
        Place::Param(name) => {
            query.push(match rng.u8(0..12) {
                0 => format!("{name}={}", token.replace('.', "%2E")),
                1 => format!("{}={token}", name.replace('t', "%74")),
                2 => format!("{name}={token}&{name}={token}"),
                3 => format!("{name}="),
                _ => format!("{name}={token}"),
            });
            request
        }
        Place::Cookie(name) => {
            let cookie = match rng.u8(0..8) {
                0 => format!("{name}=\"{token}\""),
                1 => format!("theme=dark; {name}={token}; lang=en"),
                2 => format!("theme=dark;{name}={token}"),
                3 => format!("{name}={token}; {name}=other"),
                4 => format!("{name}="),
                _ => format!("{name}={token}"),
            };
            request.header("cookie", cookie)
        }
    }
}

#[derive(Clone, Copy)]
enum Place<'a> {
    /// Its name and prefix.
    Header(&'a str, &'a str),
    Param(&'a str),
    Cookie(&'a str),
}

/// A token for the provider: honest as often as not.
fn token(rng: &mut Rng, world: &World, provider: &Value) -> String {
    let set: Value = serde_json::from_str(provider["local_jwks"]["inline_string"].as_str().unwrap_or_default())
        .expect("a key set is JSON");
    // A key without a name in the set is found by its material.
    let known = |jwk: &&Value| {
        let material = |jwk: &Value| ["n", "x"].map(|name| jwk[name].clone());
        world.keys.iter().find(|key| material(&key.public_jwk()) == material(jwk)).cloned()
    };
    let jwks: Vec<&Value> = set["keys"].as_array().into_iter().flatten().collect();
    let key = known(pick(rng, &jwks)).expect("the set holds keys of this world");
    let mut claims = world.claims(provider);
    for (name, values) in more_claims() {
        if rng.bool() {
            claims[name] = pick(rng, &values).clone();
        }
    }
    let now = unix_time();
    let leave_out = |claims: &mut Value, name: &str| {
        claims.as_object_mut().expect("claims are an object").remove(name);
    };
    match rng.u8(0..90) {
        0..=2 => claims["exp"] = (now - 3600).into(),
        3 => claims["exp"] = (now - 45).into(),
        4 => claims["nbf"] = (now + 3600).into(),
        5 => claims["nbf"] = (now + 45).into(),
        6 | 7 => claims["aud"] = "elsewhere".into(),
        8 => claims["aud"] = json!(["elsewhere", "orders"]),
        9 => claims["aud"] = "http://orders/".into(),
        10 => claims["aud"] = (*pick(rng, &["https://api.example.com", "api.example.com", "api/"])).into(),
        11 => leave_out(&mut claims, "aud"),
        12 | 13 => claims["iss"] = "https://mallory.example.com/".into(),
        14 => claims["iss"] = (*pick(rng, &["https://alpha.example.com/", "https://beta.example.com/"])).into(),
        15 => leave_out(&mut claims, "iss"),
        16 | 17 => leave_out(&mut claims, "exp"),
        18 => claims["exp"] = json!(0),
        19 => claims["iat"] = (now + 3600).into(),
        20 => claims["sub"] = "".into(),
        21 => leave_out(&mut claims, "sub"),
        22 => {
            let (name, value) = pick(
                rng,
                &[
                    ("exp", json!("soon")),
                    ("nbf", json!([])),
                    ("iss", json!(5)),
                    ("aud", json!([5])),
                    ("sub", json!(5)),
                ],
            )
            .clone();
            claims[name] = value;
        }
        23 => claims["exp"] = (now + 36_000).into(),
        24 => return tampered(&key.sign(&claims)),
        25 => return key.with_kid("unknown").sign(&claims),
        26 | 27 => return key.sign_with_header(&json!({ "alg": key.public_jwk()["alg"] }), &claims),
        28 => return world.rogue.clone().with_kid(key.kid()).sign(&claims),
        29 => return pick(rng, &["not-a-token", "a.b", "a.b.c", "..", "eyJ.eyJ.x", "%%%"]).to_string(),
        30 => return unsecured(&claims),
        31 => {
            let secret = Key::from_secret(Algorithm::HS256, key.kid(), b"a secret that is long enough for HS256");
            return secret.sign(&claims);
        }
        32 => return key.sign_with_header(&json!({ "alg": key.public_jwk()["alg"], "kid": 5 }), &claims),
        33 => {
            let header = json!({ "alg": key.public_jwk()["alg"], "kid": key.kid(), "crit": ["b64"], "b64": true });
            return key.sign_with_header(&header, &claims);
        }
        34 => {
            let token = key.sign(&claims);
            return pick(
                rng,
                &[format!("{token}="), format!("{token}."), format!(".{token}"), token.replacen('.', "..", 1)],
            )
            .clone();
        }
        35 => return key.sign_bytes(br#"{"alg":"RS256","typ":"JWT"}"#, b"[]"),
        36 => return format!("{}.{}.AAAA", encode_part(b"{}"), encode_part(b"{}")),
        37 => {
            let header = json!({ "alg": key.public_jwk()["alg"], "typ": "at+jwt", "kid": key.kid(), "cty": "JWT" });
            return key.sign_with_header(&header, &claims);
        }
        _ => {}
    }
    key.sign(&claims)
}

fn more_claims() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("sub", vec!["alice".into(), "Alice".into(), "bob".into(), "alice liddell".into()]),
        ("scope", vec!["read".into(), "read write".into(), "".into()]),
        ("roles", vec![json!(["admin", "user"]), json!([]), "admin".into(), json!([1, true, null, { "a": "é" }])]),
        (
            "level",
            vec![json!(7), json!(0), json!(4_294_967_296_i64), json!(1.5), json!(-3), json!(9_007_199_254_740_993_i64)],
        ),
        ("admin", vec![json!(true), json!(false), json!(null)]),
        ("org", vec![json!({ "id": 7, "unit": { "name": "r&d", "head": null } }), json!({}), "acme".into()]),
        ("a.b", vec!["dotted".into()]),
        ("https://example.com/roles", vec![json!(["owner"]), "owner".into()]),
        ("name", vec!["Ada Lovelace".into(), "Zoë".into(), " padded ".into(), "a,b".into()]),
    ]
}

fn pick<'a, T>(rng: &mut Rng, choices: &'a [T]) -> &'a T {
    rng.choice(choices).expect("there is a choice")
}

const CLAIM_HEADERS: [(&str, &str); 14] = [
    ("x-sub", "sub"),
    ("X-Sub", "sub"),
    ("x-scope", "scope"),
    ("x-roles", "roles"),
    ("x-level", "level"),
    ("x-admin", "admin"),
    ("x-org", "org"),
    ("x-org-id", "org.id"),
    ("x-deep", "org.unit.name"),
    ("x-unit", "org.unit"),
    ("x-dotted", "a.b"),
    ("x-name", "name"),
    ("x-absent", "absent.claim"),
    ("x-sub", "name"),
];
