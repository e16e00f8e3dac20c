//! What a provider demands of claims (RFC 7519 §4.1, RFC 8725 §3), and what a rule may demand beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::claims::{Claim, ClaimsSet};
use crate::json;
use crate::matcher::{Pattern, StringMatcher};
use crate::rejection::{Reason, Violation};
use crate::time::UnixTime;

mod comparison;

pub use comparison::{Comparison, Expected, Found};

/// What a provider demands of a token's claims.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The issuers accepted; none: any.
    pub issuers: Vec<Issuer>,
    /// Audiences of which the token must name one, compared byte for byte; none: any.
    pub audiences: Vec<String>,
    /// What `sub` must be.
    pub subjects: Option<StringMatcher>,
    /// Whether a token must end.
    pub expiration: Expiration,
    /// Longest time that a token may have left.
    pub max_lifetime: Option<Duration>,
    /// Longest time since a token was issued.
    pub max_age: Option<Duration>,
    /// By how much clocks may differ.
    pub clock_skew: Duration,
    /// What other claims must be.
    pub claims: Vec<ClaimRule>,
}

/// Whether a token must have `exp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiration {
    /// It must.
    Require,
    /// It need not.
    Allow,
}

/// An issuer, compared byte for byte: `before`, one path segment, `after`; or `before` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    before: String,
    segment: Option<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    name: String,
    after: String,
    values: BTreeSet<String>,
}

impl Issuer {
    /// The issuer of exactly this name.
    pub const fn exact(issuer: String) -> Self {
        Self { before: issuer, segment: None }
    }

    /// An issuer that may hold one template segment, as `https://login.example.com/{tid}/v2.0` does. `values` are those
    /// that the segment may have; none: any.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub fn new(template: &str, values: Vec<String>) -> Result<Self, &'static str> {
        let Some((before, rest)) = template.split_once('{') else {
            return match (values.is_empty(), template.contains('}')) {
                (true, false) => Ok(Self { before: template.to_owned(), segment: None }),
                (false, _) => Err("`values` without a `{name}` segment"),
                (true, true) => Err("a `}` without a `{`"),
            };
        };
        let Some((name, after)) = rest.split_once('}') else { return Err("a `{` without a `}`") };
        if name.is_empty() || after.contains(['{', '}']) || name.contains('{') {
            return Err("one `{name}` segment was expected");
        }
        if !before.ends_with('/') || !(after.is_empty() || after.starts_with('/')) {
            return Err("`{name}` must be a whole path segment");
        }
        // A template for the host would let anybody be the issuer.
        if !before.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains(|c| c != '/')) {
            return Err("`{name}` must stand in the path, behind a scheme and a host");
        }
        let mut segment = Segment { name: name.to_owned(), after: after.to_owned(), values: BTreeSet::new() };
        segment.values.extend(values);
        Ok(Self { before: before.to_owned(), segment: Some(segment) })
    }

    /// The issuer, if it is one and no template.
    pub fn as_exact(&self) -> Option<&str> {
        self.segment.is_none().then_some(self.before.as_str())
    }

    /// Whether `iss` is this issuer.
    pub fn matches(&self, iss: &str) -> bool {
        let Some(segment) = &self.segment else { return iss == self.before };
        let value = iss.strip_prefix(&self.before).and_then(|rest| rest.strip_suffix(&segment.after));
        value.is_some_and(|value| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            !value.is_empty()
                && value.bytes().all(plain)
                && !matches!(value, "." | "..")
                && (segment.values.is_empty() || segment.values.contains(value))
        })
    }

    /// The issuer as it was configured.
    pub fn template(&self) -> String {
        match &self.segment {
            None => self.before.clone(),
            Some(Segment { name, after, .. }) => format!("{}{{{name}}}{after}", self.before),
        }
    }
}

/// What one claim must be.
#[derive(Clone, Debug)]
pub struct ClaimRule {
    /// The names of the members that lead to the claim, outermost first.
    pub path: Vec<String>,
    /// What it must be.
    pub demand: Demand,
}

/// What a claim must be. Where several values are compared, a single one is a list of one, and the string of a scope is
/// the list of its words.
#[derive(Clone, Debug)]
pub enum Demand {
    /// One of the values, at least.
    AnyOf(Vec<Value>),
    /// Each of the values.
    AllOf(Vec<Value>),
    /// None of the values; a claim that is not there has none.
    NoneOf(Vec<Value>),
    /// This value.
    Equals(Value),
    /// A string, or a list of strings of which one matches.
    Matches(Pattern),
    /// There (and not null), or not there.
    Exists(bool),
}

/// What a rule demands beyond its provider.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra<'c> {
    /// Audiences in place of the provider's.
    pub audiences: Option<&'c [String]>,
    /// What claims must be, beside the provider's demands.
    pub claims: &'c [ClaimRule],
}

impl Policy {
    /// Every rule that a claims set violates, in the order of [`Reason`].
    pub fn check<P>(&self, claims: &ClaimsSet<'_, P>, extra: Extra<'_>, now: UnixTime) -> Vec<Violation> {
        let mut violations = Vec::new();
        violations.extend(self.check_issuer(&claims.iss));
        violations.extend(malformed(claims));
        violations.extend(self.check_expiration(&claims.exp, now));
        violations.extend(self.check_not_before(&claims.nbf, now));
        violations.extend(self.check_issued_at(&claims.iat, now));
        violations.extend(self.check_lifetime(&claims.exp, now));
        violations.extend(self.check_age(&claims.iat, now));
        violations.extend(check_audience(extra.audiences.unwrap_or(&self.audiences), &claims.aud));
        violations.extend(self.check_subject(&claims.sub));
        violations.extend(self.claims.iter().chain(extra.claims).filter_map(|rule| rule.check(claims)));
        Violation::in_order(violations)
    }

    /// Compares the issuer.
    pub fn check_issuer(&self, iss: &Claim<String>) -> Option<Violation> {
        if self.issuers.is_empty() {
            return None;
        }
        let detail = match iss {
            Claim::Present(found) if self.issuers.iter().any(|issuer| issuer.matches(found)) => return None,
            Claim::Present(_) => "`iss` is not the issuer that is expected",
            Claim::Absent => "`iss` is missing",
            Claim::Malformed(_) => "`iss` is not a string",
        };
        Some(Violation::new(Reason::IssuerMismatch, detail))
    }

    /// Not on or after `exp`, give or take the skew.
    fn check_expiration(&self, exp: &Claim<UnixTime>, now: UnixTime) -> Option<Violation> {
        match exp {
            Claim::Present(exp) if now >= exp.after(self.clock_skew) => Some(Violation::new(
                Reason::TokenExpired,
                format!("expired {} ago, {} allowed", seconds(now.since(*exp)), seconds(self.clock_skew)),
            )),
            Claim::Absent if self.expiration == Expiration::Require => Some(Violation::new(
                Reason::ExpirationMissing,
                "`exp` is missing, a token that never expires is refused",
            )),
            Claim::Absent | Claim::Present(_) | Claim::Malformed(_) => None,
        }
    }

    /// Not before `nbf`, give or take the skew.
    fn check_not_before(&self, nbf: &Claim<UnixTime>, now: UnixTime) -> Option<Violation> {
        let nbf = *nbf.present()?;
        (now.after(self.clock_skew) < nbf).then(|| {
            Violation::new(
                Reason::TokenNotYetValid,
                format!("valid in {}, {} allowed", seconds(nbf.since(now)), seconds(self.clock_skew)),
            )
        })
    }

    /// A token issued in the future tells of a clock that is wrong.
    fn check_issued_at(&self, iat: &Claim<UnixTime>, now: UnixTime) -> Option<Violation> {
        let iat = *iat.present()?;
        (now.after(self.clock_skew) < iat).then(|| {
            Violation::new(
                Reason::TokenNotYetValid,
                format!("issued {} in the future, {} allowed", seconds(iat.since(now)), seconds(self.clock_skew)),
            )
        })
    }

    /// As `jwt_authn`: what a token has left, and not what it had.
    fn check_lifetime(&self, exp: &Claim<UnixTime>, now: UnixTime) -> Option<Violation> {
        let allowed = self.max_lifetime?;
        let detail = match exp {
            Claim::Present(exp) if exp.since(now) < allowed => return None,
            Claim::Present(exp) => {
                format!("valid for another {}, less than {} allowed", seconds(exp.since(now)), seconds(allowed))
            }
            Claim::Absent | Claim::Malformed(_) => {
                format!("valid for ever, less than {} allowed", seconds(allowed))
            }
        };
        Some(Violation::new(Reason::LifetimeExceeded, detail))
    }

    fn check_age(&self, iat: &Claim<UnixTime>, now: UnixTime) -> Option<Violation> {
        let allowed = self.max_age?;
        let detail = match iat {
            Claim::Present(iat) if now.since(*iat) <= allowed.saturating_add(self.clock_skew) => return None,
            Claim::Present(iat) => format!("issued {} ago, {} allowed", seconds(now.since(*iat)), seconds(allowed)),
            Claim::Absent | Claim::Malformed(_) => {
                format!("`iat` is missing, {} since then are allowed", seconds(allowed))
            }
        };
        Some(Violation::new(Reason::LifetimeExceeded, detail))
    }

    fn check_subject(&self, sub: &Claim<String>) -> Option<Violation> {
        let detail = match (self.subjects.as_ref()?, sub) {
            (subjects, Claim::Present(sub)) if subjects.matches(sub.as_bytes()) => return None,
            (_, Claim::Absent) => "`sub` is missing",
            (_, Claim::Present(_) | Claim::Malformed(_)) => "`sub` is not a subject that is expected",
        };
        Some(Violation::new(Reason::SubjectMismatch, detail))
    }
}

fn check_audience(expected: &[String], aud: &Claim<Vec<String>>) -> Option<Violation> {
    if expected.is_empty() {
        return None;
    }
    let detail = match aud {
        Claim::Present(found) if found.iter().any(|aud| expected.contains(aud)) => return None,
        Claim::Present(_) => "`aud` names none of the audiences that are expected",
        Claim::Absent => "`aud` is missing",
        Claim::Malformed(_) => "`aud` is not a string or an array of strings",
    };
    Some(Violation::new(Reason::AudienceMismatch, detail))
}

impl ClaimRule {
    fn check<P>(&self, claims: &ClaimsSet<'_, P>) -> Option<Violation> {
        let name = self.path.join(".");
        let claim = claims.at(&self.path).filter(|value| !value.is_null());
        let (reason, lists_words) = match self.path.last().map(String::as_str) {
            Some("scope" | "scp") => (Reason::ScopeInsufficient, true),
            Some("permissions" | "scopes") => (Reason::ClaimMismatch, true),
            _ => (Reason::ClaimMismatch, false),
        };
        let violated = |detail: String| Some(Violation::new(reason, detail));
        let Some(claim) = claim else {
            return match &self.demand {
                Demand::NoneOf(_) | Demand::Exists(false) => None,
                Demand::AnyOf(values) | Demand::AllOf(values) => {
                    violated(format!("`{name}` is missing")).map(|violation| violation.needing(scope(reason, values)))
                }
                Demand::Equals(_) | Demand::Matches(_) | Demand::Exists(true) => {
                    violated(format!("`{name}` is missing"))
                }
            };
        };
        let list = || match values(claim, lists_words) {
            Some(list) => Ok(list),
            None => Err(format!("`{name}` is {}, strings, numbers or booleans were expected", json::kind(claim))),
        };
        let has = |list: &[Value], value: &Value| list.iter().any(|item| same(item, value));
        match &self.demand {
            Demand::Exists(true) => None,
            Demand::Exists(false) => violated(format!("`{name}` is there and must not be")),
            Demand::Equals(value) => {
                let same_words = || {
                    let (found, expected) = (values(claim, true)?, values(value, true)?);
                    Some(found == expected)
                };
                if same(claim, value) || (lists_words && same_words() == Some(true)) {
                    return None;
                }
                violated(format!("`{name}` is not what is expected"))
            }
            Demand::AnyOf(expected) => match list() {
                Err(detail) => violated(detail),
                Ok(list) if expected.iter().any(|value| has(&list, value)) => None,
                Ok(_) => violated(format!("`{name}` holds none of the values of which one is expected"))
                    .map(|violation| violation.needing(scope(reason, expected))),
            },
            Demand::AllOf(expected) => match list() {
                Err(detail) => violated(detail),
                Ok(list) => {
                    let missing: Vec<Value> = expected.iter().filter(|value| !has(&list, value)).cloned().collect();
                    if missing.is_empty() {
                        return None;
                    }
                    violated(format!("`{name}` lacks {} of the values that are expected", missing.len()))
                        .map(|violation| violation.needing(scope(reason, &missing)))
                }
            },
            Demand::NoneOf(refused) => match list() {
                Err(detail) => violated(detail),
                Ok(list) if refused.iter().any(|value| has(&list, value)) => {
                    violated(format!("`{name}` holds a value that is refused"))
                }
                Ok(_) => None,
            },
            Demand::Matches(pattern) => {
                let texts: Option<Vec<&str>> = match claim {
                    Value::Array(items) => items.iter().map(Value::as_str).collect(),
                    other => other.as_str().map(|text| vec![text]),
                };
                match texts {
                    None => violated(format!("`{name}` is {}, a string was expected", json::kind(claim))),
                    Some(texts) if texts.iter().any(|text| pattern.matches(text.as_bytes())) => None,
                    Some(_) => violated(format!("`{name}` does not match what is expected")),
                }
            }
        }
    }
}

/// The values of a claim as a list: words of a scope, items of an array, or the one value there is.
fn values(claim: &Value, lists_words: bool) -> Option<Vec<Value>> {
    let is_scalar = |value: &Value| matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_));
    match claim {
        Value::String(words) if lists_words => {
            Some(words.split(' ').filter(|w| !w.is_empty()).map(Value::from).collect())
        }
        Value::Array(items) if items.iter().all(is_scalar) => Some(items.clone()),
        one if is_scalar(one) => Some(vec![one.clone()]),
        _ => None,
    }
}

/// Whether two values are the same: numbers by what they count, the rest by form and content.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) if x.is_f64() || y.is_f64() => x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

/// The scope that a client should ask for (RFC 6750 §3).
fn scope(reason: Reason, values: &[Value]) -> Option<String> {
    let words: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
    (reason == Reason::ScopeInsufficient && !words.is_empty()).then(|| words.join(" "))
}

fn malformed<P>(claims: &ClaimsSet<'_, P>) -> Option<Violation> {
    const STRING: &str = "a string";
    const DATE: &str = "a number of seconds";
    let found = |name, found: Option<&'static str>, expected| found.map(|found| (name, found, expected));
    let (name, found, expected) = [
        found("iss", wrong(&claims.iss), STRING),
        found("sub", wrong(&claims.sub), STRING),
        found("aud", wrong(&claims.aud), "a string or an array of strings"),
        found("exp", wrong(&claims.exp), DATE),
        found("nbf", wrong(&claims.nbf), DATE),
        found("iat", wrong(&claims.iat), DATE),
        found("jti", wrong(&claims.jti), STRING),
    ]
    .into_iter()
    .flatten()
    .next()?;
    Some(Violation::new(Reason::ClaimMalformed, format!("`{name}` is {found}, {expected} was expected")))
}

const fn wrong<T>(claim: &Claim<T>) -> Option<&'static str> {
    match claim {
        Claim::Malformed(found) => Some(*found),
        _ => None,
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_and_templates() {
        let exact = Issuer::new("https://a/", vec![]).expect("an issuer");
        assert!(exact.matches("https://a/"));
        assert!(!exact.matches("https://a"));
        let template = Issuer::new("https://login.example.com/{tid}/v2.0", vec![]).expect("a template");
        assert_eq!(template.template(), "https://login.example.com/{tid}/v2.0");
        assert!(template.matches("https://login.example.com/9f-x_1.~/v2.0"));
        for other in ["", "/", "a/b", "a?b", "a#", "a%2Fb", "..", ".", "a b", "é"] {
            assert!(!template.matches(&format!("https://login.example.com/{other}/v2.0")), "{other}");
        }
        assert!(!template.matches("https://login.example.com/v2.0"), "the two halves do not overlap");
        assert!(!template.matches("https://login.example.com.evil/x/v2.0"));
        let listed = Issuer::new("https://a/{t}", vec!["x".into(), "y".into()]).expect("a template");
        assert!(listed.matches("https://a/x") && !listed.matches("https://a/z"));
        for bad in [
            "https://{host}/",
            "https://a.{t}/",
            "{t}",
            "https://a/{t}x",
            "https://a/{a}/{b}",
            "https://a/{}",
            "https://a/{t",
            "a}",
        ] {
            assert!(Issuer::new(bad, vec![]).is_err(), "{bad}");
        }
        assert!(Issuer::new("https://a/", vec!["x".into()]).is_err());
    }
}
