//! The cache of verified tokens and the brake: what they spare, and that they change no decision.

use std::cell::Cell;

use claimgate::{
    Algorithm, Config, Cost, Crypto, Decision, KeyStore, Request, Response, State, UnixTime, VerifyingKey, decide,
};
use claimgate_testbed::Algorithm::{ES256, ES384, HS256};
use claimgate_testbed::{Key, key_set, tampered};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::gate::{ISSUER, NOW, bearer, claims, claims_with, merge, request};

/// A host that cannot verify, and counts how often it was asked.
#[derive(Default)]
struct Counting(Cell<usize>);

impl Crypto for Counting {
    fn verify(&self, _: &VerifyingKey, _: Algorithm, _: &[u8], _: &[u8]) -> Option<bool> {
        self.0.set(self.0.get() + 1);
        None
    }
}

/// A gate whose one provider fetches its keys, on a clock of its own.
struct Clocked {
    config: Config,
    state: State,
    crypto: Counting,
    now: u64,
}

impl Clocked {
    fn new(set: &Value, settings: Value) -> Self {
        let mut provider = json!({"issuer": ISSUER, "audiences": ["orders"], "algorithms": ["ES256", "ES384", "HS256"],
            "clock_skew_seconds": 0, "remote_jwks": {"http_uri": {"uri": "http://idp/", "cluster": "idp"},
            "cache_duration": "100s", "stale_for": "1000s"}});
        merge(&mut provider, settings);
        Self::of(set, json!({"providers": {"corp": provider}}))
    }

    fn of(set: &Value, configuration: Value) -> Self {
        let (config, sources) = Config::parse(configuration.to_string().as_bytes()).expect("the test's configuration");
        let start = UnixTime::from_secs(NOW);
        let state = State::new(KeyStore::new(sources, 1, start), &config, start);
        let mut gate = Self { config, state, crypto: Counting::default(), now: NOW };
        gate.fetch(Some(set));
        gate
    }

    /// Makes the fetches that are due; without a set, the issuer is down.
    fn fetch(&mut self, set: Option<&Value>) {
        let now = UnixTime::from_secs(self.now);
        while let Some(fetch) = self.state.keys.poll_fetch(now) {
            let response = set.map_or(Response::Failed, |set| Response::Answered {
                status: 200,
                headers: Vec::new(),
                body: set.to_string().into_bytes(),
            });
            self.state.keys.handle_response(fetch.id, response, now);
        }
    }

    fn decide(&mut self, request: &Request) -> Decision {
        decide(request, &self.config, &mut self.state, &self.crypto, UnixTime::from_secs(self.now))
    }

    fn outcome(&mut self, request: &Request) -> String {
        match self.decide(request) {
            Decision::Allow(_) => "ok".to_owned(),
            Decision::Await(_) => "await".to_owned(),
            Decision::Reject(rejection) => rejection.reason().to_string(),
        }
    }

    /// Decides on a token: the outcome, and how many signatures were verified for it.
    #[track_caller]
    fn check(&mut self, token: &str, expected: (&str, usize)) {
        self.crypto.0.set(0);
        let outcome = self.outcome(&bearer(token));
        assert_eq!((outcome.as_str(), self.crypto.0.get()), expected);
    }
}

fn key() -> Key {
    Key::new(ES256, "k")
}

fn numbered(key: &Key, number: usize) -> String {
    key.sign(&claims_with(json!({"jti": number.to_string()})))
}

#[test]
fn a_signature_is_verified_once() {
    let token = key().sign(&claims());
    let mut gate =
        Clocked::new(&key_set(&[&key()]), json!({"claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}]}));
    gate.check(&token, ("ok", 1));
    gate.check(&token, ("ok", 0));
    let Decision::Allow(first) = gate.decide(&bearer(&token)) else { panic!("refused") };
    assert_eq!(first.set, [("x-sub".to_owned(), b"alice".to_vec())]);
    let tally = gate.state.take_tally();
    assert_eq!((tally.hits, tally.misses), (2, 1));
    assert_eq!(gate.state.take_tally(), claimgate::Tally::default());
}

#[test]
fn what_is_refused_does_not_enter() {
    let mut gate = Clocked::new(&key_set(&[&key()]), json!({}));
    // The issuer is asked once whether the key was replaced under its name.
    let forged = tampered(&key().sign(&claims()));
    gate.check(&forged, ("await", 1));
    gate.state.keys.want(claimgate::IssuerId(0), &claimgate::Want::Look, UnixTime::from_secs(NOW));
    gate.fetch(Some(&key_set(&[&key()])));
    gate.check(&forged, ("signature_invalid", 1));
    gate.check(&forged, ("signature_invalid", 1));
    let other = key().sign(&claims_with(json!({"aud": "other"})));
    gate.check(&other, ("audience_mismatch", 1));
    gate.check(&other, ("audience_mismatch", 1));
}

#[test]
fn time_is_checked_on_every_hit() {
    let token = key().sign(&claims_with(json!({"exp": NOW + 10})));
    let mut gate = Clocked::new(&key_set(&[&key()]), json!({}));
    gate.check(&token, ("ok", 1));
    gate.now = NOW + 9;
    gate.check(&token, ("ok", 0));
    gate.now = NOW + 10;
    gate.check(&token, ("token_expired", 0));
}

#[test]
fn a_withdrawn_key_is_noticed_at_once() {
    let (old, new) = (key(), Key::new(ES256, "new"));
    let token = old.sign(&claims());
    let mut gate = Clocked::new(&key_set(&[&old]), json!({}));
    gate.check(&token, ("ok", 1));
    gate.now = NOW + 95;
    gate.fetch(Some(&key_set(&[&old])));
    gate.check(&token, ("ok", 0));
    gate.now = NOW + 190;
    gate.fetch(Some(&key_set(&[&old, &new])));
    gate.check(&token, ("ok", 1));
    gate.check(&token, ("ok", 0));
    gate.now = NOW + 285;
    gate.fetch(Some(&key_set(&[&new])));
    assert_ne!(gate.outcome(&bearer(&token)), "ok");
}

#[test]
fn a_key_set_that_is_too_old_serves_no_hit() {
    let token = key().sign(&claims_with(json!({"exp": NOW + 10_000})));
    let mut gate = Clocked::new(&key_set(&[&key()]), json!({}));
    gate.check(&token, ("ok", 1));
    gate.now = NOW + 1099;
    gate.fetch(None);
    gate.check(&token, ("ok", 0));
    gate.now = NOW + 1101;
    gate.fetch(None);
    gate.check(&token, ("jwks_unavailable", 0));
}

#[test]
fn each_rule_has_its_own_decision() {
    let provider = json!({"issuer": ISSUER, "audiences": ["orders"], "local_jwks": {"inline": key_set(&[&key()])}});
    let rule = |prefix: &str, requires: Value| json!({"match": {"prefix": prefix}, "requires": requires});
    let mut gate = Clocked::of(
        &json!({}),
        json!({"providers": {"corp": provider}, "rules": [
            rule("/admin", json!({"provider_name": "corp", "claims": [{"claim_name": "role", "equals": "admin"}]})),
            rule("/other", json!({"provider_and_audiences": {"provider_name": "corp", "audiences": ["other"]}})),
            rule("/", json!({"provider_name": "corp"})),
        ]}),
    );
    let token = key().sign(&claims());
    let at = |path: &str| Request::new([(":path", path), ("authorization", &format!("Bearer {token}"))]);
    for _ in 0..2 {
        assert_eq!(gate.outcome(&at("/")), "ok");
        assert_eq!(gate.outcome(&at("/admin")), "claim_mismatch");
        assert_eq!(gate.outcome(&at("/other")), "audience_mismatch");
    }
    assert_eq!(gate.crypto.0.get(), 1);
}

#[test]
fn each_provider_has_its_own_proof() {
    // Two providers of one issuer, each with a key of its own under the same name.
    let provider = |key: &Key, header: &str| {
        json!({"issuer": ISSUER, "local_jwks": {"inline": key_set(&[key])},
        "claim_to_headers": [{"header_name": header, "claim_name": "sub"}]})
    };
    let (mine, other) = (key(), Key::new(ES256, "other").with_kid("k"));
    let rule = |name: &str| json!({"match": {"prefix": format!("/{name}")}, "requires": {"provider_name": name}});
    let mut gate = Clocked::of(
        &json!({}),
        json!({"providers": {"a": provider(&mine, "x-a"), "b": provider(&other, "x-b"),
        "c": provider(&mine, "x-c")}, "rules": [rule("a"), rule("b"), rule("c")]}),
    );
    let token = mine.sign(&claims());
    let at = |path: &str| Request::new([(":path", path), ("authorization", &format!("Bearer {token}"))]);
    for _ in 0..2 {
        for (path, header) in [("/a", "x-a"), ("/c", "x-c")] {
            let Decision::Allow(allow) = gate.decide(&at(path)) else { panic!("refused") };
            assert_eq!(allow.set, [(header.to_owned(), b"alice".to_vec())]);
        }
        assert_eq!(gate.outcome(&at("/b")), "signature_invalid");
    }
}

#[test]
fn the_cache_is_off_when_it_is_said_so() {
    let token = key().sign(&claims());
    let mut gate = Clocked::new(&key_set(&[&key()]), json!({"jwt_cache_config": {"jwt_cache_size": 0}}));
    gate.check(&token, ("ok", 1));
    gate.check(&token, ("ok", 1));
    assert_eq!(gate.state.take_tally(), claimgate::Tally::default());
    let long = json!({"jwt_cache_config": {"jwt_max_token_size": token.len() - 1}});
    let mut gate = Clocked::new(&key_set(&[&key()]), long);
    gate.check(&token, ("ok", 1));
    gate.check(&token, ("ok", 1));
}

#[test]
fn a_flood_of_one_time_tokens_turns_nothing_out() {
    let key = Key::new(HS256, "k");
    let mut gate = Clocked::new(&key_set(&[&key]), json!({"jwt_cache_config": {"jwt_cache_size": 8}}));
    let regular: Vec<String> = (0..8).map(|number| numbered(&key, number)).collect();
    for token in &regular {
        gate.check(token, ("ok", 1));
    }
    for number in 100..1100 {
        gate.check(&numbered(&key, number), ("ok", 1));
    }
    for token in &regular {
        gate.check(token, ("ok", 0));
    }
    let tally = gate.state.take_tally();
    assert_eq!((tally.evicted, tally.turned_away), (0, 1000));
    // Who comes again gets in, in place of one that is not used.
    for token in &regular[1..] {
        gate.check(token, ("ok", 0));
    }
    let newcomer = numbered(&key, 2000);
    for verifications in [1, 1, 0] {
        gate.check(&newcomer, ("ok", verifications));
    }
    assert_eq!(gate.state.take_tally().evicted, 1);
    assert_eq!(gate.state.cached_tokens(), 8);
}

#[test]
fn a_full_cache_lets_expired_tokens_go_first() {
    let key = Key::new(HS256, "k");
    let mut gate = Clocked::new(&key_set(&[&key]), json!({"jwt_cache_config": {"jwt_cache_size": 2}}));
    let (short, long) = (key.sign(&claims_with(json!({"exp": NOW + 10}))), key.sign(&claims()));
    for token in [&short, &long, &short] {
        assert_eq!(gate.outcome(&bearer(token)), "ok");
    }
    gate.now = NOW + 20;
    for verifications in [1, 1, 0] {
        gate.check(&numbered(&key, 1), ("ok", verifications));
    }
    gate.check(&long, ("ok", 0));
}

#[test]
fn the_cache_is_bounded_in_bytes() {
    let key = Key::new(HS256, "k");
    let settings =
        json!({"max_token_bytes": 65_536, "jwt_cache_config": {"jwt_cache_size": 1000, "jwt_max_token_size": 65_536}});
    let mut gate = Clocked::new(&key_set(&[&key]), settings);
    for number in 0..200 {
        let token = key.sign(&claims_with(json!({"jti": number.to_string(), "pad": "x".repeat(40_000)})));
        gate.check(&token, ("ok", 1));
    }
    // Each is reckoned at more than six times its payload: 16 MiB hold fewer than 70.
    let held = gate.state.cached_tokens();
    assert!((10..70).contains(&held), "{held}");
}

#[test]
fn expensive_verifications_are_braked() {
    let (cheap, dear) = (Key::new(HS256, "cheap"), Key::new(ES384, "dear"));
    let provider = json!({"issuer": ISSUER, "algorithms": ["ES384", "HS256"],
        "jwt_cache_config": {"jwt_cache_size": 100}, "local_jwks": {"inline": key_set(&[&cheap, &dear])}});
    let mut gate =
        Clocked::of(&json!({}), json!({"providers": {"corp": provider}, "verifications_per_second": {"heavy": 3}}));
    let known = numbered(&dear, 0);
    gate.check(&known, ("ok", 1));
    // Bad signatures cost as much as good ones.
    gate.check(&tampered(&known), ("signature_invalid", 1));
    gate.check(&numbered(&dear, 1), ("ok", 1));
    gate.check(&numbered(&dear, 2), ("jwks_unavailable", 1));
    let Decision::Reject(rejection) = gate.decide(&bearer(&numbered(&dear, 2))) else { panic!("allowed") };
    assert_eq!(rejection.retry_after, Some(std::time::Duration::from_secs(1)));
    assert_eq!(gate.state.take_braked(), [(Cost::Light, 0), (Cost::Medium, 0), (Cost::Heavy, 2)]);
    // Nobody else is held up: not another class, and not who is known.
    gate.check(&numbered(&cheap, 3), ("ok", 1));
    gate.check(&known, ("ok", 0));
    // A token that is bad anyway is refused for that.
    gate.check(&dear.sign(&claims_with(json!({"iss": "https://other/"}))), ("issuer_mismatch", 1));
    gate.now = NOW + 1;
    gate.check(&numbered(&dear, 2), ("ok", 1));
}

/// What may happen to a gate between and in requests.
#[derive(Clone, Debug)]
enum Step {
    Token { key: usize, audience: bool, lifetime: u64, path: bool, tampered: bool },
    Later(u64),
    Publish([bool; 3]),
    Outage,
}

fn step() -> impl Strategy<Value = Step> {
    let token = (0..3_usize, any::<bool>(), 1..3_u64, any::<bool>(), prop::bool::weighted(0.1));
    prop_oneof![
        8 => token.prop_map(|(key, audience, lifetime, path, tampered)| Step::Token {
            key, audience, lifetime: lifetime * 100, path, tampered }),
        2 => (1..120_u64).prop_map(Step::Later),
        1 => any::<[bool; 3]>().prop_map(Step::Publish),
        1 => Just(Step::Outage),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// With the cache and without it, the gate decides the same, whatever happens.
    #[test]
    fn the_cache_changes_no_decision(steps in prop::collection::vec(step(), 1..60), size in 1..6_u32) {
        let keys: Vec<Key> = (0..3).map(|n| Key::from_secret(HS256, &format!("k{n}"), &[n + 1; 32])).collect();
        let gate = |size: u32| Clocked::of(&key_set(&keys.iter().collect::<Vec<_>>()), json!({
            "providers": {"corp": {"issuer": ISSUER, "audiences": ["orders"], "algorithms": ["HS256"], "clock_skew_seconds": 0,
                "jwt_cache_config": {"jwt_cache_size": size},
                "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}],
                "remote_jwks": {"http_uri": {"uri": "http://idp/", "cluster": "idp"}, "cache_duration": "100s", "stale_for": "200s"}}},
            "rules": [{"match": {"prefix": "/any"}, "requires": {"provider_and_audiences": {"provider_name": "corp"}}},
                {"match": {"prefix": "/"}, "requires": {"provider_name": "corp"}}]}));
        let (mut cached, mut plain) = (gate(size), gate(0));
        let mut published = key_set(&keys.iter().collect::<Vec<_>>());
        for step in steps {
            match step {
                Step::Token { key, audience, lifetime, path, tampered: is_tampered } => {
                    let audience = if audience { "orders" } else { "other" };
                    let token = keys[key].sign(&claims_with(json!({"aud": audience, "exp": NOW + lifetime})));
                    let token = if is_tampered { tampered(&token) } else { token };
                    let request = Request::new([(":path", if path { "/any" } else { "/" }),
                        ("authorization", &format!("Bearer {token}"))]);
                    prop_assert_eq!(cached.decide(&request), plain.decide(&request));
                }
                Step::Later(seconds) => for gate in [&mut cached, &mut plain] {
                    gate.now += seconds;
                    gate.fetch(Some(&published));
                },
                Step::Publish(which) => {
                    let some: Vec<&Key> = keys.iter().zip(which).filter(|(_, is)| *is).map(|(key, _)| key).collect();
                    published = key_set(&some);
                }
                Step::Outage => for gate in [&mut cached, &mut plain] {
                    gate.now += 90;
                    gate.fetch(None);
                },
            }
        }
        prop_assert!(cached.state.cached_tokens() <= usize::try_from(size).expect("a small number"));
    }
}

#[test]
fn a_request_without_a_token_costs_nothing() {
    let mut gate = Clocked::new(&key_set(&[&key()]), json!({}));
    assert_eq!(gate.outcome(&request(&[])), "header_missing");
    assert_eq!(gate.crypto.0.get(), 0);
}
