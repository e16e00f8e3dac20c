//! Public keys in PEM (RFC 7468): `PUBLIC KEY`, `RSA PUBLIC KEY` and `CERTIFICATE`.
//!
//! Of a certificate the public key is taken and nothing else: neither its validity nor who signed it is judged, for who
//! writes the configuration vouches for the key.

use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Reader, SliceReader};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::{Curve, Jwk, KeyMaterial, Why};
use crate::jws::Algorithm;

/// Reads the public key in `pem`, which is at `index` of a list. It has no name.
pub fn parse(index: usize, pem: &str) -> Result<Jwk, Why> {
    if pem.contains("PRIVATE KEY-----") {
        return Err("a private key, which does not belong here: a public key was expected".into());
    }
    let (label, octets) = pem_rfc7468::decode_vec(pem.trim().as_bytes())
        .map_err(|_| "not one block of PEM (RFC 7468), such as `-----BEGIN PUBLIC KEY-----` and so on")?;
    let material = match label {
        "PUBLIC KEY" => whole(&octets, SubjectPublicKeyInfoRef::decode).and_then(from_spki),
        "RSA PUBLIC KEY" => from_pkcs1(&octets),
        "CERTIFICATE" => whole(&octets, certificate).and_then(from_spki),
        _ => Err("the PEM is no `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`".into()),
    }?;
    let alg = match &material {
        KeyMaterial::MlDsa { alg, .. } => Some(*alg),
        _ => None,
    };
    Ok(Jwk { kid: None, alg, index, material })
}

/// `Certificate` (RFC 5280 §4.1), up to the key.
fn certificate<'r>(reader: &mut SliceReader<'r>) -> der::Result<SubjectPublicKeyInfoRef<'r>> {
    reader.sequence(|certificate| {
        let key = certificate.sequence(|fields: &mut SliceReader<'r>| {
            if der::Tag::peek(fields)?.is_context_specific() {
                AnyRef::decode(fields)?;
            }
            for _serial_algorithm_issuer_validity_subject in 0..5 {
                AnyRef::decode(fields)?;
            }
            let key = SubjectPublicKeyInfoRef::decode(fields)?;
            while !fields.is_finished() {
                AnyRef::decode(fields)?;
            }
            Ok::<_, der::Error>(key)
        })?;
        let (_algorithm, _signature) = (AnyRef::decode(certificate)?, BitStringRef::decode(certificate)?);
        Ok::<_, der::Error>(key)
    })
}

fn from_spki(spki: SubjectPublicKeyInfoRef<'_>) -> Result<KeyMaterial, Why> {
    let key = spki.subject_public_key.as_bytes().ok_or("the key is not a whole number of bytes")?;
    match (spki.algorithm.oid, spki.algorithm.parameters) {
        (RSA_ENCRYPTION, Some(parameters)) if parameters.is_null() => from_pkcs1(key),
        (EC_PUBLIC_KEY, Some(parameters)) => {
            let named = parameters.decode_as::<ObjectIdentifier>().ok();
            let Some((crv, _)) = CURVES.into_iter().find(|(_, oid)| named == Some(*oid)) else {
                return Err("an EC key whose curve is not supported".into());
            };
            if key.first() != Some(&4) || key.len() != crv.coordinate_bytes().saturating_mul(2).saturating_add(1) {
                return Err(format!("the key is not an uncompressed point of {}", crv.name()).into());
            }
            Ok(KeyMaterial::Ec { crv, point: key.to_vec() })
        }
        (ED25519, None) => {
            let found = key.len();
            key.try_into()
                .map(KeyMaterial::Ed25519)
                .map_err(|_| format!("the key has {found} bytes, 32 were expected").into())
        }
        (oid, None) => match ML_DSA.into_iter().find(|(_, ml_dsa)| oid == *ml_dsa) {
            Some((alg, _)) => Ok(KeyMaterial::MlDsa { alg, public: key.to_vec() }),
            None => Err("a key of a kind that is not supported".into()),
        },
        _ => Err("a key of a kind that is not supported".into()),
    }
}

/// `RSAPublicKey` (RFC 8017 §A.1.1).
fn from_pkcs1(octets: &[u8]) -> Result<KeyMaterial, Why> {
    let (n, e) = whole(octets, |reader| {
        reader.sequence(|fields| Ok::<_, der::Error>((UintRef::decode(fields)?, UintRef::decode(fields)?)))
    })?;
    KeyMaterial::rsa(n.as_bytes().to_vec(), e.as_bytes().to_vec())
}

fn whole<'r, T>(octets: &'r [u8], read: impl FnOnce(&mut SliceReader<'r>) -> der::Result<T>) -> Result<T, Why> {
    SliceReader::new(octets)
        .and_then(|mut reader| {
            let value = read(&mut reader)?;
            reader.finish().map(|()| value)
        })
        .map_err(|_| "what the PEM holds is not a key in DER".into())
}

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const CURVES: [(Curve, ObjectIdentifier); 4] = [
    (Curve::P256, ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7")),
    (Curve::P384, ObjectIdentifier::new_unwrap("1.3.132.0.34")),
    (Curve::P521, ObjectIdentifier::new_unwrap("1.3.132.0.35")),
    (Curve::Secp256k1, ObjectIdentifier::new_unwrap("1.3.132.0.10")),
];
/// RFC 9881 §2.
const ML_DSA: [(Algorithm, ObjectIdentifier); 3] = [
    (Algorithm::MlDsa44, ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.17")),
    (Algorithm::MlDsa65, ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18")),
    (Algorithm::MlDsa87, ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.19")),
];
