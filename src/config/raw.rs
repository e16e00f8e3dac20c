//! The configuration as it is typed: the vocabulary of `jwt_authn`, and ours beside it.
//!
//! The documentation of a field is what users read: `README.md` and the JSON Schema hold the same words.

use std::collections::BTreeMap;
use std::fmt;

#[cfg(not(target_family = "wasm"))]
use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use prost::Message as _;
use prost_types::value::Kind;
use serde_json::{Map, Number, Value};

use super::{ConfigError, located};
use crate::json;
use crate::limits::{CONFIG_BYTES, JSON_DEPTH};

/// The whole configuration.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawConfig {
    /// Who issues tokens, by a name of your choice.
    pub providers: BTreeMap<String, RawProvider>,
    /// Which requests need what. The first rule that matches decides. Without `rules`, every request must satisfy one of
    /// the providers.
    pub rules: Option<Vec<RawRule>>,
    /// Requirements by a name of your choice, for `requirement_name` and for routes.
    #[serde(default)]
    pub requirement_map: BTreeMap<String, RawRequirement>,
    /// What becomes of a request that no rule matches: `allow` or `deny`.
    #[serde(default)]
    pub unmatched: RawUnmatched,
    /// Whether a CORS preflight request passes without a token.
    #[serde(default)]
    pub bypass_cors_preflight: bool,
    /// Whether a rejection has neither a body nor a challenge.
    #[serde(default)]
    pub strip_failure_response: bool,
    /// The form of a rejection's body: `problem_json`, `text` or `none`.
    #[serde(default)]
    pub error_format: RawErrorFormat,
    /// A prefix for the names of metrics.
    pub stat_prefix: Option<String>,
    /// The path at which the gate itself answers with the state of its key sets. Absent: none.
    pub status_path: Option<String>,
    /// Whether decisions are carried out (`enforce`), or only logged and counted (`shadow`): then nothing is changed in a
    /// request and none is rejected.
    #[serde(default)]
    pub mode: RawMode,
    /// A label for logs and metrics, such as `staging`.
    pub environment: Option<String>,
    /// The URL of the protected resource's metadata, for the challenge (RFC 9728).
    pub resource_metadata: Option<String>,
    /// Names of claims whose values may stand in log lines, beside `iss`, `aud`, `jti` and times.
    #[serde(default)]
    pub log_claims: Vec<String>,
    /// Whether the host verifies signatures where it can (`auto`), or the gate always does so itself (`off`).
    #[serde(default)]
    pub host_crypto: RawHostCrypto,
    /// Most signatures that the gate verifies by itself, per second and worker, for each cost class.
    #[serde(default)]
    pub verifications_per_second: RawVerificationRates,
}

/// Whether decisions are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RawMode {
    /// They are.
    #[default]
    Enforce,
    /// They are only logged and counted.
    Shadow,
}

/// Who verifies signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RawHostCrypto {
    /// The host where it can, else the gate.
    #[default]
    Auto,
    /// The gate.
    Off,
}

/// Most signatures that the gate verifies by itself, per second and worker.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct RawVerificationRates {
    /// RSA up to 4096 bits, Ed25519 and HMAC. Default 4000.
    pub light: Option<u32>,
    /// ES256, ES256K, RSA beyond 4096 bits and ML-DSA. Default 1000.
    pub medium: Option<u32>,
    /// ES384 and ES512. Default 60.
    pub heavy: Option<u32>,
}

/// What becomes of a request that no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RawUnmatched {
    /// It passes.
    #[default]
    Allow,
    /// It must satisfy one of the providers.
    Deny,
}

/// The form of a rejection's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
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
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
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
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawIssuerTemplate {
    /// The issuer, with a `{name}` segment.
    pub issuer: String,
    /// The values that the segment may have.
    pub values: Vec<String>,
}

/// Keys that are fetched.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
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
    #[serde(default)]
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
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct RawAsyncFetch {
    /// Whether the listener starts without keys. The gate never keeps it waiting: requests wait instead.
    pub fast_listener: bool,
    /// The pause after a first failed fetch. Default `1s`; it doubles with each further failure.
    pub failed_refetch_duration: Option<String>,
}

/// How a failed fetch is tried again.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct RawRetryPolicy {
    /// How often. The gate does not give up.
    pub num_retries: Option<u32>,
    /// The pauses.
    pub retry_back_off: Option<RawBackOff>,
    /// Which failures. The gate tries again after any.
    pub retry_on: Option<String>,
}

/// The pauses between attempts.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawBackOff {
    /// The first.
    pub base_interval: String,
    /// The longest. Default ten times the first.
    pub max_interval: Option<String>,
}

/// An address to fetch from.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawJwksHttp {
    /// The address: its host and path go into the request.
    pub uri: String,
    /// The cluster that the request is sent to.
    pub cluster: String,
    /// How long one fetch may take. Default `5s`.
    pub timeout: Option<String>,
}

/// Keys that stand in the configuration. Exactly one field.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
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
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawFromHeader {
    /// The header.
    pub name: String,
    /// What stands before the token.
    #[serde(default)]
    pub value_prefix: String,
}

/// A header that receives a claim. Exactly one of `claim_name` and `claim_path`.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawClaimToHeader {
    /// The header.
    pub header_name: String,
    /// The claim. Dots lead into nested objects.
    pub claim_name: Option<String>,
    /// The names that lead to the claim, outermost first; they may hold dots.
    pub claim_path: Option<Vec<RawPathSegment>>,
    /// How an array or an object is written: `base64_json`, `json` or `comma`.
    #[serde(default)]
    pub format: RawClaimFormat,
}

/// How an array or an object is written into a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
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
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
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
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawPathKey {
    /// The name.
    pub key: String,
}

/// What one claim must be. Exactly one of `claim_name` and `claim_path`, and exactly one of the rest.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
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
    #[serde(deserialize_with = "given")]
    pub equals: Option<Value>,
    /// It is a string, or a list of strings of which one matches this regular expression as a whole.
    pub matches: Option<String>,
    /// It is there, or it is not.
    pub exists: Option<bool>,
}

/// The cache of verified tokens.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct RawJwtCacheConfig {
    /// Most tokens kept for this provider, per worker; 0: none. Default 100.
    pub jwt_cache_size: Option<u32>,
    /// Longest token kept, in bytes. Default 4096.
    pub jwt_max_token_size: Option<u32>,
}

/// Which requests need what. `requires` or `requirement_name`, or neither: nothing is needed.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
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
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
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
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawRegex {
    /// The expression; it must match the whole value.
    pub regex: String,
    /// Accepted and without meaning, as in Envoy.
    pub google_re2: Option<RawNothing>,
}

/// An empty object.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawNothing {}

/// A comparison with a string. Exactly one of the first five.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
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
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
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
    #[serde(default)]
    pub invert_match: bool,
    /// Whether a header that is not there counts as an empty one. Default `false`.
    #[serde(default)]
    pub treat_missing_header_as_empty: bool,
}

/// From `start` up to but not including `end`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct RawRange {
    /// The least.
    pub start: i64,
    /// One more than the greatest.
    pub end: i64,
}

/// A comparison with a query parameter: at most one kind; none: it must be there.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawQueryParameterMatcher {
    /// The parameter.
    pub name: String,
    /// Its value as a string.
    pub string_match: Option<RawStringMatcher>,
    /// Whether it is there.
    pub present_match: Option<bool>,
}

/// What a request needs. Exactly one field; `claims` may stand beside `provider_name`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
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
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawProviderAndAudiences {
    /// The provider.
    pub provider_name: String,
    /// The audiences in place of the provider's.
    #[serde(default)]
    pub audiences: Vec<String>,
}

/// Several requirements, two at least.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawRequirements {
    /// The requirements.
    pub requirements: Vec<RawRequirement>,
}

/// How a bad token is told to the upstream.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct RawExtractOnly {
    /// The header that then is `false`. Default `x-jwt-signature-verified`.
    pub verification_status_header: Option<String>,
}

/// A member that is there, even if it is null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for RawIssuer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a string, or an object with `issuer` and `values`";
        deserializer.deserialize_any(TextOr { expected, text: Self::Text, other: Self::Template })
    }
}

impl<'de> Deserialize<'de> for RawPathSegment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a name, or an object with `key`";
        deserializer.deserialize_any(TextOr { expected, text: Self::Name, other: Self::Key })
    }
}

/// Reads a string, or an object. An untagged enum of `serde`'s would not say where in the object something is wrong.
struct TextOr<T, R> {
    expected: &'static str,
    text: fn(String) -> R,
    other: fn(T) -> R,
}

impl<'de, T: Deserialize<'de>, R> Visitor<'de> for TextOr<T, R> {
    type Value = R;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E>(self, text: &str) -> Result<R, E> {
        Ok((self.text)(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<R, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(self.other)
    }
}

impl<'de> Deserialize<'de> for RawPem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = RawPem;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a public key in PEM, or a list of them")
            }

            fn visit_str<E>(self, pem: &str) -> Result<RawPem, E> {
                Ok(RawPem::One(pem.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<RawPem, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(RawPem::Several)
            }
        }

        deserializer.deserialize_any(OneOrSeveral)
    }
}

impl RawConfig {
    /// Reads the typed form.
    ///
    /// # Errors
    /// What is not JSON, unknown, missing or of the wrong type.
    pub fn parse(document: &[u8]) -> Result<Self, ConfigError> {
        located::read(&read(document)?).map_err(|error| explain(error.path(), error.message()))
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
        prost_types::Struct::decode(document)
            .ok()
            .and_then(|members| object(members, JSON_DEPTH))
            .ok_or_else(|| refused(format!("the configuration is not JSON: {error}")))
    })
}

/// The JSON object that a `Struct` stands for; nothing if it is nested deeper than `depth`.
fn object(members: prost_types::Struct, depth: usize) -> Option<Value> {
    let members = members.fields.into_iter().map(|(name, member)| Some((name, value(member, depth)?)));
    members.collect::<Option<Map<_, _>>>().map(Value::Object)
}

fn value(value: prost_types::Value, depth: usize) -> Option<Value> {
    match value.kind? {
        Kind::NullValue(_) => Some(Value::Null),
        Kind::BoolValue(value) => Some(Value::Bool(value)),
        Kind::StringValue(value) => Some(Value::String(value)),
        Kind::NumberValue(value) => number(value).map(Value::Number),
        Kind::StructValue(members) => object(members, depth.checked_sub(1)?),
        Kind::ListValue(list) => {
            let depth = depth.checked_sub(1)?;
            list.values.into_iter().map(|item| self::value(item, depth)).collect::<Option<Vec<_>>>().map(Value::Array)
        }
    }
}

/// Every number of a `Struct` is a double; those that were whole when typed are whole again.
fn number(value: f64) -> Option<Number> {
    let whole = format!("{value:.0}").parse::<i64>().ok().filter(|_| value.fract() == 0.0);
    whole.map(Number::from).or_else(|| Number::from_f64(value))
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

/// Turns the deserializer's words into ours, with the cure.
fn explain(path: String, message: &str) -> ConfigError {
    // A string of the wrong type may be a secret in the wrong place: its kind is said and not the string.
    if let Some((_, expected)) =
        message.strip_prefix("invalid type: string ").and_then(|m| m.rsplit_once(", expected "))
    {
        return ConfigError { path, message: format!("invalid type: a string, expected {expected}") };
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(field), true) = (quoted.next(), message.starts_with("unknown field")) else {
        return ConfigError { path, message: message.to_owned() };
    };
    let message = if let Some((_, why)) = IMPOSSIBLE.iter().chain(&UNSUPPORTED).find(|(name, _)| *name == field) {
        format!("`{field}` is not available here: {why}")
    } else {
        format!("unknown field `{field}`, {}", expected(field, quoted))
    };
    ConfigError { path, message }
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
