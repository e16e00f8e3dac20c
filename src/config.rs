//! The configuration: what was typed ([`raw`]), and what was made of it, once.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::jws::Algorithm;
use crate::keystore::{IssuerId, Remote, Source};
use crate::limits::{
    CACHE_DURATION, CLOCK_SKEW, CLOCK_SKEW_CEILING, CONFIG_ENTRIES, DURATION_CEILING, FETCH_TIMEOUT, JWKS_BYTES,
    JWKS_BYTES_CEILING, JWKS_KEYS, JWKS_KEYS_CEILING, STALE_FOR, TOKEN_BYTES, TOKEN_BYTES_CEILING,
};
use crate::policy::Policy;
use crate::signature::KeySet;

pub mod raw;

use raw::{RawClaimToHeader, RawConfig, RawJwksHttp, RawLocalJwks, RawMatch, RawProvider, RawRemoteJwks, RawRule};

/// A configuration that was checked and compiled.
#[derive(Debug)]
pub struct Config {
    /// The providers, in the order of their names.
    pub providers: Vec<Provider>,
    /// The rules, of which the first that matches counts. Nothing: every request must satisfy one of the providers.
    pub rules: Option<Vec<Rule>>,
    /// Every header that any provider may set, in lower case: removed from each request before anything else.
    pub managed_headers: Vec<String>,
}

/// Who issues tokens, and what is demanded of them.
#[derive(Debug)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: String,
    /// Its key set in the store.
    pub keys: IssuerId,
    /// The algorithms allowed.
    pub algorithms: Vec<Algorithm>,
    /// What is demanded of claims.
    pub policy: Policy,
    /// Longest token accepted, in bytes.
    pub max_token_bytes: usize,
    /// Whether the token goes on to the upstream.
    pub forward: Forward,
    /// The header that receives the payload.
    pub payload_header: Option<PayloadHeader>,
    /// The headers that receive claims.
    pub claim_headers: Vec<ClaimHeader>,
}

/// What becomes of an accepted token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The upstream receives it.
    Keep,
    /// It ends at the gate.
    Strip,
}

/// The header that receives the payload, in base64url.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadHeader {
    /// Its name, in lower case.
    pub name: String,
    /// Whether the value is padded with `=`.
    pub padding: Padding,
}

/// Whether base64url ends in `=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// As RFC 7515 has it.
    Omit,
    /// As some decoders want it.
    Add,
}

/// A header that receives a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// Its name, in lower case.
    pub name: String,
    /// The names of the members that lead to the claim, outermost first.
    pub path: Vec<String>,
}

/// Which requests need what.
#[derive(Debug)]
pub struct Rule {
    /// The requests it is for.
    pub matcher: PathMatcher,
    /// What they need.
    pub requirement: Requirement,
}

/// A comparison with the path of a request, without its query.
#[derive(Debug, PartialEq, Eq)]
pub enum PathMatcher {
    /// The path begins so.
    Prefix(Vec<u8>),
    /// The path is this.
    Exact(Vec<u8>),
}

impl PathMatcher {
    /// Whether a path matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Exact(exact) => path == exact,
        }
    }
}

/// What a request needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    Nothing,
    /// A token of one provider: its place in [`Config::providers`].
    Provider(usize),
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where, as a JSON path; empty for the document as a whole.
    pub path: String,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

type Result<T> = std::result::Result<T, ConfigError>;

impl Config {
    /// Reads a configuration and the sources of its keys: [`Provider::keys`] is a place in that list.
    ///
    /// # Errors
    /// The first thing that is wrong, with its JSON path, what was found and what was expected.
    pub fn parse(document: &[u8]) -> Result<(Self, Vec<Source>)> {
        Self::compile(RawConfig::parse(document)?)
    }

    fn compile(raw: RawConfig) -> Result<(Self, Vec<Source>)> {
        if raw.providers.is_empty() {
            return Err(ConfigError::new("providers", "no provider, at least one was expected"));
        }
        bounded("providers", raw.providers.len())?;
        let mut sources = Vec::new();
        let mut providers = Vec::new();
        for (name, provider) in raw.providers {
            let path = format!("providers.{name}");
            sources.push(source(&path, &provider)?);
            let keys = IssuerId(sources.len().saturating_sub(1));
            providers.push(Provider::compile(name, &path, keys, provider)?);
        }
        let rules = match raw.rules {
            None => None,
            Some(rules) => {
                bounded("rules", rules.len())?;
                let rules = rules.into_iter().enumerate();
                Some(
                    rules
                        .map(|(i, rule)| Rule::compile(&format!("rules[{i}]"), rule, &providers))
                        .collect::<Result<_>>()?,
                )
            }
        };
        let mut managed_headers: Vec<String> = providers.iter().flat_map(Provider::managed_headers).collect();
        managed_headers.sort_unstable();
        managed_headers.dedup();
        Ok((Self { providers, rules, managed_headers }, sources))
    }
}

impl Provider {
    fn compile(name: String, path: &str, keys: IssuerId, raw: RawProvider) -> Result<Self> {
        if let Some(i) = raw.audiences.iter().position(String::is_empty) {
            return Err(ConfigError::new(format!("{path}.audiences[{i}]"), "empty, an audience was expected"));
        }
        let payload_header = match raw.forward_payload_header.filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => Some(PayloadHeader {
                name: header_name(&format!("{path}.forward_payload_header"), &name)?,
                padding: if raw.pad_forward_payload_header { Padding::Add } else { Padding::Omit },
            }),
        };
        let claim_headers = raw.claim_to_headers.iter().enumerate();
        let claim_headers = claim_headers
            .map(|(i, header)| ClaimHeader::compile(&format!("{path}.claim_to_headers[{i}]"), header))
            .collect::<Result<Vec<_>>>()?;
        let clock_skew = raw.clock_skew_seconds.map_or(CLOCK_SKEW, |seconds| Duration::from_secs(seconds.into()));
        if clock_skew > CLOCK_SKEW_CEILING {
            let (found, allowed) = (clock_skew.as_secs(), CLOCK_SKEW_CEILING.as_secs());
            return Err(ConfigError::new(
                format!("{path}.clock_skew_seconds"),
                format!("found {found}, at most {allowed} was expected"),
            ));
        }
        Ok(Self {
            algorithms: algorithms(&format!("{path}.algorithms"), raw.algorithms)?,
            max_token_bytes: size(
                &format!("{path}.max_token_bytes"),
                raw.max_token_bytes,
                TOKEN_BYTES,
                TOKEN_BYTES_CEILING,
            )?,
            policy: Policy {
                issuer: raw.issuer.filter(|issuer| !issuer.is_empty()),
                audiences: raw.audiences,
                clock_skew,
            },
            forward: if raw.forward { Forward::Keep } else { Forward::Strip },
            name,
            keys,
            payload_header,
            claim_headers,
        })
    }

    fn managed_headers(&self) -> impl Iterator<Item = String> {
        let claims = self.claim_headers.iter().map(|header| header.name.clone());
        claims.chain(self.payload_header.iter().map(|header| header.name.clone()))
    }
}

impl ClaimHeader {
    fn compile(path: &str, raw: &RawClaimToHeader) -> Result<Self> {
        let name = header_name(&format!("{path}.header_name"), &raw.header_name)?;
        let claim: Vec<String> = raw.claim_name.split('.').map(str::to_owned).collect();
        if claim.iter().any(String::is_empty) {
            return Err(ConfigError::new(
                format!("{path}.claim_name"),
                format!("found `{}`, a claim's name or names joined by dots were expected", raw.claim_name),
            ));
        }
        Ok(Self { name, path: claim })
    }
}

impl Rule {
    fn compile(path: &str, raw: RawRule, providers: &[Provider]) -> Result<Self> {
        let requirement = match raw.requires.map(|requires| requires.provider_name) {
            None => Requirement::Nothing,
            Some(name) => match providers.iter().position(|provider| provider.name == name) {
                Some(place) => Requirement::Provider(place),
                None => {
                    let known = providers.iter().map(|provider| provider.name.as_str());
                    return Err(ConfigError::new(
                        format!("{path}.requires.provider_name"),
                        format!("unknown provider `{name}`, {}", raw::expected(&name, known)),
                    ));
                }
            },
        };
        Ok(Self { matcher: PathMatcher::compile(&format!("{path}.match"), raw.r#match)?, requirement })
    }
}

impl PathMatcher {
    fn compile(path: &str, raw: RawMatch) -> Result<Self> {
        match raw {
            RawMatch { prefix: Some(prefix), path: None } => Ok(Self::Prefix(prefix.into_bytes())),
            RawMatch { prefix: None, path: Some(exact) } => Ok(Self::Exact(exact.into_bytes())),
            RawMatch { prefix: None, path: None } => {
                Err(ConfigError::new(path, "neither `prefix` nor `path`, one of them was expected"))
            }
            RawMatch { prefix: Some(_), path: Some(_) } => {
                Err(ConfigError::new(path, "both `prefix` and `path`, one of them was expected"))
            }
        }
    }
}

fn algorithms(path: &str, raw: Option<Vec<String>>) -> Result<Vec<Algorithm>> {
    let Some(names) = raw else {
        return Ok(Algorithm::ALL.into_iter().filter(|alg| !alg.is_symmetric()).collect());
    };
    if names.is_empty() {
        return Err(ConfigError::new(path, "empty, which allows no token: name an algorithm or leave the field out"));
    }
    let named = |(i, name): (usize, String)| {
        Algorithm::from_name(&name).ok_or_else(|| {
            let known = Algorithm::ALL.iter().map(|alg| alg.name());
            ConfigError::new(
                format!("{path}[{i}]"),
                format!("unknown algorithm `{name}`, {}", raw::expected(&name, known)),
            )
        })
    };
    names.into_iter().enumerate().map(named).collect()
}

fn source(path: &str, raw: &RawProvider) -> Result<Source> {
    match (&raw.local_jwks, &raw.remote_jwks) {
        (Some(local), None) => local_source(&format!("{path}.local_jwks"), local).map(Source::Inline),
        (None, Some(remote)) => remote_source(&format!("{path}.remote_jwks"), remote).map(Source::Remote),
        (None, None) => Err(ConfigError::new(path, "no keys: one of `remote_jwks` and `local_jwks` was expected")),
        (Some(_), Some(_)) => {
            Err(ConfigError::new(path, "both `remote_jwks` and `local_jwks`, one of them was expected"))
        }
    }
}

fn local_source(path: &str, raw: &RawLocalJwks) -> Result<KeySet> {
    let (name, document) = match (&raw.inline_string, &raw.inline_bytes, &raw.inline) {
        (Some(text), None, None) => ("inline_string", text.clone().into_bytes()),
        (None, Some(base64), None) => {
            let document = STANDARD.decode(base64).map_err(|_| {
                ConfigError::new(format!("{path}.inline_bytes"), "not base64, as proto-JSON writes bytes")
            })?;
            ("inline_bytes", document)
        }
        (None, None, Some(members)) => ("inline", serde_json::Value::Object(members.clone()).to_string().into_bytes()),
        _ => {
            return Err(ConfigError::new(path, "one of `inline`, `inline_string` and `inline_bytes` was expected"));
        }
    };
    let path = format!("{path}.{name}");
    let set =
        KeySet::parse(&document, JWKS_KEYS_CEILING).map_err(|error| ConfigError::new(&path, error.to_string()))?;
    if set.keys().is_empty() {
        let reasons: Vec<String> =
            set.skipped().iter().map(|key| format!("keys[{}]: {}", key.index, key.why)).collect();
        let reasons = if reasons.is_empty() { "the set is empty".to_owned() } else { reasons.join("; ") };
        return Err(ConfigError::new(path, format!("no usable key, at least one was expected: {reasons}")));
    }
    Ok(set)
}

fn remote_source(path: &str, raw: &RawRemoteJwks) -> Result<Remote> {
    let RawJwksHttp { uri, cluster, timeout } = &raw.http_uri;
    let at = |field: &str| format!("{path}.http_uri.{field}");
    if cluster.is_empty() {
        return Err(ConfigError::new(at("cluster"), "empty, the name of a cluster was expected"));
    }
    let parsed: http::Uri = uri.parse().map_err(|e| ConfigError::new(at("uri"), format!("`{uri}` is no URI: {e}")))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (parsed.scheme_str(), parsed.authority()) else {
        return Err(ConfigError::new(at("uri"), format!("found `{uri}`, an http or https URI was expected")));
    };
    Ok(Remote {
        cluster: cluster.clone(),
        scheme: scheme.to_owned(),
        authority: authority.to_string(),
        path: parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        timeout: duration(&at("timeout"), timeout.as_deref(), FETCH_TIMEOUT)?,
        cache_duration: duration(&format!("{path}.cache_duration"), raw.cache_duration.as_deref(), CACHE_DURATION)?,
        stale_for: match raw.stale_for.as_deref() {
            // Zero is a choice here: never serve an expired set.
            Some("0s") => Duration::ZERO,
            stale_for => duration(&format!("{path}.stale_for"), stale_for, STALE_FOR)?,
        },
        max_bytes: size(&format!("{path}.max_bytes"), raw.max_bytes, JWKS_BYTES, JWKS_BYTES_CEILING)?,
        max_keys: size(&format!("{path}.max_keys"), raw.max_keys, JWKS_KEYS, JWKS_KEYS_CEILING)?,
    })
}

/// A proto-JSON duration: seconds with up to nine decimals and an `s`.
fn duration(path: &str, raw: Option<&str>, default: Duration) -> Result<Duration> {
    let Some(text) = raw else { return Ok(default) };
    let seconds = text.strip_suffix('s').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    let parsed = seconds
        .and_then(|digits| digits.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero() && *duration <= DURATION_CEILING);
    parsed.ok_or_else(|| {
        ConfigError::new(path, format!("found `{text}`, a duration in seconds such as `600s` or `0.5s` was expected"))
    })
}

fn size(path: &str, raw: Option<u32>, default: usize, ceiling: usize) -> Result<usize> {
    match raw.map(usize::try_from) {
        None => Ok(default),
        Some(Ok(size)) if (1..=ceiling).contains(&size) => Ok(size),
        Some(found) => {
            let found = found.unwrap_or(usize::MAX);
            Err(ConfigError::new(path, format!("found {found}, 1 to {ceiling} was expected")))
        }
    }
}

fn bounded(path: &str, found: usize) -> Result<()> {
    if found > CONFIG_ENTRIES {
        return Err(ConfigError::new(path, format!("{found} entries, at most {CONFIG_ENTRIES} were expected")));
    }
    Ok(())
}

/// Checks the name of a header that the gate shall set: a token of RFC 9110 §5.1 that carries no part of HTTP itself.
fn header_name(path: &str, raw: &str) -> Result<String> {
    const RESERVED: [&str; 8] =
        ["authorization", "connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"];
    let name = raw.to_ascii_lowercase();
    let is_token = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !is_token {
        return Err(ConfigError::new(path, format!("found `{raw}`, a header's name was expected")));
    }
    if RESERVED.contains(&name.as_str()) {
        return Err(ConfigError::new(path, format!("`{name}` has a meaning of its own in HTTP, use another header")));
    }
    Ok(name)
}
