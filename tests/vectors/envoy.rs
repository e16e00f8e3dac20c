//! The attack corpus through a real Envoy: its decisions are those of the native run.

use std::collections::BTreeMap;

use claimgate::Config;
use claimgate_testbed::{Answer, Gate, Issuer, unix_time};
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::attacks::{Case, Corpus, Requirement, decide};
use crate::suite::{ACCEPT, Suite};

/// Each case has the status and the reason of the native run, but for those that Envoy answers without asking the plugin.
///
/// The corpus is meant for one moment: Envoy's clock is stopped there. Where that cannot be done, both runs take place at
/// the time of the machine, and what depends on the second is left out.
pub fn through_envoy() -> Result<(), Failed> {
    let mut corpus = Corpus::read();
    let mut suite = Suite::new("attacks, Envoy", "attacks_through_envoy", |_| true);
    let (gate, _issuers) = match start(&corpus, true) {
        Ok(started) if stands_still(&started.0, corpus.now) => started,
        other => {
            let why = other.err().unwrap_or_else(|| "it goes on".to_owned());
            suite.note(format!("Envoy's clock cannot be stopped, both runs at the time of this machine: {why}"));
            corpus.now = u64::try_from(unix_time())?;
            start(&corpus, false)?
        }
    };
    for (number, case) in corpus.cases.iter().enumerate() {
        if case.transport.is_some() {
            suite.skip(&case.id, "a line feed in a header's value: HTTP/1.1 ends the line there, HTTP/2 forbids it");
            continue;
        }
        if corpus.is_redated() && (case.needs_fixed_clock || suite.is_excepted(&case.id, ACCEPT)) {
            suite.skip(&case.id, "counts on the time it is made for");
            continue;
        }
        let (expected, status) = decide(&corpus, case)?;
        let answer = Answer::parse(&gate.raw(&request(&corpus, case, number)));
        let outcome = match (&answer.echo, answer.reason()) {
            (Some(_), None) => ACCEPT.to_owned(),
            (None, Some(reason)) => reason,
            _ => format!("Envoy answers {} ({})", answer.status, answer.details().unwrap_or_default()),
        };
        suite.case(&case.id, expected, &outcome);
        let is_open = case.requirement == Requirement::Policy;
        if outcome == ACCEPT && case.expected != ACCEPT && !is_open {
            suite.fail(format!("{}: accepted, and {:?} be refused", case.id, case.requirement));
        }
        if outcome == expected && answer.status != status {
            suite.fail(format!("{}: status {}, {status} was expected", case.id, answer.status));
        }
    }
    if let Some(trap) = gate.trap() {
        suite.fail(trap);
    }
    suite.finish()
}

/// One gate for all cases: a provider for each policy and key set, and a path for each provider.
fn start(corpus: &Corpus, at_its_time: bool) -> Result<(Gate, Vec<Issuer>), String> {
    let (mut providers, mut rules) = (BTreeMap::new(), Vec::new());
    let (mut issuers, mut clusters) = (Vec::new(), Vec::new());
    for case in &corpus.cases {
        let name = corpus.gate_of(case);
        if providers.contains_key(&name) {
            continue;
        }
        let mut provider = corpus.settings(case);
        provider["local_jwks"] = json!({"inline": corpus.key_set(case)});
        if !is_valid(&provider) {
            // Without one usable key, a set in the configuration is refused: this one has to be fetched.
            let issuer = Issuer::start(&[]);
            issuer.publish_document(corpus.key_set(case));
            clusters.push((name.clone(), issuer.addr()));
            provider = corpus.settings(case);
            provider["remote_jwks"] = json!({"http_uri": {"uri": issuer.url(), "cluster": name}});
            issuers.push(issuer);
        }
        rules.push(json!({"match": {"prefix": format!("/{name}/")}, "requires": {"provider_name": name}}));
        providers.insert(name, provider);
    }
    let mut builder = Gate::plugin(&json!({"providers": providers, "rules": rules, "unmatched": "deny"}));
    for (name, address) in clusters {
        builder = builder.cluster(&name, address);
    }
    if at_its_time {
        builder = builder.clock_stopped_at(corpus.now);
    }
    let gate = builder.start().map_err(|error| error.to_string())?;
    Ok((gate, issuers))
}

fn is_valid(provider: &Value) -> bool {
    Config::parse(json!({"providers": {"corp": provider}}).to_string().as_bytes()).is_ok()
}

fn request(corpus: &Corpus, case: &Case, number: usize) -> Vec<u8> {
    let target = case.target(&format!("/{}/{number}", corpus.gate_of(case)));
    let mut request = format!("GET {target} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n").into_bytes();
    for (name, value) in case.headers() {
        request.extend([name.as_bytes(), b": ", &value, b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    request
}

/// Envoy dates its answers.
fn stands_still(gate: &Gate, now: u64) -> bool {
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(now));
    gate.get("/").send().header("date") == Some(&date)
}
