//! Ed25519 (RFC 8032 §5.1.7, RFC 8037 §3.1).

use std::cell::OnceCell;
use std::ops::Neg as _;
use std::sync::LazyLock;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;

use super::comb::{self, Comb};
use super::hash::Hash;

/// A public key.
pub struct PublicKey {
    x: [u8; 32],
    negative: EdwardsPoint,
    /// Made when the key is first used, since few keys of a large set ever are.
    comb: OnceCell<Comb<EdwardsPoint, KEY_TEETH>>,
}

impl PublicKey {
    /// Makes a key of its octets (RFC 8032 §5.1.3).
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(x: &[u8; 32]) -> Result<Self, &'static str> {
        let point = CompressedEdwardsY(*x).decompress().ok_or("`x` is not a point of the curve Ed25519")?;
        if point.compress().as_bytes() != x {
            return Err("`x` is not the canonical form of its point (RFC 8032 §5.1.3)");
        }
        // With such a key, one signature would be good for many messages.
        if point.is_small_order() {
            return Err("`x` is a point of small order");
        }
        Ok(Self { x: *x, negative: point.neg(), comb: OnceCell::new() })
    }

    /// Whether `signature` is this key's over `message`: without the cofactor, `S` below the order, and `R` compared as
    /// it was sent, so that only its canonical form passes.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let Some((r, s)) = signature.split_at_checked(32) else { return false };
        let k = Hash::Sha512.digest(&[r, &self.x, message]);
        let (Ok(s), Ok(k)) = (s.try_into(), k.as_slice().try_into()) else { return false };
        let Some(s) = Scalar::from_canonical_bytes(s).into_option() else { return false };
        let k = Scalar::from_bytes_mod_order_wide(k);
        self.sum(&s, &k).is_some_and(|sum| sum.compress().as_bytes() == r)
    }

    /// `[s]B - [k]A`.
    fn sum(&self, s: &Scalar, k: &Scalar) -> Option<EdwardsPoint> {
        let comb = self.comb.get_or_init(|| Comb::new(self.negative, 32));
        comb::sum((&BASE, s.as_bytes()), (comb, k.as_bytes()))
    }
}

/// With 5, the sums of a key take 10 KiB.
const KEY_TEETH: usize = 5;

/// With 10, the sums of the base point take 160 KiB.
static BASE: LazyLock<Comb<EdwardsPoint, 10>> = LazyLock::new(|| Comb::new(ED25519_BASEPOINT_POINT, 32));

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
    use fastrand::Rng;
    use num_bigint::BigUint;

    use super::*;

    /// Scalars that random ones hardly ever are: long runs of zeros and of ones.
    fn scalar(rng: &mut Rng) -> Scalar {
        let mut run = None;
        Scalar::from_bytes_mod_order(std::array::from_fn(|_| {
            if rng.u8(..) < 32 {
                run = *rng.choice(&[None, Some(0), Some(0xff)]).expect("one of three");
            }
            run.unwrap_or_else(|| rng.u8(..))
        }))
    }

    fn octets(number: &BigUint) -> [u8; 32] {
        let mut octets = number.to_bytes_le();
        octets.resize(32, 0);
        octets.try_into().expect("32 bytes")
    }

    fn order() -> BigUint {
        BigUint::from_bytes_le((-Scalar::ONE).as_bytes()) + 1_u8
    }

    /// A key and signatures, some of them good, held against an independent implementation's verdict and sums. Gives
    /// how many were good, and how many there were.
    fn check(rng: &mut Rng) -> (u64, u64) {
        let private = scalar(rng);
        let torsion = |rng: &mut Rng| EIGHT_TORSION[if rng.u8(..) < 64 { rng.usize(..8) } else { 0 }];
        let point = EdwardsPoint::mul_base(&private) + torsion(rng);
        let x = point.compress().to_bytes();
        let Ok(key) = PublicKey::new(&x) else {
            assert!(point.is_small_order(), "{x:?}");
            return (0, 0);
        };
        let independent = VerifyingKey::from_bytes(&x).expect("a point");

        let edges = [Scalar::ZERO, Scalar::ONE, -Scalar::ONE, Scalar::from(2_u8), -Scalar::from(2_u8)];
        let scalars: Vec<Scalar> = edges.into_iter().chain((0..3).map(|_| scalar(rng))).collect();
        for s in &scalars {
            for k in &scalars {
                let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(k, &-point, s);
                assert_eq!(key.sum(s, k), Some(expected), "{s:?} {k:?} {x:?}");
            }
        }

        let (mut good, mut all) = (0, 0);
        let mut agree = |message: &[u8], signature: [u8; 64]| {
            let expected = independent.verify(message, &Signature::from_bytes(&signature)).is_ok();
            assert_eq!(key.verify(message, &signature), expected, "{x:?} {message:?} {signature:?}");
            good += u64::from(expected);
            all += 1;
        };
        for _ in 0..4 {
            let mut message: Vec<u8> = (0..rng.usize(..300)).map(|_| rng.u8(..)).collect();
            let nonce = if rng.u8(..) < 32 { Scalar::ZERO } else { scalar(rng) };
            let r = (EdwardsPoint::mul_base(&nonce) + torsion(rng)).compress();
            let k = Hash::Sha512.digest(&[r.as_bytes(), &x, &message]);
            let k = Scalar::from_bytes_mod_order_wide(k.as_slice().try_into().expect("64 bytes"));
            let s = nonce + k * private;
            let signature = [*r.as_bytes(), s.to_bytes()].concat().try_into().expect("64 bytes");
            agree(&message, signature);
            let beyond = order() + BigUint::from_bytes_le(s.as_bytes());
            agree(&message, [*r.as_bytes(), octets(&beyond)].concat().try_into().expect("64 bytes"));
            let mut flipped = signature;
            flipped[rng.usize(..64)] ^= 1 << rng.u8(..8);
            agree(&message, flipped);
            if let Some(octet) = rng.choice(&mut message) {
                *octet ^= 1 << rng.u8(..8);
                agree(&message, signature);
            }
        }
        (good, all)
    }

    #[test]
    fn verdicts_are_those_of_an_independent_implementation() {
        let mut rng = Rng::with_seed(17);
        let (good, all) = (0..20).map(|_| check(&mut rng)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert!(good > 30 && all - good > 150, "{good} of {all} signatures are good");
    }

    /// As many random cases as one likes, with overflow checks on, at speed:
    /// `CASES=1000000 cargo test --config profile.dev.package.claimgate.opt-level=3 --lib ed25519::tests::verdicts -- --ignored --nocapture`
    #[test]
    #[ignore = "as long as one likes"]
    fn verdicts_are_those_of_an_independent_implementation_at_length() {
        let wanted = super::super::cases();
        let mut rng = Rng::new();
        println!("seed {}", rng.get_seed());
        let (mut good, mut all) = (0, 0);
        while all < wanted {
            let (more, cases) = check(&mut rng);
            (good, all) = (good + more, all + cases);
        }
        println!("{all} cases agree, {good} of them good");
    }

    #[test]
    fn a_signature_has_64_bytes() {
        let key = PublicKey::new(ED25519_BASEPOINT_POINT.compress().as_bytes()).expect("a point");
        // The private key is 1, and so is the nonce.
        let r = ED25519_BASEPOINT_POINT.compress().to_bytes();
        let k = Hash::Sha512.digest(&[&r, &r, b"message"]);
        let s = Scalar::ONE + Scalar::from_bytes_mod_order_wide(k.as_slice().try_into().expect("64 bytes"));
        let signature = [r, s.to_bytes()].concat();
        assert!(key.verify(b"message", &signature));
        for length in 0..64 {
            assert!(!key.verify(b"message", &signature[..length]), "{length}");
        }
        assert!(!key.verify(b"message", &[&*signature, &[0]].concat()));
    }
}
