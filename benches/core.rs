//! What the core costs by itself, without a host: `cargo bench`, or `cargo bench --bench core -- decide` for a part.
//!
//! Native code: the plugin's is slower. What a request costs in Envoy is measured by `cargo run --release --example bench`.

use std::hint::black_box;

use claimgate::{
    Config, Decision, Hint, KeySet, KeyStore, Lookup, Portable, Request, State, UnixTime, UnverifiedJws, decide,
};
use claimgate_testbed::{Algorithm, Key, key_set};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://idp.example.com/";

fn now() -> UnixTime {
    UnixTime::from_secs(NOW)
}

/// Claims of usual kind, and so many groups.
fn claims(groups: usize) -> Value {
    let groups: Vec<String> = (0..groups).map(|number| format!("group-{number:03}")).collect();
    json!({
        "iss": ISSUER, "aud": "orders", "sub": "user-4711", "iat": NOW, "exp": NOW + 3600, "scope": "read",
        "groups": groups,
    })
}

fn request(path: &str, token: &str) -> Request {
    Request::new([
        (":method", "GET"),
        (":path", path),
        (":authority", "api.example.com"),
        ("user-agent", "bench"),
        ("accept", "*/*"),
        ("authorization", &format!("Bearer {token}")),
    ])
}

/// A configuration with one provider of this set, and what `settings` add to the top level.
fn gate(set: &Value, settings: &Value) -> (Config, State) {
    let mut configuration = json!({
        "providers": { "corp": {
            "issuer": ISSUER, "audiences": ["orders"], "algorithms": ["RS256", "ES256", "EdDSA", "HS256"],
            "local_jwks": { "inline": set },
        } },
        // The brake is not what is measured.
        "verifications_per_second": { "light": u32::MAX, "medium": u32::MAX, "heavy": u32::MAX },
    });
    for (name, value) in settings.as_object().into_iter().flatten() {
        configuration[name] = value.clone();
    }
    let (config, sources) = Config::parse(configuration.to_string().as_bytes()).expect("a sound configuration");
    let state = State::new(KeyStore::new(sources, 1, now()), &config, now());
    (config, state)
}

/// Decides once, so that what can be remembered is, and then measures.
fn measure(c: &mut Criterion, name: &str, (config, mut state): (Config, State), request: &Request) {
    let mut decide = || decide(request, &config, &mut state, &Portable, now());
    assert!(matches!(decide(), Decision::Allow(_)), "{name}: the request is allowed");
    c.bench_function(name, |b| b.iter(&mut decide));
}

fn parse(c: &mut Criterion) {
    let key = Key::new(Algorithm::HS256, "HS256");
    let mut group = c.benchmark_group("parse");
    for groups in [0, 300] {
        let token = key.sign(&claims(groups));
        group.throughput(Throughput::Bytes(token.len() as u64));
        group.bench_function(format!("a token of {} bytes", token.len()), |b| {
            b.iter(|| UnverifiedJws::parse(black_box(token.as_bytes())));
        });
    }
    group.finish();
    let pairs =
        pairs(&[(":path", "/orders"), (":method", "GET"), ("authorization", "Bearer a.b.c"), ("accept", "*/*")]);
    c.bench_function("parse/a host's headers", |b| b.iter(|| Request::from_pairs(black_box(pairs.clone()))));
}

/// Header lines as a host hands them over.
fn pairs(lines: &[(&str, &str)]) -> Vec<u8> {
    let size = |bytes: usize| u32::try_from(bytes).expect("a short line").to_le_bytes();
    let mut pairs = size(lines.len()).to_vec();
    lines.iter().for_each(|(name, value)| pairs.extend([size(name.len()), size(value.len())].concat()));
    lines.iter().for_each(|(name, value)| pairs.extend(format!("{name}\0{value}\0").bytes()));
    pairs
}

/// One verification by our own code.
fn verify(c: &mut Criterion) {
    use claimgate::Algorithm as Alg;
    for (signs, verifies) in [
        (Algorithm::RS256, Alg::Rs256),
        (Algorithm::PS256, Alg::Ps256),
        (Algorithm::ES256, Alg::Es256),
        (Algorithm::ES384, Alg::Es384),
        (Algorithm::EdDSA, Alg::EdDsa),
        (Algorithm::HS256, Alg::Hs256),
    ] {
        let key = Key::new(signs, "bench");
        let token = key.sign(&claims(0));
        let jws = UnverifiedJws::parse(token.as_bytes()).expect("a sound token");
        let set = KeySet::parse(key_set(&[&key]).to_string().as_bytes(), 1).expect("a sound set");
        let ready = set.keys().first().expect("a usable key");
        assert!(ready.verify(verifies, jws.signing_input(), jws.signature()), "{signs:?}");
        c.bench_function(&format!("verify/{signs:?}"), |b| {
            b.iter(|| ready.verify(verifies, black_box(jws.signing_input()), jws.signature()));
        });
    }
}

fn decisions(c: &mut Criterion) {
    for alg in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256] {
        let key = Key::new(alg, "bench");
        let request = request("/orders", &key.sign(&claims(0)));
        let set = key_set(&[&key]);
        measure(c, &format!("decide/{alg:?}, seen before"), gate(&set, &json!({})), &request);
        let uncached = json!({ "providers": { "corp": {
            "issuer": ISSUER, "audiences": ["orders"], "algorithms": [format!("{alg:?}")],
            "local_jwks": { "inline": set }, "jwt_cache_config": { "jwt_cache_size": 0 },
        } } });
        measure(c, &format!("decide/{alg:?}, cache off"), gate(&Value::Null, &uncached), &request);
    }
}

/// The last rule of several is the one that matches.
fn rules(c: &mut Criterion) {
    let key = Key::new(Algorithm::RS256, "bench");
    let set = key_set(&[&key]);
    for count in [1, 200] {
        let request = request(&format!("/service-{}/orders", count - 1), &key.sign(&claims(0)));
        let kinds: [(&str, fn(usize) -> Value); 2] = [
            ("prefix", |number| json!({ "prefix": format!("/service-{number}/") })),
            ("safe_regex", |number| json!({ "safe_regex": { "regex": format!("/service-{number}/.*") } })),
        ];
        for (kind, rule) in kinds {
            let rules: Vec<Value> = (0..count)
                .map(|number| json!({ "match": rule(number), "requires": { "provider_name": "corp" } }))
                .collect();
            measure(c, &format!("rules/{count} of `{kind}`"), gate(&set, &json!({ "rules": rules })), &request);
        }
    }
}

/// The last key of several is the one that is asked for.
fn keys(c: &mut Criterion) {
    for count in [1, 1_000] {
        let keys: Vec<Key> = (0..count).map(|number| Key::new(Algorithm::ES256, &format!("key-{number}"))).collect();
        let (config, state) = gate(&key_set(&keys.iter().collect::<Vec<_>>()), &json!({}));
        let kid = format!("key-{}", count - 1);
        let hint = Hint { kid: Some(&kid), alg: claimgate::Algorithm::Es256 };
        let look_up = || state.keys.lookup(config.providers[0].keys, black_box(hint), now());
        assert!(matches!(look_up(), Lookup::Keys(found) if found.len() == 1));
        c.bench_function(&format!("keys/look up among {count}"), |b| b.iter(look_up));
    }
}

criterion_group!(core, parse, verify, decisions, rules, keys);
criterion_main!(core);
