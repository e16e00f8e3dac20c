//! `claimgate explain`: the gate's decision on one request, and all that led to it.

use std::path::{Path, PathBuf};

use clap::Args;
use claimgate::{Decision, Explanation, Reason, Request, SignatureStage, UnixTime};
use serde_json::json;

use super::gate::{self, Gate, Given};
use super::{Answer, Exit, Trouble, date, moment, now, printable, read};

/// Say what the gate would decide on a request, and why
#[derive(Args)]
#[command(after_help = "Examples:\n  claimgate explain --config gate.json --jwks corp=jwks.json --token-file token.jwt\n  \
                        claimgate explain --config gate.json --jwks corp=jwks.json --token-file - --json < token.jwt\n  \
                        claimgate explain --config gate.json --path /healthz --at 2026-01-02T03:04:05Z\n\n\
                        Exit status: 0 allowed, 1 rejected, 2 could not tell.")]
pub struct Arguments {
    /// The plugin's configuration, a JSON file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The JWK Set of a provider, in place of what it fetches or holds
    #[arg(long, value_name = "PROVIDER=FILE")]
    jwks: Vec<String>,
    /// A file that holds the token; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "header")]
    token_file: Option<PathBuf>,
    /// A header line of the request, such as 'Authorization: Bearer …'
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The request's method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The request's path
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    /// The moment to decide at: seconds since 1970, 2026-01-02T03:04:05Z or now-1h; now, if absent
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<Answer, Trouble> {
    let now = now()?;
    let at = arguments.at.as_ref().map_or(Ok(now), |text| moment(text, now).map_err(|why| format!("--at {why}")))?;
    let (config, sources) = gate::load(&arguments.config)?;
    let given = arguments.jwks.iter().map(|given| key_set(given)).collect::<Result<Vec<_>, _>>()?;
    let mut gate = Gate::new(config, sources, given, at)?;
    let explanation = gate.explain(&request(arguments)?, at)?;
    let text = if arguments.json { as_json(&explanation) } else { as_text(&explanation) };
    let exit = match &explanation.decision {
        Decision::Allow(_) => Exit::Well,
        Decision::Reject(rejection) if rejection.reason().is_outage() => Exit::Unknown,
        Decision::Reject(_) => Exit::Found,
        Decision::Await(_) => Exit::Unknown,
    };
    Ok(Answer { text, exit })
}

fn key_set(given: &str) -> Result<Given, Trouble> {
    let (provider, file) =
        given.split_once('=').ok_or_else(|| format!("--jwks {given}: PROVIDER=FILE was expected"))?;
    Ok(Given { provider: provider.to_owned(), document: Some(read(Path::new(file))?) })
}

fn request(arguments: &Arguments) -> Result<Request, Trouble> {
    let mut headers = vec![
        (":method".to_owned(), arguments.method.clone().into_bytes()),
        (":path".to_owned(), arguments.path.clone().into_bytes()),
    ];
    if let Some(file) = &arguments.token_file {
        let token = read(file)?;
        headers.push(("authorization".to_owned(), [b"Bearer ", token.trim_ascii()].concat()));
    }
    for header in &arguments.header {
        let (name, value) =
            header.split_once(':').ok_or_else(|| "--header: 'Name: value' was expected".to_owned())?;
        headers.push((name.trim().to_owned(), value.trim().as_bytes().to_vec()));
    }
    Ok(Request::new(headers))
}

fn results(decision: &Decision) -> Vec<&'static str> {
    match decision {
        Decision::Allow(_) => vec!["ok"],
        Decision::Await(_) => vec!["await"],
        Decision::Reject(rejection) => rejection.reasons().into_iter().map(Reason::as_str).collect(),
    }
}

const fn signature(stage: SignatureStage) -> &'static str {
    match stage {
        SignatureStage::NotChecked => "not checked",
        SignatureStage::Pass => "pass",
        SignatureStage::Fail => "fail",
    }
}

fn as_text(explanation: &Explanation) -> String {
    let report = &explanation.report;
    let time = |time: Option<UnixTime>| time.map(date);
    let list = |items: &[String]| (!items.is_empty()).then(|| items.join(", "));
    let mut lines = vec![match &explanation.decision {
        Decision::Allow(_) => "allowed".to_owned(),
        Decision::Await(_) => "undecided: keys are awaited".to_owned(),
        Decision::Reject(rejection) => {
            format!("rejected with {}: {}", rejection.reason().status(), rejection.reason().title())
        }
    }];
    let mut line = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:<12} = {value}")));
    };
    line("provider", report.provider.clone());
    line("alg", report.alg.clone());
    line("kid", report.kid.clone());
    line("keys", list(&report.keys));
    line("iat", time(report.iat));
    line("nbf", time(report.nbf));
    line("exp", time(report.exp));
    line("iss_token", report.iss_token.clone());
    line("iss_expected", list(&report.iss_expected));
    line("aud_token", list(&report.aud_token));
    line("aud_expected", list(&report.aud_expected));
    line("signature", Some(signature(report.signature).to_owned()));
    if let Decision::Reject(rejection) = &explanation.decision {
        for violation in &rejection.violations {
            line("found", Some(format!("{}: {}", violation.reason, violation.detail)));
        }
    }
    line("result", Some(results(&explanation.decision).join(", ")));
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

fn as_json(explanation: &Explanation) -> String {
    let report = &explanation.report;
    let violations = match &explanation.decision {
        Decision::Reject(rejection) => rejection
            .violations
            .iter()
            .map(|v| json!({"reason": v.reason.as_str(), "detail": v.detail}))
            .collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let seconds = |time: Option<UnixTime>| time.map(UnixTime::as_secs);
    json!({
        "decision": match &explanation.decision {
            Decision::Allow(_) => "allow",
            Decision::Reject(_) => "reject",
            Decision::Await(_) => "await",
        },
        "result": results(&explanation.decision),
        "violations": violations,
        "provider": report.provider,
        "alg": report.alg,
        "kid": report.kid,
        "typ": report.typ,
        "keys": report.keys,
        "iat": seconds(report.iat),
        "nbf": seconds(report.nbf),
        "exp": seconds(report.exp),
        "jti": report.jti,
        "token_sha256": report.token_sha256,
        "iss_token": report.iss_token,
        "iss_expected": report.iss_expected,
        "aud_token": report.aud_token,
        "aud_expected": report.aud_expected,
        "signature": signature(report.signature),
    })
    .to_string()
}
