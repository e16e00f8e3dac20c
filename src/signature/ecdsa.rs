//! ECDSA (RFC 7518 §3.4, RFC 8812 §3.2): `r ‖ s`, each exactly as wide as the curve's order.
//!
//! An `s` in the upper half is as good as one in the lower: JOSE asks for neither.

use std::cell::OnceCell;
use std::ops::Mul as _;
use std::sync::LazyLock;

use k256::Secp256k1;
use p256::NistP256;
use p256::elliptic_curve::ff::PrimeField as _;
use p256::elliptic_curve::group::Group as _;
use p256::elliptic_curve::ops::{Invert as _, Reduce as _};
use p256::elliptic_curve::point::AffineCoordinates;
use p256::elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytes, NonZeroScalar, ProjectivePoint, Scalar};
use p384::NistP384;
use p521::ecdsa::signature::Verifier as _;

use super::comb::{self, Comb, Point};
use super::hash::Hash;
use crate::jwk::Curve;

/// A public key on one of JOSE's curves.
pub enum PublicKey {
    P256(Key<NistP256, 5>),
    P384(Key<NistP384, 4>),
    P521(p521::ecdsa::VerifyingKey),
    Secp256k1(Key<Secp256k1, 5>),
}

impl PublicKey {
    /// Makes a key of a point in SEC 1's uncompressed form. Nothing, if it is not on the curve.
    pub fn new(crv: Curve, point: &[u8]) -> Option<Self> {
        match crv {
            Curve::P256 => Key::new(affine(point)?).map(Self::P256),
            Curve::P384 => Key::new(affine(point)?).map(Self::P384),
            Curve::P521 => p521::ecdsa::VerifyingKey::from_affine(affine(point)?).map(Self::P521).ok(),
            Curve::Secp256k1 => Key::new(affine(point)?).map(Self::Secp256k1),
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
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|rs| key.verify(&P256, &Hash::Sha256.digest(&[message]), rs.split_scalars())),
            Self::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|rs| key.verify(&P384, &Hash::Sha384.digest(&[message]), rs.split_scalars())),
            Self::P521(key) => {
                p521::ecdsa::Signature::from_slice(signature).is_ok_and(|rs| key.verify(message, &rs).is_ok())
            }
            Self::Secp256k1(key) => k256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|rs| key.verify(&SECP256K1, &Hash::Sha256.digest(&[message]), rs.split_scalars())),
        }
    }
}

/// A key of a curve whose hash is as wide as its order. With those teeth, the sums of a key take 6 KiB for P-256, 7.5 for
/// secp256k1 and 9 for P-384.
pub struct Key<C: CurveArithmetic, const TEETH: usize> {
    point: ProjectivePoint<C>,
    /// Made when the key is first used, since few keys of a large set ever are.
    comb: OnceCell<Comb<ProjectivePoint<C>, TEETH>>,
}

impl<C: CurveArithmetic, const TEETH: usize> Key<C, TEETH>
where
    ProjectivePoint<C>: Point,
{
    fn new(point: AffinePoint<C>) -> Option<Self> {
        let point = ProjectivePoint::<C>::from(point);
        (!bool::from(point.is_identity())).then(|| Self { point, comb: OnceCell::new() })
    }

    /// SEC 1 §4.1.4, from step 3.
    fn verify(
        &self,
        base: &Comb<ProjectivePoint<C>, BASE_TEETH>,
        digest: &[u8],
        (r, s): (NonZeroScalar<C>, NonZeroScalar<C>),
    ) -> bool {
        let Ok(digest) = FieldBytes::<C>::try_from(digest) else { return false };
        let reciprocal = *s.invert_vartime();
        let [u1, u2] = [Scalar::<C>::reduce(&digest), *r].map(|scalar| {
            let mut octets = scalar.mul(reciprocal).to_repr();
            octets.reverse();
            octets
        });
        let comb = self.comb.get_or_init(|| Comb::new(self.point, digest.len()));
        let Some(sum) = comb::sum((base, &u1), (comb, &u2)) else { return false };
        // The neutral point's is zero, which `r` is not.
        let sum: AffinePoint<C> = sum.into();
        Scalar::<C>::reduce(&sum.x()) == *r
    }
}

/// With 8, the sums of a base point take 36 to 72 KiB.
const BASE_TEETH: usize = 8;

static P256: LazyLock<Comb<ProjectivePoint<NistP256>, BASE_TEETH>> =
    LazyLock::new(|| Comb::new(p256::ProjectivePoint::GENERATOR, 32));
static P384: LazyLock<Comb<ProjectivePoint<NistP384>, BASE_TEETH>> =
    LazyLock::new(|| Comb::new(p384::ProjectivePoint::GENERATOR, 48));
static SECP256K1: LazyLock<Comb<ProjectivePoint<Secp256k1>, BASE_TEETH>> =
    LazyLock::new(|| Comb::new(k256::ProjectivePoint::GENERATOR, 32));

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
    use fastrand::Rng;
    use k256::ecdsa::{Signature, SigningKey, signature::Signer as _};
    use p256::elliptic_curve::group::ff::Field as _;

    use super::*;

    /// Scalars that random ones hardly ever are: few and small ones, and long runs of zeros and of ones.
    fn scalar<C: CurveArithmetic>(rng: &mut Rng) -> Scalar<C> {
        let small = Scalar::<C>::from(rng.u64(..4));
        match rng.u8(..8) {
            0 => small,
            1 => -small,
            _ => {
                let mut run = None;
                let mut octets = FieldBytes::<C>::default();
                octets.iter_mut().for_each(|octet| {
                    if rng.u8(..) < 32 {
                        run = *rng.choice(&[None, Some(0), Some(0xff)]).expect("one of three");
                    }
                    *octet = run.unwrap_or_else(|| rng.u8(..));
                });
                Scalar::<C>::reduce(&octets)
            }
        }
    }

    /// A key's signature, good and with a bit of it or of the message flipped, held against the crate's own verdicts.
    macro_rules! check {
        ($rng:expr, $crv:ident, $krate:ident, $curve:ty, $hash:ident, $base:ident) => {{
            let rng: &mut Rng = $rng;
            let one = Scalar::<$curve>::ONE;
            let [private, nonce] = [(); 2].map(|()| match scalar::<$curve>(rng) {
                zero if bool::from(zero.is_zero()) => one,
                other => other,
            });
            let affine = (ProjectivePoint::<$curve>::GENERATOR * private).to_affine();
            let crates = $krate::ecdsa::VerifyingKey::from_affine(affine).expect("not the neutral point");
            let key = PublicKey::new(Curve::$crv, crates.to_sec1_point(false).as_bytes()).expect("on the curve");
            let message: Vec<u8> = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
            let digest = Hash::$hash.digest(&[&message]);
            let z = Scalar::<$curve>::reduce(&FieldBytes::<$curve>::try_from(&*digest).expect("as wide"));
            let r = Scalar::<$curve>::reduce(&(ProjectivePoint::<$curve>::GENERATOR * nonce).to_affine().x());
            let s = nonce.invert().expect("not zero") * (z + r * private);
            let signature = $krate::ecdsa::Signature::from_scalars(r, s).expect("not zero").to_bytes().to_vec();
            assert!(key.verify(&message, &signature), "{private:?} {nonce:?} {message:?}");
            for case in 0..4 {
                let (mut message, mut signature) = (message.clone(), signature.clone());
                let flipped = if case == 0 { &mut message } else { &mut signature };
                if let Some(octet) = rng.choice(flipped) {
                    *octet ^= 1 << rng.u8(..8);
                }
                let expected = $krate::ecdsa::Signature::from_slice(&signature)
                    .is_ok_and(|rs| crates.verify(&message, &rs.normalize_s()).is_ok());
                assert_eq!(key.verify(&message, &signature), expected, "{private:?} {message:?} {signature:?}");
            }

            // Any two scalars, whether or not a signature has them.
            let [u1, u2] = [(); 2].map(|()| scalar::<$curve>(rng));
            let [a, b] = [u1, u2].map(|scalar| scalar.to_repr().iter().rev().copied().collect::<Vec<u8>>());
            let comb = Comb::<_, 4>::new(ProjectivePoint::<$curve>::from(affine), a.len());
            let expected = ProjectivePoint::<$curve>::GENERATOR * u1 + affine * u2;
            assert_eq!(comb::sum((&$base, &a), (&comb, &b)), Some(expected), "{private:?} {u1:?} {u2:?}");
        }};
    }

    fn check(rng: &mut Rng) {
        check!(rng, P256, p256, NistP256, Sha256, P256);
        check!(rng, P384, p384, NistP384, Sha384, P384);
        check!(rng, Secp256k1, k256, Secp256k1, Sha256, SECP256K1);
    }

    #[test]
    fn verdicts_are_those_of_an_independent_implementation() {
        let mut rng = Rng::with_seed(17);
        (0..20).for_each(|_| check(&mut rng));
    }

    /// As many random cases as one likes, with overflow checks on, at speed:
    /// `CASES=100000 cargo test --config profile.dev.package.claimgate.opt-level=3 --lib ecdsa::tests::verdicts -- --ignored --nocapture`
    #[test]
    #[ignore = "as long as one likes"]
    fn verdicts_are_those_of_an_independent_implementation_at_length() {
        let wanted = super::super::cases();
        let mut rng = Rng::new();
        println!("seed {}", rng.get_seed());
        (0..wanted.div_ceil(15)).for_each(|_| check(&mut rng));
        println!("{wanted} cases agree");
    }

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
