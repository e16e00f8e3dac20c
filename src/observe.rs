//! Decisions and events of the key store as lines of JSON. Nothing here shows a token, a signature, or a claim beyond
//! `iss`, `aud`, `jti` and times.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::brake::Cost;
use crate::budget::Budget;
use crate::config::{Config, Mode};
use crate::decide::{Because, Credential, Decision, Rejection, Report};
use crate::keystore::{Event, IssuerId, KeyStore};
use crate::limits::{
    COUNTED_DECISIONS, LOG_BURST, LOG_INTERVAL, LOGGED_CHARS, LOGGED_ITEMS, METRIC_KIDS, METRIC_LABEL_CHARS,
};
use crate::policy::Issuer;
use crate::rejection::Reason;
use crate::request::Request;
use crate::signature::KeySet;
use crate::time::UnixTime;
use crate::token_cache::Tally;

/// One line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How loud.
    pub level: Level,
    /// A JSON object.
    pub text: String,
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The token is at fault, or nobody.
    Info,
    /// The gate or its issuer is at fault.
    Warn,
}

/// The line of a rejected request. `client` is the peer's address, where the host tells it; `suppressed` lines of the
/// same reason were left out before this one.
pub fn rejection_line(
    request: &Request,
    config: &Config,
    rejection: &Rejection,
    report: &Report,
    client: Option<&str>,
    suppressed: u64,
    now: UnixTime,
) -> Line {
    let reason = rejection.reason();
    let mut line = Members::new(
        config,
        match rejection.mode {
            Mode::Enforce => "rejected",
            Mode::Shadow => "shadow_rejected",
        },
    );
    line.put("reason", Some(reason.as_str().into()));
    let others: Vec<&str> = rejection.reasons().into_iter().skip(1).map(Reason::as_str).collect();
    line.put("others", (!others.is_empty()).then(|| json!(others)));
    line.put("detail", Some(rejection.detail().into()));
    line.text("provider", report.provider.as_deref());
    line.text("kid", report.kid.as_deref());
    line.text("alg", report.alg.as_deref());
    line.put(
        "keys",
        report.provider.is_some().then(|| report.keys.iter().take(LOGGED_ITEMS).map(|kid| cut(kid)).collect()),
    );
    line.text("key_set", report.key_set.as_deref());
    line.put("jwks_age_seconds", report.jwks_age.map(|age| age.as_secs().into()));
    line.text("iss_token", report.iss_token.as_deref());
    line.put("iss_expected", one_or_many(&report.iss_expected));
    line.put("aud_token", one_or_many(&report.aud_token));
    line.put("aud_expected", one_or_many(&report.aud_expected));
    line.put("token_age_seconds", report.iat.map(|iat| signed_seconds(now, iat)));
    line.put("expired_seconds", report.exp.filter(|exp| *exp <= now).map(|exp| now.since(exp).as_secs().into()));
    match &report.jti {
        Some(jti) => line.text("jti", Some(jti)),
        None => line.text("token_sha256", report.token_sha256.as_deref()),
    }
    let claims = report.claims.iter().map(|(name, value)| (name.clone(), cut_value(value)));
    line.put("claims", (!report.claims.is_empty()).then(|| Value::Object(claims.collect())));
    line.text("client", client);
    line.bytes("method", request.method());
    line.bytes("host", request.authority());
    line.bytes("path", request.path());
    line.bytes("request_id", request.value("x-request-id").unwrap_or_default());
    line.put("suppressed", (suppressed > 0).then(|| suppressed.into()));
    line.finish(if reason.is_outage() { Level::Warn } else { Level::Info })
}

/// The line of a header that was configured and could not be set.
pub fn omitted_line(request: &Request, config: &Config, header: &str, why: &str) -> Line {
    let mut line = Members::new(config, "header_omitted");
    line.text("header", Some(header));
    line.text("why", Some(why));
    line.bytes("request_id", request.value("x-request-id").unwrap_or_default());
    line.finish(Level::Info)
}

/// The line of something that happened to a key set.
pub fn event_line(config: &Config, event: &Event) -> Line {
    let provider = |issuer: IssuerId| {
        config.providers.iter().find(|provider| provider.keys == issuer).map(|provider| provider.name.as_str())
    };
    match event {
        Event::Fetched { issuer, kids } => {
            let mut line = Members::new(config, "jwks_fetched");
            line.text("provider", provider(*issuer));
            line.put("keys", Some(kids.iter().take(LOGGED_ITEMS).map(|kid| cut(kid)).collect()));
            line.finish(Level::Info)
        }
        Event::KeyAdded { issuer, kid } => {
            let mut line = Members::new(config, "key_added");
            line.text("provider", provider(*issuer));
            line.text("kid", Some(kid));
            line.finish(Level::Info)
        }
        Event::KeyRemoved { issuer, kid } => {
            let mut line = Members::new(config, "key_removed");
            line.text("provider", provider(*issuer));
            line.text("kid", Some(kid));
            line.finish(Level::Info)
        }
        Event::KeySkipped { issuer, index, kid, why } | Event::KeyWarning { issuer, index, kid, why } => {
            let is_skipped = matches!(event, Event::KeySkipped { .. });
            let mut line = Members::new(config, if is_skipped { "key_skipped" } else { "key_warning" });
            line.text("provider", provider(*issuer));
            line.put("index", Some((*index).into()));
            line.text("kid", kid.as_deref());
            line.text("why", Some(why));
            line.finish(Level::Warn)
        }
        Event::Failed { issuer, why, retry_after, serving } => {
            let mut line = Members::new(config, "jwks_fetch_failed");
            line.text("provider", provider(*issuer));
            line.text("why", Some(&why.to_string()));
            line.put("next_attempt_seconds", Some(retry_after.as_secs_f64().into()));
            line.put("serving", Some((*serving).into()));
            line.finish(Level::Warn)
        }
        Event::Unchanged { issuer } => {
            let mut line = Members::new(config, "jwks_unchanged");
            line.text("provider", provider(*issuer));
            line.finish(Level::Info)
        }
        Event::Stale { issuer } => {
            let mut line = Members::new(config, "jwks_stale");
            line.text("provider", provider(*issuer));
            line.finish(Level::Warn)
        }
        Event::Expired { issuer } => {
            let mut line = Members::new(config, "jwks_expired");
            line.text("provider", provider(*issuer));
            line.finish(Level::Warn)
        }
    }
}

/// The state of every provider's key set, as JSON. Symmetric keys are counted and not named.
pub fn status(config: &Config, keys: &KeyStore, now: UnixTime) -> String {
    let providers = config.providers.iter().filter_map(|provider| {
        let status = keys.status(provider.keys, now)?;
        let seconds = |time: Option<UnixTime>| time.map(UnixTime::as_secs);
        let (public, symmetric): (Vec<_>, Vec<_>) =
            status.set.map(KeySet::keys).unwrap_or_default().iter().partition(|key| key.thumbprint().is_some());
        let keys = public.iter().map(|key| json!({"kid": key.kid(), "thumbprint": key.thumbprint()}));
        let stale_since = seconds(status.expires).filter(|_| status.state == "stale");
        Some(json!({
            "provider": provider.name,
            "issuer": provider.policy.issuers.iter().map(Issuer::template).collect::<Vec<_>>(),
            "state": status.state,
            "keys": keys.collect::<Vec<_>>(),
            "symmetric_keys": symmetric.len(),
            "skipped_keys": status.set.map_or(0, |set| set.skipped().len()),
            "key_set_id": status.set_id,
            "fetched": seconds(status.fetched),
            "expires": seconds(status.expires),
            "stale_since": stale_since,
            "next_attempt": seconds(status.next_attempt),
            "last_error": status.last_error.map(ToString::to_string),
        }))
    });
    json!({"providers": providers.collect::<Vec<_>>(), "now": now.as_secs()}).to_string()
}

/// The counters that decisions increase.
///
/// Envoy has no labels for a plugin's metrics, so the names carry them: `claimgate_rejected.;reason=token_expired;`. The
/// `stats_tags` in `envoy/stats_tags.yaml` make labels of them again.
#[derive(Debug, Default)]
pub struct DecisionCounters {
    kids: KidLabels,
    /// What let requests go on, and the host's numbers for the counters of it: at most [`COUNTED_DECISIONS`]. Most
    /// requests go on as others did before, and to name a counter takes longer than to increase it.
    known: Vec<(Mode, Because, Vec<u32>)>,
    /// The numbers for what was decided last and is not among them.
    other: Vec<u32>,
}

impl DecisionCounters {
    /// The host's numbers for the counters that a decision increases; `number` tells the host's number for a name.
    pub fn of(&mut self, config: &Config, decision: &Decision, number: impl FnMut(&String) -> Option<u32>) -> &[u32] {
        let Decision::Allow(allow) = decision else {
            self.other = self.names(config, decision).iter().filter_map(number).collect();
            return &self.other;
        };
        let place = self.known.iter().position(|(mode, why, _)| *mode == allow.mode && *why == allow.because);
        if place.is_none() {
            let numbers = self.names(config, decision).iter().filter_map(number).collect();
            if self.known.len() >= COUNTED_DECISIONS {
                self.other = numbers;
                return &self.other;
            }
            self.known.push((allow.mode, allow.because.clone(), numbers));
        }
        let known = place.map_or_else(|| self.known.last(), |place| self.known.get(place));
        known.map_or(&[], |(.., numbers)| numbers)
    }

    /// The names of the counters that a decision increases.
    pub fn names(&mut self, config: &Config, decision: &Decision) -> Vec<String> {
        let none = "none";
        let name = |mode, name: &str, labels: &[(&str, &str)]| {
            let shadow = match mode {
                Mode::Enforce => "",
                Mode::Shadow => "shadow_",
            };
            metric(config, &["claimgate_", shadow, name].concat(), labels)
        };
        let allow = match decision {
            Decision::Await(_) => return Vec::new(),
            Decision::Reject(rejection) => {
                let provider = rejection.provider.as_deref().unwrap_or(none);
                let reason = rejection.reason().as_str();
                return vec![name(rejection.mode, "rejected", &[("reason", reason), ("provider", provider)])];
            }
            Decision::Allow(allow) => allow,
        };
        let credentials = match &allow.because {
            Because::Optional => return vec![name(allow.mode, "allowed", &[("provider", none)])],
            Because::Preflight => return vec![name(allow.mode, "bypassed", &[("why", "preflight")])],
            Because::Unmatched => return vec![name(allow.mode, "bypassed", &[("why", "unmatched")])],
            Because::NoRequirement => return vec![name(allow.mode, "bypassed", &[("why", "no_requirement")])],
            Because::Verified(credentials) => credentials,
        };
        let mut names = Vec::new();
        for Credential { provider, kid } in credentials {
            names.push(name(allow.mode, "allowed", &[("provider", provider)]));
            let kid = self.kids.label(kid.as_deref());
            names.push(name(allow.mode, "verified", &[("provider", provider), ("kid", kid)]));
        }
        names
    }
}

/// The names of counters of what was done and not done for speed, and by how much they increase.
pub fn cost_counters(
    config: &Config,
    tally: Tally,
    braked: [(Cost, u64); Cost::ALL.len()],
    host_failures: u64,
) -> Vec<(String, u64)> {
    let cache = |result, count| ("claimgate_token_cache", Some(("result", result)), count);
    let brake = |(cost, count): (Cost, u64)| ("claimgate_verification_braked", Some(("cost", cost.name())), count);
    let counters = [
        cache("hit", tally.hits),
        cache("miss", tally.misses),
        cache("evicted", tally.evicted),
        cache("turned_away", tally.turned_away),
        ("claimgate_host_crypto_failed", None, host_failures),
    ];
    // Most of them stand still most of the time: only those that increase are named.
    let increased = counters.into_iter().chain(braked.map(brake)).filter(|(.., count)| *count > 0);
    increased.map(|(name, label, count)| (metric(config, name, label.as_slice()), count)).collect()
}

/// The name of the counter that an event of the key store increases, if it does.
pub fn event_counter(config: &Config, event: &Event) -> Option<String> {
    let (issuer, outcome) = match event {
        Event::Fetched { issuer, .. } => (issuer, "fetched"),
        Event::Unchanged { issuer } => (issuer, "unchanged"),
        Event::Failed { issuer, .. } => (issuer, "failed"),
        _ => return None,
    };
    let provider = config.providers.iter().find(|provider| provider.keys == *issuer)?;
    Some(metric(config, "claimgate_jwks_fetch", &[("provider", &provider.name), ("outcome", outcome)]))
}

/// Gauges of the key sets that are fetched: name and value.
pub fn gauges(config: &Config, keys: &KeyStore, now: UnixTime) -> Vec<(String, u64)> {
    let mut gauges = Vec::new();
    for provider in &config.providers {
        let Some(status) = keys.status(provider.keys, now).filter(|status| status.state != "inline") else { continue };
        let name = |name| metric(config, name, &[("provider", &provider.name)]);
        let age = status.fetched.map_or(0, |fetched| now.since(fetched).as_secs());
        let count = status.set.map_or(0, |set| set.keys().len());
        gauges.push((name("claimgate_jwks_age_seconds"), age));
        gauges.push((name("claimgate_jwks_keys"), u64::try_from(count).unwrap_or(u64::MAX)));
        gauges.push((name("claimgate_jwks_stale"), u64::from(status.state == "stale")));
    }
    gauges
}

/// The names of keys that a metric shows: at most [`METRIC_KIDS`] for each worker, `other` for the rest.
#[derive(Debug, Default)]
struct KidLabels {
    /// Sorted.
    known: Vec<String>,
}

impl KidLabels {
    fn label<'k>(&mut self, kid: Option<&'k str>) -> &'k str {
        let Some(kid) = kid else { return "none" };
        if let Err(place) = self.known.binary_search_by(|known| known.as_str().cmp(kid)) {
            if self.known.len() >= METRIC_KIDS {
                return "other";
            }
            self.known.insert(place, kid.to_owned());
        }
        kid
    }
}

/// A metric's name with its labels, the environment's among them. What stands in a label is kept to characters that no
/// exporter trips over.
fn metric(config: &Config, name: &str, labels: &[(&str, &str)]) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-.:/".contains(c) { c } else { '_' };
    let mut text = name.to_owned();
    let environment = config.environment.as_deref().map(|environment| ("environment", environment));
    for (label, value) in labels.iter().chain(&environment) {
        text.push_str(".;");
        text.push_str(label);
        text.push('=');
        text.extend(value.chars().take(METRIC_LABEL_CHARS).map(plain));
        text.push(';');
    }
    text
}

/// Keeps a flood of rejections from becoming a flood of lines: for each reason a burst of [`LOG_BURST`], then one line
/// every [`LOG_INTERVAL`]. The bound on its memory is the number of reasons.
#[derive(Debug, Default)]
pub struct LogGate {
    reasons: Vec<(Reason, Budget, u64)>,
}

impl LogGate {
    /// Whether a line may be written now; if so, how many were left out since the last.
    pub fn admit(&mut self, reason: Reason, now: UnixTime) -> Option<u64> {
        if !self.reasons.iter().any(|(known, ..)| *known == reason) {
            self.reasons.push((reason, Budget::full(LOG_BURST, now), 0));
        }
        let (_, budget, suppressed) = self.reasons.iter_mut().find(|(known, ..)| *known == reason)?;
        *budget = budget.refill(LOG_INTERVAL, LOG_BURST, now);
        if budget.take() {
            return Some(std::mem::take(suppressed));
        }
        *suppressed = suppressed.saturating_add(1);
        None
    }
}

/// The members of one line, in order. What is unknown is left out.
struct Members(Map<String, Value>);

impl Members {
    fn new(config: &Config, event: &str) -> Self {
        let mut members = Self(Map::new());
        members.text("event", Some(event));
        members.text("environment", config.environment.as_deref());
        members
    }

    fn put(&mut self, name: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value);
        }
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        self.put(name, value.map(|value| cut(value).into()));
    }

    fn bytes(&mut self, name: &str, value: &[u8]) {
        self.text(name, (!value.is_empty()).then(|| String::from_utf8_lossy(value)).as_deref());
    }

    fn finish(self, level: Level) -> Line {
        Line { level, text: Value::Object(self.0).to_string() }
    }
}

/// One string as itself, several as an array: as `aud` does it.
fn one_or_many(values: &[String]) -> Option<Value> {
    match values {
        [] => None,
        [one] => Some(cut(one).into()),
        many => Some(many.iter().take(LOGGED_ITEMS).map(|value| cut(value)).collect()),
    }
}

/// A claim's value: a string as itself, anything else as its JSON text.
fn cut_value(value: &Value) -> Value {
    match value {
        Value::String(text) => cut(text).into(),
        Value::Array(_) | Value::Object(_) => cut(&value.to_string()).into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LOGGED_CHARS).collect()
}

/// Seconds from `then` to `now`, negative if `then` is ahead.
fn signed_seconds(now: UnixTime, then: UnixTime) -> Value {
    let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    if then <= now { whole(now.since(then)).into() } else { whole(then.since(now)).saturating_neg().into() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::decide::Allow;
    use crate::rejection::Violation;

    #[test]
    fn labels_are_bounded_and_plain() {
        let mut kids = KidLabels::default();
        let names: Vec<String> = (0..1000).map(|n| format!("k{n}")).collect();
        let labels: BTreeSet<&str> = names.iter().map(|kid| kids.label(Some(kid))).collect();
        assert_eq!(labels.len(), METRIC_KIDS + 1);
        assert_eq!(kids.label(Some("k0")), "k0");
        assert_eq!(kids.label(Some("k999")), "other");
        let config = br#"{"providers":{"p":{"local_jwks":{"inline":{"keys":[{"kty":"oct","k":"CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCA"}]}}}}}"#;
        let (config, _) = Config::parse(config).expect("the test's configuration");
        let metric = |name, labels: &[(&str, &str)]| metric(&config, name, labels);
        assert_eq!(metric("m", &[("a", "x;y=\n\u{e9}"), ("b", "1")]), "m.;a=x_y__\u{5f};.;b=1;");
        assert!(metric("m", &[("a", &"x".repeat(1000))]).len() < 100);
    }

    #[test]
    fn decisions_are_counted_by_the_same_numbers_each_time() {
        let config = br#"{"providers":{"p":{"local_jwks":{"inline":{"keys":[{"kty":"oct","k":"CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCA"}]}}}}}"#;
        let (config, _) = Config::parse(config).expect("the test's configuration");
        let allow = |kid: usize| {
            let credential = Credential { provider: "p".to_owned(), kid: Some(format!("k{kid}")) };
            Decision::Allow(Allow {
                because: Because::Verified(vec![credential]),
                mode: Mode::Enforce,
                remove: Vec::new(),
                set: Vec::new(),
                states: Vec::new(),
                omitted: Vec::new(),
            })
        };
        let (mut counters, mut named) = (DecisionCounters::default(), Vec::new());
        let mut numbers = |kid| {
            let number = |name: &String| {
                let known = named.iter().position(|known| known == name);
                let place = known.unwrap_or_else(|| {
                    named.push(name.clone());
                    named.len() - 1
                });
                u32::try_from(place).ok()
            };
            counters.of(&config, &allow(kid), number).to_vec()
        };
        // Beyond the bound, and beyond that of the labels, which are `other` then.
        let first: Vec<Vec<u32>> = (0..2 * COUNTED_DECISIONS).map(&mut numbers).collect();
        let again: Vec<Vec<u32>> = (0..2 * COUNTED_DECISIONS).map(&mut numbers).collect();
        assert_eq!(first, again);
        assert_eq!(first[0], [0, 1]);
        assert_eq!(counters.known.len(), COUNTED_DECISIONS);
        let rejected = |reason| Decision::Reject(Rejection::from(vec![Violation::new(reason, "")]));
        for (reason, expected) in [(Reason::TokenExpired, 7), (Reason::SignatureInvalid, 8)] {
            let seen = counters.of(&config, &rejected(reason), |name| {
                assert_eq!(*name, format!("claimgate_rejected.;reason={};.;provider=none;", reason.as_str()));
                Some(expected)
            });
            assert_eq!(seen, [expected]);
        }
    }

    #[test]
    fn a_flood_of_rejections_is_a_trickle_of_lines() {
        let (mut gate, start) = (LogGate::default(), UnixTime::from_secs(1000));
        let written = (0..10_000).filter(|_| gate.admit(Reason::TokenExpired, start).is_some()).count();
        assert_eq!(written, LOG_BURST as usize);
        assert_eq!(gate.admit(Reason::SignatureInvalid, start), Some(0), "each reason has its own allowance");
        assert_eq!(gate.admit(Reason::TokenExpired, start.after(LOG_INTERVAL)), Some(10_000 - u64::from(LOG_BURST)));
        assert_eq!(gate.admit(Reason::TokenExpired, start.after(LOG_INTERVAL)), None);
        assert_eq!(gate.admit(Reason::TokenExpired, start), None, "a clock that goes back refills nothing");
    }
}
