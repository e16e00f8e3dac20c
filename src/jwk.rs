//! JWK Sets: what is a key, and why the rest is not (RFC 7517, RFC 7518 §6, RFC 8037 §2).

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json;
use crate::jws::Algorithm;
use crate::limits::{RSA_MODULUS_BITS_MAX, RSA_MODULUS_BITS_MIN};

/// A JWK Set as it was read: keys of a known kind, and the others with the reason (RFC 7517 §5).
#[derive(Debug, Default)]
pub struct JwkSet {
    /// The keys whose members are well-formed.
    pub keys: Vec<Jwk>,
    /// The rest.
    pub skipped: Vec<SkippedKey>,
}

/// A public or symmetric key that may verify signatures.
#[derive(Clone, Debug)]
pub struct Jwk {
    /// Its name (RFC 7517 §4.5).
    pub kid: Option<String>,
    /// The only algorithm it may be used with, if it says so (RFC 7517 §4.4).
    pub alg: Option<Algorithm>,
    /// Its place in the set, counted from zero.
    pub index: usize,
    /// The key itself.
    pub material: KeyMaterial,
}

/// The key itself, decoded.
#[derive(Clone)]
pub enum KeyMaterial {
    /// RFC 7518 §6.3: modulus and exponent, big-endian without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// RFC 7518 §6.2: a point, in SEC 1's uncompressed form (`04 ‖ x ‖ y`).
    Ec {
        /// The curve.
        crv: Curve,
        /// The point.
        point: Vec<u8>,
    },
    /// RFC 8037 §2: an Ed25519 public key.
    Ed25519([u8; 32]),
    /// RFC 7518 §6.4: a shared secret.
    Oct(Vec<u8>),
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kty())
    }
}

impl KeyMaterial {
    /// The JSON whose hash is the key's thumbprint (RFC 7638 §3.2); nothing for a secret.
    pub fn required_members(&self) -> Option<String> {
        let encode = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
        match self {
            Self::Rsa { n, e } => Some(format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n))),
            Self::Ec { crv, point } => {
                let (x, y) = point.get(1..)?.split_at_checked(crv.coordinate_bytes())?;
                let (crv, x, y) = (crv.name(), encode(x), encode(y));
                Some(format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#))
            }
            Self::Ed25519(x) => Some(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(x))),
            Self::Oct(_) => None,
        }
    }

    /// The key's `kty`.
    pub const fn kty(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec { .. } => "EC",
            Self::Ed25519(_) => "OKP",
            Self::Oct(_) => "oct",
        }
    }
}

/// A curve of RFC 7518 §6.2.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    P256,
    P384,
}

impl Curve {
    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }

    const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// A key that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in the set, counted from zero.
    pub index: usize,
    /// Its name, if it has one.
    pub kid: Option<String>,
    /// What was found and what was expected; no key material.
    pub why: Cow<'static, str>,
}

/// Why a document is not a JWK Set at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwkSetError {
    /// Not a JSON object with an array `keys`; the parser's words follow.
    NotAJwkSet(String),
    /// More keys than allowed.
    TooManyKeys {
        /// Keys found.
        found: usize,
        /// Keys allowed.
        allowed: usize,
    },
    /// More bytes than allowed.
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        allowed: usize,
    },
}

impl fmt::Display for JwkSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAJwkSet(why) => write!(f, "not a JWK Set: {why}"),
            Self::TooManyKeys { found, allowed } => write!(f, "{found} keys, at most {allowed} are read"),
            Self::TooLarge { found, allowed } => write!(f, "{found} bytes, at most {allowed} are read"),
        }
    }
}

impl JwkSet {
    /// Reads a JWK Set. One bad key never spoils the others.
    ///
    /// # Errors
    /// Only if the document as a whole is no JWK Set or holds more than `max_keys` keys.
    pub fn parse(document: &[u8], max_keys: usize) -> Result<Self, JwkSetError> {
        let document: Document<'_> = serde_json::from_slice(document).map_err(|error| {
            // The parser's words for a wrong type would repeat the value, which may be a secret.
            JwkSetError::NotAJwkSet(match error.classify() {
                serde_json::error::Category::Data => "an object with one array `keys` was expected".to_owned(),
                _ => error.to_string(),
            })
        })?;
        if document.keys.len() > max_keys {
            return Err(JwkSetError::TooManyKeys { found: document.keys.len(), allowed: max_keys });
        }
        let mut set = Self::default();
        for (index, key) in document.keys.into_iter().enumerate() {
            // Strict per key, so that a duplicate member spoils one key and not the set.
            match json::parse_object(key.get().as_bytes()) {
                Ok(members) => match Jwk::from_members(index, &members) {
                    Ok(jwk) => set.keys.push(jwk),
                    Err(why) => {
                        set.skipped.push(SkippedKey { index, kid: optional(&members, "kid").ok().flatten(), why });
                    }
                },
                Err(error) => {
                    set.skipped.push(SkippedKey { index, kid: None, why: format!("not strict JSON: {error}").into() });
                }
            }
        }
        Ok(set)
    }
}

/// Other members are allowed (RFC 7517 §5).
#[derive(Deserialize)]
struct Document<'d> {
    #[serde(borrow)]
    keys: Vec<&'d RawValue>,
}

type Why = Cow<'static, str>;

impl Jwk {
    fn from_members(index: usize, members: &Map<String, Value>) -> Result<Self, Why> {
        let kid = optional(members, "kid")?;
        if let Some(usage) = optional(members, "use")?
            && usage != "sig"
        {
            return Err(format!("`use` is `{}`, `sig` was expected", short(&usage)).into());
        }
        if let Some(ops) = members.get("key_ops") {
            let verifies = ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
            if !verifies {
                return Err("`key_ops` does not hold `verify`".into());
            }
        }
        let alg = match optional(members, "alg")? {
            None => None,
            Some(name) => Some(
                Algorithm::from_name(&name)
                    .ok_or_else(|| format!("`alg` is `{}`, which verifies no token here", short(&name)))?,
            ),
        };
        let material = match required(members, "kty")?.as_str() {
            "RSA" => rsa(members)?,
            "EC" => ec(members)?,
            "OKP" => okp(members)?,
            "oct" => KeyMaterial::Oct(octets(members, "k")?),
            other => {
                return Err(format!("`kty` is `{}`, `RSA`, `EC`, `OKP` or `oct` was expected", short(other)).into());
            }
        };
        Ok(Self { kid, alg, index, material })
    }
}

fn rsa(members: &Map<String, Value>) -> Result<KeyMaterial, Why> {
    let (n, e) = (octets(members, "n")?, octets(members, "e")?);
    for (name, integer) in [("n", &n), ("e", &e)] {
        if integer.first().is_none_or(|&b| b == 0) {
            return Err(format!("`{name}` is empty or has leading zeros (RFC 7518 §2)").into());
        }
    }
    let bits = n.len().saturating_mul(8).saturating_sub(n.first().map_or(0, |b| b.leading_zeros() as usize));
    if !(RSA_MODULUS_BITS_MIN..=RSA_MODULUS_BITS_MAX).contains(&bits) {
        return Err(format!(
            "the RSA modulus has {bits} bits, {RSA_MODULUS_BITS_MIN} to {RSA_MODULUS_BITS_MAX} were expected"
        )
        .into());
    }
    Ok(KeyMaterial::Rsa { n, e })
}

fn ec(members: &Map<String, Value>) -> Result<KeyMaterial, Why> {
    let crv = match required(members, "crv")?.as_str() {
        "P-256" => Curve::P256,
        "P-384" => Curve::P384,
        other => return Err(format!("`crv` is `{}`, `P-256` or `P-384` was expected", short(other)).into()),
    };
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = octets(members, name)?;
        if coordinate.len() != crv.coordinate_bytes() {
            let (found, expected) = (coordinate.len(), crv.coordinate_bytes());
            return Err(format!("`{name}` has {found} bytes, {expected} were expected").into());
        }
        point.extend_from_slice(&coordinate);
    }
    Ok(KeyMaterial::Ec { crv, point })
}

fn okp(members: &Map<String, Value>) -> Result<KeyMaterial, Why> {
    let crv = required(members, "crv")?;
    if crv != "Ed25519" {
        return Err(format!("`crv` is `{}`, `Ed25519` was expected", short(&crv)).into());
    }
    let x = octets(members, "x")?;
    let found = x.len();
    x.try_into().map(KeyMaterial::Ed25519).map_err(|_| format!("`x` has {found} bytes, 32 were expected").into())
}

fn optional(members: &Map<String, Value>, name: &'static str) -> Result<Option<String>, Why> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone())),
        Some(other) => Err(format!("`{name}` is {}, a string was expected", json::kind(other)).into()),
    }
}

fn required(members: &Map<String, Value>, name: &'static str) -> Result<String, Why> {
    optional(members, name)?.ok_or_else(|| format!("`{name}` is missing").into())
}

fn octets(members: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, Why> {
    URL_SAFE_NO_PAD
        .decode(required(members, name)?)
        .map_err(|_| format!("`{name}` is not base64url without padding").into())
}

/// A published word, cut to a length that fits a log line.
fn short(word: &str) -> String {
    word.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn skipped(key: &str, why: &str) {
        let set = JwkSet::parse(format!(r#"{{"keys":[{key}]}}"#).as_bytes(), 8).expect("the document is a JWK Set");
        let reason = set.skipped.first().map(|s| s.why.clone());
        assert!(reason.as_ref().is_some_and(|r| r.contains(why)), "{key}: {reason:?}");
    }

    #[test]
    fn each_skipped_key_has_a_reason() {
        let b64 = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0xFF; bytes]);
        skipped("null", "null where an object was expected");
        skipped(r#"{"kty":"oct","kty":"oct","k":""}"#, "duplicate member `kty`");
        skipped("{}", "`kty` is missing");
        skipped(r#"{"kty":"AKP"}"#, "`kty` is `AKP`");
        skipped(r#"{"kty":"oct","k":"a"}"#, "`k` is not base64url");
        skipped(r#"{"kty":"oct","k":"AA==","kid":"x"}"#, "`k` is not base64url");
        skipped(r#"{"kty":"oct","k":"AA","use":"enc"}"#, "`use` is `enc`");
        skipped(r#"{"kty":"oct","k":"AA","key_ops":["sign"]}"#, "`key_ops` does not hold `verify`");
        skipped(r#"{"kty":"oct","k":"AA","alg":"A128GCM"}"#, "`alg` is `A128GCM`");
        skipped(r#"{"kty":"oct","k":"AA","kid":7}"#, "`kid` is a number");
        skipped(&format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, b64(128)), "1024 bits");
        skipped(&format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, b64(1024)), "8192 bits");
        skipped(&format!(r#"{{"kty":"RSA","n":"{}","e":"AAEAAQ"}}"#, b64(256)), "`e` is empty or has leading zeros");
        skipped(&format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}"#, b64(32), b64(31)), "`y` has 31 bytes");
        skipped(r#"{"kty":"EC","crv":"P-192"}"#, "`crv` is `P-192`");
        skipped(r#"{"kty":"OKP","crv":"X25519","x":""}"#, "`crv` is `X25519`");
        skipped(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, b64(31)), "`x` has 31 bytes");
    }

    #[test]
    fn one_bad_key_spoils_no_other() {
        let set = JwkSet::parse(br#"{"keys":[{"kid":"bad"},{"kty":"oct","k":"AA","kid":"good"}],"x":1}"#, 2)
            .expect("the document is a JWK Set");
        assert_eq!(set.keys.iter().map(|k| (k.kid.as_deref(), k.index)).collect::<Vec<_>>(), [(Some("good"), 1)]);
        assert_eq!(set.skipped.iter().map(|k| k.kid.as_deref()).collect::<Vec<_>>(), [Some("bad")]);
    }

    #[test]
    fn what_is_no_set() {
        for document in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
            let error = JwkSet::parse(document.as_bytes(), 8).expect_err("accepted what is no JWK Set");
            assert!(matches!(error, JwkSetError::NotAJwkSet(_)), "{document}: {error}");
        }
        let error = JwkSet::parse(br#"{"keys":[1,2,3]}"#, 2).map(|_| ());
        assert_eq!(error, Err(JwkSetError::TooManyKeys { found: 3, allowed: 2 }));
    }

    #[test]
    fn secrets_have_no_debug_form() {
        assert_eq!(format!("{:?}", KeyMaterial::Oct(b"secret".to_vec())), "oct");
    }
}
