//! What a provider demands of claims (RFC 7519 §4.1, RFC 8725 §3).

use std::time::Duration;

use crate::claims::{Claim, ClaimsSet};
use crate::rejection::{Reason, Violation};
use crate::time::UnixTime;

/// What a provider demands of a token's claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The only issuer accepted, compared byte for byte; nothing: any.
    pub issuer: Option<String>,
    /// Audiences of which the token must name one, compared byte for byte; none: any.
    pub audiences: Vec<String>,
    /// By how much clocks may differ.
    pub clock_skew: Duration,
}

impl Policy {
    /// Every rule that a claims set violates, in the order of [`Reason`].
    pub fn check<P>(&self, claims: &ClaimsSet<P>, now: UnixTime) -> Vec<Violation> {
        let mut violations: Vec<Violation> = [
            self.check_issuer(&claims.iss),
            malformed(claims),
            self.check_expiration(&claims.exp, now),
            self.check_not_before(&claims.nbf, now),
            self.check_issued_at(&claims.iat, now),
            self.check_audience(&claims.aud),
        ]
        .into_iter()
        .flatten()
        .collect();
        violations.sort_by_key(|violation| violation.reason);
        violations
    }

    /// Compares the issuer.
    pub fn check_issuer(&self, iss: &Claim<String>) -> Option<Violation> {
        let expected = self.issuer.as_ref()?;
        let detail = match iss {
            Claim::Present(found) if found == expected => return None,
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
            Claim::Absent => Some(Violation::new(
                Reason::ExpirationMissing,
                "`exp` is missing, a token that never expires is refused",
            )),
            Claim::Present(_) | Claim::Malformed(_) => None,
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

    fn check_audience(&self, aud: &Claim<Vec<String>>) -> Option<Violation> {
        if self.audiences.is_empty() {
            return None;
        }
        let detail = match aud {
            Claim::Present(found) if found.iter().any(|aud| self.audiences.contains(aud)) => return None,
            Claim::Present(_) => "`aud` names none of the audiences that are expected",
            Claim::Absent => "`aud` is missing",
            Claim::Malformed(_) => "`aud` is not a string or an array of strings",
        };
        Some(Violation::new(Reason::AudienceMismatch, detail))
    }
}

fn malformed<P>(claims: &ClaimsSet<P>) -> Option<Violation> {
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
