//! From a decision to HTTP: the one function that turns a reason into a status, a challenge and a body
//! (RFC 6750 §3, RFC 9457).

use serde_json::json;

use crate::config::{Config, ErrorFormat, Mode};
use crate::decide::{Allow, Decision, Need, Rejection};
use crate::rejection::Reason;
use crate::request::Request;

/// What a host shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effects {
    /// Let the request go on.
    Forward(Forwarded),
    /// Answer it.
    Reply(LocalReply),
    /// Let it wait for keys.
    Park(Need),
}

/// Changes to a request that goes on: first `remove`, then `set`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Headers to remove.
    pub remove: Vec<String>,
    /// Headers to set.
    pub set: Vec<(String, Vec<u8>)>,
    /// Filter state to set, where the host has it.
    pub states: Vec<(String, String)>,
    /// The outcome, for filter state `claimgate_reason`.
    pub outcome: &'static str,
}

impl Forwarded {
    /// A request that goes on as it came.
    const fn untouched(outcome: &'static str) -> Self {
        Self { remove: Vec::new(), set: Vec::new(), states: Vec::new(), outcome }
    }
}

/// An answer made by the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u16,
    /// Header lines.
    pub headers: Vec<(&'static str, String)>,
    /// Body; for gRPC the message.
    pub body: String,
    /// The `grpc-status`, for a client that speaks gRPC.
    pub grpc_status: Option<u8>,
    /// What `%RESPONSE_CODE_DETAILS%` shows.
    pub details: String,
    /// The outcome, for filter state `claimgate_reason`.
    pub outcome: &'static str,
}

/// The outcome of a request that goes on.
const OK: &str = "ok";

/// What a decision means in HTTP.
pub fn reply(request: &Request, config: &Config, decision: Decision) -> Effects {
    match decision {
        Decision::Allow(allow) if allow.mode == Mode::Enforce => Effects::Forward(forward(allow)),
        Decision::Allow(_) => Effects::Forward(Forwarded::untouched(OK)),
        Decision::Reject(rejection) if rejection.mode == Mode::Enforce => {
            Effects::Reply(reject(request, config.error_format, config.resource_metadata.as_deref(), &rejection))
        }
        Decision::Reject(rejection) => Effects::Forward(Forwarded::untouched(rejection.reason().as_str())),
        Decision::Await(need) => Effects::Park(need),
    }
}

fn forward(allow: Allow) -> Forwarded {
    Forwarded { remove: allow.remove, set: allow.set, states: allow.states, outcome: OK }
}

/// The answer to a rejected request.
///
/// `resource_metadata` is a URL for the challenge (RFC 9728 §5.1).
pub fn reject(
    request: &Request,
    format: ErrorFormat,
    resource_metadata: Option<&str>,
    rejection: &Rejection,
) -> LocalReply {
    let reason = rejection.reason();
    let status = reason.status();
    let mut headers = Vec::new();
    if format != ErrorFormat::Stripped {
        let challenge = challenge(request, resource_metadata, rejection);
        headers.extend(challenge.map(|challenge| ("www-authenticate", challenge)));
    }
    if let Some(wait) = rejection.retry_after {
        let seconds = if wait.subsec_nanos() > 0 { wait.as_secs().saturating_add(1) } else { wait.as_secs() };
        headers.push(("retry-after", seconds.to_string()));
    }
    // An answer about one client's token is nobody else's (RFC 9111 §5.2.2.5).
    headers.push(("cache-control", "no-store".to_owned()));
    let grpc_status = request.is_grpc().then(|| grpc_status(status));
    let body = match (format, grpc_status) {
        (ErrorFormat::Stripped | ErrorFormat::NoBody, _) => String::new(),
        (ErrorFormat::ProblemJson | ErrorFormat::Text, Some(_)) => format!("{reason}: {}", rejection.detail()),
        (ErrorFormat::ProblemJson, None) => {
            headers.push(("content-type", "application/problem+json".to_owned()));
            problem(rejection)
        }
        (ErrorFormat::Text, None) => {
            headers.push(("content-type", "text/plain".to_owned()));
            native_text(reason).to_owned()
        }
    };
    LocalReply {
        status,
        headers,
        body,
        grpc_status,
        details: format!("claimgate{{{reason}}}"),
        outcome: reason.as_str(),
    }
}

/// An answer of the gate's own, about itself.
pub fn json_reply(json: String) -> LocalReply {
    LocalReply {
        status: 200,
        headers: vec![("cache-control", "no-store".to_owned()), ("content-type", "application/json".to_owned())],
        body: json,
        grpc_status: None,
        details: "claimgate{status}".to_owned(),
        outcome: OK,
    }
}

/// The words of `jwt_authn` where it has some, for clients that know them.
const fn native_text(reason: Reason) -> &'static str {
    match reason {
        Reason::HeaderMissing => "Jwt is missing",
        Reason::TokenAmbiguous => "Found multiple Jwt tokens",
        Reason::TokenMalformed => "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        Reason::AlgorithmNotAllowed => "Jwt header [alg] is not supported",
        Reason::IssuerMismatch => "Jwt issuer is not configured",
        Reason::KeyNotFound | Reason::KeyMismatch => "Jwks doesn't have key to match kid or alg from Jwt",
        Reason::JwksUnavailable => "Jwks remote fetch is failed",
        Reason::SignatureInvalid | Reason::ExpirationMissing | Reason::LifetimeExceeded | Reason::SubjectMismatch => {
            "Jwt verification fails"
        }
        Reason::TokenExpired => "Jwt is expired",
        Reason::TokenNotYetValid => "Jwt not yet valid",
        Reason::AudienceMismatch => "Audiences in Jwt are not allowed",
        other => other.title(),
    }
}

/// A problem document (RFC 9457 §3).
fn problem(rejection: &Rejection) -> String {
    let reason = rejection.reason();
    json!({
        "type": format!("urn:claimgate:reason:{reason}"),
        "title": reason.title(),
        "status": reason.status(),
        "detail": rejection.detail(),
        "reason": reason.as_str(),
    })
    .to_string()
}

/// The challenge of RFC 6750 §3: without an error code where no token was presented, absent where none would help.
fn challenge(request: &Request, resource_metadata: Option<&str>, rejection: &Rejection) -> Option<String> {
    let reason = rejection.reason();
    let error = match reason.status() {
        400 => Some("invalid_request"),
        401 if reason == Reason::HeaderMissing => None,
        401 => Some("invalid_token"),
        403 => Some("insufficient_scope"),
        _ => return None,
    };
    let realm = realm(request.authority());
    let metadata =
        resource_metadata.map_or_else(String::new, |url| format!(", resource_metadata=\"{}\"", quotable(url)));
    Some(match error {
        None => format!("Bearer realm=\"{realm}\"{metadata}"),
        Some(error) => {
            let description = quotable(&format!("{reason}: {}", rejection.detail()));
            let scope = rejection.scope().filter(|_| reason == Reason::ScopeInsufficient);
            let scope = scope.map_or_else(String::new, |scope| format!(", scope=\"{}\"", quotable(&scope)));
            format!("Bearer realm=\"{realm}\", error=\"{error}\", error_description=\"{description}\"{scope}{metadata}")
        }
    })
}

/// The host alone: a path or a query may hold what nobody shall see again, and a port says nothing of a realm.
fn realm(authority: &[u8]) -> String {
    let end = match authority.iter().rposition(|&b| b == b':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some(colon) if !authority.iter().skip(colon).any(|&b| b == b']') => colon,
        _ => authority.len(),
    };
    let host = authority.iter().take(end);
    host.filter(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(b)).map(|&b| char::from(b)).collect()
}

/// The characters RFC 6750 §3 allows in `error_description`.
fn quotable(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '\'' }).collect()
}

/// The gRPC status of an HTTP status, as the contract maps them.
const fn grpc_status(status: u16) -> u8 {
    match status {
        400 => 3,
        403 => 7,
        503 => 14,
        _ => 16,
    }
}
