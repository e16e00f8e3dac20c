//! What hosts that verify want in DER (X.690 §8 to §10): public keys and ECDSA signatures. Nothing is read here.

use crate::jwk::Curve;

/// The `SubjectPublicKeyInfo` of an RSA key (RFC 3279 §2.3.1).
pub fn rsa_spki(n: &[u8], e: &[u8]) -> Vec<u8> {
    let key = element(SEQUENCE, &[&integer(n), &integer(e)]);
    spki(&[RSA_ENCRYPTION, NULL], &key)
}

/// The `SubjectPublicKeyInfo` of a point in SEC 1's uncompressed form (RFC 5480 §2).
pub fn ec_spki(crv: Curve, point: &[u8]) -> Vec<u8> {
    spki(&[EC_PUBLIC_KEY, curve(crv)], point)
}

/// The `ECDSA-Sig-Value` (RFC 3279 §2.2.3) of a signature as JOSE has it. Nothing, if it is not exactly as wide as the
/// curve asks for, or if one of its numbers is zero.
pub fn ecdsa_sig_value(crv: Curve, signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = signature.split_at_checked(crv.coordinate_bytes()).filter(|(r, s)| r.len() == s.len())?;
    let is_zero = |number: &[u8]| number.iter().all(|&octet| octet == 0);
    (!is_zero(r) && !is_zero(s)).then(|| element(SEQUENCE, &[&integer(r), &integer(s)]))
}

fn spki(algorithm: &[&[u8]], key: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&element(SEQUENCE, algorithm), &element(BIT_STRING, &[&[0], key])])
}

/// A positive integer, in as few bytes as hold it and its sign.
fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|&&octet| octet == 0).count();
    let number = number.get(zeros..).unwrap_or_default();
    let sign: &[u8] = if number.first().is_none_or(|&octet| octet >= 0x80) { &[0] } else { &[] };
    element(INTEGER, &[sign, number])
}

fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = contents.len().to_be_bytes();
    let length = length.get(length.iter().take_while(|&&octet| octet == 0).count()..).unwrap_or_default();
    let mut element = vec![tag];
    match length {
        [] => element.push(0),
        [short @ ..0x80] => element.push(*short),
        long => {
            element.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            element.extend_from_slice(long);
        }
    }
    element.extend_from_slice(&contents);
    element
}

const fn curve(crv: Curve) -> &'static [u8] {
    match crv {
        Curve::P256 => b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
        Curve::P384 => b"\x06\x05\x2b\x81\x04\x00\x22",
        Curve::P521 => b"\x06\x05\x2b\x81\x04\x00\x23",
        Curve::Secp256k1 => b"\x06\x05\x2b\x81\x04\x00\x0a",
    }
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const NULL: &[u8] = b"\x05\x00";
const RSA_ENCRYPTION: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
