//! Signatures: the one place where a token becomes believable, and the only module that names crypto crates
//! (RFC 7515 §5.2, RFC 7518 §3, RFC 8037 §3.1).

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt_simple::algorithms::{
    ECDSAP256PublicKeyLike as _, ECDSAP384PublicKeyLike as _, ES256PublicKey, ES384PublicKey, Ed25519PublicKey,
    EdDSAPublicKeyLike as _, HS256Key, HS384Key, HS512Key, MACLike as _, RS256PublicKey, RSAPublicKeyLike as _,
};
use p256::ecdsa::signature::Verifier as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use superboring::hash::MessageDigest;
use superboring::pkey::PKey;
use superboring::rsa::Padding;
use superboring::sign::Verifier;

use crate::brake::{Brake, Braked, Cost};
use crate::jwk::{Curve, Jwk, JwkSet, JwkSetError, KeyMaterial, SkippedKey};
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
        if jws.header().alg != alg.name() {
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
    kid: Option<String>,
    alg: Option<Algorithm>,
    thumbprint: Option<String>,
    prepared: Prepared,
}

enum Prepared {
    // `jwt-simple` has one type for each algorithm of a key; what it holds serves them all.
    Rsa(Box<RS256PublicKey>),
    P256(Box<ES256PublicKey>),
    P384(Box<ES384PublicKey>),
    Ed25519(Box<Ed25519PublicKey>),
    Oct(Box<[u8]>),
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "RSA",
            Self::P256(_) => "P-256",
            Self::P384(_) => "P-384",
            Self::Ed25519(_) => "Ed25519",
            Self::Oct(_) => "oct",
        })
    }
}

impl VerifyingKey {
    /// Makes a key ready.
    ///
    /// # Errors
    /// Why it can verify nothing: not a point of its curve, too short, of a kind its `alg` does not fit.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, Cow<'static, str>> {
        let prepared = match &jwk.material {
            KeyMaterial::Rsa { n, e } => RS256PublicKey::from_components(n, e)
                .map(|key| Prepared::Rsa(Box::new(key)))
                .map_err(|_| "the RSA modulus is even or the exponent is not 65537"),
            KeyMaterial::Ec { crv: Curve::P256, point } => ES256PublicKey::from_bytes(point)
                .map(|key| Prepared::P256(Box::new(key)))
                .map_err(|_| "the point is not on the curve P-256"),
            KeyMaterial::Ec { crv: Curve::P384, point } => ES384PublicKey::from_bytes(point)
                .map(|key| Prepared::P384(Box::new(key)))
                .map_err(|_| "the point is not on the curve P-384"),
            KeyMaterial::Ed25519(x) => Ed25519PublicKey::from_bytes(x)
                .map(|key| Prepared::Ed25519(Box::new(key)))
                .map_err(|_| "not a usable point of the curve Ed25519"),
            KeyMaterial::Oct(k) => Ok(Prepared::Oct(k.as_slice().into())),
        }?;
        let thumbprint = jwk.material.required_members().map(|json| URL_SAFE_NO_PAD.encode(Sha256::digest(json)));
        let key = Self { kid: jwk.kid.clone(), alg: jwk.alg, thumbprint, prepared };
        if Algorithm::ALL.into_iter().any(|alg| key.fits(alg)) {
            return Ok(key);
        }
        Err(match (&key.prepared, jwk.alg) {
            (Prepared::Oct(k), alg) => {
                let needed = alg.and_then(hash_bytes).unwrap_or(SHA256_BYTES);
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

    /// Whether this key may verify signatures made with `alg`: its kind, curve, length and its own `alg` all bind.
    pub fn fits(&self, alg: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Hs256, Hs384, Hs512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let kind = match &self.prepared {
            Prepared::Rsa(_) => matches!(alg, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            Prepared::P256(_) => alg == Es256,
            Prepared::P384(_) => alg == Es384,
            Prepared::Ed25519(_) => alg == EdDsa,
            Prepared::Oct(k) => {
                matches!(alg, Hs256 | Hs384 | Hs512) && hash_bytes(alg).is_some_and(|needed| k.len() >= needed)
            }
        };
        kind && self.alg.is_none_or(|own| own == alg)
    }

    /// What a verification with this key costs the gate.
    pub const fn cost(&self) -> Cost {
        match &self.prepared {
            Prepared::Rsa(_) | Prepared::Ed25519(_) | Prepared::Oct(_) => Cost::Light,
            Prepared::P256(_) => Cost::Medium,
            Prepared::P384(_) => Cost::Heavy,
        }
    }

    /// Whether `signature` is this key's over `message` under `alg`. False for an `alg` that does not fit.
    pub fn verify(&self, alg: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(alg) {
            return false;
        }
        match &self.prepared {
            Prepared::Rsa(key) => verify_rsa(key, alg, message, signature).unwrap_or(false),
            Prepared::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.public_key().as_ref().verify(message, &signature).is_ok()),
            Prepared::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.public_key().as_ref().verify(message, &signature).is_ok()),
            Prepared::Ed25519(key) => ed25519_compact::Signature::from_slice(signature)
                .is_ok_and(|signature| key.public_key().as_ref().verify(message, &signature).is_ok()),
            Prepared::Oct(k) => {
                let tag = match alg {
                    Algorithm::Hs256 => HS256Key::from_bytes(k).authentication_tag(message),
                    Algorithm::Hs384 => HS384Key::from_bytes(k).authentication_tag(message),
                    Algorithm::Hs512 => HS512Key::from_bytes(k).authentication_tag(message),
                    _ => return false,
                };
                tag.ct_eq(signature).into()
            }
        }
    }
}

/// A JWK Set made ready: keys that verify, and the others with the reason.
#[derive(Debug, Default)]
pub struct KeySet {
    id: u64,
    keys: Vec<VerifyingKey>,
    skipped: Vec<SkippedKey>,
}

impl KeySet {
    /// Reads a JWK Set of at most `max_keys` keys and makes each key ready.
    ///
    /// # Errors
    /// If the document as a whole is no JWK Set. A set without a usable key is no error here.
    pub fn parse(document: &[u8], max_keys: usize) -> Result<Self, JwkSetError> {
        let JwkSet { keys: jwks, mut skipped } = JwkSet::parse(document, max_keys)?;
        let mut keys = Vec::with_capacity(jwks.len());
        for jwk in jwks {
            match VerifyingKey::from_jwk(&jwk) {
                Ok(key) => keys.push(key),
                Err(why) => skipped.push(SkippedKey { index: jwk.index, kid: jwk.kid, why }),
            }
        }
        skipped.sort_by_key(|key| key.index);
        Ok(Self { id: first_bytes(document), keys, skipped })
    }

    /// Names the set: the first 8 bytes of the SHA-256 of its document. Another document, another set.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The keys that verify.
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// The keys that do not, with the reason.
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
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

/// The first 8 bytes of a token's SHA-256, in hexadecimal: its name in logs where it has no `jti`.
pub fn digest(compact: &[u8]) -> String {
    format!("{:016x}", first_bytes(compact))
}

fn first_bytes(document: &[u8]) -> u64 {
    Sha256::digest(document).iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

fn verify_rsa(key: &RS256PublicKey, alg: Algorithm, message: &[u8], signature: &[u8]) -> Option<bool> {
    let (hash, padding) = match alg {
        Algorithm::Rs256 => (MessageDigest::sha256(), Padding::PKCS1),
        Algorithm::Rs384 => (MessageDigest::sha384(), Padding::PKCS1),
        Algorithm::Rs512 => (MessageDigest::sha512(), Padding::PKCS1),
        Algorithm::Ps256 => (MessageDigest::sha256(), Padding::PKCS1_PSS),
        Algorithm::Ps384 => (MessageDigest::sha384(), Padding::PKCS1_PSS),
        Algorithm::Ps512 => (MessageDigest::sha512(), Padding::PKCS1_PSS),
        _ => return None,
    };
    let key = PKey::from_rsa(key.public_key().as_ref().clone()).ok()?;
    let mut verifier = Verifier::new(hash, &key).ok()?;
    verifier.set_rsa_padding(padding).ok()?;
    verifier.update(message).ok()?;
    verifier.verify(signature).ok()
}

const SHA256_BYTES: usize = 32;

const fn hash_bytes(alg: Algorithm) -> Option<usize> {
    match alg {
        Algorithm::Hs256 => Some(SHA256_BYTES),
        Algorithm::Hs384 => Some(48),
        Algorithm::Hs512 => Some(64),
        _ => None,
    }
}
