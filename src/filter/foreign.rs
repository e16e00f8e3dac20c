//! Envoy's foreign function `verify_signature`: BoringSSL, for PKCS#1 v1.5 and ECDSA. It is asked, and never believed
//! beyond two answers that it has been seen to give.

mod known;

use std::cell::Cell;

use prost::encoding::{WireType, encode_key, encode_varint};

use super::abi;
use crate::jws::{Algorithm, UnverifiedJws};
use crate::signature::{Crypto, KeySet, VerifyingKey};

/// The host's verification, once a good and a bad signature were told apart by it.
pub struct Foreign {
    /// What it answers to a bad signature.
    bad: Vec<u8>,
    failures: Cell<u64>,
}

/// What it answers to a good one: `VerifySignatureResult{result: true}` and nothing more.
const GOOD: [u8; 2] = [0x08, 0x01];

impl Foreign {
    /// Tries the host on the examples of RFC 7515 A.2 and A.3. Nothing if it has no such function, or fails on one of
    /// them. Only on Envoy: elsewhere the mere call may bring a worker down.
    pub fn probe() -> Option<Self> {
        let examples = [(known::RS256, Algorithm::Rs256), (known::ES256, Algorithm::Es256)];
        let mut bad: Option<Vec<u8>> = None;
        for ((set, token), alg) in examples {
            let set = KeySet::parse(set.as_bytes(), 1).ok()?;
            let key = set.keys().first()?;
            let jws = UnverifiedJws::parse(token.as_bytes()).ok()?;
            let der = key.ecdsa_sig_value(jws.signature());
            let signature = der.as_deref().unwrap_or_else(|| jws.signature());
            let ask = |message: &[u8]| call(hash(alg)?, key.spki_der()?, message, signature);
            if ask(jws.signing_input())? != GOOD {
                return None;
            }
            let answer = ask(&[jws.signing_input(), b"."].concat())?;
            // It must be one answer for every bad signature: any other could be a failure.
            if answer == GOOD || bad.is_some_and(|bad| bad != answer) {
                return None;
            }
            bad = Some(answer);
        }
        Some(Self { bad: bad?, failures: Cell::new(0) })
    }

    /// How often the host was asked and gave no answer that counts, since this was asked last.
    pub fn take_failures(&self) -> u64 {
        self.failures.take()
    }
}

impl Crypto for Foreign {
    fn verify(&self, key: &VerifyingKey, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Option<bool> {
        let hash = hash(alg)?;
        let spki = key.spki_der()?;
        let answer = if is_ecdsa(alg) {
            // What is not r and s in their full width is no signature (RFC 7518 §3.4).
            let Some(der) = key.ecdsa_sig_value(signature) else { return Some(false) };
            call(hash, spki, signing_input, &der)
        } else {
            call(hash, spki, signing_input, signature)
        };
        match answer {
            Some(answer) if answer == GOOD => Some(true),
            Some(answer) if answer == self.bad => Some(false),
            Some(_) | None => {
                self.failures.set(self.failures.get().saturating_add(1));
                None
            }
        }
    }
}

const fn is_ecdsa(alg: Algorithm) -> bool {
    matches!(alg, Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512)
}

/// The name of the hash, for algorithms that the host verifies. RSASSA-PSS, EdDSA and ECDSA on secp256k1 it does not.
const fn hash(alg: Algorithm) -> Option<&'static str> {
    match alg {
        Algorithm::Rs256 | Algorithm::Es256 => Some("sha256"),
        Algorithm::Rs384 | Algorithm::Es384 => Some("sha384"),
        Algorithm::Rs512 | Algorithm::Es512 => Some("sha512"),
        _ => None,
    }
}

/// Calls `verify_signature` with `VerifySignatureArguments{hash_function, public_key, signature, text}`.
fn call(hash: &str, spki: &[u8], message: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    const FRAMING: usize = 32;
    let size =
        [hash.len(), spki.len(), message.len(), signature.len()].into_iter().fold(FRAMING, usize::saturating_add);
    let mut arguments = Vec::with_capacity(size);
    for (tag, value) in [(1, hash.as_bytes()), (2, spki), (3, signature), (4, message)] {
        encode_key(tag, WireType::LengthDelimited, &mut arguments);
        encode_varint(u64::try_from(value.len()).unwrap_or(u64::MAX), &mut arguments);
        arguments.extend_from_slice(value);
    }
    abi::call_foreign_function("verify_signature", &arguments)
}
