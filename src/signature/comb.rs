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
/// teeth of a comb, and the next comb begins where one ends. The last sign is +: the others are the negatives. A tooth
/// more takes additions away and doubles the number of sums.
pub struct Comb<P, const TEETH: usize> {
    point: P,
    digits: usize,
    sums: Box<[P]>,
}

impl<P: Point, const TEETH: usize> Comb<P, TEETH> {
    /// Digits that one comb is for.
    const SPAN: usize = COLUMNS * TEETH;
    /// Sums of one comb.
    const SUMS: usize = 1 << (TEETH - 1);

    /// Works the sums out, for scalars of at most so many octets.
    pub fn new(point: P, octets: usize) -> Self {
        let combs = octets.saturating_mul(8).div_ceil(Self::SPAN);
        let mut sums = Vec::with_capacity(combs.saturating_mul(Self::SUMS));
        let mut power = point;
        for _ in 0..combs {
            let teeth: [P; TEETH] = std::array::from_fn(|_| {
                let tooth = power;
                (0..COLUMNS).for_each(|_| power.add_assign(power));
                tooth
            });
            let Some((last, others)) = teeth.split_last() else { continue };
            let mut lowest = *last;
            others.iter().for_each(|tooth| lowest.sub_assign(tooth));
            let mut own = vec![lowest];
            for tooth in others {
                let mut with = own.clone();
                for sum in &mut with {
                    sum.add_assign(tooth);
                    sum.add_assign(tooth);
                }
                own.append(&mut with);
            }
            sums.append(&mut own);
        }
        Self { point, digits: combs.saturating_mul(Self::SPAN), sums: sums.into() }
    }

    /// Adds what a scalar's digits in this column stand for.
    fn add(&self, sum: &mut P, digits: &Digits, column: usize) -> Option<()> {
        for (digits, sums) in digits.positive.chunks_exact(Self::SPAN).zip(self.sums.chunks_exact(Self::SUMS)) {
            let teeth = digits.iter().skip(column).step_by(COLUMNS);
            let signs = teeth.rev().fold(0, |signs, positive| signs << 1 | usize::from(*positive));
            if signs & Self::SUMS == 0 {
                // All other signs are turned round too: the sums are in such an order that this counts from the end.
                sum.sub_assign(sums.iter().nth_back(signs)?);
            } else {
                sum.add_assign(sums.get(signs ^ Self::SUMS)?);
            }
        }
        Some(())
    }
}

/// The sum of two points' multiples, by scalars in octets, the least significant first. Nothing, if a scalar is longer
/// than its comb is for.
pub fn sum<P: Point, const A: usize, const B: usize>(
    (a, a_scalar): (&Comb<P, A>, &[u8]),
    (b, b_scalar): (&Comb<P, B>, &[u8]),
) -> Option<P> {
    let (a_digits, b_digits) = (Digits::new(a_scalar, a.digits)?, Digits::new(b_scalar, b.digits)?);
    let mut sum = P::default();
    for column in (0..COLUMNS).rev() {
        sum.add_assign(sum);
        a.add(&mut sum, &a_digits, column)?;
        b.add(&mut sum, &b_digits, column)?;
    }
    if a_digits.are_one_more {
        sum.sub_assign(&a.point);
    }
    if b_digits.are_one_more {
        sum.sub_assign(&b.point);
    }
    Some(sum)
}

/// A scalar in digits that are all 1 or -1, the least significant first, as only odd numbers can be written.
struct Digits {
    positive: Vec<bool>,
    /// Whether the scalar is even, and the digits are those of the next number.
    are_one_more: bool,
}

impl Digits {
    /// `2n + 1` is the sum of all `2^i`, positive where bit `i` of `n` is one, negative where it is zero, and of
    /// `2^(count - 1)`.
    fn new(scalar: &[u8], count: usize) -> Option<Self> {
        let mut bits = scalar.iter().flat_map(|octet| [1, 2, 4, 8, 16, 32, 64, 128].map(|bit| octet & bit != 0));
        let are_one_more = !bits.next()?;
        let mut positive = Vec::with_capacity(count);
        positive.extend(bits);
        if positive.len() >= count {
            return None;
        }
        positive.resize(count.saturating_sub(1), false);
        positive.push(true);
        Some(Self { positive, are_one_more })
    }
}

/// How far apart the teeth are: the nearer, the fewer doublings and the more combs.
const COLUMNS: usize = 13;
