//! SHA-2, and HMAC with it (FIPS 180-4, RFC 7518 §3.2).

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::jws::Algorithm;

/// The hash that an algorithm names.
#[derive(Clone, Copy)]
pub enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// The hash of an RSA or HMAC algorithm. The others' is their own affair.
    pub const fn of(alg: Algorithm) -> Option<Self> {
        use Algorithm::{Hs256, Hs384, Hs512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match alg {
            Rs256 | Ps256 | Hs256 => Some(Self::Sha256),
            Rs384 | Ps384 | Hs384 => Some(Self::Sha384),
            Rs512 | Ps512 | Hs512 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// The length of a digest, in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of `parts`, one after the other.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        fn digest<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
            parts.iter().fold(D::new(), D::chain_update).finalize().to_vec()
        }
        match self {
            Self::Sha256 => digest::<Sha256>(parts),
            Self::Sha384 => digest::<Sha384>(parts),
            Self::Sha512 => digest::<Sha512>(parts),
        }
    }

    /// What stands before the digest in its `DigestInfo` (RFC 8017 §9.2, note 1).
    pub const fn digest_info(self) -> &'static [u8] {
        match self {
            Self::Sha256 => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
            Self::Sha384 => b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
            Self::Sha512 => b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
        }
    }

    /// Whether `tag` is the whole HMAC of `message`. The time taken does not tell where they differ.
    pub fn is_hmac(self, secret: &[u8], message: &[u8], tag: &[u8]) -> bool {
        fn is_hmac<M: Mac + KeyInit>(secret: &[u8], message: &[u8], tag: &[u8]) -> bool {
            <M as KeyInit>::new_from_slice(secret).is_ok_and(|mac| mac.chain_update(message).verify_slice(tag).is_ok())
        }
        match self {
            Self::Sha256 => is_hmac::<Hmac<Sha256>>(secret, message, tag),
            Self::Sha384 => is_hmac::<Hmac<Sha384>>(secret, message, tag),
            Self::Sha512 => is_hmac::<Hmac<Sha512>>(secret, message, tag),
        }
    }
}
