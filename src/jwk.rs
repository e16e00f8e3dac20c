//! JWK Sets: what is a key, and why the rest is not (RFC 7517, RFC 7518 §6, RFC 8037 §2, RFC 8812 §3.1, RFC 9964).

mod pem;

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json;
use crate::jws::Algorithm;
use crate::limits::{RSA_EXPONENT_BYTES, RSA_MODULUS_BITS_MAX, RSA_MODULUS_BITS_MIN};

/// A JWK Set as it was read: keys of a known kind, and the others with the reason (RFC 7517 §5).
#[derive(Debug, Default)]
pub struct JwkSet {
    /// The keys whose members are well-formed.
    pub keys: Vec<Jwk>,
    /// The rest.
    pub skipped: Vec<KeyNote>,
    /// What is wrong with a key that does not keep it from being used.
    pub warnings: Vec<KeyNote>,
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
    /// RFC 9964: an ML-DSA public key of the one algorithm it is for.
    MlDsa {
        /// The algorithm.
        alg: Algorithm,
        /// The key, as FIPS 204 encodes it.
        public: Vec<u8>,
    },
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
            Self::MlDsa { alg, public } => {
                Some(format!(r#"{{"alg":"{}","kty":"AKP","pub":"{}"}}"#, alg.name(), encode(public)))
            }
            Self::Oct(_) => None,
        }
    }

    /// The key's `kty`.
    pub const fn kty(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec { .. } => "EC",
            Self::Ed25519(_) => "OKP",
            Self::MlDsa { .. } => "AKP",
            Self::Oct(_) => "oct",
        }
    }
}

/// A curve of RFC 7518 §6.2.1.1 or RFC 8812 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    P256,
    P384,
    P521,
    Secp256k1,
}

impl Curve {
    const ALL: [Self; 4] = [Self::P256, Self::P384, Self::P521, Self::Secp256k1];

    /// The name in `crv`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Secp256k1 => "secp256k1",
        }
    }

    /// How long a coordinate is, in bytes; and each number of a signature.
    pub const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 | Self::Secp256k1 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// A key of a set, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyNote {
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
            let members = match json::parse_object(key.get().as_bytes()) {
                Ok(members) => members,
                Err(error) => {
                    set.skipped.push(KeyNote { index, kid: None, why: format!("not strict JSON: {error}").into() });
                    continue;
                }
            };
            let note = |why| KeyNote { index, kid: optional(&members, "kid").ok().flatten(), why };
            if let Some(name) = PRIVATE_MEMBERS.into_iter().find(|name| members.contains_key(*name)) {
                let why = format!("its private half stands beside it (`{name}`): who reads the set can sign");
                set.warnings.push(note(why.into()));
            }
            match Jwk::from_members(index, &members) {
                Ok(jwk) => set.keys.push(jwk),
                Err(why) => set.skipped.push(note(why)),
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
    /// Reads a public key in PEM, which is at `index` of a list: `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`. It has
    /// no name. Of a certificate nothing but the key is looked at.
    ///
    /// # Errors
    /// What was found and what was expected; nothing of the key.
    pub fn from_pem(index: usize, pem: &str) -> Result<Self, Cow<'static, str>> {
        pem::parse(index, pem)
    }

    fn from_members(index: usize, members: &Map<String, Value>) -> Result<Self, Why> {
        let kid = optional(members, "kid")?;
        usage(members)?;
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
            "AKP" => akp(members, alg)?,
            "oct" => KeyMaterial::Oct(octets(members, "k")?),
            other => {
                let found = short(other);
                return Err(format!("`kty` is `{found}`, `RSA`, `EC`, `OKP`, `AKP` or `oct` was expected").into());
            }
        };
        Ok(Self { kid, alg, index, material })
    }
}

/// `use` and `key_ops` (RFC 7517 §4.2 and §4.3): each may keep a key from verifying, and both must say the same.
fn usage(members: &Map<String, Value>) -> Result<(), Why> {
    let usage = optional(members, "use")?;
    if let Some(usage) = usage.as_deref().filter(|usage| *usage != "sig") {
        return Err(format!("`use` is `{}`, `sig` was expected", short(usage)).into());
    }
    let Some(ops) = members.get("key_ops") else { return Ok(()) };
    let Some(ops) = ops.as_array().and_then(|ops| ops.iter().map(Value::as_str).collect::<Option<Vec<_>>>()) else {
        return Err("`key_ops` is not an array of strings".into());
    };
    if ops.iter().enumerate().any(|(place, op)| ops.iter().take(place).any(|earlier| earlier == op)) {
        return Err("`key_ops` names an operation twice (RFC 7517 §4.3)".into());
    }
    if !ops.contains(&"verify") {
        return Err("`key_ops` does not hold `verify`".into());
    }
    match ops.iter().find(|op| !matches!(**op, "sign" | "verify")) {
        Some(other) if usage.is_some() => {
            Err(format!("`use` is `sig` and `key_ops` holds `{}`: they contradict each other", short(other)).into())
        }
        _ => Ok(()),
    }
}

fn rsa(members: &Map<String, Value>) -> Result<KeyMaterial, Why> {
    let (n, e) = (octets(members, "n")?, octets(members, "e")?);
    for (name, integer) in [("n", &n), ("e", &e)] {
        if integer.first().is_none_or(|&b| b == 0) {
            return Err(format!("`{name}` is empty or has leading zeros (RFC 7518 §2)").into());
        }
    }
    KeyMaterial::rsa(n, e)
}

impl KeyMaterial {
    /// An RSA key of big-endian integers without leading zeros.
    fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Self, Why> {
        let bits = n.len().saturating_mul(8).saturating_sub(n.first().map_or(0, |b| b.leading_zeros() as usize));
        if !(RSA_MODULUS_BITS_MIN..=RSA_MODULUS_BITS_MAX).contains(&bits) {
            return Err(format!(
                "the RSA modulus has {bits} bits, {RSA_MODULUS_BITS_MIN} to {RSA_MODULUS_BITS_MAX} were expected"
            )
            .into());
        }
        let is_odd = |integer: &[u8]| integer.last().is_some_and(|octet| octet & 1 == 1);
        if !is_odd(&n) {
            return Err("the RSA modulus is even".into());
        }
        if !is_odd(&e) || e == [1] || e.len() > RSA_EXPONENT_BYTES {
            return Err("the RSA exponent is not an odd number from 3 to 64 bits".into());
        }
        Ok(Self::Rsa { n, e })
    }
}

fn ec(members: &Map<String, Value>) -> Result<KeyMaterial, Why> {
    let name = required(members, "crv")?;
    let Some(crv) = Curve::ALL.into_iter().find(|crv| crv.name() == name) else {
        let known = Curve::ALL.map(|crv| format!("`{}`", crv.name())).join(", ");
        return Err(format!("`crv` is `{}`, one of {known} was expected", short(&name)).into());
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

fn akp(members: &Map<String, Value>, alg: Option<Algorithm>) -> Result<KeyMaterial, Why> {
    // RFC 9964: the kind of an `AKP` key is its algorithm.
    let Some(alg) = alg else { return Err("`alg` is missing, an `AKP` key needs it (RFC 9964)".into()) };
    Ok(KeyMaterial::MlDsa { alg, public: octets(members, "pub")? })
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
        .map_err(|_| format!("`{name}` is not base64url without padding (RFC 7515 §2)").into())
}

/// A published word, cut to a length that fits a log line.
fn short(word: &str) -> String {
    word.chars().take(32).collect()
}

/// Members that only the holder of a private key may know (RFC 7518 §6.2.2 and §6.3.2, RFC 8037 §2, RFC 9964).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"];

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
        skipped(r#"{"kty":"AKP"}"#, "`alg` is missing");
        skipped(r#"{"kty":"LWE"}"#, "`kty` is `LWE`");
        skipped(r#"{"kty":"oct","k":"a"}"#, "`k` is not base64url");
        skipped(r#"{"kty":"oct","k":"AA==","kid":"x"}"#, "`k` is not base64url");
        skipped(r#"{"kty":"oct","k":"AA","use":"enc"}"#, "`use` is `enc`");
        skipped(r#"{"kty":"oct","k":"AA","key_ops":["sign"]}"#, "`key_ops` does not hold `verify`");
        skipped(r#"{"kty":"oct","k":"AA","alg":"A128GCM"}"#, "`alg` is `A128GCM`");
        skipped(r#"{"kty":"oct","k":"AA","kid":7}"#, "`kid` is a number");
        skipped(&format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, b64(128)), "1024 bits");
        skipped(&format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, b64(1025)), "8200 bits");
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
