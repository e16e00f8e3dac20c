//! Drills: what hurts users most, done on purpose to a gate with two workers.
//!
//! Each returns what it cost in valid requests and in fetches, and whether that is within its bar. Valid is a request
//! whose token the issuer stands by at that moment; lost is one that is not answered with 200.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::client::{Answer, Request};
use crate::gate::Gate;
use crate::issuer::{Behaviour, Issuer};
use crate::keys::{Key, unix_time};
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

/// Every drill; those that take longest come first.
pub const ALL: &[Run] =
    &[outage, down_from_the_start, withdrawn_key, cold_stampede, rotation_signed_at_once, flood_of_unknown_kids];

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
            (gate.stat("http.gate.downstream_rq_active") == Some(REQUESTS as u64)).then_some(())
        });
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
        thread::sleep(BETWEEN_REQUESTS);
    }
    drill.fetched(fetches() - before, 6);

    issuer.behave(Behaviour::Serve);
    eventually("the gate recovers", || (status_of(gate.get("/").bearer(&token)) == 200).then_some(()));
    drill.valid(everywhere(&gate, &token));
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
/// Envoy spreads connections over its workers by a hash: all of these go to one of two once in 32,768 times.
const CONNECTIONS: usize = 16;
const THREADS_MAX: usize = 64;
/// Four times what the plugin reads.
const OVERSIZED_BYTES: usize = 1 << 20;
