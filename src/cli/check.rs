//! `claimgate check`: reads a configuration as the gate does, and warns of what is allowed and seldom meant.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use claimgate::raw::{RawConfig, RawErrorFormat, RawIssuer, RawMatch, RawMode, RawRequirement, RawUnmatched};
use claimgate::{Config, Source, limits};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{Answer, DOUBTFUL, Exit, Format, GOOD, Trouble, gate, paint, printable};

/// Read a configuration as the gate does, and warn of what is allowed and seldom meant
#[derive(Args)]
#[command(
    after_help = "Examples:\n  claimgate check gate.json\n  claimgate check --allow audience-unchecked --format json gate.json"
)]
pub struct Arguments {
    /// The plugin's configuration, a JSON file; - for standard input
    file: PathBuf,
    /// A rule that shall not warn; may be given several times
    #[arg(long, value_name = "RULE")]
    allow: Vec<Lint>,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// What is warned of. The first line of each is its help, and its row in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Lint {
    /// A provider names no issuer
    IssuerUnchecked,
    /// An issuer's template has no list of values
    IssuerOpen,
    /// A provider names no audience, and neither does what requires it
    AudienceUnchecked,
    /// `HS*` is allowed: whoever can verify a token can make one
    SharedSecret,
    /// A token may live for ever
    NoExpiration,
    /// Clocks may differ by more than 120 seconds
    LongClockSkew,
    /// Tokens over 16 KiB are read
    LargeTokens,
    /// A token may stand in the query
    TokenInQuery,
    /// Keys are fetched from an `http` address
    KeysOverHttp,
    /// Old keys serve through an outage for more than a day
    LongStale,
    /// A key in the configuration cannot be used
    SkippedKey,
    /// A private key stands in the configuration
    PrivateKey,
    /// Two claims are written into one header
    SameHeader,
    /// No rule and no requirement uses a provider
    UnusedProvider,
    /// No rule uses a requirement
    UnusedRequirement,
    /// A rule before it matches whatever a rule matches
    ShadowedRule,
    /// A rule that needs nothing is for more than one path
    OpenPrefix,
    /// A request that no rule matches passes
    OpenUnmatched,
    /// A request without a token passes
    MissingPasses,
    /// A request with a bad token passes
    FailedPasses,
    /// A refusal does not say why
    SilentRefusal,
    /// Anybody may read the state of the key sets
    PublicStatus,
    /// Refusals are logged and not carried out
    ShadowMode,
}

impl Lint {
    fn name(self) -> String {
        super::name_of(self)
    }

    const fn cure(self) -> &'static str {
        match self {
            Self::IssuerUnchecked => "name the issuer in `issuer`",
            Self::IssuerOpen => "list the tenants you serve in `values`",
            Self::AudienceUnchecked => "name this service in `audiences`",
            Self::SharedSecret => "use an asymmetric algorithm, or see that nobody else holds the secret",
            Self::NoExpiration => "leave `require_expiration` out, or set `max_age`",
            Self::LongClockSkew => "keep clocks in step and set `clock_skew_seconds` to 120 at most",
            Self::LargeTokens => "set `max_token_bytes` to 16384 at most: servers behind the gate seldom read more",
            Self::TokenInQuery => "take the token from a header or a cookie: a URL is logged and kept everywhere",
            Self::KeysOverHttp => {
                "use an `https` address and a cluster with TLS: who changes the keys makes the tokens"
            }
            Self::LongStale => "set `stale_for` to `86400s` at most: a key that was withdrawn serves that long",
            Self::SkippedKey => "correct the key or take it out",
            Self::PrivateKey => "replace the key pair, and publish the public half alone",
            Self::SameHeader => "give each claim a header of its own: the last one wins",
            Self::UnusedProvider => "name it in a rule, or take it out",
            Self::UnusedRequirement => "name it in a rule, take it out, or allow this if a route's metadata names it",
            Self::ShadowedRule => "put the narrower rule first, or take it out",
            Self::OpenPrefix => "match the one path that shall be open with `path`",
            Self::OpenUnmatched => "set `unmatched` to `deny`, or end with a rule for the prefix `/`",
            Self::MissingPasses => "see that the upstream tells such a request from one with a token",
            Self::FailedPasses => "use `allow_missing`, which refuses a bad token",
            Self::SilentRefusal => "use `problem_json` or `text`: the reason gives no secret away",
            Self::PublicStatus => "open the path to your own network alone",
            Self::ShadowMode => "set `mode` to `enforce` once the log shows no refusal that you do not want",
        }
    }
}

struct Warning {
    rule: Lint,
    path: String,
    why: String,
}

pub fn run(arguments: &Arguments) -> Result<Answer, Trouble> {
    let document = super::read(&arguments.file)?;
    let file = arguments.file.display().to_string();
    let refused = |trouble: Trouble| match arguments.format {
        Format::Text => Err(format!("{file}: {trouble}")),
        Format::Json => {
            let text = json!({"file": file, "error": trouble, "warnings": []}).to_string();
            Ok(Answer { text, exit: Exit::Unknown })
        }
    };
    let (config, sources) = match gate::parse(&document) {
        Ok(compiled) => compiled,
        Err(trouble) => return refused(trouble),
    };
    let raw = match RawConfig::parse(&document) {
        Ok(raw) => raw,
        Err(error) => return refused(error.to_string()),
    };
    let mut warnings = Vec::new();
    providers(&raw, &config, &sources, &mut warnings);
    rules(&raw, &mut warnings);
    whole(&raw, &mut warnings);
    warnings.retain(|warning| !arguments.allow.contains(&warning.rule));
    let exit = if warnings.is_empty() { Exit::Well } else { Exit::Found };
    let text = match arguments.format {
        Format::Text => as_text(&file, &warnings),
        Format::Json => as_json(&file, &warnings),
    };
    Ok(Answer { text, exit })
}

fn as_text(file: &str, warnings: &[Warning]) -> String {
    let mut text = String::new();
    for Warning { rule, path, why } in warnings {
        let place = if path.is_empty() { String::new() } else { format!("{}: ", printable(path)) };
        let name = paint(DOUBTFUL, format_args!("[{}]", rule.name()));
        text.push_str(&format!("{file}: {place}{} {name}\n    cure: {}\n", printable(why), rule.cure()));
    }
    let summary = match warnings.len() {
        0 => paint(GOOD, "no warnings"),
        1 => "1 warning".to_owned(),
        several => format!("{several} warnings"),
    };
    text + &format!("{file}: {summary}")
}

fn as_json(file: &str, warnings: &[Warning]) -> String {
    let warning = |w: &Warning| json!({"rule": w.rule.name(), "path": w.path, "why": w.why, "cure": w.rule.cure()});
    let warnings: Vec<Value> = warnings.iter().map(warning).collect();
    json!({"file": file, "error": null, "warnings": warnings}).to_string()
}

/// Clocks that differ by more are broken.
const SKEW: Duration = Duration::from_secs(120);

/// What many servers read of all headers together.
const TOKEN_BYTES: usize = 16 * 1024;

fn providers(raw: &RawConfig, config: &Config, sources: &[Source], warnings: &mut Vec<Warning>) {
    let uses = uses(raw);
    for ((name, raw), provider) in raw.providers.iter().zip(&config.providers) {
        let mut warn = |rule, field: &str, why: String| {
            let dot = if field.is_empty() { "" } else { "." };
            warnings.push(Warning { rule, path: format!("providers.{name}{dot}{field}"), why });
        };
        if provider.policy.issuers.is_empty() {
            warn(Lint::IssuerUnchecked, "issuer", "a token of any issuer passes if one of the keys verifies it".into());
        }
        for (i, issuer) in raw.issuers.iter().enumerate() {
            let open = match issuer {
                RawIssuer::Text(text) => text.contains('{').then_some(text),
                RawIssuer::Template(template) => template.values.is_empty().then_some(&template.issuer),
            };
            if let Some(template) = open {
                warn(Lint::IssuerOpen, &format!("issuers[{i}]"), format!("`{template}` is any tenant's issuer"));
            }
        }
        if provider.policy.audiences.is_empty() && uses.iter().any(|used| used.without_audiences(name)) {
            warn(Lint::AudienceUnchecked, "audiences", "a token that was issued for another service passes".into());
        }
        let secret: Vec<&str> = provider.algorithms.iter().filter(|a| a.is_symmetric()).map(|a| a.name()).collect();
        if !secret.is_empty() {
            warn(Lint::SharedSecret, "algorithms", format!("whoever can verify {} can sign", secret.join(", ")));
        }
        if raw.require_expiration == Some(false) && raw.max_age.is_none() {
            warn(Lint::NoExpiration, "require_expiration", "a token without `exp` passes for ever".into());
        }
        if provider.policy.clock_skew > SKEW {
            let seconds = provider.policy.clock_skew.as_secs();
            warn(Lint::LongClockSkew, "clock_skew_seconds", format!("a token passes for {seconds} s after its end"));
        }
        if provider.max_token_bytes > TOKEN_BYTES {
            let why = format!("tokens of up to {} bytes are read", provider.max_token_bytes);
            warn(Lint::LargeTokens, "max_token_bytes", why);
        }
        if let Some(param) = raw.from_params.first() {
            warn(Lint::TokenInQuery, "from_params", format!("the parameter `{param}` puts a token into URLs"));
        }
        match sources.get(provider.keys.0) {
            Some(Source::Remote(remote)) => {
                let field = if raw.oidc_discovery.is_some() { "oidc_discovery" } else { "remote_jwks" };
                if remote.address.scheme == "http" {
                    let why = format!("keys come from `{}` without TLS", remote.address.authority);
                    warn(Lint::KeysOverHttp, &format!("{field}.http_uri.uri"), why);
                }
                if remote.stale_for > limits::STALE_FOR {
                    let why = format!("old keys serve for {} s while fetching fails", remote.stale_for.as_secs());
                    warn(Lint::LongStale, &format!("{field}.stale_for"), why);
                }
            }
            Some(Source::Inline(set)) => {
                for key in set.skipped() {
                    warn(Lint::SkippedKey, &format!("local_jwks keys[{}]", key.index), key.why.to_string());
                }
                for key in set.warnings() {
                    warn(Lint::PrivateKey, &format!("local_jwks keys[{}]", key.index), key.why.to_string());
                }
            }
            None => {}
        }
        let headers = raw.claim_to_headers.iter().map(|header| header.header_name.to_ascii_lowercase());
        let mut seen: BTreeSet<String> = raw.forward_payload_header.iter().map(|h| h.to_ascii_lowercase()).collect();
        for (i, header) in headers.enumerate() {
            if !seen.insert(header.clone()) {
                let why = format!("`{header}` is written twice");
                warn(Lint::SameHeader, &format!("claim_to_headers[{i}].header_name"), why);
            }
        }
        if !uses.iter().any(|used| used.is_of(name)) {
            warn(Lint::UnusedProvider, "", "its tokens open nothing".into());
        }
    }
}

/// One place of the configuration where the tokens of a provider are asked for.
enum Use<'c> {
    /// Of this one, and whether other audiences than the provider's count.
    One(&'c str, bool),
    /// Of whichever.
    Any,
}

impl Use<'_> {
    fn is_of(&self, provider: &str) -> bool {
        match self {
            Self::One(name, _) => *name == provider,
            Self::Any => true,
        }
    }

    fn without_audiences(&self, provider: &str) -> bool {
        self.is_of(provider) && !matches!(self, Self::One(_, true))
    }
}

fn uses(raw: &RawConfig) -> Vec<Use<'_>> {
    let Some(rules) = &raw.rules else { return vec![Use::Any] };
    let mut uses = Vec::new();
    for requirement in rules.iter().filter_map(|rule| rule.requires.as_ref()).chain(raw.requirement_map.values()) {
        visit(requirement, &mut |requirement| {
            if let Some(name) = &requirement.provider_name {
                uses.push(Use::One(name, false));
            }
            if let Some(one) = &requirement.provider_and_audiences {
                uses.push(Use::One(&one.provider_name, !one.audiences.is_empty()));
            }
            if passes_missing(requirement) || passes_failed(requirement) {
                uses.push(Use::Any);
            }
        });
    }
    if raw.unmatched == RawUnmatched::Deny {
        uses.push(Use::Any);
    }
    uses
}

/// Visits a requirement and all that it is made of.
fn visit<'c>(requirement: &'c RawRequirement, see: &mut impl FnMut(&'c RawRequirement)) {
    see(requirement);
    for group in [&requirement.requires_any, &requirement.requires_all].into_iter().flatten() {
        for part in &group.requirements {
            visit(part, see);
        }
    }
}

const fn passes_missing(requirement: &RawRequirement) -> bool {
    requirement.allow_missing.is_some()
}

const fn passes_failed(requirement: &RawRequirement) -> bool {
    requirement.allow_missing_or_failed.is_some() || requirement.extract_only_without_validation.is_some()
}

fn is_nothing(requirement: &RawRequirement) -> bool {
    let RawRequirement { provider_name, provider_and_audiences, requires_any, requires_all, .. } = requirement;
    let groups = requires_any.is_some() || requires_all.is_some();
    let tokens = provider_name.is_some() || provider_and_audiences.is_some();
    !(groups || tokens || passes_missing(requirement) || passes_failed(requirement))
}

fn rules(raw: &RawConfig, warnings: &mut Vec<Warning>) {
    let rules = raw.rules.as_deref().unwrap_or_default();
    for (i, rule) in rules.iter().enumerate() {
        let mut warn = |kind, why: String| warnings.push(Warning { rule: kind, path: format!("rules[{i}]"), why });
        if let Some(earlier) = rules.iter().take(i).position(|earlier| covers(&earlier.r#match, &rule.r#match)) {
            warn(Lint::ShadowedRule, format!("`rules[{earlier}]` matches first, always"));
        }
        if rule.mode == Some(RawMode::Shadow) {
            warn(Lint::ShadowMode, "what it refuses reaches the upstream".into());
        }
        let named = rule.requirement_name.as_ref().and_then(|name| raw.requirement_map.get(name));
        let is_open = rule.requires.as_ref().or(named).is_none_or(is_nothing);
        if is_open && rule.r#match.path.is_none() && rule.r#match.connect_matcher.is_none() {
            warn(Lint::OpenPrefix, "every path that it matches is open to everyone".into());
        }
        if let Some(requirement) = &rule.requires {
            lenient(&format!("rules[{i}].requires"), requirement, warnings);
        }
    }
    for (name, requirement) in &raw.requirement_map {
        let path = format!("requirement_map.{name}");
        lenient(&path, requirement, warnings);
        if !rules.iter().any(|rule| rule.requirement_name.as_ref() == Some(name)) {
            warnings.push(Warning { rule: Lint::UnusedRequirement, path, why: "no rule names it".into() });
        }
    }
}

fn lenient(path: &str, requirement: &RawRequirement, warnings: &mut Vec<Warning>) {
    let (mut missing, mut failed) = (false, false);
    visit(requirement, &mut |part| {
        missing |= passes_missing(part);
        failed |= passes_failed(part);
    });
    let mut warn = |rule, why: &str| warnings.push(Warning { rule, path: path.to_owned(), why: why.to_owned() });
    if failed {
        warn(Lint::FailedPasses, "a request with a forged token reaches the upstream");
    } else if missing {
        warn(Lint::MissingPasses, "a request without a token reaches the upstream");
    }
}

/// Whether a rule matches every request that a later one matches. Says no where it cannot tell.
fn covers(earlier: &RawMatch, later: &RawMatch) -> bool {
    let is_plain = earlier.headers.is_empty() && earlier.query_parameters.is_empty();
    if !is_plain || earlier.case_sensitive == Some(false) || later.case_sensitive == Some(false) {
        return false;
    }
    if later.connect_matcher.is_some() || earlier.connect_matcher.is_some() {
        return later.connect_matcher.is_some() && earlier.connect_matcher.is_some();
    }
    // What every path that the later one matches begins with; and that path itself, if there is but one.
    let begins = later.prefix.as_ref().or(later.path.as_ref()).or(later.path_separated_prefix.as_ref());
    let segment = |path: &str| {
        earlier.path_separated_prefix.as_ref().is_some_and(|prefix| path.starts_with(&format!("{prefix}/")))
    };
    if let Some(prefix) = &earlier.prefix {
        return is_all(prefix) || begins.is_some_and(|begins| begins.starts_with(prefix));
    }
    if let Some(path) = &earlier.path {
        return later.path.as_ref() == Some(path);
    }
    begins.is_some_and(|begins| segment(begins))
        || (earlier.path_separated_prefix.is_some()
            && (later.path == earlier.path_separated_prefix
                || later.path_separated_prefix == earlier.path_separated_prefix))
}

fn is_all(prefix: &str) -> bool {
    matches!(prefix, "" | "/")
}

fn whole(raw: &RawConfig, warnings: &mut Vec<Warning>) {
    let mut warn = |rule, path: &str, why: &str| {
        warnings.push(Warning { rule, path: path.to_owned(), why: why.to_owned() });
    };
    let catches_all =
        |m: &RawMatch| m.prefix.as_deref().is_some_and(is_all) && m.headers.is_empty() && m.query_parameters.is_empty();
    if let Some(rules) = &raw.rules
        && raw.unmatched == RawUnmatched::Allow
        && !rules.iter().any(|rule| catches_all(&rule.r#match))
    {
        warn(Lint::OpenUnmatched, "unmatched", "a request that no rule matches reaches the upstream");
    }
    if raw.strip_failure_response {
        warn(Lint::SilentRefusal, "strip_failure_response", "a refusal has neither body nor challenge");
    } else if raw.error_format == RawErrorFormat::None {
        warn(Lint::SilentRefusal, "error_format", "a refusal has no body");
    }
    if raw.mode == RawMode::Shadow {
        warn(Lint::ShadowMode, "mode", "whatever is refused reaches the upstream");
    }
    if raw.status_path.is_some() {
        warn(Lint::PublicStatus, "status_path", "whoever asks learns of issuers, keys and outages");
    }
}
