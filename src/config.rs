//! The configuration: what was typed ([`raw`]), and what was made of it, once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::brake::Rates;
use crate::extract::{HeaderPlace, Places, Prefix};
use crate::jws::{Algorithm, media_type};
use crate::keystore::{IssuerId, Source};
use crate::limits::{
    CLAIM_RULE_VALUES, CLOCK_SKEW, CLOCK_SKEW_CEILING, CONFIG_ENTRIES, DURATION_CEILING, HEAVY_VERIFICATIONS,
    LIGHT_VERIFICATIONS, MEDIUM_VERIFICATIONS, METRIC_LABEL_CHARS, NATIVE_TOKEN_CACHE_TOKENS, TOKEN_BYTES,
    TOKEN_BYTES_CEILING, TOKEN_CACHE_TOKEN_BYTES, TOKEN_CACHE_TOKENS, TOKEN_CACHE_TOKENS_CEILING,
};
use crate::matcher::{Pattern, RequestMatcher};
use crate::policy::{ClaimRule, Demand, Expiration, Issuer, Policy};
use crate::request::Request;

mod keys;
mod located;
mod protobuf;
pub mod raw;
mod rules;

use raw::{
    RawClaimFormat, RawClaimRule, RawClaimToFilterState, RawClaimToHeader, RawConfig, RawErrorFormat, RawFromHeader,
    RawHostCrypto, RawIssuer, RawIssuerTemplate, RawJwtCacheConfig, RawMode, RawPathKey, RawPathSegment, RawProvider,
    RawUnmatched,
};

/// A configuration that was checked and compiled.
#[derive(Debug)]
pub struct Config {
    /// The providers, in the order of their names.
    pub providers: Vec<Provider>,
    /// The rules, of which the first that matches decides.
    pub rules: Vec<Rule>,
    /// Every place where any provider looks for a token.
    pub places: Places,
    /// What a request needs that no rule matches.
    pub unmatched: Requirement,
    /// Named requirements, for routes.
    pub requirements: BTreeMap<String, Requirement>,
    /// Whether a CORS preflight request passes.
    pub preflight: Preflight,
    /// What a rejection shows.
    pub error_format: ErrorFormat,
    /// The path at which the gate answers with the state of its key sets.
    pub status_path: Option<String>,
    /// Whether decisions are carried out, where no rule says otherwise.
    pub mode: Mode,
    /// A label for logs and metrics.
    pub environment: Option<String>,
    /// The URL of the protected resource's metadata (RFC 9728 §5.1).
    pub resource_metadata: Option<String>,
    /// Names of claims whose values may stand in log lines.
    pub log_claims: Vec<String>,
    /// Who verifies signatures.
    pub host_crypto: HostCrypto,
    /// How many the gate verifies by itself.
    pub verification_rates: Rates,
    /// Most verified tokens that one worker keeps.
    pub cached_tokens: usize,
    /// The least of the providers' `max_token_bytes`.
    pub least_max_token_bytes: usize,
    /// Every header that the gate may set, in lower case and with `-` for `_`, sorted.
    managed_headers: Vec<String>,
    /// Issuers and the places in `providers` of those that name them, sorted.
    exact_issuers: Vec<(String, usize)>,
    /// The places in `providers` of those that have a template for an issuer.
    issuer_templates: Vec<usize>,
}

/// Whether decisions are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    #[default]
    Enforce,
    /// They are logged and counted, and nothing else: the request goes on as it came.
    Shadow,
}

/// Who verifies signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCrypto {
    /// The host where it can, else the gate.
    Auto,
    /// The gate.
    Off,
}

/// What becomes of a CORS preflight request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preflight {
    /// It passes.
    Bypass,
    /// It is a request like any other.
    Check,
}

/// What a rejection shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorFormat {
    /// A challenge, and a problem document (RFC 9457).
    ProblemJson,
    /// A challenge, and a line of text.
    Text,
    /// A challenge.
    NoBody,
    /// The status alone.
    Stripped,
}

/// Who issues tokens, and what is demanded of them.
#[derive(Debug)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: String,
    /// Its key set in the store.
    pub keys: IssuerId,
    /// Where its tokens may sit.
    pub places: Places,
    /// The algorithms allowed.
    pub algorithms: Vec<Algorithm>,
    /// The types allowed, in lower case and without `application/`; none: any.
    pub token_types: Vec<String>,
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
    /// The filter state that receives claims: its key, and the names that lead to the claim.
    pub claim_states: Vec<(String, Vec<String>)>,
    /// Longest verified token that is kept, in bytes; 0: none is.
    cached_token_bytes: usize,
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
    /// How an array or an object is written.
    pub format: ClaimFormat,
}

/// How an array or an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimFormat {
    /// JSON in base64.
    Base64Json,
    /// JSON.
    Json,
    /// The items of an array, joined by commas.
    Comma,
}

/// Which requests need what.
#[derive(Debug)]
pub struct Rule {
    /// The requests it is for.
    pub matcher: RequestMatcher,
    /// What they need.
    pub requirement: Requirement,
    /// Whether its decisions are carried out.
    pub mode: Mode,
}

/// What a request needs.
#[derive(Clone, Debug)]
pub enum Requirement {
    /// Nothing.
    Nothing,
    /// A token of one provider.
    Token(TokenRequirement),
    /// A token of whichever provider.
    AnyProvider,
    /// One of these.
    Any(Vec<Self>),
    /// All of these.
    All(Vec<Self>),
    /// No token, or one of whichever provider.
    AllowMissing,
    /// Anything; a good token of whichever provider counts.
    AllowMissingOrFailed,
    /// Anything; a good token of whichever provider counts, and this header says `false` of a bad one.
    ExtractOnly(String),
}

/// A token of one provider.
#[derive(Clone, Debug)]
pub struct TokenRequirement {
    /// The provider's place in [`Config::providers`].
    pub provider: usize,
    /// Audiences in place of the provider's.
    pub audiences: Option<Vec<String>>,
    /// What claims must be, beside the provider's demands.
    pub claims: Vec<ClaimRule>,
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
    /// Boxed, so that the many results that may hold one are small.
    #[cold]
    fn new(path: impl Into<String>, message: impl Into<String>) -> Box<Self> {
        Box::new(Self { path: path.into(), message: message.into() })
    }
}

type Result<T> = std::result::Result<T, Box<ConfigError>>;

/// The path of a field.
fn at(path: &str, field: &str) -> String {
    [path, ".", field].concat()
}

impl Config {
    /// Reads a configuration and the sources of its keys: [`Provider::keys`] is a place in that list.
    ///
    /// # Errors
    /// The first thing that is wrong, with its JSON path, what was found and what was expected.
    pub fn parse(document: &[u8]) -> std::result::Result<(Self, Vec<Source>), ConfigError> {
        Self::compile(RawConfig::parse(document)?).map_err(|error| *error)
    }

    fn compile(raw: RawConfig) -> Result<(Self, Vec<Source>)> {
        if raw.providers.is_empty() {
            return Err(ConfigError::new("providers", "no provider, at least one was expected"));
        }
        bounded("providers", raw.providers.len(), CONFIG_ENTRIES)?;
        let mode = Mode::from(raw.mode);
        let cached_tokens = cached_tokens(&raw.providers)?;
        let (mut sources, mut providers) = (Vec::new(), Vec::new());
        for (name, provider) in raw.providers {
            let path = format!("providers.{name}");
            sources.push(keys::source(&path, &provider)?);
            let keys = IssuerId(sources.len().saturating_sub(1));
            providers.push(Provider::compile(name, &path, keys, provider)?);
        }
        let requirements = rules::requirements(raw.requirement_map, &providers)?;
        let no_rules = raw.rules.is_none();
        let rules = rules::rules(raw.rules.unwrap_or_default(), mode, &providers, &requirements)?;
        let required = rules.iter().map(|rule| &rule.requirement).chain(requirements.values());
        let managed = providers.iter().flat_map(Provider::managed_headers);
        let mut managed_headers = BTreeSet::new();
        for name in managed.chain(required.flat_map(Requirement::managed_headers)) {
            managed_headers.insert(name.replace('_', "-"));
        }
        let mut exact_issuers: Vec<(String, usize)> = Vec::new();
        let mut issuer_templates = Vec::new();
        for (place, provider) in providers.iter().enumerate() {
            for issuer in &provider.policy.issuers {
                match issuer.as_exact() {
                    Some(iss) => {
                        let at = exact_issuers.partition_point(|(before, _)| before.as_str() <= iss);
                        exact_issuers.insert(at, (iss.to_owned(), place));
                    }
                    None => issuer_templates.push(place),
                }
            }
        }
        let config = Self {
            places: Places::union(providers.iter().map(|provider| &provider.places)),
            least_max_token_bytes: providers.iter().map(|p| p.max_token_bytes).min().unwrap_or_default(),
            providers,
            rules,
            unmatched: match raw.unmatched {
                RawUnmatched::Allow if !no_rules => Requirement::Nothing,
                RawUnmatched::Allow | RawUnmatched::Deny => Requirement::AnyProvider,
            },
            requirements,
            preflight: if raw.bypass_cors_preflight { Preflight::Bypass } else { Preflight::Check },
            error_format: match raw.error_format {
                _ if raw.strip_failure_response => ErrorFormat::Stripped,
                RawErrorFormat::ProblemJson => ErrorFormat::ProblemJson,
                RawErrorFormat::Text => ErrorFormat::Text,
                RawErrorFormat::None => ErrorFormat::NoBody,
            },
            status_path: match raw.status_path {
                Some(path) if !path.starts_with('/') || path.contains(['?', '#']) => {
                    let message = format!("found `{path}`, a path such as `/claimgate/status` was expected");
                    return Err(ConfigError::new("status_path", message));
                }
                path => path,
            },
            mode,
            environment: label("environment", raw.environment)?,
            resource_metadata: match raw.resource_metadata {
                Some(url) if !url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https")) => {
                    let message = format!("found `{url}`, an https URL was expected (RFC 9728 section 1.2)");
                    return Err(ConfigError::new("resource_metadata", message));
                }
                url => url,
            },
            log_claims: raw.log_claims,
            host_crypto: match raw.host_crypto {
                RawHostCrypto::Auto => HostCrypto::Auto,
                RawHostCrypto::Off => HostCrypto::Off,
            },
            verification_rates: Rates {
                light: rate("light", raw.verifications_per_second.light, LIGHT_VERIFICATIONS)?,
                medium: rate("medium", raw.verifications_per_second.medium, MEDIUM_VERIFICATIONS)?,
                heavy: rate("heavy", raw.verifications_per_second.heavy, HEAVY_VERIFICATIONS)?,
            },
            cached_tokens,
            managed_headers: managed_headers.into_iter().collect(),
            exact_issuers,
            issuer_templates,
        };
        Ok((config, sources))
    }

    /// Whether there is a header that the gate may set.
    pub const fn manages_headers(&self) -> bool {
        !self.managed_headers.is_empty()
    }

    /// Whether the gate may set the header of this name, which is in lower case, or an upstream may take it for one that
    /// the gate sets: many read `x_user` as `x-user`.
    pub fn is_managed(&self, name: &str) -> bool {
        let plain = || name.bytes().map(|b| if b == b'_' { b'-' } else { b });
        self.managed_headers.binary_search_by(|managed| managed.bytes().cmp(plain())).is_ok()
    }

    /// The first rule that matches this request.
    pub fn rule_for(&self, request: &Request) -> Option<&Rule> {
        let path = request.path();
        self.rules.iter().find(|rule| rule.matcher.matches(path, request))
    }

    /// The providers that name this issuer, in their order.
    pub fn providers_naming(&self, iss: &str) -> Vec<&Provider> {
        let matches = |place: &&usize| {
            self.providers.get(**place).is_some_and(|provider| provider.policy.issuers.iter().any(|i| i.matches(iss)))
        };
        let first = self.exact_issuers.partition_point(|(before, _)| before.as_str() < iss);
        let exact = self.exact_issuers.iter().skip(first).take_while(|(exact, _)| exact == iss).map(|(_, place)| place);
        let mut places: Vec<usize> = Vec::new();
        for place in exact.chain(self.issuer_templates.iter().filter(matches)) {
            if let Err(at) = places.binary_search(place) {
                places.insert(at, *place);
            }
        }
        places.into_iter().filter_map(|place| self.providers.get(place)).collect()
    }
}

impl From<RawMode> for Mode {
    fn from(raw: RawMode) -> Self {
        match raw {
            RawMode::Enforce => Self::Enforce,
            RawMode::Shadow => Self::Shadow,
        }
    }
}

impl Requirement {
    fn managed_headers(&self) -> Vec<String> {
        match self {
            Self::ExtractOnly(header) => vec![header.clone()],
            Self::Any(children) | Self::All(children) => children.iter().flat_map(Self::managed_headers).collect(),
            _ => Vec::new(),
        }
    }
}

impl Provider {
    fn compile(name: String, path: &str, keys: IssuerId, raw: RawProvider) -> Result<Self> {
        let at = |field: &str| at(path, field);
        if let Some(i) = raw.audiences.iter().position(String::is_empty) {
            return Err(ConfigError::new(at(&format!("audiences[{i}]")), "empty, an audience was expected"));
        }
        let payload_header = match raw.forward_payload_header.filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => Some(PayloadHeader {
                name: managed_header(&at("forward_payload_header"), &name)?,
                padding: if raw.pad_forward_payload_header { Padding::Add } else { Padding::Omit },
            }),
        };
        let clock_skew = raw.clock_skew_seconds.map_or(CLOCK_SKEW, |seconds| Duration::from_secs(seconds.into()));
        if clock_skew > CLOCK_SKEW_CEILING {
            let (found, allowed) = (clock_skew.as_secs(), CLOCK_SKEW_CEILING.as_secs());
            let message = format!("found {found}, at most {allowed} was expected");
            return Err(ConfigError::new(at("clock_skew_seconds"), message));
        }
        let optional = |field: &str, raw: Option<String>| raw.map(|text| duration(&at(field), &text)).transpose();
        Ok(Self {
            places: places(path, &raw.from_headers, raw.from_params, raw.from_cookies)?,
            algorithms: algorithms(&at("algorithms"), raw.algorithms)?,
            token_types: raw.token_types.iter().map(|typ| media_type(typ)).collect(),
            max_token_bytes: size(&at("max_token_bytes"), raw.max_token_bytes, TOKEN_BYTES, TOKEN_BYTES_CEILING)?,
            policy: Policy {
                issuers: issuers(path, raw.issuer, raw.issuers)?,
                audiences: raw.audiences,
                subjects: raw.subjects.map(|raw| rules::string_matcher(&at("subjects"), raw)).transpose()?,
                expiration: match raw.require_expiration {
                    Some(false) => Expiration::Allow,
                    None | Some(true) => Expiration::Require,
                },
                max_lifetime: optional("max_lifetime", raw.max_lifetime)?,
                max_age: optional("max_age", raw.max_age)?,
                clock_skew,
                claims: claim_rules(&at("claims"), raw.claims)?,
            },
            forward: if raw.forward { Forward::Keep } else { Forward::Strip },
            payload_header,
            claim_headers: each(&at("claim_to_headers"), raw.claim_to_headers, ClaimHeader::compile)?,
            claim_states: each(&at("claim_to_filter_state"), raw.claim_to_filter_state, claim_state)?,
            cached_token_bytes: match raw.jwt_cache_config {
                Some(RawJwtCacheConfig { jwt_cache_size: Some(0), .. }) => 0,
                Some(RawJwtCacheConfig { jwt_max_token_size: Some(bytes), .. }) => {
                    usize::try_from(bytes).unwrap_or(usize::MAX)
                }
                Some(_) | None => TOKEN_CACHE_TOKEN_BYTES,
            },
            name,
            keys,
        })
    }

    fn managed_headers(&self) -> impl Iterator<Item = String> {
        let claims = self.claim_headers.iter().map(|header| header.name.clone());
        claims.chain(self.payload_header.iter().map(|header| header.name.clone()))
    }

    /// Whether this token is kept once it was verified.
    pub const fn caches(&self, compact: &[u8]) -> bool {
        compact.len() <= self.cached_token_bytes
    }

    /// Whether a token of this `typ` is accepted (RFC 7515 §4.1.9).
    pub fn accepts_type(&self, typ: Option<&str>) -> bool {
        self.token_types.is_empty() || typ.is_some_and(|typ| self.token_types.contains(&media_type(typ)))
    }
}

/// The room for verified tokens: that of each provider which asks for some, and what the others share.
fn cached_tokens(providers: &BTreeMap<String, RawProvider>) -> Result<usize> {
    let asked = |raw: &RawProvider| {
        let config = raw.jwt_cache_config.as_ref()?;
        Some(
            config.jwt_cache_size.map_or(NATIVE_TOKEN_CACHE_TOKENS, |size| usize::try_from(size).unwrap_or(usize::MAX)),
        )
    };
    let shared = if providers.values().all(|raw| asked(raw).is_some()) { 0 } else { TOKEN_CACHE_TOKENS };
    let tokens = providers.values().filter_map(asked).fold(shared, usize::saturating_add);
    if tokens > TOKEN_CACHE_TOKENS_CEILING {
        let message =
            format!("{tokens} tokens in all `jwt_cache_size`, at most {TOKEN_CACHE_TOKENS_CEILING} were expected");
        return Err(ConfigError::new("providers", message));
    }
    Ok(tokens)
}

/// A value that stands in the names of metrics.
fn label(path: &str, raw: Option<String>) -> Result<Option<String>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    match raw {
        Some(text) if text.is_empty() || text.len() > METRIC_LABEL_CHARS || !text.bytes().all(plain) => {
            let message =
                format!("found `{text}`, 1 to {METRIC_LABEL_CHARS} letters, digits, `_`, `-` and `.` were expected");
            Err(ConfigError::new(path, message))
        }
        text => Ok(text),
    }
}

fn rate(class: &str, raw: Option<u32>, default: u32) -> Result<u32> {
    match raw {
        Some(0) => {
            let message = "found 0, which verifies nothing: name the algorithms that are allowed in `algorithms`";
            Err(ConfigError::new(format!("verifications_per_second.{class}"), message))
        }
        rate => Ok(rate.unwrap_or(default)),
    }
}

fn issuers(path: &str, one: Option<String>, several: Vec<RawIssuer>) -> Result<Vec<Issuer>> {
    let one = one.filter(|issuer| !issuer.is_empty());
    if one.is_some() && !several.is_empty() {
        return Err(ConfigError::new(path, "both `issuer` and `issuers`, one of them was expected"));
    }
    bounded(&at(path, "issuers"), several.len(), CONFIG_ENTRIES)?;
    if let Some(issuer) = one {
        // `issuer` has the meaning it has in `jwt_authn`: no template.
        return Ok(vec![Issuer::exact(issuer)]);
    }
    each(&at(path, "issuers"), several, |path, raw| {
        let (template, values) = match raw {
            RawIssuer::Text(template) => (template, Vec::new()),
            RawIssuer::Template(RawIssuerTemplate { issuer, values }) => (issuer, values),
        };
        Issuer::new(&template, values).map_err(|why| ConfigError::new(path, format!("found `{template}`: {why}")))
    })
}

fn places(path: &str, headers: &[RawFromHeader], params: Vec<String>, cookies: Vec<String>) -> Result<Places> {
    for (field, names) in [("from_params", &params), ("from_cookies", &cookies)] {
        if let Some(i) = names.iter().position(String::is_empty) {
            return Err(ConfigError::new(format!("{path}.{field}[{i}]"), "empty, a name was expected"));
        }
    }
    if headers.is_empty() && params.is_empty() && cookies.is_empty() {
        return Ok(Places::default());
    }
    let header = |(i, raw): (usize, &RawFromHeader)| {
        Ok(HeaderPlace {
            name: header_name(&format!("{path}.from_headers[{i}].name"), &raw.name)?,
            prefix: if raw.value_prefix.trim().eq_ignore_ascii_case("bearer") {
                Prefix::Bearer
            } else {
                Prefix::Literal(raw.value_prefix.clone())
            },
        })
    };
    Ok(Places { headers: headers.iter().enumerate().map(header).collect::<Result<_>>()?, params, cookies })
}

impl ClaimHeader {
    fn compile(path: &str, raw: RawClaimToHeader) -> Result<Self> {
        Ok(Self {
            name: managed_header(&at(path, "header_name"), &raw.header_name)?,
            path: claim_path(path, raw.claim_name, raw.claim_path)?,
            format: match raw.format {
                RawClaimFormat::Base64Json => ClaimFormat::Base64Json,
                RawClaimFormat::Json => ClaimFormat::Json,
                RawClaimFormat::Comma => ClaimFormat::Comma,
            },
        })
    }
}

fn claim_state(path: &str, raw: RawClaimToFilterState) -> Result<(String, Vec<String>)> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if raw.key.is_empty() || !raw.key.bytes().all(plain) || raw.key.starts_with("claimgate_") {
        let message =
            format!("found `{}`, letters, digits, `_`, `-` and `.` were expected, and no `claimgate_`", raw.key);
        return Err(ConfigError::new(at(path, "key"), message));
    }
    Ok((raw.key, claim_path(path, raw.claim_name, raw.claim_path)?))
}

/// The way to a claim, however it was typed.
fn claim_path(path: &str, name: Option<String>, segments: Option<Vec<RawPathSegment>>) -> Result<Vec<String>> {
    let (field, claim) = match (name, segments) {
        (Some(name), None) => ("claim_name", name.split('.').map(str::to_owned).collect()),
        (None, Some(segments)) => {
            let name = |segment| match segment {
                RawPathSegment::Name(name) | RawPathSegment::Key(RawPathKey { key: name }) => name,
            };
            ("claim_path", segments.into_iter().map(name).collect::<Vec<String>>())
        }
        (None, None) => {
            return Err(ConfigError::new(path, "neither `claim_name` nor `claim_path`, one of them was expected"));
        }
        (Some(_), Some(_)) => {
            return Err(ConfigError::new(path, "both `claim_name` and `claim_path`, one of them was expected"));
        }
    };
    if claim.is_empty() || claim.iter().any(String::is_empty) {
        let message =
            format!("found `{}`, a claim's name, or the names that lead to it, were expected", claim.join("."));
        return Err(ConfigError::new(at(path, field), message));
    }
    Ok(claim)
}

fn claim_rules(path: &str, raw: Vec<RawClaimRule>) -> Result<Vec<ClaimRule>> {
    bounded(path, raw.len(), CLAIM_RULE_VALUES)?;
    each(path, raw, |path, raw| {
        let demand = match (raw.any_of, raw.all_of, raw.none_of, raw.equals, raw.matches, raw.exists) {
            (Some(values), None, None, None, None, None) => Demand::AnyOf(scalars(&at(path, "any_of"), values)?),
            (None, Some(values), None, None, None, None) => Demand::AllOf(scalars(&at(path, "all_of"), values)?),
            (None, None, Some(values), None, None, None) => Demand::NoneOf(scalars(&at(path, "none_of"), values)?),
            (None, None, None, Some(value), None, None) => Demand::Equals(value),
            (None, None, None, None, Some(text), None) => Demand::Matches(pattern(&at(path, "matches"), &text)?),
            (None, None, None, None, None, Some(exists)) => Demand::Exists(exists),
            _ => {
                let message =
                    "exactly one of `any_of`, `all_of`, `none_of`, `equals`, `matches` and `exists` was expected";
                return Err(ConfigError::new(path, message));
            }
        };
        Ok(ClaimRule { path: claim_path(path, raw.claim_name, raw.claim_path)?, demand })
    })
}

fn scalars(path: &str, values: Vec<serde_json::Value>) -> Result<Vec<serde_json::Value>> {
    use serde_json::Value::{Bool, Number, String};
    bounded(path, values.len(), CLAIM_RULE_VALUES)?;
    if values.is_empty() {
        return Err(ConfigError::new(path, "empty, at least one value was expected"));
    }
    if let Some(i) = values.iter().position(|value| !matches!(value, String(_) | Number(_) | Bool(_))) {
        let found = crate::json::kind(values.get(i).unwrap_or(&serde_json::Value::Null));
        return Err(ConfigError::new(
            format!("{path}[{i}]"),
            format!("found {found}, a string, a number or a boolean was expected"),
        ));
    }
    Ok(values)
}

fn pattern(path: &str, expression: &str) -> Result<Pattern> {
    Pattern::new(expression).map_err(|why| {
        ConfigError::new(path, format!("`{expression}` is no regular expression that is supported: {why}"))
    })
}

fn algorithms(path: &str, raw: Option<Vec<String>>) -> Result<Vec<Algorithm>> {
    let Some(names) = raw else {
        return Ok(Algorithm::ALL.into_iter().filter(|alg| !alg.is_symmetric()).collect());
    };
    if names.is_empty() {
        return Err(ConfigError::new(path, "empty, which allows no token: name an algorithm or leave the field out"));
    }
    each(path, names, |path, name| {
        Algorithm::from_name(&name).ok_or_else(|| {
            let known = Algorithm::ALL.iter().map(|alg| alg.name());
            ConfigError::new(path, format!("unknown algorithm `{name}`, {}", raw::expected(&name, known)))
        })
    })
}

/// Compiles each item of a list, with its own path.
fn each<R, T>(path: &str, items: Vec<R>, compile: impl Fn(&str, R) -> Result<T>) -> Result<Vec<T>> {
    items.into_iter().enumerate().map(|(i, item)| compile(&format!("{path}[{i}]"), item)).collect()
}

/// A proto-JSON duration: seconds with up to nine decimals and an `s`. Zero is none.
fn duration(path: &str, text: &str) -> Result<Duration> {
    let parsed = text
        .strip_suffix('s')
        .and_then(seconds)
        .filter(|duration| !duration.is_zero() && *duration <= DURATION_CEILING);
    parsed.ok_or_else(|| {
        ConfigError::new(path, format!("found `{text}`, a duration in seconds such as `600s` or `0.5s` was expected"))
    })
}

/// Digits with at most one point among them. What is less than a nanosecond is lost.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || !digits().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(Duration::new(if whole.is_empty() { 0 } else { whole.parse().ok()? }, nanos))
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

fn bounded(path: &str, found: usize, allowed: usize) -> Result<()> {
    if found > allowed {
        return Err(ConfigError::new(path, format!("{found} entries, at most {allowed} were expected")));
    }
    Ok(())
}

/// Checks the name of a header, a token of RFC 9110 §5.1. Lower case comes back.
fn header_name(path: &str, raw: &str) -> Result<String> {
    let is_token = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !is_token {
        return Err(ConfigError::new(path, format!("found `{raw}`, a header's name was expected")));
    }
    Ok(raw.to_ascii_lowercase())
}

/// Checks the name of a header that the gate shall set: it carries no part of HTTP itself.
fn managed_header(path: &str, raw: &str) -> Result<String> {
    const RESERVED: [&str; 9] = [
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "host",
        "keep-alive",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    let name = header_name(path, raw)?;
    if RESERVED.contains(&name.as_str()) {
        return Err(ConfigError::new(path, format!("`{name}` has a meaning of its own in HTTP, use another header")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        #[track_caller]
        fn check(text: &str, expected: Duration) {
            assert_eq!(duration("max_age", text), Ok(expected), "{text}");
        }
        check("600s", Duration::from_secs(600));
        check("0.5s", Duration::from_millis(500));
        check(".5s", Duration::from_millis(500));
        check("1.s", Duration::from_secs(1));
        check("0001.25s", Duration::from_millis(1250));
        check("2.000000001s", Duration::new(2, 1));
        check("2.0000000019s", Duration::new(2, 1));
        assert!(duration("max_age", "0.0000000009s").is_err(), "less than a nanosecond is none");
    }
}
