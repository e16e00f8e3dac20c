//! ML-DSA, pure and with an empty context (FIPS 204 §5.3, RFC 9964).

use ml_dsa::{EncodedVerifyingKey, MlDsa44, MlDsa65, MlDsa87, MlDsaParams, Signature, VerifyingKey};

use crate::jws::Algorithm;

/// A public key, with its matrix worked out: 16 to 64 KiB.
pub enum PublicKey {
    MlDsa44(Box<VerifyingKey<MlDsa44>>),
    MlDsa65(Box<VerifyingKey<MlDsa65>>),
    MlDsa87(Box<VerifyingKey<MlDsa87>>),
}

impl PublicKey {
    /// Makes a key for `alg`. Nothing, if it is not as long as that algorithm's keys are.
    pub fn new(alg: Algorithm, public: &[u8]) -> Option<Self> {
        match alg {
            Algorithm::MlDsa44 => decode(public).map(Self::MlDsa44),
            Algorithm::MlDsa65 => decode(public).map(Self::MlDsa65),
            Algorithm::MlDsa87 => decode(public).map(Self::MlDsa87),
            _ => None,
        }
    }

    /// The only algorithm it is for.
    pub const fn alg(&self) -> Algorithm {
        match self {
            Self::MlDsa44(_) => Algorithm::MlDsa44,
            Self::MlDsa65(_) => Algorithm::MlDsa65,
            Self::MlDsa87(_) => Algorithm::MlDsa87,
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::MlDsa44(key) => verify(key, message, signature),
            Self::MlDsa65(key) => verify(key, message, signature),
            Self::MlDsa87(key) => verify(key, message, signature),
        }
    }
}

fn decode<P: MlDsaParams>(public: &[u8]) -> Option<Box<VerifyingKey<P>>> {
    EncodedVerifyingKey::<P>::try_from(public).ok().map(|encoded| Box::new(VerifyingKey::decode(&encoded)))
}

fn verify<P: MlDsaParams>(key: &VerifyingKey<P>, message: &[u8], signature: &[u8]) -> bool {
    Signature::<P>::try_from(signature).is_ok_and(|signature| key.verify_with_context(message, &[], &signature))
}
