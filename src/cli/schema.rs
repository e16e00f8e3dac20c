//! `claimgate schema`: the JSON Schema of what users write. Types and descriptions are those of the code; what a
//! description only says, defaults and forms of values, is added here from the limits that the gate keeps.

use claimgate::{Algorithm, RawConfig, limits};
use clap::Args;
use serde_json::{Value, json};

use super::contract::Contract;
use super::{Answer, Exit, Trouble};

/// Print the JSON Schema (2020-12) of the configuration
#[derive(Args)]
#[command(after_help = "Examples:\n  claimgate schema > claimgate.schema.json\n  claimgate schema --contract")]
pub struct Arguments {
    /// That of the files that `claimgate test` reads
    #[arg(long)]
    contract: bool,
}

pub fn run(arguments: &Arguments) -> Result<Answer, Trouble> {
    let schema = if arguments.contract { of_contracts() } else { of_configurations() };
    let text = serde_json::to_string_pretty(&schema).map_err(|error| format!("cannot write: {error}"))?;
    Ok(Answer { text, exit: Exit::Well })
}

fn of_contracts() -> Value {
    let mut schema = schemars::schema_for!(Contract).to_value();
    put(&mut schema, "", "title", json!("Cases for `claimgate test`"));
    schema
}

fn of_configurations() -> Value {
    let mut schema = schemars::schema_for!(RawConfig).to_value();
    without_null_defaults(&mut schema);
    put(&mut schema, "", "title", json!("The configuration of Claimgate"));
    put(&mut schema, "", "examples", json!([example()]));
    let names: Vec<&str> = Algorithm::ALL.iter().map(|alg| alg.name()).collect();
    put(&mut schema, &property("RawProvider", "algorithms"), "items", json!({"type": "string", "enum": names}));
    for (of, name, default) in [
        ("RawProvider", "require_expiration", json!(true)),
        ("RawProvider", "clock_skew_seconds", json!(limits::CLOCK_SKEW.as_secs())),
        ("RawProvider", "max_token_bytes", json!(limits::TOKEN_BYTES)),
        ("RawRemoteJwks", "cache_duration", json!(seconds(limits::CACHE_DURATION))),
        ("RawRemoteJwks", "stale_for", json!(seconds(limits::STALE_FOR))),
        ("RawRemoteJwks", "min_refetch_interval", json!(seconds(limits::REFETCH_INTERVAL))),
        ("RawRemoteJwks", "max_bytes", json!(limits::JWKS_BYTES)),
        ("RawRemoteJwks", "max_keys", json!(limits::JWKS_KEYS)),
        ("RawAsyncFetch", "failed_refetch_duration", json!(seconds(limits::BACKOFF_MIN))),
        ("RawJwksHttp", "timeout", json!(seconds(limits::FETCH_TIMEOUT))),
        ("RawMatch", "case_sensitive", json!(true)),
        ("RawClaimToHeader", "format", json!("base64_json")),
        ("RawJwtCacheConfig", "jwt_cache_size", json!(limits::NATIVE_TOKEN_CACHE_TOKENS)),
        ("RawJwtCacheConfig", "jwt_max_token_size", json!(limits::TOKEN_CACHE_TOKEN_BYTES)),
        ("RawVerificationRates", "light", json!(limits::LIGHT_VERIFICATIONS)),
        ("RawVerificationRates", "medium", json!(limits::MEDIUM_VERIFICATIONS)),
        ("RawVerificationRates", "heavy", json!(limits::HEAVY_VERIFICATIONS)),
        ("RawExtractOnly", "verification_status_header", json!("x-jwt-signature-verified")),
    ] {
        put(&mut schema, &property(of, name), "default", default);
    }
    for (name, default) in
        [("unmatched", "allow"), ("error_format", "problem_json"), ("mode", "enforce"), ("host_crypto", "auto")]
    {
        put(&mut schema, &format!("/properties/{name}"), "default", json!(default));
    }
    for (of, name) in [
        ("RawProvider", "max_lifetime"),
        ("RawProvider", "max_age"),
        ("RawRemoteJwks", "cache_duration"),
        ("RawRemoteJwks", "stale_for"),
        ("RawRemoteJwks", "min_refetch_interval"),
        ("RawAsyncFetch", "failed_refetch_duration"),
        ("RawBackOff", "base_interval"),
        ("RawBackOff", "max_interval"),
        ("RawJwksHttp", "timeout"),
    ] {
        put(&mut schema, &property(of, name), "pattern", json!(r"^[0-9]+(\.[0-9]*)?s$"));
    }
    for (of, name, most) in [
        ("RawProvider", "clock_skew_seconds", limits::CLOCK_SKEW_CEILING.as_secs()),
        ("RawProvider", "max_token_bytes", limits::TOKEN_BYTES_CEILING as u64),
        ("RawRemoteJwks", "max_bytes", limits::JWKS_BYTES_CEILING as u64),
        ("RawRemoteJwks", "max_keys", limits::JWKS_KEYS_CEILING as u64),
    ] {
        put(&mut schema, &property(of, name), "maximum", json!(most));
    }
    put(&mut schema, "/properties/providers", "minProperties", json!(1));
    put(&mut schema, &property("RawRequirements", "requirements"), "minItems", json!(2));
    schema
}

/// The smallest configuration there is.
fn example() -> Value {
    json!({"providers": {"corp": {"issuer": "https://idp.example.com/", "audiences": ["orders"], "remote_jwks":
        {"http_uri": {"uri": "https://idp.example.com/jwks.json", "cluster": "idp", "timeout": "2s"}}}}})
}

fn property(of: &str, name: &str) -> String {
    format!("/$defs/{of}/properties/{name}")
}

/// Adds a keyword. A place that is not there is a mistake in this file, which its test finds.
fn put(schema: &mut Value, place: &str, keyword: &str, value: Value) {
    if let Some(members) = schema.pointer_mut(place).and_then(Value::as_object_mut) {
        members.insert(keyword.to_owned(), value);
    }
}

/// `null` stands for an absent field: it says nothing of what is in its place.
fn without_null_defaults(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("default") == Some(&Value::Null) {
                members.shift_remove("default");
            }
            members.values_mut().for_each(without_null_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null_defaults),
        _ => {}
    }
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs())
}
