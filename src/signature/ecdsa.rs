//! ECDSA (RFC 7518 §3.4, RFC 8812 §3.2): `r ‖ s`, each exactly as wide as the curve's order.
//!
//! An `s` in the upper half is as good as one in the lower: JOSE asks for neither.

use p256::ecdsa::signature::Verifier as _;
use p256::elliptic_curve::point::AffineCoordinates;

use crate::jwk::Curve;

/// A public key on one of JOSE's curves.
pub enum PublicKey {
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
    Secp256k1(k256::ecdsa::VerifyingKey),
}

impl PublicKey {
    /// Makes a key of a point in SEC 1's uncompressed form. Nothing, if it is not on the curve.
    pub fn new(crv: Curve, point: &[u8]) -> Option<Self> {
        match crv {
            Curve::P256 => p256::ecdsa::VerifyingKey::from_affine(affine(point)?).map(Self::P256).ok(),
            Curve::P384 => p384::ecdsa::VerifyingKey::from_affine(affine(point)?).map(Self::P384).ok(),
            Curve::P521 => p521::ecdsa::VerifyingKey::from_affine(affine(point)?).map(Self::P521).ok(),
            Curve::Secp256k1 => k256::ecdsa::VerifyingKey::from_affine(affine(point)?).map(Self::Secp256k1).ok(),
        }
    }

    /// The curve.
    pub const fn crv(&self) -> Curve {
        match self {
            Self::P256(_) => Curve::P256,
            Self::P384(_) => Curve::P384,
            Self::P521(_) => Curve::P521,
            Self::Secp256k1(_) => Curve::Secp256k1,
        }
    }

    /// Whether `signature` is this key's over `message`, hashed as the curve's algorithm says.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        // `from_slice` takes that width alone, and numbers from 1 up to the order.
        match self {
            Self::P256(key) => {
                p256::ecdsa::Signature::from_slice(signature).is_ok_and(|rs| key.verify(message, &rs).is_ok())
            }
            Self::P384(key) => {
                p384::ecdsa::Signature::from_slice(signature).is_ok_and(|rs| key.verify(message, &rs).is_ok())
            }
            Self::P521(key) => {
                p521::ecdsa::Signature::from_slice(signature).is_ok_and(|rs| key.verify(message, &rs).is_ok())
            }
            // The crate keeps Bitcoin's rule and refuses an `s` in the upper half, where `-s` is as good.
            Self::Secp256k1(key) => k256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|rs| key.verify(message, &rs.normalize_s()).is_ok()),
        }
    }
}

/// From the coordinates, each below the field's prime. The crates' own readers of SEC 1 would take compressed points
/// too, which costs 50 KB of WebAssembly and is never wanted.
fn affine<A: AffineCoordinates>(point: &[u8]) -> Option<A>
where
    A::FieldRepr: for<'p> TryFrom<&'p [u8]>,
{
    let (4, coordinates) = point.split_first()? else { return None };
    let (x, y) = coordinates.split_at_checked(coordinates.len().div_ceil(2))?;
    let (x, y) = (A::FieldRepr::try_from(x).ok()?, A::FieldRepr::try_from(y).ok()?);
    A::from_coordinates(&x, &y).into_option()
}

#[cfg(test)]
mod tests {
    use k256::ecdsa::{Signature, SigningKey, signature::Signer as _};

    use super::*;

    #[test]
    fn both_halves_of_s_are_good() {
        let private = SigningKey::from_slice(&[7; 32]).expect("below the order");
        let point = private.verifying_key().to_sec1_point(false);
        let key = PublicKey::new(Curve::Secp256k1, point.as_bytes()).expect("on the curve");
        let low: Signature = private.sign(b"message");
        let high = Signature::from_scalars(low.r(), -low.s()).expect("in range");
        assert_ne!(low, high);
        for signature in [low, high] {
            assert!(key.verify(b"message", &signature.to_bytes()));
            assert!(!key.verify(b"another", &signature.to_bytes()));
        }
    }
}
