//! Tokens that were verified before. A hit spares the signature and the parsing, and nothing else: claims, time and keys
//! are checked on every request.
//!
//! Only verified tokens enter. While there is room each of them does; once the cache is full, only one that was seen
//! before, so that a flood of one-time tokens turns nothing out. Room is made by the clock algorithm: a token used since
//! the hand last passed stays for another round, an expired one goes at once.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::rc::Rc;

use crate::claims::{ClaimsSet, Verified};
use crate::keystore::IssuerId;
use crate::limits::{TOKEN_CACHE_BYTES, TOKEN_CACHE_PROOFS, TOKEN_CACHE_SEEN};
use crate::time::UnixTime;

/// Verified tokens, by the token itself.
#[derive(Debug)]
pub struct TokenCache {
    tokens: usize,
    hasher: RandomState,
    places: HashMap<u64, usize>,
    slots: Vec<Slot>,
    held_bytes: usize,
    hand: usize,
    /// Hashes of tokens that were turned away, each in the one place where it may stand.
    seen: Vec<u64>,
    tally: Tally,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    known: Rc<Known>,
    bytes: usize,
    is_recent: bool,
}

/// A token that was verified, and by whose keys.
#[derive(Debug)]
pub struct Known {
    /// Its claims.
    pub claims: ClaimsSet<'static, Verified>,
    /// Who verified it; at most [`TOKEN_CACHE_PROOFS`].
    pub proofs: Vec<Rc<Proof>>,
}

/// That one provider's keys verified a token.
#[derive(Debug)]
pub struct Proof {
    /// The provider's keys.
    pub issuer: IssuerId,
    /// The key set that held the key: with another set, the proof counts for nothing.
    pub set: u64,
    /// The key's name.
    pub kid: Option<String>,
    /// What the provider writes down of the token.
    pub notes: Notes,
}

/// What a provider writes down of an accepted token.
#[derive(Debug, Default)]
pub struct Notes {
    /// Headers to set.
    pub set: Vec<(String, Vec<u8>)>,
    /// Filter state to set.
    pub states: Vec<(String, String)>,
    /// Headers and filter state that were configured and cannot be set: name and reason.
    pub omitted: Vec<(String, &'static str)>,
}

/// A token's place in the cache, whether or not it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// A token was known, and so was the key that had verified it.
    pub hits: u64,
    /// It was not.
    pub misses: u64,
    /// A token made room for another.
    pub evicted: u64,
    /// A token was not let in because the cache is full and it had not been seen before.
    pub turned_away: u64,
}

impl Known {
    /// Its size in memory, reckoned: JSON as values takes several times the room it takes as text.
    fn bytes<P>(claims: &ClaimsSet<'_, P>, proofs: &[Rc<Proof>]) -> usize {
        const OVERHEAD: usize = 1024;
        const PER_OCTET: usize = 6;
        let notes = proofs.iter().flat_map(|proof| {
            let headers = proof.notes.set.iter().map(|(name, value)| name.len().saturating_add(value.len()));
            let states = proof.notes.states.iter().map(|(name, value)| name.len().saturating_add(value.len()));
            headers.chain(states)
        });
        let jws = claims.jws();
        notes
            .fold(jws.compact().len(), usize::saturating_add)
            .saturating_add(jws.octets().len().saturating_mul(PER_OCTET))
            .saturating_add(OVERHEAD)
    }
}

impl TokenCache {
    /// A cache of at most `tokens` tokens, and [`TOKEN_CACHE_BYTES`].
    pub fn new(tokens: usize) -> Self {
        Self {
            tokens,
            hasher: RandomState::new(),
            places: HashMap::new(),
            slots: Vec::new(),
            held_bytes: 0,
            hand: 0,
            seen: if tokens == 0 { Vec::new() } else { vec![0; TOKEN_CACHE_SEEN] },
            tally: Tally::default(),
        }
    }

    /// Whether it never holds anything.
    pub const fn is_off(&self) -> bool {
        self.tokens == 0
    }

    /// The token's ticket, and what is known of it: it is found by a keyed hash and then compared as a whole.
    ///
    /// The hash is of the token's end, which is its signature: of all that share it, one verifies.
    pub fn look_up(&self, compact: &[u8]) -> (Ticket, Option<&Rc<Known>>) {
        const HASHED: usize = 64;
        let end = compact.get(compact.len().saturating_sub(HASHED)..).unwrap_or(compact);
        let hash = self.hasher.hash_one(end);
        let slot = self.places.get(&hash).and_then(|place| self.slots.get(*place));
        let known = slot.map(|slot| &slot.known).filter(|known| known.claims.jws().compact() == compact);
        (Ticket(hash), known)
    }

    /// Notes that a token was known.
    pub fn used(&mut self, Ticket(hash): Ticket) {
        self.tally.hits = self.tally.hits.saturating_add(1);
        if let Some(slot) = self.places.get(&hash).and_then(|place| self.slots.get_mut(*place)) {
            slot.is_recent = true;
        }
    }

    /// Notes that a token was not known.
    pub const fn missed(&mut self) {
        self.tally.misses = self.tally.misses.saturating_add(1);
    }

    /// Keeps a verified token, if it is let in. Of two proofs by the same provider the newer one counts.
    pub fn keep(&mut self, Ticket(hash): Ticket, claims: &ClaimsSet<'_, Verified>, proof: Rc<Proof>, now: UnixTime) {
        let place = self.places.get(&hash).copied();
        let before = place.and_then(|place| self.slots.get(place)).map(|slot| Rc::clone(&slot.known));
        let before = before.filter(|known| known.claims.jws().compact() == claims.jws().compact());
        let issuer = proof.issuer;
        let others = before.iter().flat_map(|known| &known.proofs).filter(|old| old.issuer != issuer).cloned();
        let proofs: Vec<Rc<Proof>> = std::iter::once(proof).chain(others).take(TOKEN_CACHE_PROOFS).collect();
        let bytes = Known::bytes(claims, &proofs);
        if self.is_off() || bytes > TOKEN_CACHE_BYTES {
            return;
        }
        if let Some(place) = place {
            self.remove(place);
        } else if !self.has_room(bytes) && !self.was_seen(hash) {
            self.tally.turned_away = self.tally.turned_away.saturating_add(1);
            return;
        }
        while !self.has_room(bytes) && !self.slots.is_empty() {
            self.evict(now);
        }
        let claims = before.map_or_else(|| claims.to_static(), |known| known.claims.clone());
        self.places.insert(hash, self.slots.len());
        self.held_bytes = self.held_bytes.saturating_add(bytes);
        self.slots.push(Slot { hash, known: Rc::new(Known { claims, proofs }), bytes, is_recent: false });
    }

    /// What happened since this was asked last.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// How many tokens it holds.
    pub const fn len(&self) -> usize {
        self.slots.len()
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.slots.len() < self.tokens && self.held_bytes.saturating_add(bytes) <= TOKEN_CACHE_BYTES
    }

    /// Whether this token was turned away before; if not, it has been now.
    fn was_seen(&mut self, hash: u64) -> bool {
        let length = u64::try_from(self.seen.len()).unwrap_or(u64::MAX);
        let place = hash.checked_rem(length).and_then(|place| usize::try_from(place).ok());
        let Some(mark) = place.and_then(|place| self.seen.get_mut(place)) else { return false };
        let was_seen = *mark == hash;
        *mark = if was_seen { 0 } else { hash };
        was_seen
    }

    fn evict(&mut self, now: UnixTime) {
        loop {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let Some(slot) = self.slots.get_mut(self.hand) else { return };
            let is_over = slot.known.claims.exp.present().is_some_and(|exp| *exp <= now);
            if is_over || !slot.is_recent {
                break;
            }
            slot.is_recent = false;
            self.hand = self.hand.saturating_add(1);
        }
        self.remove(self.hand);
        self.tally.evicted = self.tally.evicted.saturating_add(1);
    }

    fn remove(&mut self, place: usize) {
        if place >= self.slots.len() {
            return;
        }
        let gone = self.slots.swap_remove(place);
        self.held_bytes = self.held_bytes.saturating_sub(gone.bytes);
        self.places.remove(&gone.hash);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.hash, place);
        }
    }
}
