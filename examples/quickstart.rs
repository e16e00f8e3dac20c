//! Claimgate in a real Envoy, in one command:
//!
//! ```sh
//! cargo run --example quickstart               # sends requests, prints what became of them
//! cargo run --example quickstart -- --serve    # keeps running, prints `curl` lines to try
//! ```
//!
//! Sets up everything by itself: the plugin, an Envoy (found or fetched), an issuer that publishes its keys over HTTP,
//! and an upstream that tells what it received. Exits with 1 if any outcome is not the expected one.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::error::Error;
use std::io;
use std::process::ExitCode;

use claimgate_testbed::{Algorithm, Answer, Gate, Issuer, Key, Request, tampered, unix_time, unsecured};
use serde_json::{Value, json};

/// One line of the table: what is sent, and what has to become of it.
struct Case {
    request: &'static str,
    path: &'static str,
    token: Option<String>,
    /// Sends `x-user: admin`, which only the gate may set.
    spoofs_user: bool,
    expected: Outcome,
}

#[derive(Clone, PartialEq, Eq)]
struct Outcome {
    status: u16,
    reason: String,
    upstream: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let serve = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--serve"] => true,
        _ => {
            eprintln!("usage: quickstart [--serve]");
            return ExitCode::from(2);
        }
    };
    match run(serve) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(serve: bool) -> Result<bool, Box<dyn Error>> {
    eprintln!("building the plugin and starting Envoy (the first time, this takes a few minutes) ...");
    let key = Key::new(Algorithm::RS256, "2026-01");
    let issuer = Issuer::start(&[&key]);
    let gate = Gate::plugin(&configuration(&issuer)).cluster("idp", issuer.addr()).start()?;
    println!("\nEnvoy with claimgate.wasm listens on http://{}\n", gate.addr());

    let cases = cases(&key);
    let outcomes: Vec<Outcome> = cases.iter().map(|case| observe(&case.request(&gate).send())).collect();
    print_table(&cases, &outcomes);

    let fetched = issuer.fetches() > 0;
    println!("\nThe plugin fetched the key set from {}: {} time(s).", issuer.url(), issuer.fetches());
    let as_expected = fetched && cases.iter().zip(&outcomes).all(|(case, outcome)| case.expected == *outcome);
    println!(
        "{}",
        if as_expected { "Every outcome is the expected one." } else { "NOT every outcome is the expected one." }
    );

    if serve {
        println!("\nTry it; Ctrl-C or the end of the input stops it. The tokens are for development.\n");
        cases.iter().for_each(|case| println!("# {}\n{}\n", case.request, case.curl(&gate)));
        io::copy(&mut io::stdin(), &mut io::sink())?;
    }
    Ok(as_expected)
}

fn configuration(issuer: &Issuer) -> Value {
    json!({
        "providers": {
            "corp": {
                "issuer": ISSUER,
                "audiences": ["orders"],
                "remote_jwks": {
                    "http_uri": { "uri": issuer.url(), "cluster": "idp", "timeout": "2s" },
                    "cache_duration": "300s",
                },
                "claim_to_headers": [{ "header_name": "x-user", "claim_name": "sub" }],
                "forward_payload_header": "x-jwt-payload",
            },
        },
        "rules": [
            { "match": { "prefix": "/public" } },
            { "match": { "prefix": "/" }, "requires": { "provider_name": "corp" } },
        ],
    })
}

fn cases(key: &Key) -> Vec<Case> {
    let now = unix_time();
    let claims = json!({ "iss": ISSUER, "sub": "alice", "aud": "orders", "iat": now, "exp": now + 3600 });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        key.sign(&claims)
    };
    let valid = key.sign(&claims);
    let confused = Key::from_secret(Algorithm::HS256, key.kid(), key.public_pem().as_bytes()).sign(&claims);
    let expired = with("exp", (now - 3600).into());
    let other_issuer = with("iss", "https://idp.example.net/".into());

    vec![
        Case::new("valid token", Some(valid.clone())).allowed("x-user: alice"),
        Case::new("no token", None).rejected("header_missing"),
        Case::new("expired", Some(expired)).rejected("token_expired"),
        Case::new("wrong audience", Some(with("aud", "billing".into()))).rejected("audience_mismatch"),
        Case::new("wrong issuer", Some(other_issuer)).rejected("issuer_mismatch"),
        Case::new("tampered", Some(tampered(&valid))).rejected("signature_invalid"),
        Case::new("alg: none", Some(unsecured(&claims))).rejected("algorithm_not_allowed"),
        Case::new("RS256 as HS256, public key as secret", Some(confused)).rejected("algorithm_not_allowed"),
        Case::new("x-user: admin, valid token", Some(valid)).spoofing("/orders").allowed("x-user: alice"),
        Case::new("x-user: admin, no token, open path", None).spoofing("/public").allowed("no x-user"),
        Case::new("x-user: admin, no token", None).spoofing("/orders").rejected("header_missing"),
    ]
}

impl Case {
    fn new(request: &'static str, token: Option<String>) -> Self {
        let expected = Outcome { status: 0, reason: String::new(), upstream: String::new() };
        Self { request, path: "/orders", token, spoofs_user: false, expected }
    }

    fn spoofing(self, path: &'static str) -> Self {
        Self { path, spoofs_user: true, ..self }
    }

    fn allowed(self, upstream: &str) -> Self {
        Self { expected: Outcome { status: 200, reason: "-".into(), upstream: upstream.into() }, ..self }
    }

    fn rejected(self, reason: &str) -> Self {
        Self { expected: Outcome { status: 401, reason: reason.into(), upstream: "nothing".into() }, ..self }
    }

    fn request<'g>(&self, gate: &'g Gate) -> Request<'g> {
        let request = gate.get(self.path);
        let request = if self.spoofs_user { request.header("x-user", "admin") } else { request };
        self.token.iter().fold(request, |request, token| request.bearer(token))
    }

    fn curl(&self, gate: &Gate) -> String {
        let spoofed = if self.spoofs_user { " -H 'x-user: admin'" } else { "" };
        let token = self.token.as_ref().map(|token| format!(" -H 'authorization: Bearer {token}'"));
        format!("curl -i http://{}{}{spoofed}{}", gate.addr(), self.path, token.unwrap_or_default())
    }
}

/// What became of a request. The upstream must never see the token itself: `forward` is not set.
fn observe(answer: &Answer) -> Outcome {
    let upstream = match &answer.echo {
        None => "nothing".into(),
        Some(echo) if echo.header("authorization").is_some() => "the token".into(),
        Some(echo) => match echo.headers_named("x-user")[..] {
            [] => "no x-user".into(),
            [user] if echo.header("x-jwt-payload").is_some() => format!("x-user: {user}"),
            _ => format!("{:?}", echo.headers),
        },
    };
    Outcome { status: answer.status, reason: answer.reason().unwrap_or_else(|| "-".into()), upstream }
}

fn print_table(cases: &[Case], outcomes: &[Outcome]) {
    let row = |request: &str, status: &str, reason: &str, upstream: &str| {
        format!("{request:<38} {status:<6} {reason:<22} {upstream}")
    };
    println!("{}", row("request", "status", "reason", "the upstream saw"));
    println!("{}", row(&"-".repeat(38), "------", &"-".repeat(22), &"-".repeat(16)));
    for (case, outcome) in cases.iter().zip(outcomes) {
        let show = |outcome: &Outcome, request| {
            println!("{}", row(request, &outcome.status.to_string(), &outcome.reason, &outcome.upstream));
        };
        show(outcome, case.request);
        if case.expected != *outcome {
            show(&case.expected, "  ^ UNEXPECTED. It should have been:");
        }
    }
}

const ISSUER: &str = "https://idp.example.com/";
