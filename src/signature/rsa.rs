//! RSA signatures (RFC 8017 §8.1.2 and §8.2.2), made for machines that multiply 32 bits by 32 bits into 64.
//!
//! WebAssembly is such a machine: it has no product of 128 bits and no carry flag. So numbers are limbs of 27 bits: a
//! column of products then fits into 64 bits for every modulus up to [`RSA_MODULUS_BITS_MAX`], and carries are settled
//! once for each product of numbers, not for each product of limbs. Four rows are added at a time, so that operands
//! stay in registers. Nothing here is secret: the time taken may depend on every value.
//!
//! Products are Montgomery's, `a·b·R⁻¹ mod n`, with `R` two to the power of all the limbs' bits. `R` is at least 16
//! times the modulus: what goes in may be anything below `2n`, and what comes out is below `2n` again.

use std::num::Wrapping;

use super::Hash;
use crate::limits::{RSA_MODULUS_BITS_MAX, RSA_MODULUS_BITS_MIN};

/// An RSA public key, with what its products need worked out once.
pub struct PublicKey {
    n: Vec<Limbs>,
    /// `−n⁻¹` modulo one limb.
    n_inverse: Column,
    /// `R² mod n`: a product with it brings a number into Montgomery's form.
    r_squared: Vec<Limbs>,
    e: u64,
    bits: usize,
}

impl PublicKey {
    /// Makes a key of big-endian integers. Nothing, if the modulus is even or of a length that is not accepted, or if
    /// the exponent is even, below 3 or longer than 64 bits.
    pub fn new(n: &[u8], e: &[u8]) -> Option<Self> {
        let bits = n.len().checked_mul(8)?.checked_sub(n.first()?.leading_zeros() as usize)?;
        let e = e.iter().try_fold(0_u64, |e, &octet| Some(e.checked_mul(256)? | u64::from(octet)))?;
        let are_odd = n.last()? & 1 == 1 && e & 1 == 1;
        if !are_odd || e < 3 || !(RSA_MODULUS_BITS_MIN..=RSA_MODULUS_BITS_MAX).contains(&bits) {
            return None;
        }
        let n = from_octets(n, bits.checked_add(SLACK_BITS)?.div_ceil(BLOCK_BITS))?;
        let mut key = Self { n_inverse: negative_inverse(&n), n, r_squared: Vec::new(), e, bits };
        key.r_squared = key.r_squared()?;
        Some(key)
    }

    /// The length of the modulus, and so of a signature, in bytes.
    pub const fn modulus_bytes(&self) -> usize {
        self.bits.div_ceil(8)
    }

    /// RSASSA-PKCS1-v1_5 (RFC 8017 §8.2.2): the message is encoded anew and compared as a whole.
    pub fn verify_pkcs1(&self, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let Some(found) = self.public_operation(signature) else { return false };
        encoded_pkcs1(hash, &hash.digest(&[message]), found.len()) == Some(found)
    }

    /// RSASSA-PSS (RFC 8017 §8.1.2) as JOSE uses it: one hash throughout, and a salt of its length (RFC 7518 §3.5).
    pub fn verify_pss(&self, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let Some(found) = self.public_operation(signature) else { return false };
        is_pss(hash, &hash.digest(&[message]), &found, self.bits.saturating_sub(1)).unwrap_or(false)
    }

    /// RSAVP1 (RFC 8017 §5.2.2): `s^e mod n`, as long as the modulus. Nothing, if `s` is of another length or is not
    /// below the modulus.
    fn public_operation(&self, s: &[u8]) -> Option<Vec<u8>> {
        let length = self.modulus_bytes();
        let s = from_octets(s, self.n.len()).filter(|number| s.len() == length && is_less(number, &self.n))?;
        let mut work = Workspace::new(self.n.len());
        let mut base = s.clone();
        self.multiply(&mut base, &self.r_squared, &mut work);
        let mut power = base.clone();
        // The topmost bit is the number itself. The lowest is set, and a product with the number as it came leads out
        // of Montgomery's form.
        for bit in (1..self.e.ilog2()).rev() {
            self.square(&mut power, &mut work);
            if self.e >> bit & 1 == 1 {
                self.multiply(&mut power, &base, &mut work);
            }
        }
        self.square(&mut power, &mut work);
        self.multiply(&mut power, &s, &mut work);
        self.reduce_once(&mut power);
        to_octets(&power, length)
    }

    fn multiply(&self, a: &mut [Limbs], b: &[Limbs], work: &mut Workspace) {
        let mut columns = work.cleared();
        for &rows in &*a {
            add_rows(columns, rows, [0; BLOCK], b);
            columns = columns.get_mut(1..).unwrap_or_default();
        }
        self.reduce(work, a);
    }

    fn square(&self, a: &mut [Limbs], work: &mut Workspace) {
        let mut columns = work.cleared();
        let mut rest = &*a;
        while let Some((&rows, above)) = rest.split_first() {
            add_square(columns, rows);
            // A product of two different limbs occurs twice.
            columns = columns.get_mut(1..).unwrap_or_default();
            add_rows(columns, rows.map(|limb| limb << 1), [0; BLOCK], above);
            columns = columns.get_mut(1..).unwrap_or_default();
            rest = above;
        }
        self.reduce(work, a);
    }

    /// The number in the columns times `R⁻¹`: multiples of `n` are added until the lower half is zero, and the upper
    /// half is the result.
    fn reduce(&self, work: &mut Workspace, result: &mut [Limbs]) {
        let Some((&lowest, above)) = self.n.split_first() else { return };
        let [n0, n1, n2, n3] = widened(&lowest);
        let multiple = |column: Column| (column * self.n_inverse) & LIMB_MASK;
        let mut columns = work.columns.as_mut_slice();
        let mut carry = Wrapping(0);
        for _ in &self.n {
            let Some((&mut [t0, t1, t2, t3], higher)) = columns.split_first_mut() else { return };
            let t0 = t0 + carry;
            let q0 = multiple(t0);
            let t1 = t1 + q0 * n1 + ((t0 + q0 * n0) >> LIMB_BITS);
            let q1 = multiple(t1);
            let t2 = t2 + q0 * n2 + q1 * n1 + ((t1 + q1 * n0) >> LIMB_BITS);
            let q2 = multiple(t2);
            let t3 = t3 + q0 * n3 + q1 * n2 + q2 * n1 + ((t2 + q2 * n0) >> LIMB_BITS);
            let q3 = multiple(t3);
            carry = (t3 + q3 * n0) >> LIMB_BITS;
            columns = higher;
            add_rows(columns, [low(q0), low(q1), low(q2), low(q3)], lowest, above);
        }
        for (limb, column) in result.as_flattened_mut().iter_mut().zip(columns.as_flattened()) {
            carry += column;
            *limb = low(carry & LIMB_MASK);
            carry >>= LIMB_BITS;
        }
    }

    /// `a mod n`, for an `a` below `2n`.
    fn reduce_once(&self, a: &mut [Limbs]) {
        if is_less(a, &self.n) {
            return;
        }
        let mut borrow = Wrapping(0);
        for (limb, &n) in a.as_flattened_mut().iter_mut().zip(self.n.as_flattened()) {
            let difference = wide(*limb) - wide(n) - borrow;
            *limb = low(difference & LIMB_MASK);
            borrow = difference >> 63;
        }
    }

    /// `2a mod n`, for an `a` below `n`.
    fn double(&self, a: &mut [Limbs]) {
        let mut carry = 0;
        for limb in a.as_flattened_mut() {
            let doubled = *limb << 1 | carry;
            *limb = low(wide(doubled) & LIMB_MASK);
            carry = doubled >> LIMB_BITS;
        }
        self.reduce_once(a);
    }

    fn r_squared(&self) -> Option<Vec<Limbs>> {
        let r_bits = self.n.len().checked_mul(BLOCK_BITS)?;
        let top_bit = self.bits.checked_sub(1)?;
        let mut power = vec![[0; BLOCK]; self.n.len()];
        *power.as_flattened_mut().get_mut(top_bit.checked_div(LIMB_BITS)?)? = 1 << top_bit.checked_rem(LIMB_BITS)?;
        for _ in top_bit..r_bits {
            self.double(&mut power);
        }
        // `R mod n` is 1 in Montgomery's form, and two to the power of `r_bits` in that form is `R²`.
        let mut work = Workspace::new(self.n.len());
        for bit in (0..=r_bits.ilog2()).rev() {
            self.square(&mut power, &mut work);
            self.reduce_once(&mut power);
            if r_bits >> bit & 1 == 1 {
                self.double(&mut power);
            }
        }
        Some(power)
    }
}

/// Limbs, least significant first, each below 2^27 (or twice that, where a product is doubled).
type Limbs = [u32; BLOCK];
/// A sum of products of limbs. At most 2 · 308 products of 54 bits come together, for 8192 bits.
type Column = Wrapping<u64>;

/// Room for the columns of a product, twice as many as a number has limbs.
struct Workspace {
    columns: Vec<[Column; BLOCK]>,
}

impl Workspace {
    fn new(blocks: usize) -> Self {
        Self { columns: vec![[Wrapping(0); BLOCK]; blocks.saturating_mul(2)] }
    }

    fn cleared(&mut self) -> &mut [[Column; BLOCK]] {
        self.columns.fill([Wrapping(0); BLOCK]);
        &mut self.columns
    }
}

/// Adds `rows · number` to `columns`, where `below` are the limbs of the number under those of `number`: they reach
/// into its first columns.
#[inline]
fn add_rows(columns: &mut [[Column; BLOCK]], rows: Limbs, below: Limbs, number: &[Limbs]) {
    let [a0, a1, a2, a3] = widened(&rows);
    let [_, mut p1, mut p2, mut p3] = widened(&below);
    let Some((body, rest)) = columns.split_at_mut_checked(number.len()) else { return };
    for ([t0, t1, t2, t3], limbs) in body.iter_mut().zip(number) {
        let [b0, b1, b2, b3] = widened(limbs);
        *t0 += a0 * b0 + a1 * p3 + a2 * p2 + a3 * p1;
        *t1 += a0 * b1 + a1 * b0 + a2 * p3 + a3 * p2;
        *t2 += a0 * b2 + a1 * b1 + a2 * b0 + a3 * p3;
        *t3 += a0 * b3 + a1 * b2 + a2 * b1 + a3 * b0;
        (p1, p2, p3) = (b1, b2, b3);
    }
    if let Some([t0, t1, t2, _]) = rest.first_mut() {
        *t0 += a1 * p3 + a2 * p2 + a3 * p1;
        *t1 += a2 * p3 + a3 * p2;
        *t2 += a3 * p3;
    }
}

/// Adds the square of four limbs to the first two blocks of `columns`.
#[inline]
fn add_square(columns: &mut [[Column; BLOCK]], limbs: Limbs) {
    let Some([[t0, t1, t2, t3], [t4, t5, t6, _]]) = columns.first_chunk_mut() else { return };
    let [a0, a1, a2, a3] = widened(&limbs);
    let [d1, d2, d3] = [a1 + a1, a2 + a2, a3 + a3];
    *t0 += a0 * a0;
    *t1 += a0 * d1;
    *t2 += a0 * d2 + a1 * a1;
    *t3 += a0 * d3 + a1 * d2;
    *t4 += a1 * d3 + a2 * a2;
    *t5 += a2 * d3;
    *t6 += a3 * a3;
}

/// `−n⁻¹` modulo one limb, for an odd `n`.
fn negative_inverse(n: &[Limbs]) -> Column {
    let n = n.as_flattened().first().copied().map_or(Wrapping(1), wide);
    // An odd number is its own inverse in its lowest 3 bits, and each step doubles how many are right: 48 in the end.
    let inverse = (0..4).fold(n, |inverse, _| inverse * (Wrapping(2) - n * inverse));
    -inverse & LIMB_MASK
}

fn is_less(a: &[Limbs], b: &[Limbs]) -> bool {
    a.as_flattened().iter().rev().lt(b.as_flattened().iter().rev())
}

/// A big-endian integer as limbs; nothing if it has too many bits.
fn from_octets(octets: &[u8], blocks: usize) -> Option<Vec<Limbs>> {
    let mut number = vec![[0; BLOCK]; blocks];
    let mut limbs = number.as_flattened_mut().iter_mut();
    let (mut pending, mut bits) = (Wrapping(0), 0);
    for &octet in octets.iter().rev() {
        pending |= Wrapping(u64::from(octet)) << bits;
        bits = bits.checked_add(8)?;
        if let Some(above) = bits.checked_sub(LIMB_BITS) {
            *limbs.next()? = low(pending & LIMB_MASK);
            pending >>= LIMB_BITS;
            bits = above;
        }
    }
    match limbs.next() {
        Some(limb) => *limb = low(pending),
        None if pending.0 != 0 => return None,
        None => {}
    }
    Some(number)
}

/// A number as a big-endian integer of `length` bytes, which hold it.
fn to_octets(number: &[Limbs], length: usize) -> Option<Vec<u8>> {
    let mut octets = vec![0; length];
    let (mut pending, mut bits) = (Wrapping(0_u64), 0_usize);
    let mut limbs = number.as_flattened().iter();
    for octet in octets.iter_mut().rev() {
        if bits < 8 {
            pending |= limbs.next().copied().map_or(Wrapping(0), wide) << bits;
            bits = bits.checked_add(LIMB_BITS)?;
        }
        *octet = pending.0.to_le_bytes()[0];
        pending >>= 8;
        bits = bits.checked_sub(8)?;
    }
    Some(octets)
}

/// Written out, because `map` on an array is a call and a detour through memory where code is made small.
#[inline(always)]
fn widened([a, b, c, d]: &Limbs) -> [Column; BLOCK] {
    [wide(*a), wide(*b), wide(*c), wide(*d)]
}

#[inline(always)]
fn wide(limb: u32) -> Column {
    Wrapping(limb.into())
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn low(column: Column) -> u32 {
    column.0 as u32
}

/// EMSA-PKCS1-v1_5-ENCODE (RFC 8017 §9.2), `length` bytes long.
fn encoded_pkcs1(hash: Hash, digest: &[u8], length: usize) -> Option<Vec<u8>> {
    let info = hash.digest_info();
    let zero = length.checked_sub(info.len())?.checked_sub(digest.len())?.checked_sub(1)?;
    let mut encoded = vec![0, 1];
    encoded.resize(zero, 0xff);
    encoded.push(0);
    encoded.extend_from_slice(info);
    encoded.extend_from_slice(digest);
    Some(encoded)
}

/// EMSA-PSS-VERIFY (RFC 8017 §9.1.2); nothing where a part is too short.
fn is_pss(hash: Hash, digest: &[u8], encoded: &[u8], bits: usize) -> Option<bool> {
    // With a modulus of 8n + 1 bits there is one byte more than the encoded message has: it is zero.
    let (surplus, encoded) = encoded.split_at_checked(encoded.len().checked_sub(bits.div_ceil(8))?)?;
    let unused_bits = encoded.len().checked_mul(8)?.checked_sub(bits)?;
    let used = 0xff_u8.checked_shr(u32::try_from(unused_bits).ok()?)?;
    let (&trailer, encoded) = encoded.split_last()?;
    let (masked, h) = encoded.split_at_checked(encoded.len().checked_sub(digest.len())?)?;
    let is_framed = surplus.iter().all(|&octet| octet == 0) && masked.first()? & !used == 0 && trailer == 0xbc;

    let mut db = masked.to_vec();
    let masks = (0_u32..).map(|counter| hash.digest(&[h, &counter.to_be_bytes()]));
    for (block, mask) in db.chunks_mut(digest.len()).zip(masks) {
        block.iter_mut().zip(mask).for_each(|(octet, mask)| *octet ^= mask);
    }
    *db.first_mut()? &= used;
    let (padding, salt) = db.split_at_checked(db.len().checked_sub(digest.len())?)?;
    let (&one, zeros) = padding.split_last()?;
    let is_padded = one == 1 && zeros.iter().all(|&octet| octet == 0);
    Some(is_framed && is_padded && hash.digest(&[&[0; 8], digest, salt]) == h)
}

const LIMB_BITS: usize = 27;
const LIMB_MASK: Column = Wrapping((1 << LIMB_BITS) - 1);
/// Limbs that are worked on at once.
const BLOCK: usize = 4;
const BLOCK_BITS: usize = BLOCK * LIMB_BITS;
/// By how many bits `R` is longer than the modulus, at least.
const SLACK_BITS: usize = 4;

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use num_bigint::BigUint;

    use super::*;

    /// Numbers that random ones hardly ever are: long runs of zeros and of ones.
    fn number(rng: &mut Rng, bits: usize) -> BigUint {
        let octets = (0..bits.div_ceil(8)).scan(None, |run, _| {
            if rng.u8(..) < 16 {
                *run = *rng.choice(&[None, Some(0), Some(0xff)]).expect("one of three");
            }
            Some(run.unwrap_or_else(|| rng.u8(..)))
        });
        BigUint::from_bytes_le(&octets.collect::<Vec<u8>>()) % (BigUint::from(1_u8) << bits)
    }

    /// A modulus is any odd number to the arithmetic, and this is held against an independent implementation's.
    fn check(rng: &mut Rng, bits: usize) -> u64 {
        let one = BigUint::from(1_u8);
        let n = number(rng, bits) | (&one << (bits - 1)) | &one;
        let e = match rng.u8(..) {
            0 => u64::MAX,
            1..16 => rng.u64(3..) | 1,
            16..64 => 3,
            64..96 => 17,
            96.. => 65537,
        };
        let key = PublicKey::new(&n.to_bytes_be(), &e.to_be_bytes()).expect("an odd modulus and exponent");
        let length = bits.div_ceil(8);
        let padded = |number: &BigUint| {
            let octets = number.to_bytes_be();
            [vec![0; length - octets.len()], octets].concat()
        };
        let edges = [BigUint::ZERO, one.clone(), &n - &one, &n - 2_u8, &n >> 1];
        let others: Vec<BigUint> = (0..11).map(|_| number(rng, bits) % &n).collect();
        for s in edges.iter().chain(&others) {
            let expected = padded(&s.modpow(&e.into(), &n));
            assert_eq!(key.public_operation(&padded(s)), Some(expected), "{s}^{e} mod {n}");
        }
        for beyond in [n, (&one << (8 * length)) - &one] {
            assert_eq!(key.public_operation(&padded(&beyond)), None, "not below the modulus");
        }
        assert_eq!(key.public_operation(&padded(&one)[1..]), None, "shorter than the modulus");
        16
    }

    #[test]
    fn the_public_operation_is_that_of_an_independent_implementation() {
        let mut rng = Rng::with_seed(17);
        for bits in [2048, 2049, 2052, 2053, 2160, 2161, 3072, 4096, 8185, 8192] {
            check(&mut rng, bits);
        }
    }

    /// As many random cases as one likes, with overflow checks on, at speed:
    /// `CASES=5000000 cargo test --config profile.dev.package.claimgate.opt-level=3 --lib at_length -- --ignored --nocapture`
    #[test]
    #[ignore = "as long as one likes"]
    fn the_public_operation_is_that_of_an_independent_implementation_at_length() {
        let wanted = super::super::cases();
        let mut rng = Rng::new();
        let (mut cases, seed) = (0, rng.get_seed());
        println!("seed {seed}");
        while cases < wanted {
            let bits = if rng.u8(..) < 4 { rng.usize(2048..=8192) } else { rng.usize(2048..=2200) };
            cases += check(&mut rng, bits);
            if cases % 100_000 < 16 {
                println!("{cases} cases agree");
            }
        }
        println!("{cases} cases agree");
    }

    #[test]
    fn moduli_and_exponents_that_are_none() {
        let odd = |bytes: usize| vec![0xff; bytes];
        for (n, e) in [
            (odd(255), vec![3]),
            (odd(1025), vec![3]),
            ([odd(255), vec![0xfe]].concat(), vec![3]),
            (odd(256), vec![1]),
            (odd(256), vec![4]),
            (odd(256), vec![]),
            (odd(256), vec![1, 0, 0, 0, 0, 0, 0, 0, 1]),
            (vec![], vec![3]),
        ] {
            assert!(PublicKey::new(&n, &e).is_none(), "{n:?} {e:?}");
        }
        assert!(PublicKey::new(&odd(1024), &[0xff; 8]).is_some());
    }

    /// A message in EMSA-PSS (RFC 8017 §9.1.1), as long as a modulus of one bit more.
    fn encoded_pss(hash: Hash, digest: &[u8], salt: &[u8], bits: usize) -> Vec<u8> {
        let length = bits.div_ceil(8);
        let h = hash.digest(&[&[0; 8], digest, salt]);
        let mut db = vec![0; length - h.len() - 1];
        let one = db.len() - salt.len() - 1;
        db[one] = 1;
        db[one + 1..].copy_from_slice(salt);
        let mask = (0_u32..).flat_map(|counter| hash.digest(&[&h, &counter.to_be_bytes()]));
        db.iter_mut().zip(mask).for_each(|(octet, mask)| *octet ^= mask);
        db[0] &= 0xff >> (length * 8 - bits);
        let surplus = vec![0; (bits + 1).div_ceil(8) - length];
        [surplus, db, h, vec![0xbc]].concat()
    }

    #[test]
    fn every_bit_of_a_pss_message_counts() {
        let hash = Hash::Sha256;
        let digest = hash.digest(&[b"message"]);
        for bits in 2047..=2055 {
            let mut encoded = encoded_pss(hash, &digest, &[0x5a; 32], bits);
            assert_eq!(is_pss(hash, &digest, &encoded, bits), Some(true), "{bits} bits");
            for bit in 0..encoded.len() * 8 {
                encoded[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(is_pss(hash, &digest, &encoded, bits), Some(false), "{bits} bits, bit {bit}");
                encoded[bit / 8] ^= 1 << (bit % 8);
            }
            for salt in [0, 20, 31, 33, 64] {
                let encoded = encoded_pss(hash, &digest, &vec![0x5a; salt], bits);
                assert_eq!(is_pss(hash, &digest, &encoded, bits), Some(false), "a salt of {salt} bytes");
            }
        }
    }
}
