//! Ed25519 (RFC 8032 §5.1.7, RFC 8037 §3.1). The curve is the crate's; how a sum of multiples is reached is ours, since
//! a key verifies often: from sums of its doublings, worked out once.

use std::cell::OnceCell;
use std::sync::LazyLock;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;

use super::hash::Hash;

/// A public key.
pub struct PublicKey {
    x: [u8; 32],
    negative: EdwardsPoint,
    /// Made when the key is first used, since few keys of a large set ever are.
    comb: OnceCell<Comb<KEY_TEETH>>,
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
        Ok(Self { x: *x, negative: -point, comb: OnceCell::new() })
    }

    /// Whether `signature` is this key's over `message`: without the cofactor, `S` below the order, and `R` compared as
    /// it was sent, so that only its canonical form passes.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.expected(message, signature).is_some_and(|(expected, r)| expected.compress().as_bytes() == r)
    }

    /// `[S]B - [k]A`, and the `R` that it must be. Nothing, if `signature` is none of any key.
    fn expected<'s>(&self, message: &[u8], signature: &'s [u8]) -> Option<(EdwardsPoint, &'s [u8])> {
        let (r, s) = signature.split_at_checked(32)?;
        let s = Scalar::from_canonical_bytes(s.try_into().ok()?).into_option()?;
        let k = Hash::Sha512.digest(&[r, &self.x, message]);
        let k = Scalar::from_bytes_mod_order_wide(k.as_slice().try_into().ok()?);
        let (s, k) = (Digits::new(&s), Digits::new(&k));

        let comb = self.comb.get_or_init(|| Comb::new(&self.negative));
        let mut sum = EdwardsPoint::identity();
        for column in (0..COLUMNS).rev() {
            sum += sum;
            sum = BASE.add(sum, &s, column)?;
            sum = comb.add(sum, &k, column)?;
        }
        if s.is_one_more {
            sum -= ED25519_BASEPOINT_POINT;
        }
        if k.is_one_more {
            sum -= self.negative;
        }
        Some((sum, r))
    }
}

/// A scalar in digits that are all 1 or -1, the least significant first: those of an odd number below `2^DIGITS`.
struct Digits {
    /// A bit for each digit, one for 1.
    bits: [u8; DIGITS.div_ceil(8)],
    /// Whether the scalar is even, and the digits are those of the next number.
    is_one_more: bool,
}

impl Digits {
    /// `2n + 1` is the sum of `2^i` or `-2^i`, as bit `i` of `n` says, and of `2^(DIGITS - 1)`.
    fn new(scalar: &Scalar) -> Self {
        let mut bits = [0; DIGITS.div_ceil(8)];
        let octets = scalar.as_bytes();
        let above = octets.iter().skip(1).chain(&[0]);
        bits.iter_mut()
            .zip(octets.iter().zip(above))
            .for_each(|(bits, (octet, above))| *bits = octet >> 1 | above << 7);
        if let Some(top) = bits.get_mut((DIGITS - 1) / 8) {
            *top |= 1 << ((DIGITS - 1) % 8);
        }
        Self { bits, is_one_more: octets.first().is_some_and(|octet| octet & 1 == 0) }
    }

    /// One bit for each of so many digits, [`COLUMNS`] apart.
    fn comb(&self, teeth: usize, first: usize) -> usize {
        let bit = |tooth: usize| {
            let digit = first + tooth * COLUMNS;
            self.bits.get(digit / 8).map_or(0, |octet| usize::from(octet >> (digit % 8) & 1))
        };
        (0..teeth).fold(0, |bits, tooth| bits | bit(tooth) << tooth)
    }
}

/// A point's multiples by `±2^0 ± 2^COLUMNS ± 2^(2 * COLUMNS) ..`, for as many digits as the teeth of one comb after the
/// other reach. The last sign of each is +: the others are the negatives (Lim and Lee, CRYPTO '94, with signed digits).
struct Comb<const TEETH: usize> {
    sums: Box<[EdwardsPoint]>,
}

impl<const TEETH: usize> Comb<TEETH> {
    const SUMS: usize = 1 << (TEETH - 1);
    const COMBS: usize = DIGITS.div_ceil(COLUMNS * TEETH);

    fn new(point: &EdwardsPoint) -> Self {
        let mut sums = Vec::with_capacity(Self::COMBS * Self::SUMS);
        let mut power = *point;
        let mut next = || {
            let this = power;
            (0..COLUMNS).for_each(|_| power += power);
            this
        };
        for _ in 0..Self::COMBS {
            let teeth: [EdwardsPoint; TEETH] = std::array::from_fn(|_| next());
            let Some((last, others)) = teeth.split_last() else { continue };
            let first = sums.len();
            sums.push(others.iter().fold(*last, |sum, tooth| sum - tooth));
            for tooth in others {
                let twice = tooth + tooth;
                for sum in first..sums.len() {
                    sums.extend(sums.get(sum).map(|sum| sum + twice));
                }
            }
        }
        Self { sums: sums.into() }
    }

    /// Adds what the digits of this column stand for.
    fn add(&self, mut sum: EdwardsPoint, digits: &Digits, column: usize) -> Option<EdwardsPoint> {
        for (comb, sums) in self.sums.chunks_exact(Self::SUMS).enumerate() {
            let signs = digits.comb(TEETH, column + comb * TEETH * COLUMNS);
            let others = signs % Self::SUMS;
            if signs == others {
                sum -= sums.get(Self::SUMS - 1 - others)?;
            } else {
                sum += sums.get(others)?;
            }
        }
        Some(sum)
    }
}

/// Digits of one comb that are as far apart as the next: the fewer, the fewer doublings and the larger the combs.
const COLUMNS: usize = 13;
/// More than the 253 bits of the order, and a multiple of [`COLUMNS`] times either number of teeth.
const DIGITS: usize = 260;
/// With 5, the sums of a key take 10 KiB.
const KEY_TEETH: usize = 5;
/// With 10, those of the base point take 160 KiB, once.
const BASE_TEETH: usize = 10;

static BASE: LazyLock<Comb<BASE_TEETH>> = LazyLock::new(|| Comb::new(&ED25519_BASEPOINT_POINT));
