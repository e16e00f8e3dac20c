//! The configuration as it is typed: the vocabulary of `jwt_authn`, and ours beside it.
//!
//! The documentation of a field is what users read: `README.md` and the JSON Schema hold the same words.

use std::collections::BTreeMap;

#[cfg(not(target_family = "wasm"))]
use schemars::JsonSchema;
use serde_json::{Map, Value};

use super::located::{Error, Read, name, names, object, read_name, read_object};
use super::{ConfigError, protobuf};
use crate::json;
use crate::limits::CONFIG_BYTES;

/// The whole configuration.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawConfig {
    /// Who issues tokens, by a name of your choice.
    pub providers: BTreeMap<String, RawProvider>,
    /// Which requests need what. The first rule that matches decides. Without `rules`, every request must satisfy one of
    /// the providers.
    pub rules: Option<Vec<RawRule>>,
    /// Requirements by a name of your choice, for `requirement_name` and for routes.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub requirement_map: BTreeMap<String, RawRequirement>,
    /// What becomes of a request that no rule matches: `allow` or `deny`.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub unmatched: RawUnmatched,
    /// Whether a CORS preflight request passes without a token.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub bypass_cors_preflight: bool,
    /// Whether a rejection has neither a body nor a challenge.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub strip_failure_response: bool,
    /// The form of a rejection's body: `problem_json`, `text` or `none`.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub error_format: RawErrorFormat,
    /// A prefix for the names of metrics.
    pub stat_prefix: Option<String>,
    /// The path at which the gate itself answers with the state of its key sets. Absent: none.
    pub status_path: Option<String>,
    /// Whether decisions are carried out (`enforce`), or only logged and counted (`shadow`): then nothing is changed in a
    /// request and none is rejected.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub mode: RawMode,
    /// A label for logs and metrics, such as `staging`.
    pub environment: Option<String>,
    /// The URL of the protected resource's metadata, for the challenge (RFC 9728).
    pub resource_metadata: Option<String>,
    /// Names of claims whose values may stand in log lines, beside `iss`, `aud`, `jti` and times.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub log_claims: Vec<String>,
    /// Whether the host verifies signatures where it can (`auto`), or the gate always does so itself (`off`).
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub host_crypto: RawHostCrypto,
    /// Most signatures that the gate verifies by itself, per second and worker, for each cost class.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub verifications_per_second: RawVerificationRates,
}

/// Whether decisions are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(rename_all = "snake_case"))]
pub enum RawMode {
    /// They are.
    #[default]
    Enforce,
    /// They are only logged and counted.
    Shadow,
}

/// Who verifies signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(rename_all = "snake_case"))]
pub enum RawHostCrypto {
    /// The host where it can, else the gate.
    #[default]
    Auto,
    /// The gate.
    Off,
}

/// Most signatures that the gate verifies by itself, per second and worker.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawVerificationRates {
    /// RSA up to 4096 bits, Ed25519 and HMAC. Default 4000.
    pub light: Option<u32>,
    /// ES256, ES256K, RSA beyond 4096 bits and ML-DSA. Default 1000.
    pub medium: Option<u32>,
    /// ES384 and ES512. Default 60.
    pub heavy: Option<u32>,
}

/// What becomes of a request that no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(rename_all = "snake_case"))]
pub enum RawUnmatched {
    /// It passes.
    #[default]
    Allow,
    /// It must satisfy one of the providers.
    Deny,
}

/// The form of a rejection's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(rename_all = "snake_case"))]
pub enum RawErrorFormat {
    /// A problem document (RFC 9457).
    #[default]
    ProblemJson,
    /// One line of text, that of `jwt_authn` where it has one.
    Text,
    /// No body.
    None,
}

/// One issuer of tokens, and what is demanded of them.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawProvider {
    /// The only `iss` accepted, compared byte for byte. Absent: any.
    pub issuer: Option<String>,
    /// Several issuers in place of `issuer`.
    pub issuers: Vec<RawIssuer>,
    /// The token must name one of these in `aud`, compared byte for byte. Absent or empty: any.
    pub audiences: Vec<String>,
    /// What `sub` must be.
    pub subjects: Option<RawStringMatcher>,
    /// Whether a token must have `exp`. Default `true`.
    pub require_expiration: Option<bool>,
    /// A token must end before this much time has passed.
    pub max_lifetime: Option<String>,
    /// Longest accepted time since `iat`.
    pub max_age: Option<String>,
    /// The only `alg` values accepted. Absent: every asymmetric algorithm supported. `HS*` only when listed here.
    pub algorithms: Option<Vec<String>>,
    /// The only `typ` values accepted, with or without `application/`. Absent: any.
    pub token_types: Vec<String>,
    /// Keys that are fetched.
    pub remote_jwks: Option<RawRemoteJwks>,
    /// Keys that are found through the issuer's metadata: `http_uri` is that of `/.well-known/openid-configuration`.
    pub oidc_discovery: Option<RawRemoteJwks>,
    /// Keys that stand in the configuration.
    pub local_jwks: Option<RawLocalJwks>,
    /// Headers that may hold the token.
    pub from_headers: Vec<RawFromHeader>,
    /// Query parameters that may hold the token.
    pub from_params: Vec<String>,
    /// Cookies that may hold the token.
    pub from_cookies: Vec<String>,
    /// Whether the token goes on to the upstream. Default `false`: it is removed.
    pub forward: bool,
    /// A header that receives the payload, in base64url.
    pub forward_payload_header: Option<String>,
    /// Whether that header is padded with `=`. Default `false`.
    pub pad_forward_payload_header: bool,
    /// By how many seconds clocks may differ. Default 60; 0 means zero.
    pub clock_skew_seconds: Option<u32>,
    /// Headers that receive claims.
    pub claim_to_headers: Vec<RawClaimToHeader>,
    /// Filter state that receives claims.
    pub claim_to_filter_state: Vec<RawClaimToFilterState>,
    /// What other claims must be.
    pub claims: Vec<RawClaimRule>,
    /// Longest token accepted, in bytes. Default 8192.
    pub max_token_bytes: Option<u32>,
    /// The cache of verified tokens.
    pub jwt_cache_config: Option<RawJwtCacheConfig>,
    /// Whether the route is chosen again once claims are in headers. Envoy always does so for a plugin.
    pub clear_route_cache: bool,
}

/// An issuer: a string, or an object with a template and the values that its segment may have.
#[derive(Debug)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(untagged))]
pub enum RawIssuer {
    /// The exact issuer, or one with a `{name}` segment.
    Text(String),
    /// One with a `{name}` segment, and the values that it may have.
    Template(RawIssuerTemplate),
}

/// An issuer with a `{name}` segment.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawIssuerTemplate {
    /// The issuer, with a `{name}` segment.
    pub issuer: String,
    /// The values that the segment may have.
    pub values: Vec<String>,
}

/// Keys that are fetched.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawRemoteJwks {
    /// Where the JWK Set is.
    pub http_uri: RawJwksHttp,
    /// How long a set is fresh. Default `600s`.
    pub cache_duration: Option<String>,
    /// How long an expired set goes on serving while refreshes fail. Default `86400s`.
    pub stale_for: Option<String>,
    /// Least time between two fetches caused by unknown `kid`s, after a burst of two. Default `30s`.
    pub min_refetch_interval: Option<String>,
    /// Only in `oidc_discovery`: the clusters that lead to other hosts than that of `http_uri`, by host and port.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub clusters: BTreeMap<String, String>,
    /// Largest document read, in bytes. Default 262144.
    pub max_bytes: Option<u32>,
    /// Most keys read. Default 64.
    pub max_keys: Option<u32>,
    /// How `jwt_authn` fetches in the background; the gate always does.
    pub async_fetch: Option<RawAsyncFetch>,
    /// How a failed fetch is tried again.
    pub retry_policy: Option<RawRetryPolicy>,
}

/// How `jwt_authn` fetches in the background.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawAsyncFetch {
    /// Whether the listener starts without keys. The gate never keeps it waiting: requests wait instead.
    pub fast_listener: bool,
    /// The pause after a first failed fetch. Default `1s`; it doubles with each further failure.
    pub failed_refetch_duration: Option<String>,
}

/// How a failed fetch is tried again.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawRetryPolicy {
    /// How often. The gate does not give up.
    pub num_retries: Option<u32>,
    /// The pauses.
    pub retry_back_off: Option<RawBackOff>,
    /// Which failures. The gate tries again after any.
    pub retry_on: Option<String>,
}

/// The pauses between attempts.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawBackOff {
    /// The first.
    pub base_interval: String,
    /// The longest. Default ten times the first.
    pub max_interval: Option<String>,
}

/// An address to fetch from.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawJwksHttp {
    /// The address: its host and path go into the request.
    pub uri: String,
    /// The cluster that the request is sent to.
    pub cluster: String,
    /// How long one fetch may take. Default `5s`.
    pub timeout: Option<String>,
}

/// Keys that stand in the configuration. Exactly one field.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawLocalJwks {
    /// The JWK Set, as a string.
    pub inline_string: Option<String>,
    /// The JWK Set, in base64.
    pub inline_bytes: Option<String>,
    /// The JWK Set, as a JSON object.
    pub inline: Option<Map<String, Value>>,
    /// Public keys in PEM, one or a list of them: `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`. They have no `kid`. Of
    /// a certificate only the key is used: neither its validity nor who signed it is judged.
    pub pem: Option<RawPem>,
}

/// Public keys in PEM.
#[derive(Debug)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(untagged))]
pub enum RawPem {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// A header that may hold the token.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawFromHeader {
    /// The header.
    pub name: String,
    /// What stands before the token.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub value_prefix: String,
}

/// A header that receives a claim. Exactly one of `claim_name` and `claim_path`.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawClaimToHeader {
    /// The header.
    pub header_name: String,
    /// The claim. Dots lead into nested objects.
    pub claim_name: Option<String>,
    /// The names that lead to the claim, outermost first; they may hold dots.
    pub claim_path: Option<Vec<RawPathSegment>>,
    /// How an array or an object is written: `base64_json`, `json` or `comma`.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub format: RawClaimFormat,
}

/// How an array or an object is written into a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(rename_all = "snake_case"))]
pub enum RawClaimFormat {
    /// JSON in base64, as `jwt_authn` writes it.
    #[default]
    Base64Json,
    /// JSON.
    Json,
    /// The items of an array, joined by commas.
    Comma,
}

/// Filter state that receives a claim. Exactly one of `claim_name` and `claim_path`.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawClaimToFilterState {
    /// Its key: other filters read it as `wasm.<key>`.
    pub key: String,
    /// The claim. Dots lead into nested objects.
    pub claim_name: Option<String>,
    /// The names that lead to the claim, outermost first; they may hold dots.
    pub claim_path: Option<Vec<RawPathSegment>>,
}

/// One step to a claim: a name, or `{"key": NAME}` as `jwt_authn` writes it.
#[derive(Debug)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(untagged))]
pub enum RawPathSegment {
    /// The name.
    Name(String),
    /// The name, in an object.
    Key(RawPathKey),
}

/// One step to a claim.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawPathKey {
    /// The name.
    pub key: String,
}

/// What one claim must be. Exactly one of `claim_name` and `claim_path`, and exactly one of the rest.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawClaimRule {
    /// The claim. Dots lead into nested objects.
    pub claim_name: Option<String>,
    /// The names that lead to the claim, outermost first; they may hold dots.
    pub claim_path: Option<Vec<RawPathSegment>>,
    /// It holds one of these, at least.
    pub any_of: Option<Vec<Value>>,
    /// It holds each of these.
    pub all_of: Option<Vec<Value>>,
    /// It holds none of these.
    pub none_of: Option<Vec<Value>>,
    /// It is this.
    pub equals: Option<Value>,
    /// It is a string, or a list of strings of which one matches this regular expression as a whole.
    pub matches: Option<String>,
    /// It is there, or it is not.
    pub exists: Option<bool>,
}

/// The cache of verified tokens.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawJwtCacheConfig {
    /// Most tokens kept for this provider, per worker; 0: none. Default 100.
    pub jwt_cache_size: Option<u32>,
    /// Longest token kept, in bytes. Default 4096.
    pub jwt_max_token_size: Option<u32>,
}

/// Which requests need what. `requires` or `requirement_name`, or neither: nothing is needed.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawRule {
    /// The requests it is for.
    pub r#match: RawMatch,
    /// What they need.
    pub requires: Option<RawRequirement>,
    /// The name of what they need, in `requirement_map`.
    pub requirement_name: Option<String>,
    /// Whether this rule's decisions are carried out. Default: as for the whole configuration.
    pub mode: Option<RawMode>,
}

/// Which requests a rule is for: the path, and all of the rest. Exactly one kind of path.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawMatch {
    /// The path begins so.
    pub prefix: Option<String>,
    /// The path is this.
    pub path: Option<String>,
    /// The path as a whole matches this regular expression.
    pub safe_regex: Option<RawRegex>,
    /// The path is this, or goes on with a slash.
    pub path_separated_prefix: Option<String>,
    /// The method is `CONNECT`.
    pub connect_matcher: Option<RawNothing>,
    /// Whether the case of the path counts. Default `true`.
    pub case_sensitive: Option<bool>,
    /// What headers must be.
    pub headers: Vec<RawHeaderMatcher>,
    /// What query parameters must be.
    pub query_parameters: Vec<RawQueryParameterMatcher>,
}

/// A regular expression, as RE2 reads it.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawRegex {
    /// The expression; it must match the whole value.
    pub regex: String,
    /// Accepted and without meaning, as in Envoy.
    pub google_re2: Option<RawNothing>,
}

/// An empty object.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawNothing {}

/// A comparison with a string. Exactly one of the first five.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawStringMatcher {
    /// It is this.
    pub exact: Option<String>,
    /// It begins so.
    pub prefix: Option<String>,
    /// It ends so.
    pub suffix: Option<String>,
    /// It holds this.
    pub contains: Option<String>,
    /// As a whole it matches this regular expression.
    pub safe_regex: Option<RawRegex>,
    /// Whether ASCII case does not count. Default `false`.
    pub ignore_case: bool,
}

/// A comparison with a header: at most one kind; none: it must be there.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawHeaderMatcher {
    /// The header, or a pseudo-header such as `:method`.
    pub name: String,
    /// Its value as a string.
    pub string_match: Option<RawStringMatcher>,
    /// Its value as a number.
    pub range_match: Option<RawRange>,
    /// Whether it is there.
    pub present_match: Option<bool>,
    /// Deprecated in Envoy: `string_match.exact`.
    pub exact_match: Option<String>,
    /// Deprecated in Envoy: `string_match.prefix`.
    pub prefix_match: Option<String>,
    /// Deprecated in Envoy: `string_match.suffix`.
    pub suffix_match: Option<String>,
    /// Deprecated in Envoy: `string_match.contains`.
    pub contains_match: Option<String>,
    /// Deprecated in Envoy: `string_match.safe_regex`.
    pub safe_regex_match: Option<RawRegex>,
    /// Whether the result is turned around. Default `false`.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub invert_match: bool,
    /// Whether a header that is not there counts as an empty one. Default `false`.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub treat_missing_header_as_empty: bool,
}

/// From `start` up to but not including `end`.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawRange {
    /// The least.
    pub start: i64,
    /// One more than the greatest.
    pub end: i64,
}

/// A comparison with a query parameter: at most one kind; none: it must be there.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawQueryParameterMatcher {
    /// The parameter.
    pub name: String,
    /// Its value as a string.
    pub string_match: Option<RawStringMatcher>,
    /// Whether it is there.
    pub present_match: Option<bool>,
}

/// What a request needs. Exactly one field; `claims` may stand beside `provider_name`.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawRequirement {
    /// A token of this provider.
    pub provider_name: Option<String>,
    /// What its claims must be, beside the provider's demands.
    pub claims: Vec<RawClaimRule>,
    /// A token of this provider, for other audiences.
    pub provider_and_audiences: Option<RawProviderAndAudiences>,
    /// One of several requirements.
    pub requires_any: Option<RawRequirements>,
    /// All of several requirements.
    pub requires_all: Option<RawRequirements>,
    /// No token, or a good one of any provider.
    pub allow_missing: Option<RawNothing>,
    /// Whatever there is; a good token of any provider counts.
    pub allow_missing_or_failed: Option<RawNothing>,
    /// Whatever there is; a good token of any provider counts, and a bad one is told to the upstream.
    pub extract_only_without_validation: Option<RawExtractOnly>,
}

/// A token of a provider, for other audiences.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawProviderAndAudiences {
    /// The provider.
    pub provider_name: String,
    /// The audiences in place of the provider's.
    #[cfg_attr(not(target_family = "wasm"), schemars(default))]
    pub audiences: Vec<String>,
}

/// Several requirements, two at least.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(deny_unknown_fields))]
pub struct RawRequirements {
    /// The requirements.
    pub requirements: Vec<RawRequirement>,
}

/// How a bad token is told to the upstream.
#[derive(Debug, Default)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema), schemars(default, deny_unknown_fields))]
pub struct RawExtractOnly {
    /// The header that then is `false`. Default `x-jwt-signature-verified`.
    pub verification_status_header: Option<String>,
}

impl RawConfig {
    /// Reads the typed form.
    ///
    /// # Errors
    /// What is not JSON, unknown, missing or of the wrong type.
    pub fn parse(document: &[u8]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.read(&read(document)?)?;
        Ok(config)
    }
}

/// Reads a document within bounds: JSON, or the binary form of `google.protobuf.Struct`. Envoy's documentation
/// promises JSON for both, and Envoy 1.40 hands a `Struct` over as it is on the wire.
fn read(document: &[u8]) -> Result<Value, ConfigError> {
    let refused = |message: String| ConfigError { path: String::new(), message };
    if document.len() > CONFIG_BYTES {
        return Err(refused(format!("{} bytes, at most {CONFIG_BYTES} were expected", document.len())));
    }
    if document.is_empty() {
        return Err(refused("the configuration is empty, a JSON object with `providers` was expected".to_owned()));
    }
    json::parse(document).or_else(|error| {
        protobuf::read(document).ok_or_else(|| refused(format!("the configuration is not JSON: {error}")))
    })
}

/// Fields of `jwt_authn` that a WebAssembly filter cannot honour, and what to use instead.
const IMPOSSIBLE: [(&str, &str); 7] = [
    (
        "payload_in_metadata",
        "a WebAssembly filter cannot write dynamic metadata: use `claim_to_headers` or `forward_payload_header`",
    ),
    (
        "header_in_metadata",
        "a WebAssembly filter cannot write dynamic metadata, and the gate offers nothing in its place",
    ),
    (
        "failed_status_in_metadata",
        "a WebAssembly filter cannot write dynamic metadata: read `%RESPONSE_CODE_DETAILS%` or `wasm.claimgate_reason`",
    ),
    (
        "normalize_payload_in_metadata",
        "a WebAssembly filter cannot write dynamic metadata; claim rules read a scope as a list by themselves",
    ),
    ("filename", "a WebAssembly filter cannot read files: use `inline`, `inline_string` or `remote_jwks`"),
    (
        "environment_variable",
        "a WebAssembly filter does not see Envoy's environment: use `inline`, `inline_string` or `remote_jwks`",
    ),
    ("filter_state_rules", "a WebAssembly filter cannot select by filter state: use `rules`"),
];

/// Fields of `jwt_authn` and its route matching whose meaning the gate cannot give.
const UNSUPPORTED: [(&str, &str); 7] = [
    ("path_match_policy", "a URI template is an extension of Envoy's: use `prefix`, `path` or `safe_regex`"),
    (
        "runtime_fraction",
        "a plugin does not see Envoy's runtime: a rule applies to all requests that match, or to none",
    ),
    ("grpc", "`jwt_authn` ignores it, and so a rule would match more than it says: use `headers`"),
    ("tls_context", "`jwt_authn` ignores it, and so a rule would match more than it says"),
    ("dynamic_metadata", "`jwt_authn` ignores it, and so a rule would match more than it says"),
    ("custom", "an extension of Envoy's is not available to a plugin"),
    ("retriable_status_codes", "the gate tries again after any failure"),
];

/// What is wrong with a field of this name, with the cure.
pub(super) fn unknown_field(field: &str, known: &[&str]) -> String {
    if let Some((_, why)) = IMPOSSIBLE.iter().chain(&UNSUPPORTED).find(|(name, _)| *name == field) {
        format!("`{field}` is not available here: {why}")
    } else {
        format!("unknown field `{field}`, {}", expected(field, known.iter().copied()))
    }
}

/// What was expected in place of `found`, the nearest name first if one is near.
pub fn expected<'k>(found: &str, known: impl Iterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(found, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3));
    let list = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("known are {list}"),
    }
}

object!(RawConfig { providers; rules, requirement_map, unmatched, bypass_cors_preflight, strip_failure_response, error_format, stat_prefix, status_path, mode, environment, resource_metadata, log_claims, host_crypto, verifications_per_second });
object!(RawVerificationRates {; light, medium, heavy });
object!(RawProvider {; issuer, issuers, audiences, subjects, require_expiration, max_lifetime, max_age, algorithms, token_types, remote_jwks, oidc_discovery, local_jwks, from_headers, from_params, from_cookies, forward, forward_payload_header, pad_forward_payload_header, clock_skew_seconds, claim_to_headers, claim_to_filter_state, claims, max_token_bytes, jwt_cache_config, clear_route_cache });
object!(RawIssuerTemplate { issuer, values; });
object!(RawRemoteJwks { http_uri; cache_duration, stale_for, min_refetch_interval, clusters, max_bytes, max_keys, async_fetch, retry_policy });
object!(RawAsyncFetch {; fast_listener, failed_refetch_duration });
object!(RawRetryPolicy {; num_retries, retry_back_off, retry_on });
object!(RawBackOff { base_interval; max_interval });
object!(RawJwksHttp { uri, cluster; timeout });
object!(RawLocalJwks {; inline_string, inline_bytes, inline, pem });
object!(RawFromHeader { name; value_prefix });
object!(RawClaimToHeader { header_name; claim_name, claim_path, format });
object!(RawClaimToFilterState { key; claim_name, claim_path });
object!(RawPathKey { key; });
object!(RawClaimRule {; claim_name, claim_path, any_of, all_of, none_of, equals, matches, exists });
object!(RawJwtCacheConfig {; jwt_cache_size, jwt_max_token_size });
object!(RawRule { r#match; requires, requirement_name, mode });
object!(RawMatch {; prefix, path, safe_regex, path_separated_prefix, connect_matcher, case_sensitive, headers, query_parameters });
object!(RawRegex { regex; google_re2 });
object!(RawNothing {; });
object!(RawStringMatcher {; exact, prefix, suffix, contains, safe_regex, ignore_case });
object!(RawHeaderMatcher { name; string_match, range_match, present_match, exact_match, prefix_match, suffix_match, contains_match, safe_regex_match, invert_match, treat_missing_header_as_empty });
object!(RawRange {; start, end });
object!(RawQueryParameterMatcher { name; string_match, present_match });
object!(RawRequirement {; provider_name, claims, provider_and_audiences, requires_any, requires_all, allow_missing, allow_missing_or_failed, extract_only_without_validation });
object!(RawProviderAndAudiences { provider_name; audiences });
object!(RawRequirements { requirements; });
object!(RawExtractOnly {; verification_status_header });

names!(RawMode { "enforce": Enforce, "shadow": Shadow });
names!(RawHostCrypto { "auto": Auto, "off": Off });
names!(RawUnmatched { "allow": Allow, "deny": Deny });
names!(RawErrorFormat { "problem_json": ProblemJson, "text": Text, "none": None });
names!(RawClaimFormat { "base64_json": Base64Json, "json": Json, "comma": Comma });

impl Default for RawIssuer {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Read for RawIssuer {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        *self = match value {
            Value::String(text) => Self::Text(text.clone()),
            Value::Object(_) => {
                let mut template = RawIssuerTemplate::default();
                template.read(value)?;
                Self::Template(template)
            }
            other => return Err(Error::mismatch(other, "a string, or an object with `issuer` and `values`")),
        };
        Ok(())
    }
}

impl Default for RawPathSegment {
    fn default() -> Self {
        Self::Name(String::new())
    }
}

impl Read for RawPathSegment {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        *self = match value {
            Value::String(name) => Self::Name(name.clone()),
            Value::Object(_) => {
                let mut key = RawPathKey::default();
                key.read(value)?;
                Self::Key(key)
            }
            other => return Err(Error::mismatch(other, "a name, or an object with `key`")),
        };
        Ok(())
    }
}

impl Default for RawPem {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Read for RawPem {
    fn read(&mut self, value: &Value) -> Result<(), Error> {
        *self = match value {
            Value::String(pem) => Self::One(pem.clone()),
            Value::Array(_) => {
                let mut list = Vec::new();
                Read::read(&mut list, value)?;
                Self::Several(list)
            }
            other => return Err(Error::mismatch(other, "a public key in PEM, or a list of them")),
        };
        Ok(())
    }
}
