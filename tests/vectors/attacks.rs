//! The attack corpus, decided on natively; and what the README says of the cases that the RFCs leave open.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claimgate::{Decision, Request};
use libtest_mimic::Failed;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::gate::Gate;
use crate::suite::{ACCEPT, Suite, folder, read};

/// Cases, key sets and policies, and the time at which they are meant to be looked at.
pub struct Corpus {
    /// The time at which the gate looks at the cases.
    pub now: u64,
    made_for: u64,
    pub cases: Vec<Case>,
    key_sets: BTreeMap<String, Value>,
    policies: BTreeMap<String, Policy>,
}

/// One request, and what should become of it.
#[derive(Deserialize)]
pub struct Case {
    pub id: String,
    pub expected: String,
    #[serde(rename = "expected_reason_hint")]
    hint: String,
    pub requirement: Requirement,
    #[serde(rename = "jwks_name")]
    key_set: String,
    #[serde(rename = "config_name")]
    policy: String,
    token: Option<String>,
    headers: Option<Vec<(String, String)>>,
    headers_b64: Option<Vec<(String, String)>>,
    query: Option<String>,
    /// How it can be sent, if not as HTTP/1.1.
    pub transport: Option<String>,
    /// Whether a second more or less changes the outcome.
    #[serde(default)]
    pub needs_fixed_clock: bool,
}

/// How much a case matters to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Requirement {
    Must,
    Should,
    /// Either decision can be defended.
    Policy,
}

#[derive(Deserialize)]
struct Policy {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Vec<String>,
    leeway_s: u64,
    require_exp: bool,
    required_typ: Option<String>,
    max_age_s: Option<u64>,
    max_token_bytes: Option<u64>,
}

impl Corpus {
    pub fn read() -> Self {
        #[derive(Deserialize)]
        struct Cases {
            now: u64,
            count: usize,
            cases: Vec<Case>,
        }
        #[derive(Deserialize)]
        struct Context {
            jwks: BTreeMap<String, Value>,
            configs: BTreeMap<String, Policy>,
        }
        let Cases { now, count, cases } = read("data/attacks.json");
        assert_eq!(cases.len(), count, "cases are missing");
        let Context { jwks, configs } = read("data/attacks_context.json");
        Self { now, made_for: now, cases, key_sets: jwks, policies: configs }
    }

    /// Whether the gate looks at the cases at another time than they are meant for.
    pub fn is_redated(&self) -> bool {
        self.now != self.made_for
    }

    pub fn key_set(&self, case: &Case) -> &Value {
        &self.key_sets[&case.key_set]
    }

    /// The settings of the provider that a case is meant for.
    pub fn settings(&self, case: &Case) -> Value {
        let policy = &self.policies[&case.policy];
        let mut settings = json!({
            "issuer": policy.issuer,
            "audiences": policy.audiences,
            "algorithms": policy.algorithms,
            "clock_skew_seconds": policy.leeway_s,
            "require_expiration": policy.require_exp,
        });
        if let Some(typ) = &policy.required_typ {
            settings["token_types"] = json!([typ]);
        }
        if let Some(seconds) = policy.max_age_s {
            settings["max_age"] = format!("{seconds}s").into();
        }
        if let Some(bytes) = policy.max_token_bytes {
            settings["max_token_bytes"] = bytes.into();
        }
        settings
    }

    /// What tells the gates of two cases apart.
    pub fn gate_of(&self, case: &Case) -> String {
        format!("{}.{}", case.policy, case.key_set)
    }
}

impl Case {
    /// The header lines, as octets.
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        match (&self.token, &self.headers, &self.headers_b64) {
            (Some(token), None, None) => vec![("authorization".to_owned(), format!("Bearer {token}").into_bytes())],
            (None, Some(lines), None) => {
                lines.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect()
            }
            (None, None, Some(lines)) => {
                let octets = |value: &String| STANDARD.decode(value).expect("octets in base64");
                lines.iter().map(|(name, value)| (name.clone(), octets(value))).collect()
            }
            _ => panic!("{}: one of `token`, `headers` and `headers_b64` was expected", self.id),
        }
    }

    /// Path and query under a path.
    pub fn target(&self, path: &str) -> String {
        self.query.as_ref().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
    }

    /// The outcome that the source hints at, as one of ours.
    fn outcome(&self) -> &'static str {
        let (decision, outcome) = match self.hint.as_str() {
            "ok" => (ACCEPT, ACCEPT),
            hint => (
                "reject",
                match hint {
                    "alg_not_allowed" => "algorithm_not_allowed",
                    "alg_key_mismatch" | "bad_key" | "weak_key" => "key_mismatch",
                    "bad_aud" => "audience_mismatch",
                    "bad_base64" | "bad_header" | "bad_json" | "jwe" | "malformed" => "token_malformed",
                    "bad_claim_type" => "claim_malformed",
                    "bad_iss" => "issuer_mismatch",
                    "bad_signature" => "signature_invalid",
                    "crit" => "crit_unsupported",
                    "expired" => "token_expired",
                    "missing_claim" => "expiration_missing",
                    "missing_token" => "header_missing",
                    "multiple_tokens" => "token_ambiguous",
                    "no_keys" | "unknown_kid" => "key_not_found",
                    "not_yet_valid" => "token_not_yet_valid",
                    "typ" => "type_not_allowed",
                    other => panic!("{}: a hint that is not known: {other}", self.id),
                },
            ),
        };
        assert_eq!(decision, self.expected, "{}: decision and hint contradict each other", self.id);
        outcome
    }
}

/// What the gate makes of a case: its outcome, and the status of its answer.
pub fn decide(corpus: &Corpus, case: &Case) -> Result<(&'static str, u16), String> {
    let mut lines = vec![(":method".to_owned(), b"GET".to_vec()), (":path".to_owned(), case.target("/").into_bytes())];
    lines.extend(case.headers());
    let mut gate = Gate::new(&corpus.settings(case), corpus.key_set(case), corpus.now);
    match gate.decide(&Request::new(lines))? {
        (Decision::Reject(rejection), _) => Ok((rejection.reason().as_str(), rejection.reason().status())),
        _ => Ok((ACCEPT, 200)),
    }
}

/// Every case has the outcome its source expects, but for the reviewed ones: and of those, no decision that is a MUST
/// or a SHOULD goes another way. `explain` says what `decide` says, of each.
pub fn natively() -> Result<(), Failed> {
    let corpus = Corpus::read();
    let mut suite = Suite::new("attacks", "attacks", |_| true);
    let mut wrong = 0;
    for case in &corpus.cases {
        match decide(&corpus, case) {
            Ok((outcome, _)) => {
                suite.case(&case.id, case.outcome(), outcome);
                let accepted = outcome == ACCEPT;
                if accepted != (case.expected == ACCEPT) && case.requirement != Requirement::Policy {
                    wrong += 1;
                    suite.fail(format!("{}: {outcome}, and {:?} be {}", case.id, case.requirement, case.expected));
                }
            }
            Err(error) => suite.fail(format!("{}: {error}", case.id)),
        }
    }
    let counted = |requirement| corpus.cases.iter().filter(|case| case.requirement == requirement).count();
    let (must, should, policy) =
        (counted(Requirement::Must), counted(Requirement::Should), counted(Requirement::Policy));
    suite.note(format!("{wrong} wrong of {must} MUST and {should} SHOULD; {policy} POLICY, listed in the README"));
    suite.finish()
}

/// The README lists each case that may go either way, with the outcome it has.
pub fn choices_are_documented() -> Result<(), Failed> {
    let corpus = Corpus::read();
    let readme = std::fs::read_to_string(folder().join("../../README.md")).expect("the README");
    let rows = readme.lines().skip_while(|line| *line != HEADING).skip(1).take_while(|line| !line.starts_with('#'));
    let mut documented = BTreeMap::new();
    for row in rows.filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, outcome, cases] = cells[..] else { return Err(format!("three cells were expected: {row}").into()) };
        for case in cases.split('`').skip(1).step_by(2) {
            documented.insert(case.to_owned(), outcome.trim_matches('`').to_owned());
        }
    }
    let mut failures = Vec::new();
    for case in corpus.cases.iter().filter(|case| case.requirement == Requirement::Policy) {
        let (outcome, _) = decide(&corpus, case)?;
        match documented.remove(&case.id) {
            Some(choice) if choice == outcome || (choice == "accepted" && outcome == ACCEPT) => {}
            Some(choice) => failures.push(format!("{}: {outcome}, the README says {choice}", case.id)),
            None => failures.push(format!("{}: {outcome}, and not in the README under `{HEADING}`", case.id)),
        }
    }
    failures.extend(documented.keys().map(|case| format!("{case}: in the README, and no case that is left open")));
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

const HEADING: &str = "## Where the RFCs leave a choice";
