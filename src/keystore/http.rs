//! What an issuer's answer says beside its keys: how long they are fresh, how to ask again, where they are
//! (RFC 9110 §8.8, §10.2.3, RFC 9111 §4.2, RFC 8414 §3).

use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use super::{Address, Discovery, FetchError, Response};
use crate::jwk::JwkSetError;
use crate::time::UnixTime;

/// What an answer says of caching.
#[derive(Clone, Debug, Default)]
pub(super) struct Caching {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    lifetime: Lifetime,
}

#[derive(Clone, Copy, Debug, Default)]
enum Lifetime {
    #[default]
    Unsaid,
    For(Duration),
    Until(UnixTime),
}

impl Caching {
    pub(super) fn of(response: &Response) -> Self {
        let text = |name| header(response, name).map(str::to_owned);
        Self { etag: text("etag"), last_modified: text("last-modified"), lifetime: lifetime(response) }
    }

    /// Validators as another worker shared them.
    pub(super) const fn shared(etag: Option<String>, last_modified: Option<String>) -> Self {
        Self { etag, last_modified, lifetime: Lifetime::Unsaid }
    }

    /// How long the answer is fresh from now on, if it says so.
    pub(super) fn lifetime(&self, now: UnixTime) -> Option<Duration> {
        match self.lifetime {
            Lifetime::Unsaid => None,
            Lifetime::For(lifetime) => Some(lifetime),
            Lifetime::Until(end) => Some(end.since(now)),
        }
    }

    /// Header lines that ask for the document only if it has changed.
    pub(super) fn conditions(&self) -> Vec<(&'static str, String)> {
        let etag = self.etag.iter().map(|etag| ("if-none-match", etag.clone()));
        let modified = self.last_modified.iter().map(|date| ("if-modified-since", date.clone()));
        etag.chain(modified).collect()
    }

    /// A later answer about the same document: what it does not repeat holds on.
    pub(super) fn renew(&mut self, newer: Self) {
        self.etag = newer.etag.or_else(|| self.etag.take());
        self.last_modified = newer.last_modified.or_else(|| self.last_modified.take());
        self.lifetime = newer.lifetime;
    }
}

/// The pause that the issuer asks for with 429 or 503: seconds, or a date.
pub(super) fn retry_after(response: &Response, now: UnixTime) -> Option<Duration> {
    if !matches!(response, Response::Answered { status: 429 | 503, .. }) {
        return None;
    }
    let value = header(response, "retry-after")?;
    value.parse().ok().map(Duration::from_secs).or_else(|| date(value).map(|date| date.since(now)))
}

/// Where the issuer's metadata says that its keys are.
pub(super) fn metadata(
    response: &Response,
    discovery: &Discovery,
    from: &Address,
    max_bytes: usize,
) -> Result<Address, FetchError> {
    /// Members that are not looked at may be there.
    #[derive(Deserialize)]
    struct Metadata {
        issuer: String,
        jwks_uri: String,
    }
    let body = match response {
        Response::Answered { status: 200, body, .. } => body,
        Response::Answered { status, .. } => return Err(FetchError::Status(*status)),
        Response::Failed => return Err(FetchError::NoAnswer),
    };
    if body.len() > max_bytes {
        return Err(FetchError::Document(JwkSetError::TooLarge { found: body.len(), allowed: max_bytes }));
    }
    let Ok(Metadata { issuer, jwks_uri }) = serde_json::from_slice(body) else {
        return Err(FetchError::Metadata("no JSON object with `issuer` and `jwks_uri`"));
    };
    if issuer != discovery.issuer {
        return Err(FetchError::Metadata("`issuer` is not the provider's (RFC 8414 section 3.3)"));
    }
    let uri: ::http::Uri = jwks_uri.parse().map_err(|_| FetchError::Metadata("`jwks_uri` is no URI"))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(FetchError::Metadata("`jwks_uri` is no http or https URI"));
    };
    if scheme != from.scheme && scheme == "http" {
        return Err(FetchError::Metadata("`jwks_uri` is not https, though the metadata is"));
    }
    let cluster = if authority.as_str() == from.authority {
        Some(&from.cluster)
    } else {
        discovery.clusters.get(authority.as_str())
    };
    let Some(cluster) = cluster else {
        return Err(FetchError::Metadata("`jwks_uri` is on another host, for which `clusters` names no cluster"));
    };
    Ok(Address {
        cluster: cluster.clone(),
        scheme: scheme.to_owned(),
        authority: authority.to_string(),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
    })
}

fn lifetime(response: &Response) -> Lifetime {
    let directives = header(response, "cache-control").unwrap_or_default().to_ascii_lowercase();
    let seconds = |name: &str| {
        let value = directives.split(',').find_map(|directive| directive.trim().strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.trim().trim_matches('"').parse().ok()).map(Duration::from_secs)
    };
    let says = |name: &str| directives.split(',').any(|directive| directive.trim() == name);
    if says("no-store") || says("no-cache") {
        return Lifetime::For(Duration::ZERO);
    }
    let age = header(response, "age").and_then(|age| age.parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
    match seconds("s-maxage").or_else(|| seconds("max-age")) {
        Some(lifetime) => Lifetime::For(lifetime.saturating_sub(age)),
        None => match header(response, "expires").map(date) {
            None => Lifetime::Unsaid,
            Some(Some(end)) => Lifetime::Until(end),
            // An invalid date has passed (RFC 9111 §5.3).
            Some(None) => Lifetime::For(Duration::ZERO),
        },
    }
}

fn date(value: &str) -> Option<UnixTime> {
    httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok().map(UnixTime::since_epoch)
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    let Response::Answered { headers, .. } = response else { return None };
    let (_, value) = headers.iter().find(|(found, _)| found == name)?;
    std::str::from_utf8(value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        let now = UnixTime::from_secs(784_111_777 - 100);
        let read = |headers: &[(&str, &str)]| {
            let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect();
            Caching::of(&Response::Answered { status: 200, headers, body: Vec::new() }).lifetime(now)
        };
        let secs = |n| Some(Duration::from_secs(n));
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("cache-control", "public, Max-Age=300")]), secs(300));
        assert_eq!(read(&[("cache-control", "max-age=300, s-maxage=\"60\"")]), secs(60));
        assert_eq!(read(&[("cache-control", "max-age=300"), ("age", "100")]), secs(200));
        assert_eq!(read(&[("cache-control", "max-age=300"), ("age", "900")]), secs(0));
        assert_eq!(read(&[("cache-control", "no-cache, max-age=300")]), secs(0));
        assert_eq!(read(&[("cache-control", "no-store")]), secs(0));
        assert_eq!(read(&[("cache-control", "max-age=soon")]), None);
        assert_eq!(read(&[("expires", "Sun, 06 Nov 1994 08:49:37 GMT")]), secs(100));
        assert_eq!(read(&[("expires", "Sun, 06 Nov 1984 08:49:37 GMT")]), secs(0));
        assert_eq!(read(&[("expires", "0")]), secs(0));
        assert_eq!(read(&[("cache-control", "max-age=5"), ("expires", "Sun, 06 Nov 1994 08:49:37 GMT")]), secs(5));
    }
}
