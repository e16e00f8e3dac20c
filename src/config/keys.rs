//! Where the keys of a provider come from.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::raw::{RawJwksHttp, RawLocalJwks, RawPem, RawProvider, RawRemoteJwks};
use super::{ConfigError, Result, at, duration, size};
use crate::keystore::{Address, Discovery, Remote, Source};
use crate::limits::{
    BACKOFF_MAX, BACKOFF_MIN, CACHE_DURATION, FETCH_TIMEOUT, JWKS_BYTES, JWKS_BYTES_CEILING, JWKS_KEYS,
    JWKS_KEYS_CEILING, REFETCH_INTERVAL, STALE_FOR,
};
use crate::signature::KeySet;

pub(super) fn source(path: &str, raw: &RawProvider) -> Result<Source> {
    let remote = |remote| Ok(Source::Remote(Box::new(remote)));
    match (&raw.local_jwks, &raw.remote_jwks, &raw.oidc_discovery) {
        (Some(local), None, None) => local_source(&at(path, "local_jwks"), local).map(Source::Inline),
        (None, Some(raw), None) => {
            let path = at(path, "remote_jwks");
            if !raw.clusters.is_empty() {
                return Err(ConfigError::new(at(&path, "clusters"), "only for `oidc_discovery`"));
            }
            remote(remote_source(&path, raw, None)?)
        }
        (None, None, Some(metadata)) => {
            let (Some(issuer), true) = (raw.issuer.clone().filter(|issuer| !issuer.is_empty()), raw.issuers.is_empty())
            else {
                let message = "the metadata must name the provider's `issuer`, and there is none";
                return Err(ConfigError::new(at(path, "oidc_discovery"), message));
            };
            let discovery = Discovery { issuer, clusters: metadata.clusters.clone() };
            remote(remote_source(&at(path, "oidc_discovery"), metadata, Some(discovery))?)
        }
        (None, None, None) => {
            Err(ConfigError::new(path, "no keys: one of `remote_jwks`, `oidc_discovery` and `local_jwks` was expected"))
        }
        _ => {
            let message = "more than one of `remote_jwks`, `oidc_discovery` and `local_jwks`, one was expected";
            Err(ConfigError::new(path, message))
        }
    }
}

fn local_source(path: &str, raw: &RawLocalJwks) -> Result<KeySet> {
    let (name, document) = match (&raw.inline_string, &raw.inline_bytes, &raw.inline, &raw.pem) {
        (None, None, None, Some(pem)) => return pem_source(&at(path, "pem"), pem),
        (Some(text), None, None, None) => ("inline_string", text.clone().into_bytes()),
        (None, Some(base64), None, None) => {
            let document = STANDARD
                .decode(base64)
                .map_err(|_| ConfigError::new(at(path, "inline_bytes"), "not base64, as proto-JSON writes bytes"))?;
            ("inline_bytes", document)
        }
        (None, None, Some(members), None) => {
            ("inline", serde_json::Value::Object(members.clone()).to_string().into_bytes())
        }
        _ => {
            let message = "one of `inline`, `inline_string`, `inline_bytes` and `pem` was expected";
            return Err(ConfigError::new(path, message));
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

fn pem_source(path: &str, raw: &RawPem) -> Result<KeySet> {
    let (one, list) = match raw {
        RawPem::One(pem) => (true, std::slice::from_ref(pem)),
        RawPem::Several(list) => (false, list.as_slice()),
    };
    if list.is_empty() || list.len() > JWKS_KEYS_CEILING {
        let message = format!("{} keys, 1 to {JWKS_KEYS_CEILING} were expected", list.len());
        return Err(ConfigError::new(path, message));
    }
    KeySet::from_pem(list).map_err(|(index, why)| {
        ConfigError::new(if one { path.to_owned() } else { format!("{path}[{index}]") }, why.into_owned())
    })
}

fn remote_source(path: &str, raw: &RawRemoteJwks, discovery: Option<Discovery>) -> Result<Remote> {
    let RawJwksHttp { uri, cluster, timeout } = &raw.http_uri;
    let uri_at = |field: &str| format!("{path}.http_uri.{field}");
    if cluster.is_empty() {
        return Err(ConfigError::new(uri_at("cluster"), "empty, the name of a cluster was expected"));
    }
    let parsed: http::Uri =
        uri.parse().map_err(|e| ConfigError::new(uri_at("uri"), format!("`{uri}` is no URI: {e}")))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (parsed.scheme_str(), parsed.authority()) else {
        return Err(ConfigError::new(uri_at("uri"), format!("found `{uri}`, an http or https URI was expected")));
    };
    let or = |path: String, text: Option<&str>, default| text.map_or(Ok(default), |text| duration(&path, text));
    let (first_pause, longest_pause) = pauses(path, raw)?;
    Ok(Remote {
        address: Address {
            cluster: cluster.clone(),
            scheme: scheme.to_owned(),
            authority: authority.to_string(),
            path: parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        },
        discovery,
        timeout: or(uri_at("timeout"), timeout.as_deref(), FETCH_TIMEOUT)?,
        cache_duration: or(at(path, "cache_duration"), raw.cache_duration.as_deref(), CACHE_DURATION)?,
        stale_for: match raw.stale_for.as_deref() {
            // Zero is a choice here: never serve an expired set.
            Some("0s") => Duration::ZERO,
            stale_for => or(at(path, "stale_for"), stale_for, STALE_FOR)?,
        },
        min_refetch_interval: or(
            at(path, "min_refetch_interval"),
            raw.min_refetch_interval.as_deref(),
            REFETCH_INTERVAL,
        )?,
        first_pause,
        longest_pause,
        max_bytes: size(&at(path, "max_bytes"), raw.max_bytes, JWKS_BYTES, JWKS_BYTES_CEILING)?,
        max_keys: size(&at(path, "max_keys"), raw.max_keys, JWKS_KEYS, JWKS_KEYS_CEILING)?,
    })
}

/// The first and the longest pause after failed fetches, from whichever of Envoy's fields names them.
fn pauses(path: &str, raw: &RawRemoteJwks) -> Result<(Duration, Duration)> {
    let back_off = raw.retry_policy.as_ref().and_then(|policy| policy.retry_back_off.as_ref());
    let refetch = raw.async_fetch.as_ref().and_then(|fetch| fetch.failed_refetch_duration.as_deref());
    let first = match (refetch, back_off) {
        (Some(text), _) => duration(&at(path, "async_fetch.failed_refetch_duration"), text)?,
        (None, Some(back_off)) => {
            duration(&at(path, "retry_policy.retry_back_off.base_interval"), &back_off.base_interval)?
        }
        (None, None) => BACKOFF_MIN,
    };
    let longest = match back_off.map(|back_off| back_off.max_interval.as_deref()) {
        Some(Some(text)) => duration(&at(path, "retry_policy.retry_back_off.max_interval"), text)?,
        Some(None) => first.saturating_mul(10),
        None => BACKOFF_MAX,
    };
    Ok((first, longest.max(first)))
}
