//! Drills: what hurts users most, done on purpose to a gate with two workers.
//!
//! Each returns what it cost in valid requests and in fetches, and whether that is within its bar. Valid is a request
//! whose token the issuer stands by at that moment; lost is one that is not answered with 200.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Request};
use crate::gate::Gate;
use crate::issuer::{Behaviour, Issuer};
use crate::keys::{Key, key_set, unix_time};
use crate::wait::{PAUSE, eventually};

/// What became of one drill.
#[derive(Clone, Debug)]
pub struct Drill {
    pub name: String,
    /// What has to hold.
    pub bar: &'static str,
    pub valid_sent: usize,
    pub valid_lost: usize,
    /// Fetches that the drill caused: not the first one, unless it is about that.
    pub fetches: usize,
    /// What else was seen, and what of the bar was missed.
    pub notes: Vec<String>,
    pub passed: bool,
}

/// Carries out one drill, or several that go on at the same time.
pub type Run = fn() -> Vec<Drill>;

/// Every drill by its name; those that take longest come first.
pub const ALL: &[(&str, Run)] = &[
    ("outage", outage),
    ("down_from_the_start", down_from_the_start),
    ("withdrawn_key", withdrawn_key),
    ("reload_under_load", reload_under_load),
    ("cold_stampede", cold_stampede),
    ("rotation_signed_at_once", rotation_signed_at_once),
    ("rotation_with_overlap", rotation_with_overlap),
    ("rotation_without_a_kid", rotation_without_a_kid),
    ("flood_of_unknown_kids", flood_of_unknown_kids),
    ("clock_skew", clock_skew),
    ("stripped_header", stripped_header),
    ("discovery", discovery),
    ("status_page", status_page),
];

/// Sixty requests at once before there are any keys.
///
/// # Panics
/// As every drill: if the bed is broken.
pub fn cold_stampede() -> Vec<Drill> {
    const REQUESTS: usize = 60;
    let mut drill = Drill::new("cold stampede", "60 first requests at once: all 200, 1 fetch (2 allowed)");
    let key = key("a");
    let issuer = Issuer::start(&[&key]);
    // The keys are held back until every request waits for them.
    issuer.behave(Behaviour::Hang);
    let gate = start(&issuer, &json!({ "http_uri": { "timeout": "20s" } }));
    let token = key.sign(&claims());
    thread::scope(|scope| {
        let requests = scope.spawn(|| together(&gate, REQUESTS, |_| token.clone()));
        eventually("every request waits", || {
            let active = gate.stat("http.gate.downstream_rq_active");
            (active == Some(REQUESTS as u64) && issuer.fetches() > 0).then_some(())
        });
        // Long enough for every instance to look after its keys, and short of what a request may wait.
        thread::sleep(THREE_TICKS);
        issuer.behave(Behaviour::Serve);
        drill.valid(requests.join().expect("no request panics").iter().map(status));
    });
    drill.fetched(issuer.fetches(), 2);
    drill.end(&gate)
}

/// A new key in place of the old one, and tokens of it at once.
pub fn rotation_signed_at_once() -> Vec<Drill> {
    let mut drill = Drill::new("rotation signed at once", "no valid request lost, 1 extra fetch");
    let (old, new) = (key("a"), key("b"));
    let issuer = Issuer::start(&[&old]);
    let gate = start(&issuer, &json!({}));
    drill.valid(everywhere(&gate, &old.sign(&claims())));
    let before = issuer.fetches();

    issuer.publish(&[&new]);
    let token = new.sign(&claims());
    drill.valid(together(&gate, 32, |_| token.clone()).iter().map(status));
    drill.valid(everywhere(&gate, &token));
    drill.fetched(issuer.fetches() - before, 1);
    drill.end(&gate)
}

/// Two rotations as they should be: a new key beside the old one, and the old one goes later.
pub fn rotation_with_overlap() -> Vec<Drill> {
    let mut drill = Drill::new("rotation with overlap", "no valid request lost, 1 extra fetch for each of 2 rotations");
    let keys = [key("a"), key("b"), key("c")];
    let tokens = keys.each_ref().map(|key| key.sign(&claims()));
    let issuer = Issuer::start(&[&keys[0]]);
    let gate = start(&issuer, &json!({}));
    drill.valid(everywhere(&gate, &tokens[0]));
    let before = issuer.fetches();
    for (keys, tokens) in keys.windows(2).zip(tokens.windows(2)) {
        issuer.publish(&[&keys[0], &keys[1]]);
        drill.valid(together(&gate, 32, |number| tokens[number % 2].clone()).iter().map(status));
        drill.valid(tokens.iter().flat_map(|token| everywhere(&gate, token)));
    }
    drill.fetched(issuer.fetches() - before, 2);
    drill.end(&gate)
}

/// A new key in place of the old one, and neither keys nor tokens have names.
pub fn rotation_without_a_kid() -> Vec<Drill> {
    let mut drill = Drill::new("rotation without a kid", "no valid request lost, 1 extra fetch");
    let (old, new) = (key("a"), key("b"));
    let nameless = |key: &Key| {
        let mut jwk = key.public_jwk();
        jwk.as_object_mut().expect("a JWK is an object").remove("kid");
        json!({ "keys": [jwk] })
    };
    let sign = |key: &Key| key.sign_with_header(&json!({ "alg": "ES256", "typ": "JWT" }), &claims());
    let issuer = Issuer::start(&[]);
    issuer.publish_document(&nameless(&old));
    let gate = start(&issuer, &json!({}));
    drill.valid(everywhere(&gate, &sign(&old)));
    let before = issuer.fetches();

    issuer.publish_document(&nameless(&new));
    let token = sign(&new);
    drill.valid(together(&gate, 32, |_| token.clone()).iter().map(status));
    drill.valid(everywhere(&gate, &token));
    drill.fetched(issuer.fetches() - before, 1);
    drill.end(&gate)
}

/// The issuer fails in every way there is, for eight seconds, while sets last two.
pub fn outage() -> Vec<Drill> {
    const BAR: &str = "8 s, sets last 2 s: no valid request lost, at most 8 fetches, new key within 10 s of recovery";
    let (old, new) = (key("a"), key("b"));
    let modes = [
        ("500", Behaviour::Status(500)),
        ("429", Behaviour::Status(429)),
        ("garbage", Behaviour::Body(b"<html>sorry</html>".to_vec())),
        ("refused", Behaviour::Refuse),
        ("hang", Behaviour::Hang),
        ("slow body", Behaviour::SlowBody),
        ("oversized body", Behaviour::Body(oversized(&new))),
    ];
    let issuers: Vec<Issuer> = modes.iter().map(|_| Issuer::start(&[&old])).collect();
    let numbered = || issuers.iter().enumerate();
    // One name for each: of its provider, of its cluster, and in its path.
    let name = |n: usize| format!("idp-{n}");
    let path = |n: usize| format!("/{}", name(n));
    let issuer_name = |n: usize| format!("https://{}.example.com/", name(n));
    let providers = numbered().map(|(n, issuer)| {
        (name(n), provider(&issuer_name(n), &issuer.url(), &name(n), &json!({ "cache_duration": "2s" })))
    });
    let rules =
        numbered().map(|(n, _)| json!({ "match": { "path": path(n) }, "requires": { "provider_name": name(n) } }));
    let configuration = json!({
        "providers": providers.collect::<serde_json::Map<_, _>>(),
        "rules": rules.collect::<Vec<_>>(),
    });
    let builder =
        numbered().fold(Gate::plugin(&configuration), |gate, (n, issuer)| gate.cluster(&name(n), issuer.addr()));
    let gate = &builder.start().expect("the gate starts");

    let suffer = &|n: usize, failure: &Behaviour, mut drill: Drill| {
        let issuer = &issuers[n];
        let fetches = || match failure {
            // Refused connections do not reach the issuer.
            Behaviour::Refuse => counter(gate, &format!("cluster.{}.upstream_cx_connect_fail", name(n))),
            _ => issuer.fetches(),
        };
        let send = |key: &Key| status_of(gate.get(&path(n)).bearer(&key.sign(&claims_of(&issuer_name(n)))));
        drill.valid((0..16).map(|_| send(&old)));
        let before = fetches();

        issuer.behave(failure.clone());
        let begun = Instant::now();
        while begun.elapsed() < OUTAGE {
            drill.valid([send(&old)]);
            thread::sleep(BETWEEN_REQUESTS);
        }
        drill.fetched(fetches() - before, 8);
        drill.bar(drill.fetches > 0, "the outage went unnoticed");

        issuer.publish(&[&old, &new]);
        issuer.behave(Behaviour::Serve);
        let recovered = Instant::now();
        let mut streak = 0;
        while streak < 16 && recovered.elapsed() < RECOVERY {
            drill.valid([send(&old)]);
            streak = if send(&new) == 200 { streak + 1 } else { 0 };
            thread::sleep(PAUSE);
        }
        drill.bar(streak == 16, "the new key was not accepted in time");
        drill.note(format!("new key after {:.1} s", recovered.elapsed().as_secs_f64()));
        drill
    };
    let drills: Vec<Drill> = thread::scope(|scope| {
        let running = modes.iter().enumerate().map(|(n, (name, failure))| {
            let drill = Drill::new(&format!("outage: {name}"), BAR);
            scope.spawn(move || suffer(n, failure, drill))
        });
        let running: Vec<_> = running.collect();
        running.into_iter().map(|drill| drill.join().expect("no request panics")).collect()
    });
    drills.into_iter().flat_map(|drill| drill.end(gate)).collect()
}

/// Names of keys that nobody has ever had, among honest requests.
pub fn flood_of_unknown_kids() -> Vec<Drill> {
    const REQUESTS: usize = 200;
    let mut drill = Drill::new("flood of unknown kids", "40 of 200 requests: valid ones all 200, at most 2 fetches");
    let key = key("a");
    let issuer = Issuer::start(&[&key]);
    let gate = start(&issuer, &json!({}));
    let valid = key.sign(&claims());
    drill.valid(everywhere(&gate, &valid));
    let before = issuer.fetches();

    let is_unknown = |number: usize| number.is_multiple_of(5);
    let answers = together(&gate, REQUESTS, |number| {
        if is_unknown(number) {
            key.clone().with_kid(&format!("unknown-{number}")).sign(&claims())
        } else {
            valid.clone()
        }
    });
    let (unknown, honest): (Vec<_>, Vec<_>) = answers.iter().enumerate().partition(|(number, _)| is_unknown(*number));
    drill.valid(honest.into_iter().map(|(_, answer)| status(answer)));
    drill.refused(unknown.into_iter().map(|(_, answer)| answer), "key_not_found");
    drill.fetched(issuer.fetches() - before, 2);
    drill.end(&gate)
}

/// A key disappears from the set, and a token of it has been accepted before.
pub fn withdrawn_key() -> Vec<Drill> {
    let mut drill = Drill::new("withdrawn key", "refused within one refresh, though its token was accepted before");
    let (withdrawn, kept) = (key("a"), key("b"));
    let issuer = Issuer::start(&[&withdrawn, &kept]);
    let gate = start(&issuer, &json!({ "cache_duration": "5s" }));
    let (old, good) = (withdrawn.sign(&claims()), kept.sign(&claims()));
    drill.valid(everywhere(&gate, &old));

    issuer.publish(&[&kept]);
    let before = issuer.fetches();
    eventually("the key is refreshed away at every worker", || {
        drill.valid([status_of(gate.get("/").bearer(&good))]);
        let is_gone = |_| !gate.get(STATUS_PATH).send().text().contains(r#""kid":"a""#);
        (0..16).all(is_gone).then_some(())
    });
    drill.fetched(issuer.fetches() - before, 1);
    drill.refused(&together(&gate, 16, |_| old.clone()), "key_not_found");
    drill.valid(everywhere(&gate, &good));
    drill.end(&gate)
}

/// The issuer refuses connections from the start, and comes back.
pub fn down_from_the_start() -> Vec<Drill> {
    const REQUESTS: usize = 50;
    let mut drill = Drill::new(
        "issuer down from the start",
        "503, Retry-After, jwks_unavailable; at most 6 fetches for 50 requests; 200 when it is back",
    );
    let key = key("a");
    let issuer = Issuer::start(&[&key]);
    issuer.behave(Behaviour::Refuse);
    let gate = start(&issuer, &json!({}));
    let token = key.sign(&claims());
    let fetches = || counter(&gate, "cluster.idp.upstream_cx_connect_fail");
    let before = fetches();

    for _ in 0..REQUESTS {
        let answer = gate.get("/").bearer(&token).send();
        let retry_after = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
        drill.bar(answer.status == 503, &format!("{} and not 503", answer.status));
        drill.bar(retry_after.is_some_and(|seconds| seconds > 0), "no Retry-After");
        drill.refused([&answer], "jwks_unavailable");
        drill.bar(!answer.text().contains("in time"), "a request waited, though the fetch had failed");
        thread::sleep(BETWEEN_REQUESTS);
    }
    drill.fetched(fetches() - before, 6);

    issuer.behave(Behaviour::Serve);
    eventually("the gate recovers", || (status_of(gate.get("/").bearer(&token)) == 200).then_some(()));
    drill.valid(everywhere(&gate, &token));
    drill.end(&gate)
}

/// The issuer's clock is not the gate's.
pub fn clock_skew() -> Vec<Drill> {
    let mut drill =
        Drill::new("clock skew", "30 s ahead or behind is accepted, 300 s is refused with the right reason");
    let key = key("a");
    let issuer = Issuer::start(&[&key]);
    let gate = start(&issuer, &json!({}));
    // For each token ten seconds, so that it shows when the issuer is behind.
    let issued_at = |ahead: i64| {
        let now = unix_time() + ahead;
        key.sign(&json!({ "iss": ISSUER, "sub": "alice", "iat": now, "nbf": now, "exp": now + 10 }))
    };
    let send = |ahead: i64| gate.get("/").bearer(&issued_at(ahead)).send();
    drill.valid([0, 30, -30].map(|ahead| send(ahead).status));
    drill.refused([&send(300)], "token_not_yet_valid");
    drill.refused([&send(-300)], "token_expired");
    drill.fetched(issuer.fetches(), 1);
    drill.end(&gate)
}

/// A proxy in front of the gate removes `Authorization`.
pub fn stripped_header() -> Vec<Drill> {
    let mut drill = Drill::new("a proxy strips Authorization", "header_missing, and the log says so");
    let key = key("a");
    let issuer = Issuer::start(&[&key]);
    let gate = start(&issuer, &json!({}));
    let routes = json!([
        { "match": { "prefix": "/kept" }, "route": { "cluster": "gate" } },
        { "match": { "prefix": "/" }, "route": { "cluster": "gate" }, "request_headers_to_remove": ["authorization"] },
    ]);
    let proxy = Gate::open().routes(routes).cluster("gate", gate.addr()).start().expect("the proxy starts");
    let token = key.sign(&claims());
    drill.valid([status_of(proxy.get("/kept").bearer(&token))]);

    let answer = proxy.get("/stripped").bearer(&token).send();
    drill.bar(answer.status == 401, &format!("{} and not 401", answer.status));
    drill.refused([&answer], "header_missing");
    let line = eventually("the rejection is logged", || {
        gate.events().into_iter().find(|event| event["event"] == "rejected" && event["path"] == "/stripped")
    });
    drill.bar(line["reason"] == "header_missing", &format!("the log says {line}"));
    drill.note(format!("log: {}", line["detail"].as_str().unwrap_or("no detail")));
    drill.fetched(issuer.fetches(), 1);
    drill.end(&gate)
}

/// The plugin is configured anew, again and again, while requests run and the issuer is down.
pub fn reload_under_load() -> Vec<Drill> {
    const RELOADS: usize = 5;
    let mut drill =
        Drill::new("configuration reload under load", "5 reloads, issuer down: no request lost or waiting, no fetch");
    let key = key("a");
    let issuer = Issuer::start(&[&key]);
    let configuration = |open: usize| {
        let mut configuration = configuration(provider(ISSUER, &issuer.url(), "idp", &json!({})));
        let open = json!({ "match": { "path": format!("/open-{open}") } });
        configuration["rules"].as_array_mut().expect("rules are a list").insert(0, open);
        configuration
    };
    let builder = Gate::plugin(&configuration(0)).cluster("idp", issuer.addr()).reloadable();
    let gate = builder.start().expect("the gate starts");
    let token = key.sign(&claims());
    drill.valid(everywhere(&gate, &token));
    // From now on, whoever waits for keys is lost.
    issuer.behave(Behaviour::Refuse);
    let refused = || counter(&gate, "cluster.idp.upstream_cx_connect_fail");
    let (before, is_over) = (issuer.fetches() + refused(), AtomicBool::new(false));
    // Whoever asks for the status while there are no keys would have waited, had it been a request.
    let would_wait = |status: &Value| status["providers"][0]["state"] != "fresh";
    let load = || {
        let client = Client::keeping_alive(gate.addr());
        let (mut statuses, mut waits) = (Vec::new(), 0);
        while !is_over.load(Ordering::Relaxed) {
            statuses.push(status_of(client.get("/").bearer(&token)));
            statuses.push(status_of(gate.get("/").bearer(&token)));
            waits += usize::from(would_wait(&gate.get(STATUS_PATH).send().json()));
        }
        (statuses, waits)
    };
    let (statuses, waits): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        let load: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        for number in 1..=RELOADS {
            gate.reload(&configuration(number));
            let path = format!("/open-{number}");
            eventually("every worker has the new configuration", || {
                (0..CONNECTIONS).all(|_| status_of(gate.get(&path)) == 200).then_some(())
            });
        }
        is_over.store(true, Ordering::Relaxed);
        load.into_iter().map(|load| load.join().expect("no request panics")).unzip()
    });
    drill.valid(statuses.into_iter().flatten());
    drill.bar(waits.iter().sum::<usize>() == 0, "there were no keys for a moment");
    drill.fetched(issuer.fetches() + refused() - before, 0);
    drill.end(&gate)
}

/// The issuer is asked where its keys are.
pub fn discovery() -> Vec<Drill> {
    let mut drill =
        Drill::new("OIDC discovery", "keys found through the metadata, also after a rotation; 1 fetch each");
    let (old, new) = (key("a"), key("b"));
    let honest = Issuer::start(&[&old]);
    let impostor = Issuer::start(&[&old]);
    let provider = |metadata: String, cluster: &str, name: &str| {
        json!({
            "issuer": name,
            "oidc_discovery": { "http_uri": { "uri": metadata, "cluster": cluster, "timeout": "1s" } },
        })
    };
    let (name, other) = (ISSUER, "https://other.example.com/");
    let configuration = json!({
        "providers": {
            "honest": provider(honest.publish_metadata(name), "honest", name),
            // It names itself, and not the issuer that it is asked for.
            "impostor": provider(impostor.publish_metadata(name), "impostor", other),
        },
        "rules": [
            { "match": { "prefix": "/honest" }, "requires": { "provider_name": "honest" } },
            { "match": { "prefix": "/impostor" }, "requires": { "provider_name": "impostor" } },
        ],
    });
    let builder = Gate::plugin(&configuration).cluster("honest", honest.addr()).cluster("impostor", impostor.addr());
    let gate = builder.start().expect("the gate starts");
    let send = |token: &str| (0..CONNECTIONS).map(|_| status_of(gate.get("/honest").bearer(token))).collect::<Vec<_>>();
    drill.valid(send(&old.sign(&claims())));
    let found = (honest.metadata_fetches(), honest.fetches());
    drill.bar(found == (1, 1), &format!("{found:?} fetches of metadata and keys at the start"));
    honest.publish(&[&new]);
    drill.valid(send(&new.sign(&claims())));
    let found = honest.metadata_fetches();
    drill.bar(found == 2, &format!("{found} fetches of the metadata for 2 of the keys"));
    drill.fetched(honest.fetches() - 1, 1);

    drill.refused([&gate.get("/impostor").bearer(&old.sign(&claims_of(other))).send()], "jwks_unavailable");
    drill.bar(impostor.fetches() == 0, "the impostor was asked for keys");
    drill.end(&gate)
}

/// What the gate tells of its keys at `status_path`.
pub fn status_page() -> Vec<Drill> {
    let mut drill = Drill::new("status page", "JSON with states, kids, RFC 7638 thumbprints; no secrets");
    let (public, symmetric) = (key("a"), Key::new(Algorithm::HS256, "shared"));
    let issuer = Issuer::start(&[&public]);
    let mut configuration = configuration(provider(ISSUER, &issuer.url(), "idp", &json!({})));
    configuration["providers"]["shared"] = json!({
        "issuer": "https://shared.example.com/",
        "algorithms": ["HS256"],
        "local_jwks": { "inline_string": key_set(&[&symmetric]).to_string() },
    });
    let gate = Gate::plugin(&configuration).cluster("idp", issuer.addr()).start().expect("the gate starts");
    drill.valid(everywhere(&gate, &public.sign(&claims())));

    let jwk = symmetric.public_jwk();
    let secret = jwk["k"].as_str().expect("a symmetric key has a secret");
    let expected_keys = json!([{ "kid": "a", "thumbprint": public.thumbprint() }]);
    for _ in 0..CONNECTIONS {
        let answer = gate.get(STATUS_PATH).send();
        let page = answer.json();
        let provider = |name: &str| {
            let mut providers = page["providers"].as_array().into_iter().flatten();
            providers.find(|provider| provider["provider"] == name).cloned().unwrap_or_default()
        };
        let (corp, shared) = (provider("corp"), provider("shared"));
        drill.bar(answer.header("content-type") == Some("application/json"), "no JSON");
        drill.bar((&corp["state"], &corp["keys"]) == (&json!("fresh"), &expected_keys), &format!("told {corp}"));
        drill.bar(corp["fetched"].is_u64() && corp["expires"].is_u64() && corp["next_attempt"].is_u64(), "no times");
        drill.bar(corp["last_error"].is_null() && corp["stale_since"].is_null(), "an error that is none");
        drill.bar((&shared["state"], &shared["symmetric_keys"]) == (&json!("inline"), &json!(1)), "keys by count");
        drill.bar(shared["keys"] == json!([]), "a symmetric key was named");
        drill.bar(!answer.text().contains(secret) && !gate.log().contains(secret), "a secret was told");
    }
    drill.bar(gate.upstream().received().iter().all(|request| request.path == "/"), "the upstream was asked");
    drill.fetched(issuer.fetches(), 1);
    drill.end(&gate)
}

// ---- helpers ----

impl Drill {
    fn new(name: &str, bar: &'static str) -> Self {
        let name = name.to_owned();
        Drill { name, bar, valid_sent: 0, valid_lost: 0, fetches: 0, notes: Vec::new(), passed: true }
    }

    /// Counts valid requests, by the status of their answers.
    fn valid(&mut self, statuses: impl IntoIterator<Item = u16>) {
        for status in statuses {
            self.valid_sent += 1;
            if status != 200 {
                self.valid_lost += 1;
                self.bar(false, &format!("a valid request got {status}"));
            }
        }
    }

    /// Demands that these were refused, and why.
    fn refused<'a>(&mut self, answers: impl IntoIterator<Item = &'a Answer>, reason: &str) {
        for answer in answers {
            let found = answer.reason().unwrap_or_else(|| answer.status.to_string());
            self.bar(found == reason, &format!("{found} and not {reason}"));
        }
    }

    fn fetched(&mut self, fetches: usize, most: usize) {
        self.fetches = fetches;
        self.bar(fetches <= most, &format!("more than {most} fetches"));
    }

    fn bar(&mut self, holds: bool, otherwise: &str) {
        if !holds {
            self.passed = false;
            self.note(format!("MISSED: {otherwise}"));
        }
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn end(mut self, gate: &Gate) -> Vec<Self> {
        if let Some(trap) = gate.trap() {
            self.bar(false, &trap);
        }
        vec![self]
    }
}

impl fmt::Display for Drill {
    /// One line of the table that [`HEADING`] begins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Drill { name, valid_sent, valid_lost, fetches, .. } = self;
        let verdict = if self.passed { "ok" } else { "MISSED" };
        write!(f, "{name:<32} {valid_sent:>6} {valid_lost:>6} {fetches:>8}  {verdict:<7} {}", self.notes.join("; "))
    }
}

/// What stands above the lines of a table of drills.
pub const HEADING: &str = "drill                              sent   lost  fetches  bar     notes\n\
                           ------------------------------ -------- ------ --------  ------- -----";

/// A gate with two workers in which every request needs a token of one provider, with these settings for its keys.
fn start(issuer: &Issuer, settings: &Value) -> Gate {
    let configuration = configuration(provider(ISSUER, &issuer.url(), "idp", settings));
    Gate::plugin(&configuration).cluster("idp", issuer.addr()).start().expect("the gate starts")
}

fn configuration(provider: Value) -> Value {
    json!({
        "providers": { "corp": provider },
        "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "corp" } }],
        "status_path": STATUS_PATH,
    })
}

fn provider(issuer: &str, uri: &str, cluster: &str, settings: &Value) -> Value {
    let mut remote_jwks = json!({ "http_uri": { "uri": uri, "cluster": cluster, "timeout": "1s" } });
    merge(&mut remote_jwks, settings);
    json!({ "issuer": issuer, "remote_jwks": remote_jwks })
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.iter().for_each(|(name, value)| merge(into.entry(name).or_insert(Value::Null), value));
        }
        (into, from) => *into = from.clone(),
    }
}

fn key(kid: &str) -> Key {
    Key::new(Algorithm::ES256, kid)
}

fn claims() -> Value {
    claims_of(ISSUER)
}

fn claims_of(issuer: &str) -> Value {
    json!({ "iss": issuer, "sub": "alice", "exp": unix_time() + 3600 })
}

/// A key set with this key and more than anyone should read.
fn oversized(key: &Key) -> Vec<u8> {
    json!({ "keys": [key.public_jwk()], "padding": "x".repeat(OVERSIZED_BYTES) }).to_string().into_bytes()
}

/// Sends this many requests at once, each over a connection of its own.
fn together(gate: &Gate, requests: usize, token: impl Fn(usize) -> String + Sync) -> Vec<Answer> {
    gate.in_parallel(requests.min(THREADS_MAX), requests, |client, number| {
        client.get("/").bearer(&token(number)).send()
    })
}

/// Asks on so many connections that every worker answers some.
fn everywhere(gate: &Gate, token: &str) -> Vec<u16> {
    (0..CONNECTIONS).map(|_| status_of(gate.get("/").bearer(token))).collect()
}

fn status(answer: &Answer) -> u16 {
    answer.status
}

/// Zero if there is no answer at all.
fn status_of(request: Request<'_>) -> u16 {
    request.try_send().map_or(0, |answer| answer.status)
}

fn counter(gate: &Gate, name: &str) -> usize {
    gate.stat(name).and_then(|count| count.try_into().ok()).unwrap_or_default()
}

const ISSUER: &str = "https://idp.example.com/";
const STATUS_PATH: &str = "/claimgate/status";
const OUTAGE: Duration = Duration::from_secs(8);
const RECOVERY: Duration = Duration::from_secs(10);
const BETWEEN_REQUESTS: Duration = Duration::from_millis(50);
/// An instance of the plugin looks after its keys every 200 ms.
const THREE_TICKS: Duration = Duration::from_millis(600);
/// Envoy spreads connections over its workers by a hash: all of these go to one of two once in 32,768 times.
const CONNECTIONS: usize = 16;
const THREADS_MAX: usize = 64;
/// Four times what the plugin reads.
const OVERSIZED_BYTES: usize = 1 << 20;
