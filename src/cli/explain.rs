//! `claimgate explain`: the gate's decision on one request, and all that led to it.

use std::path::{Path, PathBuf};

use anstyle::Style;
use claimgate::{
    Because, Comparison, Decision, Expected, Explanation, Found, KeyTrial, Mode, Reason, Request, SignatureStage,
    TrialResult, UnixTime, Violation,
};
use clap::Args;
use serde_json::{Value, json};

use super::gate::{self, Gate, Given};
use super::{Answer, BAD, Exit, GOOD, Trouble, date, moment, now, paint, printable, read};

/// Say what the gate would decide on a request, and why
#[derive(Args)]
#[command(
    after_help = "Examples:\n  claimgate explain --config gate.json --jwks corp=jwks.json --token-file token.jwt\n  \
                        claimgate explain --config gate.json --jwks corp=jwks.json --token-file - --json < token.jwt\n  \
                        claimgate explain --config gate.json --path /healthz --at 2026-01-02T03:04:05Z\n\n\
                        Exit status: 0 allowed, 1 rejected, 2 could not tell."
)]
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
    let text = if arguments.json { as_json(&explanation) } else { as_text(&explanation, at) };
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
        let (name, value) = header.split_once(':').ok_or_else(|| "--header: 'Name: value' was expected".to_owned())?;
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

fn violations(decision: &Decision) -> &[Violation] {
    match decision {
        Decision::Reject(rejection) => &rejection.violations,
        Decision::Allow(_) | Decision::Await(_) => &[],
    }
}

const fn signature(stage: SignatureStage) -> &'static str {
    match stage {
        SignatureStage::NotChecked => "not checked",
        SignatureStage::Pass => "pass",
        SignatureStage::Fail => "fail",
    }
}

/// The decision with its reasons, then the keys, then claim by claim what the token says and what is expected.
fn as_text(explanation: &Explanation, at: UnixTime) -> String {
    let Explanation { decision, report, comparisons, keys } = explanation;
    let mut lines = vec![headline(decision)];
    for violation in violations(decision) {
        lines.push(printable(&format!("  {}: {}", violation.reason, violation.detail)));
        lines.push(printable(&format!("    to be accepted: {}", cure(violation))));
    }
    let mut line = |name: &str, value: Option<String>, style: Style| {
        lines.extend(value.map(|value| paint(style, one_line(&format!("{name:<12} = {value}")))));
    };
    let plain = Style::new();
    line("provider", report.provider.clone(), plain);
    if let Decision::Allow(allow) = decision {
        let names: Vec<&str> = allow.set.iter().map(|(name, _)| name.as_str()).collect();
        line("removes", list(&allow.remove), plain);
        line("sets", list(&names), plain);
    }
    line("kid", report.kid.clone(), plain);
    for KeyTrial { kid, algs, result } in keys {
        let (result, style) = match result {
            TrialResult::Pass => ("pass".to_owned(), GOOD),
            TrialResult::Fail => ("fail".to_owned(), BAD),
            TrialResult::NotTried(why) => (format!("not tried, {why}"), plain),
        };
        let algs = if algs.is_empty() { String::new() } else { format!(" ({})", algs.join(" ")) };
        line("key", Some(format!("{}{algs}: {result}", kid.as_deref().unwrap_or("without a name"))), style);
    }
    // Issuer and audience come last, beside the signature and the result.
    let (last, first): (Vec<_>, Vec<_>) =
        comparisons.iter().partition(|one| matches!(one.name.as_str(), "iss" | "aud"));
    for Comparison { name, found, expected, violation } in first.into_iter().chain(last) {
        let style = if violation.is_some() { BAD } else { plain };
        line(&format!("{name}_token"), found_text(found, expected, at), style);
        line(&format!("{name}_expected"), expected_text(expected), plain);
    }
    if comparisons.is_empty() {
        line("iss_token", report.iss_token.clone(), plain);
        line("iss_expected", list(&report.iss_expected), plain);
    }
    let style = match report.signature {
        SignatureStage::NotChecked => plain,
        SignatureStage::Pass => GOOD,
        SignatureStage::Fail => BAD,
    };
    line("signature", Some(signature(report.signature).to_owned()), style);
    line("result", Some(results(decision).join(", ")), plain);
    lines.join("\n")
}

fn headline(decision: &Decision) -> String {
    let (text, style, mode) = match decision {
        Decision::Allow(allow) => {
            let why = match &allow.because {
                Because::Verified(_) => "its token is good",
                Because::Optional => "it needs no good token, and has none",
                Because::Preflight => "it is a CORS preflight",
                Because::Unmatched => "no rule is for it",
                Because::NoRequirement => "its rule requires nothing",
            };
            (format!("allowed: {why}"), GOOD, allow.mode)
        }
        Decision::Await(need) => ("undecided: keys are awaited".to_owned(), BAD, need.mode),
        Decision::Reject(rejection) => {
            let reason = rejection.reason();
            (format!("rejected with {}: {}", reason.status(), reason.title()), BAD, rejection.mode)
        }
    };
    let shadow = if mode == Mode::Shadow { " (shadow mode: the request goes on as it came)" } else { "" };
    paint(style, format_args!("{text}{shadow}"))
}

/// A token cannot make a line of its own.
fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\u{FFFD}")
}

fn list<T: AsRef<str>>(items: &[T]) -> Option<String> {
    (!items.is_empty()).then(|| items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "))
}

fn found_text(found: &Found, expected: &Expected, at: UnixTime) -> Option<String> {
    match found {
        Found::Nothing if *expected == Expected::Anything => None,
        Found::Nothing => Some("(none)".to_owned()),
        Found::Malformed(kind) => Some(format!("({kind})")),
        Found::Texts(texts) => Some(texts.join(", ")),
        Found::Time(time) if *time > at => Some(format!("{} (in {} s)", date(*time), time.since(at).as_secs())),
        Found::Time(time) => Some(format!("{} ({} s ago)", date(*time), at.since(*time).as_secs())),
    }
}

fn expected_text(expected: &Expected) -> Option<String> {
    match expected {
        Expected::Anything => None,
        Expected::OneOf(values) => Some(values.join(", ")),
        Expected::Words(words) => Some(words.clone()),
        Expected::After(time) => Some(format!("after {}", date(*time))),
        Expected::Until(time) => Some(format!("up to {}", date(*time))),
        Expected::Between(first, last) => Some(format!("after {}, up to {}", date(*first), date(*last))),
    }
}

/// What would have to change.
fn cure(violation: &Violation) -> String {
    let cure = match violation.reason {
        Reason::HeaderMissing => "a token where the provider looks for one, by default `Authorization: Bearer`",
        Reason::TokenAmbiguous => "one token, in one place",
        Reason::TokenTooLarge => "a shorter token, or a larger `max_token_bytes`",
        Reason::TokenMalformed => "a signed JWT in compact form, as its issuer wrote it",
        Reason::TypeNotAllowed => "a token of another type, or this `typ` in `token_types`",
        Reason::CritUnsupported => "a token without extensions",
        Reason::AlgorithmNotAllowed => "a token signed by another algorithm, or this `alg` in `algorithms`",
        Reason::IssuerMismatch => {
            "a token of the issuer that is expected (is this one of another environment?), or this `iss` in `issuer`"
        }
        Reason::KeyNotFound => "a newer token, or this key in the issuer's set: publish a key before it signs",
        Reason::KeyMismatch => {
            "a key of this `kid` whose `kty`, `crv`, `alg`, `use` and `key_ops` fit the token's `alg`"
        }
        Reason::JwksUnavailable => "the issuer's keys: here with `--jwks PROVIDER=FILE`",
        Reason::SignatureInvalid => "a token that nobody changed, or the key that signed it in the issuer's set",
        Reason::ClaimMalformed => "a token whose issuer writes this claim as RFC 7519 does",
        Reason::ExpirationMissing => "a token with `exp`, or `require_expiration: false`",
        Reason::TokenExpired => "a newer token, or clocks in step; `clock_skew_seconds` is for what is left of that",
        Reason::TokenNotYetValid => "clocks in step; `clock_skew_seconds` is for what is left of that",
        Reason::LifetimeExceeded => "a newer or shorter-lived token, or a larger `max_age` or `max_lifetime`",
        Reason::AudienceMismatch => "a token that was asked for this audience, or this `aud` in `audiences`",
        Reason::SubjectMismatch => "a token of another subject, or other `subjects`",
        Reason::ScopeInsufficient => match &violation.scope {
            Some(scope) => return format!("a token that was asked for the scope `{scope}`"),
            None => "a token that was asked for another scope",
        },
        Reason::ClaimMismatch => "a token with other claims, or another rule",
        Reason::TokenRevoked => "another token",
    };
    cure.to_owned()
}

fn as_json(explanation: &Explanation) -> String {
    let Explanation { decision, report, comparisons, keys } = explanation;
    let violation = |v: &Violation| json!({"reason": v.reason.as_str(), "detail": v.detail, "to_be_accepted": cure(v)});
    let seconds = |time: Option<UnixTime>| time.map(UnixTime::as_secs);
    let key = |KeyTrial { kid, algs, result }: &KeyTrial| {
        let (result, why) = match result {
            TrialResult::Pass => ("pass", None),
            TrialResult::Fail => ("fail", None),
            TrialResult::NotTried(why) => ("not_tried", Some(why)),
        };
        json!({"kid": kid, "algs": algs, "result": result, "why": why})
    };
    let comparison = |Comparison { name, found, expected, violation }: &Comparison| {
        let found = match found {
            Found::Nothing => Value::Null,
            Found::Malformed(kind) => json!({"malformed": kind}),
            Found::Texts(texts) => json!(texts),
            Found::Time(time) => json!(time.as_secs()),
        };
        let expected = match expected {
            Expected::Anything => Value::Null,
            Expected::OneOf(values) => json!({"one_of": values}),
            Expected::Words(words) => json!(words),
            Expected::After(time) => json!({"after": time.as_secs()}),
            Expected::Until(time) => json!({"until": time.as_secs()}),
            Expected::Between(first, last) => json!({"after": first.as_secs(), "until": last.as_secs()}),
        };
        let reason = violation.as_ref().map(|violation| violation.reason.as_str());
        json!({"name": name, "token": found, "expected": expected, "reason": reason})
    };
    let (outcome, mode) = match decision {
        Decision::Allow(allow) => ("allow", allow.mode),
        Decision::Reject(rejection) => ("reject", rejection.mode),
        Decision::Await(need) => ("await", need.mode),
    };
    json!({
        "decision": outcome,
        "mode": match mode {
            Mode::Enforce => "enforce",
            Mode::Shadow => "shadow",
        },
        "result": results(decision),
        "violations": violations(decision).iter().map(violation).collect::<Vec<_>>(),
        "provider": report.provider,
        "alg": report.alg,
        "kid": report.kid,
        "typ": report.typ,
        "keys": report.keys,
        "key_set": report.key_set,
        "key_trials": keys.iter().map(key).collect::<Vec<_>>(),
        "claims": comparisons.iter().map(comparison).collect::<Vec<_>>(),
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
