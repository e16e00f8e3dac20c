//! The configuration as it is typed: the vocabulary of `jwt_authn`, and ours beside it.
//!
//! The documentation of a field is what users read: `README.md` and the JSON Schema hold the same words.

use std::collections::BTreeMap;

#[cfg(not(target_family = "wasm"))]
use schemars::JsonSchema;
use serde::Deserialize;

use prost::Message as _;
use prost_types::value::Kind;
use serde_json::{Map, Number, Value};

use super::ConfigError;
use crate::json;
use crate::limits::{CONFIG_BYTES, JSON_DEPTH};

/// The whole configuration.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawConfig {
    /// Who issues tokens, by a name of your choice.
    pub providers: BTreeMap<String, RawProvider>,
    /// Which requests need what. The first rule that matches counts; a request that none matches passes. Without
    /// `rules`, every request must satisfy one of the providers.
    pub rules: Option<Vec<RawRule>>,
}

/// One issuer of tokens, and what is demanded of them.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawProvider {
    /// The only `iss` accepted, compared byte for byte. Absent: any.
    pub issuer: Option<String>,
    /// The token must name one of these in `aud`, compared byte for byte. Absent or empty: any.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The only `alg` values accepted. Absent: every asymmetric algorithm supported. `HS*` only when listed here.
    pub algorithms: Option<Vec<String>>,
    /// Keys that are fetched.
    pub remote_jwks: Option<RawRemoteJwks>,
    /// Keys that stand in the configuration.
    pub local_jwks: Option<RawLocalJwks>,
    /// Whether the token goes on to the upstream. Default `false`: it is removed.
    #[serde(default)]
    pub forward: bool,
    /// A header that receives the payload, in base64url.
    pub forward_payload_header: Option<String>,
    /// Whether that header is padded with `=`. Default `false`.
    #[serde(default)]
    pub pad_forward_payload_header: bool,
    /// By how many seconds clocks may differ. Default 60; 0 means zero.
    pub clock_skew_seconds: Option<u32>,
    /// Headers that receive claims.
    #[serde(default)]
    pub claim_to_headers: Vec<RawClaimToHeader>,
    /// Longest token accepted, in bytes. Default 8192.
    pub max_token_bytes: Option<u32>,
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
    /// Largest document read, in bytes. Default 262144.
    pub max_bytes: Option<u32>,
    /// Most keys read. Default 64.
    pub max_keys: Option<u32>,
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
}

/// A header that receives a claim.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawClaimToHeader {
    /// The header.
    pub header_name: String,
    /// The claim. Dots lead into nested objects.
    pub claim_name: String,
}

/// Which requests need what.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawRule {
    /// The requests it is for.
    pub r#match: RawMatch,
    /// What they need. Absent: nothing.
    pub requires: Option<RawRequires>,
}

/// A comparison with the path of a request, without its query. Exactly one field.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawMatch {
    /// The path begins so.
    pub prefix: Option<String>,
    /// The path is this.
    pub path: Option<String>,
}

/// What a request needs.
#[derive(Debug, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(JsonSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RawRequires {
    /// A token of this provider.
    pub provider_name: String,
}

impl RawConfig {
    /// Reads the typed form.
    ///
    /// # Errors
    /// What is not JSON, unknown, missing or of the wrong type.
    pub fn parse(document: &[u8]) -> Result<Self, ConfigError> {
        serde_path_to_error::deserialize(read(document)?).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { String::new() } else { path };
            explain(path, &error.into_inner().to_string())
        })
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
const IMPOSSIBLE: [(&str, &str); 6] = [
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
    ("filename", "a WebAssembly filter cannot read files: use `inline`, `inline_string` or `remote_jwks`"),
    (
        "environment_variable",
        "a WebAssembly filter does not see Envoy's environment: use `inline`, `inline_string` or `remote_jwks`",
    ),
    ("filter_state_rules", "a WebAssembly filter cannot select by filter state: use `rules`"),
];

/// Fields that the documentation promises and this version does not have yet.
const NOT_YET: [&str; 52] = [
    "unmatched",
    "mode",
    "error_format",
    "resource_metadata",
    "environment",
    "status_path",
    "host_crypto",
    "log_claims",
    "requirement_map",
    "requirement_name",
    "bypass_cors_preflight",
    "strip_failure_response",
    "stat_prefix",
    "subjects",
    "require_expiration",
    "max_lifetime",
    "async_fetch",
    "retry_policy",
    "from_headers",
    "from_params",
    "from_cookies",
    "claim_path",
    "format",
    "jwt_cache_config",
    "clear_route_cache",
    "normalize_payload_in_metadata",
    "issuers",
    "pem",
    "oidc_discovery",
    "min_refetch_interval",
    "max_age",
    "token_types",
    "claims",
    "claim_to_filter_state",
    "safe_regex",
    "connect_matcher",
    "path_separated_prefix",
    "path_match_policy",
    "headers",
    "query_parameters",
    "case_sensitive",
    "runtime_fraction",
    "provider_and_audiences",
    "requires_any",
    "requires_all",
    "allow_missing",
    "allow_missing_or_failed",
    "extract_only_without_validation",
    "exists",
    "any_of",
    "all_of",
    "none_of",
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
    let message = if let Some((_, why)) = IMPOSSIBLE.iter().find(|(name, _)| *name == field) {
        format!("`{field}` is not available here: {why}")
    } else if NOT_YET.contains(&field) {
        format!("`{field}` is not supported by this version")
    } else {
        format!("unknown field `{field}`, {}", expected(field, quoted))
    };
    ConfigError { path, message }
}

/// What was expected in place of `found`, the nearest name first if one is near.
pub(super) fn expected<'k>(found: &str, known: impl Iterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(found, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3));
    let list = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match near {
        Some((_, name)) => format!("did you mean `{name}`? Known are {list}"),
        None => format!("known are {list}"),
    }
}
