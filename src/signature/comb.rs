//! A point's multiples, of which many are wanted, from sums of its doublings that are worked out once (Lim and Lee,
//! CRYPTO '94, with signed digits). Nothing is secret: the time taken depends on the scalars.

use std::ops::{AddAssign, SubAssign};

/// What the crates' points have in common. The default is the neutral one.
pub trait Point:
    Copy + Default + AddAssign + SubAssign + for<'p> AddAssign<&'p Self> + for<'p> SubAssign<&'p Self>
{
}

impl<P> Point for P where P: Copy + Default + AddAssign + SubAssign + for<'p> AddAssign<&'p P> + for<'p> SubAssign<&'p P>
{}

/// A point's multiples by `±2^0 ± 2^COLUMNS ± 2^(2 * COLUMNS) ..`, one for each choice of signs; so many powers are the
/// teeth of a comb, and the next comb begins where one ends. The last sign is +: the others are the negatives.
pub struct Comb<P> {
    point: P,
    teeth: usize,
    combs: usize,
    sums: Box<[P]>,
}

impl<P: Point> Comb<P> {
    /// Works the sums out, for scalars of at most so many octets. A tooth more takes additions away and doubles the
    /// number of sums.
    pub fn new(point: P, teeth: usize, octets: usize) -> Self {
        let combs = (8 * octets).div_ceil(COLUMNS * teeth);
        let mut sums = Vec::with_capacity(combs << (teeth - 1));
        let mut power = point;
        for _ in 0..combs {
            let next = |_| {
                let tooth = power;
                (0..COLUMNS).for_each(|_| power += power);
                tooth
            };
            let teeth: Vec<P> = (0..teeth).map(next).collect();
            let Some((last, others)) = teeth.split_last() else { continue };
            let first = sums.len();
            let mut lowest = *last;
            others.iter().for_each(|tooth| lowest -= tooth);
            sums.push(lowest);
            for tooth in others {
                for index in first..sums.len() {
                    let Some(mut sum) = sums.get(index).copied() else { continue };
                    sum += tooth;
                    sum += tooth;
                    sums.push(sum);
                }
            }
        }
        Self { point, teeth, combs, sums: sums.into() }
    }

    /// Adds what a scalar's digits in this column stand for.
    fn add(&self, sum: &mut P, digits: &Digits, column: usize) -> Option<()> {
        let half = 1 << (self.teeth - 1);
        for (comb, sums) in self.sums.chunks_exact(half).enumerate() {
            let signs = digits.comb(self.teeth, column + comb * self.teeth * COLUMNS);
            if signs < half {
                *sum -= sums.get(half - 1 - signs)?;
            } else {
                *sum += sums.get(signs - half)?;
            }
        }
        Some(())
    }
}

/// The sum of two points' multiples, by scalars in octets, the least significant first. Nothing, if a scalar is longer
/// than its comb is for.
pub fn sum<P: Point>((a, a_scalar): (&Comb<P>, &[u8]), (b, b_scalar): (&Comb<P>, &[u8])) -> Option<P> {
    let terms = [
        (a, Digits::new(a_scalar, a.combs * a.teeth * COLUMNS)?),
        (b, Digits::new(b_scalar, b.combs * b.teeth * COLUMNS)?),
    ];
    let mut sum = P::default();
    for column in (0..COLUMNS).rev() {
        sum += sum;
        for (comb, digits) in &terms {
            comb.add(&mut sum, digits, column)?;
        }
    }
    for (comb, digits) in &terms {
        if digits.is_one_more {
            sum -= comb.point;
        }
    }
    Some(sum)
}

/// A scalar in digits that are all 1 or -1, the least significant first, as only odd numbers can be written.
struct Digits {
    /// A bit for each digit, one for 1.
    bits: Vec<u8>,
    /// Whether the scalar is even, and the digits are those of the next number.
    is_one_more: bool,
}

impl Digits {
    /// `2n + 1` is the sum of all `2^i`, positive where bit `i` of `n` is one, negative where it is zero, and of
    /// `2^(count - 1)`.
    fn new(scalar: &[u8], count: usize) -> Option<Self> {
        if scalar.len() * 8 > count {
            return None;
        }
        let above = scalar.iter().skip(1).chain(&[0]);
        let mut bits: Vec<u8> = scalar.iter().zip(above).map(|(octet, above)| octet >> 1 | above << 7).collect();
        bits.resize(count.div_ceil(8), 0);
        *bits.get_mut((count - 1) / 8)? |= 1 << ((count - 1) % 8);
        Some(Self { bits, is_one_more: scalar.first()? & 1 == 0 })
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

/// How far apart the teeth are: the nearer, the fewer doublings and the more combs.
const COLUMNS: usize = 13;
