//! What becomes of a request that goes on: what is taken out of it, and what is written into it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Accepted, Allow, Because, Court};
use crate::claims::{ClaimsSet, Verified};
use crate::config::{ClaimFormat, ClaimHeader, Forward, Mode, Padding, Provider};
use crate::extract::{Place, without_cookies, without_params};
use crate::limits::CLAIM_HEADER_BYTES;
use crate::token_cache::Notes;

impl<'a> Court<'a, '_> {
    /// A request that goes on. Every header that any provider may set is removed from every request, so that none can be
    /// brought along; then tokens that end here are cut out, and what the accepted ones say is written down.
    pub(super) fn allow(
        self,
        because: Because,
        accepted: &[Accepted<'a>],
        failed: Option<String>,
        mode: Mode,
    ) -> Allow {
        let mut remove: Vec<String> = Vec::new();
        if self.config.manages_headers() {
            for (name, _) in self.request.headers() {
                if self.config.is_managed(name) && !remove.iter().any(|other| other == name) {
                    remove.push(name.to_owned());
                }
            }
        }
        let mut allow = Allow { because, mode, remove, set: Vec::new(), states: Vec::new(), omitted: Vec::new() };
        self.cut_out(accepted.iter().filter(|token| token.provider.forward == Forward::Strip), &mut allow);
        for token in accepted {
            let notes = &token.proof.notes;
            for (name, value) in &notes.set {
                put(&mut allow.set, name, value.clone());
            }
            allow.states.extend_from_slice(&notes.states);
            allow.omitted.extend_from_slice(&notes.omitted);
        }
        allow.set.extend(failed.map(|header| (header, b"false".to_vec())));
        allow
    }

    fn cut_out<'t>(self, tokens: impl Iterator<Item = &'t Accepted<'a>>, allow: &mut Allow)
    where
        'a: 't,
    {
        let (mut params, mut cookies) = (Vec::new(), Vec::new());
        for token in tokens {
            match token.place {
                Place::Header(name) if !allow.remove.iter().any(|other| other == name) => {
                    allow.remove.push(name.to_owned());
                }
                Place::Header(_) => {}
                Place::Param(name) => params.push(name),
                Place::Cookie(name) => cookies.push(name),
            }
        }
        if !params.is_empty() {
            allow.set.extend(without_params(self.request, &params).map(|target| (":path".to_owned(), target)));
        }
        if !cookies.is_empty() {
            allow.remove.push("cookie".to_owned());
            let rest = without_cookies(self.request, &cookies);
            if !rest.is_empty() {
                allow.set.push(("cookie".to_owned(), rest));
            }
        }
    }
}

/// What a provider tells the upstream of a token.
pub(super) fn notes(provider: &Provider, claims: &ClaimsSet<'_, Verified>) -> Notes {
    let mut notes = Notes::default();
    if let Some(header) = &provider.payload_header {
        let mut value = claims.jws().encoded_payload().to_vec();
        if header.padding == Padding::Add {
            value.resize(value.len().next_multiple_of(4), b'=');
        }
        put(&mut notes.set, &header.name, value);
    }
    for header in &provider.claim_headers {
        let Some(text) = header_text(claims, header) else { continue };
        match text.and_then(fit_for_a_header) {
            Ok(text) => put(&mut notes.set, &header.name, text.into_bytes()),
            Err(why) => notes.omitted.push((header.name.clone(), why)),
        }
    }
    for (key, path) in &provider.claim_states {
        let text = match claims.at(path) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => claims.text_at(path),
        };
        match text.ok_or("the claim cannot be read").and_then(fit_for_a_header) {
            Ok(text) => notes.states.push((key.clone(), text)),
            Err(why) => notes.omitted.push((key.clone(), why)),
        }
    }
    notes
}

/// Sets a header; the last of several values for one counts.
fn put(headers: &mut Vec<(String, Vec<u8>)>, name: &str, value: Vec<u8>) {
    headers.retain(|(other, _)| other != name);
    headers.push((name.to_owned(), value));
}

/// A claim as a header's value; nothing if there is none. Arrays and objects as configured, by default as `jwt_authn`
/// writes them; null is no value.
fn header_text(claims: &ClaimsSet<'_, Verified>, header: &ClaimHeader) -> Option<Result<String, &'static str>> {
    let json = || claims.text_at(&header.path).ok_or("the claim cannot be read");
    Some(match (claims.at(&header.path)?, header.format) {
        (Value::Null, _) => return None,
        // As in `jwt_authn`, nothing to say is no header.
        (Value::String(text), _) if text.is_empty() => return None,
        (Value::String(text), _) => Ok(text.clone()),
        (Value::Bool(value), _) => Ok(value.to_string()),
        (Value::Number(_), _) => json(),
        (Value::Array(_) | Value::Object(_), ClaimFormat::Base64Json) => json().map(|json| STANDARD.encode(json)),
        (Value::Array(_) | Value::Object(_), ClaimFormat::Json) => json(),
        (Value::Object(_), ClaimFormat::Comma) => Err("an object cannot be written as a list"),
        (Value::Array(items), ClaimFormat::Comma) => {
            let item = |item: &Value| match item {
                Value::String(text) if !text.contains(',') => Ok(text.clone()),
                Value::Bool(_) | Value::Number(_) => Ok(item.to_string()),
                _ => Err("an item cannot be written in a list with commas"),
            };
            items.iter().map(item).collect::<Result<Vec<_>, _>>().map(|items| items.join(","))
        }
    })
}

fn fit_for_a_header(text: String) -> Result<String, &'static str> {
    if text.len() > CLAIM_HEADER_BYTES {
        Err("the claim is too long for a header")
    } else if text.bytes().any(|b| b < b' ' || b == 0x7F) {
        Err("the claim holds control characters")
    } else {
        Ok(text)
    }
}
