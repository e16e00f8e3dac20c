//! The claims set: each registered claim is absent, malformed or present (RFC 7519 §2, §4.1).

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json;
use crate::jws::UnverifiedJws;
use crate::signature::VerifiedJws;
use crate::time::UnixTime;

/// Marks a claims set whose token's signature was verified.
#[derive(Clone, Copy, Debug)]
pub enum Verified {}

/// Marks a claims set that anybody may have written: fit for reports, and for nothing else.
#[derive(Clone, Copy, Debug)]
pub enum Unverified {}

/// The claims of one token, read once and cheap to clone. What may be done with them depends on `P`: only a verified set
/// annotates a request.
#[derive(Clone, Debug)]
pub struct ClaimsSet<'t, P = Verified> {
    registered: Rc<Registered>,
    jws: Rc<UnverifiedJws<'t>>,
    proof: PhantomData<P>,
}

/// The registered claims.
#[derive(Debug)]
pub struct Registered {
    /// Who issued it (RFC 7519 §4.1.1).
    pub iss: Claim<String>,
    /// Whom it speaks of (§4.1.2).
    pub sub: Claim<String>,
    /// Whom it is meant for (§4.1.3): one or several.
    pub aud: Claim<Vec<String>>,
    /// When it ends (§4.1.4).
    pub exp: Claim<UnixTime>,
    /// When it begins (§4.1.5).
    pub nbf: Claim<UnixTime>,
    /// When it was issued (§4.1.6).
    pub iat: Claim<UnixTime>,
    /// Its name (§4.1.7).
    pub jti: Claim<String>,
}

impl<P> Deref for ClaimsSet<'_, P> {
    type Target = Registered;

    fn deref(&self) -> &Registered {
        &self.registered
    }
}

/// A registered claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim<T> {
    /// Not there.
    Absent,
    /// There, with the wrong type or range; what was found follows.
    Malformed(&'static str),
    /// There.
    Present(T),
}

impl<T> Claim<T> {
    /// The value, if it is there and well-formed.
    pub const fn present(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            _ => None,
        }
    }
}

impl<'t> ClaimsSet<'t, Verified> {
    /// The claims of a verified token.
    pub fn of(jws: &VerifiedJws<'t>) -> Self {
        Self::read(jws.jws())
    }

    /// The same claims, borrowing from no request.
    pub fn to_static(&self) -> ClaimsSet<'static, Verified> {
        ClaimsSet { registered: Rc::clone(&self.registered), jws: Rc::new(self.jws.to_static()), proof: PhantomData }
    }

    /// The same claims, as anybody may have written them.
    pub fn unverified(&self) -> ClaimsSet<'t, Unverified> {
        ClaimsSet { registered: Rc::clone(&self.registered), jws: Rc::clone(&self.jws), proof: PhantomData }
    }
}

impl<'t> ClaimsSet<'t, Unverified> {
    /// What an unverified token claims.
    pub fn claimed_by(jws: &Rc<UnverifiedJws<'t>>) -> Self {
        Self::read(jws)
    }

    /// The same claims, now that the token's signature was verified. Nothing if it was another token's.
    pub fn verified_by(&self, jws: &VerifiedJws<'t>) -> Option<ClaimsSet<'t, Verified>> {
        Rc::ptr_eq(&self.jws, jws.jws()).then(|| ClaimsSet {
            registered: Rc::clone(&self.registered),
            jws: Rc::clone(&self.jws),
            proof: PhantomData,
        })
    }
}

impl<'t, P> ClaimsSet<'t, P> {
    /// The token they stand in.
    pub const fn jws(&self) -> &Rc<UnverifiedJws<'t>> {
        &self.jws
    }

    /// The value at a path of member names, outermost first.
    pub fn at(&self, path: &[String]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.jws.payload().get(first)?, |value, name| value.as_object()?.get(name))
    }

    /// The JSON text of the value at a path as it was signed, without white space between its tokens: no number loses
    /// a digit. Nothing where [`ClaimsSet::at`] finds nothing.
    pub fn text_at(&self, path: &[String]) -> Option<String> {
        let mut text: &RawValue = serde_json::from_slice(self.jws.octets()).ok()?;
        for name in path {
            // Duplicate members were refused when the token was taken apart.
            text =
                Member(name).deserialize(&mut serde_json::Deserializer::from_slice(text.get().as_bytes())).ok()??;
        }
        Some(json::compact(text.get()))
    }

    fn read(jws: &Rc<UnverifiedJws<'t>>) -> Self {
        let members = jws.payload();
        let registered = Registered {
            iss: claim(members, "iss", text),
            sub: claim(members, "sub", text),
            aud: claim(members, "aud", texts),
            exp: claim(members, "exp", numeric_date),
            nbf: claim(members, "nbf", numeric_date),
            iat: claim(members, "iat", numeric_date),
            jti: claim(members, "jti", text),
        };
        Self { registered: Rc::new(registered), jws: Rc::clone(jws), proof: PhantomData }
    }
}

/// Finds the text of one member of an object.
struct Member<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some((name, text)) = members.next_entry::<String, &RawValue>()? {
            if name == self.0 {
                found = Some(text);
            }
        }
        Ok(found)
    }
}

fn claim<T>(members: &Map<String, Value>, name: &str, read: impl Fn(&Value) -> Result<T, &'static str>) -> Claim<T> {
    match members.get(name).map(read) {
        None => Claim::Absent,
        Some(Err(found)) => Claim::Malformed(found),
        Some(Ok(value)) => Claim::Present(value),
    }
}

fn text(value: &Value) -> Result<String, &'static str> {
    value.as_str().map(str::to_owned).ok_or(json::kind(value))
}

/// One string, or an array of strings (RFC 7519 §4.1.3).
fn texts(value: &Value) -> Result<Vec<String>, &'static str> {
    match value {
        Value::Array(items) => {
            items.iter().map(|item| text(item).map_err(|_| "an array of other things than strings")).collect()
        }
        other => text(other).map(|one| vec![one]),
    }
}

/// A number of seconds, with or without a fraction, and never a string (RFC 7519 §2). Moments before 1970 and beyond
/// what 64 bits count are out of range.
fn numeric_date(value: &Value) -> Result<UnixTime, &'static str> {
    let Value::Number(number) = value else {
        return Err(json::kind(value));
    };
    let since_epoch = match number.as_u64() {
        Some(secs) => Some(Duration::from_secs(secs)),
        None => number.as_f64().and_then(|secs| Duration::try_from_secs_f64(secs).ok()),
    };
    since_epoch.map(UnixTime::since_epoch).ok_or("a number out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_dates() {
        let read = |json: &str| numeric_date(&serde_json::from_str(json).expect("the test's JSON is well-formed"));
        assert_eq!(read("0"), Ok(UnixTime::from_secs(0)));
        assert_eq!(read("-0"), Ok(UnixTime::from_secs(0)));
        assert_eq!(read("9007199254740993"), Ok(UnixTime::from_secs(9_007_199_254_740_993)));
        assert_eq!(read("18446744073709551615"), Ok(UnixTime::from_secs(u64::MAX)));
        assert_eq!(read("1.5"), Ok(UnixTime::since_epoch(Duration::from_millis(1500))));
        assert_eq!(read("2e0"), Ok(UnixTime::from_secs(2)));
        for out_of_range in ["-1", "-0.5", "18446744073709551616", "1e300"] {
            assert_eq!(read(out_of_range), Err("a number out of range"), "{out_of_range}");
        }
        assert_eq!(read(r#""1""#), Err("a string"));
        assert_eq!(read("null"), Err("null"));
        assert_eq!(read("true"), Err("a boolean"));
    }

    #[test]
    fn audiences() {
        let read = |json: &str| texts(&serde_json::from_str(json).expect("the test's JSON is well-formed"));
        assert_eq!(read(r#""a""#), Ok(vec!["a".to_owned()]));
        assert_eq!(read(r#"["a","b"]"#), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read("[]"), Ok(Vec::new()));
        assert_eq!(read(r#"["a",1]"#), Err("an array of other things than strings"));
        assert_eq!(read(r#"[["a"]]"#), Err("an array of other things than strings"));
        assert_eq!(read("{}"), Err("an object"));
    }
}
