//! One request to both filters, and what came of it.

use std::collections::BTreeSet;
use std::fmt;

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use claimgate_testbed::{Answer, Client, Received, Upstream};
use serde_json::Value;

/// A configuration that both filters are given, and a request.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    pub configuration: &'a Value,
    pub request: &'a Request,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// What one filter made of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: u16,
    /// `%RESPONSE_CODE_DETAILS%` of an answer that is not the upstream's: the filter's own word.
    pub details: String,
    pub challenge: String,
    /// What the upstream received.
    pub forwarded: Option<Forwarded>,
}

/// A request as the upstream received it.
#[derive(Clone, Debug, PartialEq)]
pub struct Forwarded {
    pub method: String,
    pub path: String,
    /// By name; several values of one name are in their order. Without those that Envoy makes anew for each request.
    pub headers: Vec<(String, Text)>,
}

/// A header's value. JSON in base64, as claims that are lists or objects are written, counts by its meaning.
#[derive(Clone, Debug)]
pub struct Text(pub String);

/// A token as it stands in a request, decoded without being believed.
#[derive(Clone, Debug)]
pub struct Token {
    pub place: Place,
    /// All that stands there.
    pub text: String,
    pub compact: String,
    pub header: Value,
    pub claims: Value,
}

/// Where a token may stand. Headers' names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Header(String),
    Param(String),
    Cookie(String),
}

impl Request {
    pub fn get(path: impl Into<String>) -> Self {
        Request { method: "GET".to_owned(), path: path.into(), headers: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// The values of a header.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// The values of all headers, and path and query, decoded.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.headers.iter().map(|(_, value)| value.clone()).chain([percent_decoded(&self.path)])
    }

    /// All that stands where a token may stand.
    pub fn credentials(&self) -> Vec<(Place, String)> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.trim().to_owned(), value.to_owned())
        };
        let query = percent_decoded(self.path.split_once('?').map_or("", |(_, query)| query));
        let params = query.split('&').map(pair).map(|(name, value)| (Place::Param(name), value));
        let cookies = self.values("cookie").flat_map(|value| value.split(';')).map(pair);
        let cookies = cookies.map(|(name, value)| (Place::Cookie(name), value));
        let headers = self.headers.iter().map(|(name, value)| (Place::Header(name.to_lowercase()), value.clone()));
        let all = headers.chain(params).chain(cookies);
        let tokens = all.filter(|(place, _)| match place {
            Place::Header(name) => ["authorization", "x-jwt"].contains(&name.as_str()),
            Place::Param(name) => ["access_token", "jwt"].contains(&name.as_str()),
            Place::Cookie(name) => ["id", "session"].contains(&name.as_str()),
        });
        tokens.collect()
    }

    /// The tokens in it, whatever stands around them.
    pub fn tokens(&self) -> Vec<Token> {
        let in_text = |(place, text): (Place, String)| {
            let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let words: Vec<String> = text.split(|c| !token(c)).map(str::to_owned).collect();
            words.into_iter().filter_map(move |word| Token::parse(&place, &text, word))
        };
        self.credentials().into_iter().flat_map(in_text).collect()
    }

    /// Sends it through one listener.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn send(&self, client: &Client, upstream: &Upstream) -> Outcome {
        let mut request = client.request(&self.method, &self.path).header("host", HOST);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer =
            if self.method == "CONNECT" { Answer::parse(&client.raw(&self.connect())) } else { request.send() };
        let mut received = upstream.take_received();
        assert!(received.len() < 2, "one request reached the upstream {} times", received.len());
        Outcome::new(&answer, received.pop())
    }
}

impl Request {
    /// The request of someone who wants a tunnel: it names a host, and no path.
    fn connect(&self) -> Vec<u8> {
        let mut text = format!("CONNECT {HOST}:443 HTTP/1.1\r\nhost: {HOST}:443\r\nconnection: close\r\n");
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        (text + "\r\n").into_bytes()
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        for (name, value) in &self.headers {
            write!(f, "\n{name}: {value}")?;
        }
        for token in self.tokens() {
            write!(f, "\n  a token: {} {}", token.header, token.claims)?;
        }
        Ok(())
    }
}

impl Outcome {
    fn new(answer: &Answer, received: Option<Received>) -> Self {
        let challenges = answer.headers.iter().filter(|(name, _)| name == "www-authenticate");
        let challenges: Vec<_> = challenges.map(|(_, value)| String::from_utf8_lossy(value)).collect();
        Outcome {
            status: answer.status,
            details: answer.details().unwrap_or_default().to_owned(),
            challenge: challenges.join("\n"),
            forwarded: received.map(Forwarded::new),
        }
    }

    /// Whether the filter let the request pass.
    pub fn passed(&self) -> bool {
        // What passes and finds no route is answered by the router.
        self.forwarded.is_some() || self.details == "route_not_found"
    }

    /// Ours: the reason of a rejection. Theirs: its text.
    pub fn reason(&self) -> &str {
        self.details.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'))
    }

    /// Whether clients and upstream see the same.
    pub fn agrees_with(&self, other: &Outcome) -> bool {
        self.status == other.status && self.passed() == other.passed() && self.forwarded == other.forwarded
    }

    /// The values of a header that the upstream received.
    pub fn forwarded_values(&self, name: &str) -> Vec<&str> {
        let headers = self.forwarded.iter().flat_map(|forwarded| &forwarded.headers);
        headers.filter(|(known, _)| known == name).map(|(_, value)| value.0.as_str()).collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.details)?;
        if let Some(forwarded) = &self.forwarded {
            write!(f, "\n  {} {}", forwarded.method, forwarded.path)?;
            for (name, value) in &forwarded.headers {
                write!(f, "\n  {name}: {}", value.0)?;
            }
        }
        Ok(())
    }
}

impl Forwarded {
    fn new(received: Received) -> Self {
        let headers = received.headers.into_iter().filter(|(name, _)| !OF_EACH_REQUEST.contains(&name.as_str()));
        let text = |value: Vec<u8>| {
            Text(String::from_utf8(value).unwrap_or_else(|error| error.into_bytes().escape_ascii().to_string()))
        };
        let mut headers: Vec<_> = headers.map(|(name, value)| (name, text(value))).collect();
        headers.sort_by(|(a, _), (b, _)| a.cmp(b));
        Forwarded { method: received.method, path: received.path, headers }
    }
}

impl Text {
    /// The list or object that it holds in base64.
    pub fn json(&self) -> Option<Value> {
        let bytes = BASE64_STANDARD.decode(&self.0).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|value: &Value| value.is_array() || value.is_object())
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.json().is_some_and(|value| other.json() == Some(value))
    }
}

impl Token {
    fn parse(place: &Place, text: &str, compact: String) -> Option<Self> {
        let mut parts = compact.split('.').filter(|part| !part.is_empty());
        let mut json = || {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
            serde_json::from_slice(&bytes).ok().filter(Value::is_object)
        };
        let (header, claims) = (json()?, json()?);
        Some(Token { place: place.clone(), text: text.to_owned(), compact, header, claims })
    }
}

impl Case<'_> {
    /// The providers, each with its name.
    pub fn providers(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.configuration["providers"].as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether `kind` of requirement occurs anywhere in the configuration.
    pub fn has_requirement(&self, kind: &str) -> bool {
        fn within(value: &Value, kind: &str) -> bool {
            match value {
                Value::Object(members) => members.iter().any(|(name, value)| name == kind || within(value, kind)),
                Value::Array(values) => values.iter().any(|value| within(value, kind)),
                _ => false,
            }
        }
        within(&self.configuration["rules"], kind) || within(&self.configuration["requirement_map"], kind)
    }

    /// The headers that either filter may set.
    pub fn managed(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::from(["x-jwt-signature-verified".to_owned()]);
        for (_, provider) in self.providers() {
            let claims = provider["claim_to_headers"].as_array().into_iter().flatten();
            let all = claims.map(|entry| &entry["header_name"]).chain([&provider["forward_payload_header"]]);
            names.extend(all.filter_map(|name| name.as_str().map(str::to_lowercase)));
        }
        names
    }
}

/// `%XX` decoded; for looking only.
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |bytes: &[u8]| u8::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok();
        match tail.get(..2).filter(|_| *first == b'%').and_then(hex) {
            Some(byte) => (bytes.push(byte), rest = &tail[2..]).1,
            None => (bytes.push(*first), rest = tail).1,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub const HOST: &str = "gate.example.com";
const OF_EACH_REQUEST: [&str; 1] = ["x-request-id"];
