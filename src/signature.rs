//! Signatures: the one place where a token becomes believable, and the only module that names crypto crates
//! (RFC 7515 §5.2, RFC 7518 §3, RFC 8037 §3.1).

mod comb;
mod der;
mod ecdsa;
mod ed25519;
mod hash;
mod mldsa;
mod rsa;

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use hash::Hash;

use crate::brake::{Brake, Braked, Cost};
use crate::jwk::{Curve, Jwk, JwkSet, JwkSetError, KeyMaterial, KeyNote};
use crate::jws::{Algorithm, UnverifiedJws};
use crate::limits::VERIFICATIONS_PER_REQUEST;
use crate::time::UnixTime;

/// A token whose signature was verified. Only [`VerifiedJws::verify`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedJws<'t> {
    jws: Rc<UnverifiedJws<'t>>,
    kid: Option<String>,
}

impl<'t> VerifiedJws<'t> {
    /// Verifies the signature with each of `keys` that fits the token's `alg`, until one does. Nothing if none does.
    ///
    /// `alg` selects no routine: it is compared with what the key allows, and the key's own kind decides. At most
    /// [`VERIFICATIONS_PER_REQUEST`] keys are tried. The host is asked first; what it cannot tell is verified here, as
    /// often as `brake` permits.
    ///
    /// # Errors
    /// [`Braked`] if a key was left untried because the gate has verified as much as it may.
    pub fn verify(
        jws: &Rc<UnverifiedJws<'t>>,
        alg: Algorithm,
        keys: &[&VerifyingKey],
        crypto: &dyn Crypto,
        brake: &mut Brake,
        now: UnixTime,
    ) -> Result<Option<Self>, Braked> {
        if jws.header().algorithm != Some(alg) {
            return Ok(None);
        }
        for key in keys.iter().filter(|key| key.fits(alg)).take(VERIFICATIONS_PER_REQUEST) {
            let (message, signature) = (jws.signing_input(), jws.signature());
            let verifies = match crypto.verify(key, alg, message, signature) {
                Some(told) => told,
                None => {
                    brake.take(key.cost(), now)?;
                    key.verify(alg, message, signature)
                }
            };
            if verifies {
                return Ok(Some(Self { jws: Rc::clone(jws), kid: key.kid.clone() }));
            }
        }
        Ok(None)
    }

    /// The name of the key that verified it, as the issuer publishes it.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The token, to be read.
    pub const fn jws(&self) -> &Rc<UnverifiedJws<'t>> {
        &self.jws
    }
}

/// What a host can do about signatures: it may be faster than the plugin.
pub trait Crypto {
    /// Whether `signature` is `key`'s over `signing_input`; nothing if the host cannot tell, and then the gate verifies
    /// by itself. Called only with an `alg` that fits the key.
    fn verify(&self, key: &VerifyingKey, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Option<bool>;
}

/// A host without cryptography: the gate's own is portable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

impl Crypto for Portable {
    fn verify(&self, _: &VerifyingKey, _: Algorithm, _: &[u8], _: &[u8]) -> Option<bool> {
        None
    }
}

/// A key made ready to verify, once.
#[derive(Debug)]
pub struct VerifyingKey {
    index: usize,
    kid: Option<String>,
    alg: Option<Algorithm>,
    thumbprint: Option<String>,
    spki_der: Option<Box<[u8]>>,
    prepared: Prepared,
}

enum Prepared {
    Rsa(rsa::PublicKey),
    Ec(Box<ecdsa::PublicKey>),
    Ed25519(Box<ed25519::PublicKey>),
    MlDsa(mldsa::PublicKey),
    Oct(Box<[u8]>),
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "RSA",
            Self::Ec(key) => key.crv().name(),
            Self::Ed25519(_) => "Ed25519",
            Self::MlDsa(key) => key.alg().name(),
            Self::Oct(_) => "oct",
        })
    }
}

impl Prepared {
    fn new(material: &KeyMaterial) -> Result<Self, Cow<'static, str>> {
        match material {
            KeyMaterial::Rsa { n, e } => rsa::PublicKey::new(n, e)
                .map(Self::Rsa)
                .ok_or_else(|| "the RSA modulus or exponent is even or of a length that is not accepted".into()),
            KeyMaterial::Ec { crv, point } => ecdsa::PublicKey::new(*crv, point)
                .map(|key| Self::Ec(Box::new(key)))
                .ok_or_else(|| format!("the point is not on the curve {}", crv.name()).into()),
            KeyMaterial::Ed25519(x) => {
                ed25519::PublicKey::new(x).map(|key| Self::Ed25519(Box::new(key))).map_err(Cow::Borrowed)
            }
            KeyMaterial::MlDsa { alg, public } => mldsa::PublicKey::new(*alg, public)
                .map(Self::MlDsa)
                .ok_or_else(|| format!("`pub` has {} bytes, which is no key of {}", public.len(), alg.name()).into()),
            KeyMaterial::Oct(k) => Ok(Self::Oct(k.as_slice().into())),
        }
    }
}

impl VerifyingKey {
    /// Makes a key ready.
    ///
    /// # Errors
    /// Why it can verify nothing: not a point of its curve, too short, of a kind its `alg` does not fit.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, Cow<'static, str>> {
        let prepared = Prepared::new(&jwk.material)?;
        let thumbprint = jwk.material.required_members().map(|json| URL_SAFE_NO_PAD.encode(Sha256::digest(json)));
        let spki_der = match &jwk.material {
            KeyMaterial::Rsa { n, e } => Some(der::rsa_spki(n, e).into()),
            KeyMaterial::Ec { crv, point } => Some(der::ec_spki(*crv, point).into()),
            KeyMaterial::Ed25519(_) | KeyMaterial::MlDsa { .. } | KeyMaterial::Oct(_) => None,
        };
        let key = Self { index: jwk.index, kid: jwk.kid.clone(), alg: jwk.alg, thumbprint, spki_der, prepared };
        if Algorithm::ALL.into_iter().any(|alg| key.fits(alg)) {
            return Ok(key);
        }
        Err(match (&key.prepared, jwk.alg) {
            (Prepared::Oct(k), Some(alg)) if !alg.is_symmetric() => {
                format!("`alg` is `{}`, which does not fit a secret of {} bytes", alg.name(), k.len()).into()
            }
            (Prepared::Oct(k), alg) => {
                let needed = alg.and_then(Hash::of).unwrap_or(Hash::Sha256).bytes();
                format!("the secret has {} bytes, at least {needed} were expected (RFC 7518 §3.2)", k.len()).into()
            }
            (prepared, Some(alg)) => {
                format!("`alg` is `{}`, which does not fit a key of {prepared:?}", alg.name()).into()
            }
            (prepared, None) => format!("a key of {prepared:?} fits no algorithm").into(),
        })
    }

    /// The key's name.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The key's SHA-256 thumbprint (RFC 7638); nothing for a secret, which nobody shall be able to guess at.
    pub fn thumbprint(&self) -> Option<&str> {
        self.thumbprint.as_deref()
    }

    /// An RSA or EC key as a `SubjectPublicKeyInfo` in DER (RFC 5280 §4.1), for a host that verifies.
    pub fn spki_der(&self) -> Option<&[u8]> {
        self.spki_der.as_deref()
    }

    /// A signature of an EC key as an `ECDSA-Sig-Value` in DER (RFC 3279 §2.2.3), for a host that verifies. Nothing for
    /// other keys, and for a signature of another width than the curve's or with a number that is zero.
    pub fn ecdsa_sig_value(&self, signature: &[u8]) -> Option<Vec<u8>> {
        match &self.prepared {
            Prepared::Ec(key) => der::ecdsa_sig_value(key.crv(), signature),
            _ => None,
        }
    }

    /// Whether this key may verify signatures made with `alg`: its kind, curve, length and its own `alg` all bind.
    pub fn fits(&self, alg: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es256k, Es384, Es512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let kind = match &self.prepared {
            Prepared::Rsa(_) => matches!(alg, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            Prepared::Ec(key) => match key.crv() {
                Curve::P256 => alg == Es256,
                Curve::P384 => alg == Es384,
                Curve::P521 => alg == Es512,
                Curve::Secp256k1 => alg == Es256k,
            },
            Prepared::Ed25519(_) => alg == EdDsa,
            Prepared::MlDsa(key) => alg == key.alg(),
            Prepared::Oct(k) => alg.is_symmetric() && Hash::of(alg).is_some_and(|hash| k.len() >= hash.bytes()),
        };
        kind && self.alg.is_none_or(|own| own == alg)
    }

    /// What a verification with this key costs the gate.
    pub const fn cost(&self) -> Cost {
        match &self.prepared {
            Prepared::Ed25519(_) | Prepared::Oct(_) => Cost::Light,
            Prepared::Rsa(key) if key.modulus_bytes() <= LIGHT_RSA_BYTES => Cost::Light,
            Prepared::Rsa(_) | Prepared::MlDsa(_) => Cost::Medium,
            Prepared::Ec(key) => match key.crv() {
                Curve::P256 | Curve::Secp256k1 => Cost::Medium,
                Curve::P384 | Curve::P521 => Cost::Heavy,
            },
        }
    }

    /// Whether `signature` is this key's over `message` under `alg`. False for an `alg` that does not fit.
    pub fn verify(&self, alg: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(alg) {
            return false;
        }
        match (&self.prepared, Hash::of(alg)) {
            (Prepared::Rsa(key), Some(hash))
                if matches!(alg, Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512) =>
            {
                key.verify_pss(hash, message, signature)
            }
            (Prepared::Rsa(key), Some(hash)) => key.verify_pkcs1(hash, message, signature),
            (Prepared::Oct(k), Some(hash)) => hash.is_hmac(k, message, signature),
            (Prepared::Ec(key), _) => key.verify(message, signature),
            (Prepared::Ed25519(key), _) => key.verify(message, signature),
            (Prepared::MlDsa(key), _) => key.verify(message, signature),
            (Prepared::Rsa(_) | Prepared::Oct(_), None) => false,
        }
    }
}

/// A JWK Set made ready: keys that verify, and the others with the reason.
#[derive(Debug, Default)]
pub struct KeySet {
    id: u64,
    keys: Vec<VerifyingKey>,
    skipped: Vec<KeyNote>,
    warnings: Vec<KeyNote>,
}

impl KeySet {
    /// Reads a JWK Set of at most `max_keys` keys and makes each key ready.
    ///
    /// # Errors
    /// If the document as a whole is no JWK Set. A set without a usable key is no error here.
    pub fn parse(document: &[u8], max_keys: usize) -> Result<Self, JwkSetError> {
        let JwkSet { keys: jwks, mut skipped, warnings } = JwkSet::parse(document, max_keys)?;
        let mut keys = Vec::with_capacity(jwks.len());
        for jwk in jwks {
            match VerifyingKey::from_jwk(&jwk) {
                Ok(key) => keys.push(key),
                Err(why) => {
                    let place = skipped.partition_point(|note| note.index < jwk.index);
                    skipped.insert(place, KeyNote { index: jwk.index, kid: jwk.kid, why });
                }
            }
        }
        Ok(Self { id: first_bytes(document), keys, skipped, warnings })
    }

    /// Makes each public key in a list of PEM ready.
    ///
    /// # Errors
    /// Which is none, counted from zero, and why.
    pub fn from_pem(list: &[String]) -> Result<Self, (usize, Cow<'static, str>)> {
        let key = |(index, pem): (usize, &String)| {
            Jwk::from_pem(index, pem).and_then(|jwk| VerifyingKey::from_jwk(&jwk)).map_err(|why| (index, why))
        };
        let keys = list.iter().enumerate().map(key).collect::<Result<_, _>>()?;
        Ok(Self { id: first_bytes(list.concat().as_bytes()), keys, ..Self::default() })
    }

    /// Names the set: the first 8 bytes of the SHA-256 of its document. Another document, another set.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The same for people, in hexadecimal.
    pub fn name(&self) -> String {
        hexadecimal(self.id)
    }

    /// The keys that verify.
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// The keys that do not, with the reason.
    pub fn skipped(&self) -> &[KeyNote] {
        &self.skipped
    }

    /// What is wrong with keys that does not keep them from being used.
    pub fn warnings(&self) -> &[KeyNote] {
        &self.warnings
    }

    /// The shared secrets in the set, which are to be warned of where the set can be fetched.
    pub fn secrets(&self) -> impl Iterator<Item = KeyNote> {
        let secrets = self.keys.iter().filter(|key| matches!(key.prepared, Prepared::Oct(_)));
        secrets.map(|key| KeyNote {
            index: key.index,
            kid: key.kid.clone(),
            why: "a shared secret in a set that can be fetched: who fetches it can sign".into(),
        })
    }

    /// The keys that may verify a token of this `kid` and `alg`.
    ///
    /// Keys named `kid` come alone; where none is, keys without a name are tried. A token without `kid` is tried
    /// with every key that fits.
    ///
    /// # Errors
    /// Why there is none.
    pub fn candidates(&self, kid: Option<&str>, alg: Algorithm) -> Result<Vec<&VerifyingKey>, NoCandidate> {
        let fitting = |named: Option<&str>| -> Vec<&VerifyingKey> {
            self.keys.iter().filter(|key| named.is_none_or(|kid| key.kid() == Some(kid)) && key.fits(alg)).collect()
        };
        let candidates = match kid {
            Some(kid) if self.names(kid) => {
                let named = fitting(Some(kid));
                if named.is_empty() {
                    return Err(self.unfit(kid));
                }
                named
            }
            Some(_) => self.keys.iter().filter(|key| key.kid().is_none() && key.fits(alg)).collect(),
            None => fitting(None),
        };
        if candidates.is_empty() { Err(NoCandidate::Unknown) } else { Ok(candidates) }
    }

    fn names(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
            || self.skipped.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    fn unfit(&self, kid: &str) -> NoCandidate {
        match self.skipped.iter().find(|key| key.kid.as_deref() == Some(kid)) {
            Some(skipped) => NoCandidate::Unusable(skipped.why.clone()),
            None => NoCandidate::Unfit,
        }
    }
}

/// Why a key set has no key for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoCandidate {
    /// No key of this name, and none that fits without a name.
    Unknown,
    /// The key of this name does not fit the token's `alg`.
    Unfit,
    /// The key of this name cannot be used; the reason follows.
    Unusable(Cow<'static, str>),
}

/// Longest RSA modulus that is cheap to verify with: twice the length costs four times as much.
const LIGHT_RSA_BYTES: usize = 512;

/// The first 8 bytes of a token's SHA-256, in hexadecimal: its name in logs where it has no `jti`.
pub fn digest(compact: &[u8]) -> String {
    hexadecimal(first_bytes(compact))
}

fn hexadecimal(bytes: u64) -> String {
    format!("{bytes:016x}")
}

fn first_bytes(document: &[u8]) -> u64 {
    Sha256::digest(document).iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// How many random cases a test at length shall hold against an independent implementation.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "it is a test's")]
fn cases() -> u64 {
    std::env::var("CASES").map_or(100_000, |cases| cases.parse().expect("`CASES` is a number"))
}
