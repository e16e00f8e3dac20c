//! Claim by claim: what a token says, and what the policy expects. For people; decisions come from [`Policy::check`],
//! and the two make use of the same comparisons.

use serde_json::Value;

use super::{ClaimRule, Demand, Expiration, Extra, Issuer, Policy, check_audience, wrong};
use crate::claims::{Claim, ClaimsSet};
use crate::matcher::{Case, StringKind, StringMatcher};
use crate::rejection::{Reason, Violation};
use crate::time::UnixTime;

/// One claim, or one member of the header, held against what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Its name; names inside objects are joined by dots.
    pub name: String,
    /// What the token says.
    pub found: Found,
    /// What is expected.
    pub expected: Expected,
    /// What is violated, if it is.
    pub violation: Option<Violation>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Something of the wrong kind: which.
    Malformed(&'static str),
    /// A string, or several.
    Texts(Vec<String>),
    /// A moment.
    Time(UnixTime),
}

/// What is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing in particular.
    Anything,
    /// One of these.
    OneOf(Vec<String>),
    /// In words.
    Words(String),
    /// A later moment than this.
    After(UnixTime),
    /// A moment up to this one.
    Until(UnixTime),
    /// A moment from the first up to the second.
    Between(UnixTime, UnixTime),
}

impl Policy {
    /// What a token says and what is expected, claim by claim: the registered ones, then those that rules are about.
    pub fn compare<P>(&self, claims: &ClaimsSet<'_, P>, extra: Extra<'_>, now: UnixTime) -> Vec<Comparison> {
        let audiences = extra.audiences.unwrap_or(&self.audiences);
        let one_of = |list: Vec<String>| if list.is_empty() { Expected::Anything } else { Expected::OneOf(list) };
        let registered = |name: &'static str, found: Found, expected, violation: Option<Violation>| {
            let malformed = match &found {
                Found::Malformed(kind) => Some(Violation::new(Reason::ClaimMalformed, format!("`{name}` is {kind}"))),
                _ => None,
            };
            Comparison { name: name.to_owned(), found, expected, violation: violation.or(malformed) }
        };
        let latest = now.after(self.clock_skew);
        let mut comparisons = vec![
            registered(
                "iss",
                texts(&claims.iss, |iss| vec![iss.clone()]),
                one_of(self.issuers.iter().map(Issuer::template).collect()),
                self.check_issuer(&claims.iss),
            ),
            registered(
                "aud",
                texts(&claims.aud, Clone::clone),
                one_of(audiences.to_vec()),
                check_audience(audiences, &claims.aud),
            ),
            registered(
                "sub",
                texts(&claims.sub, |sub| vec![sub.clone()]),
                self.subjects.as_ref().map_or(Expected::Anything, |subjects| Expected::Words(words(subjects))),
                self.check_subject(&claims.sub),
            ),
            registered(
                "exp",
                time(&claims.exp),
                match (self.max_lifetime, self.expiration) {
                    (Some(lifetime), _) => Expected::Between(now.before(self.clock_skew), now.after(lifetime)),
                    (None, Expiration::Allow) if claims.exp == Claim::Absent => Expected::Anything,
                    (None, _) => Expected::After(now.before(self.clock_skew)),
                },
                self.check_expiration(&claims.exp, now).or_else(|| self.check_lifetime(&claims.exp, now)),
            ),
            registered(
                "nbf",
                time(&claims.nbf),
                if claims.nbf == Claim::Absent { Expected::Anything } else { Expected::Until(latest) },
                self.check_not_before(&claims.nbf, now),
            ),
            registered(
                "iat",
                time(&claims.iat),
                match self.max_age {
                    Some(age) => Expected::Between(now.before(age.saturating_add(self.clock_skew)), latest),
                    None if claims.iat == Claim::Absent => Expected::Anything,
                    None => Expected::Until(latest),
                },
                self.check_issued_at(&claims.iat, now).or_else(|| self.check_age(&claims.iat, now)),
            ),
        ];
        comparisons.extend(self.claims.iter().chain(extra.claims).map(|rule| rule.compare(claims)));
        comparisons
    }
}

impl ClaimRule {
    fn compare<P>(&self, claims: &ClaimsSet<'_, P>) -> Comparison {
        let list = |values: &[Value]| values.iter().map(plain).collect::<Vec<_>>();
        Comparison {
            name: self.path.join("."),
            found: match claims.at(&self.path) {
                None => Found::Nothing,
                Some(Value::Array(items)) => Found::Texts(list(items)),
                Some(value) => Found::Texts(vec![plain(value)]),
            },
            expected: match &self.demand {
                Demand::AnyOf(values) => Expected::OneOf(list(values)),
                Demand::AllOf(values) => Expected::Words(format!("all of {}", list(values).join(", "))),
                Demand::NoneOf(values) => Expected::Words(format!("none of {}", list(values).join(", "))),
                Demand::Equals(value) => Expected::Words(plain(value)),
                Demand::Matches(pattern) => Expected::Words(format!("what matches {}", pattern.expression())),
                Demand::Exists(true) => Expected::Words("any value".to_owned()),
                Demand::Exists(false) => Expected::Words("no such claim".to_owned()),
            },
            violation: self.check(claims),
        }
    }
}

fn texts<T>(claim: &Claim<T>, list: impl Fn(&T) -> Vec<String>) -> Found {
    match claim {
        Claim::Present(value) => Found::Texts(list(value)),
        Claim::Absent | Claim::Malformed(_) => wrong(claim).map_or(Found::Nothing, Found::Malformed),
    }
}

fn time(claim: &Claim<UnixTime>) -> Found {
    match claim {
        Claim::Present(time) => Found::Time(*time),
        Claim::Absent | Claim::Malformed(_) => wrong(claim).map_or(Found::Nothing, Found::Malformed),
    }
}

/// A string as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn words(matcher: &StringMatcher) -> String {
    let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let words = match &matcher.kind {
        StringKind::Exact(exact) => text(exact),
        StringKind::Prefix(prefix) => format!("what begins with {}", text(prefix)),
        StringKind::Suffix(suffix) => format!("what ends with {}", text(suffix)),
        StringKind::Contains(part) => format!("what holds {}", text(part)),
        StringKind::Regex(pattern) => format!("what matches {}", pattern.expression()),
    };
    match matcher.case {
        Case::Sensitive => words,
        Case::Ignored => format!("{words}, in any case"),
    }
}
