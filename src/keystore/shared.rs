//! What workers tell each other of a key set, so that one fetches for all.
//!
//! Each source has two records in the host's shared memory: a small one that says who fetches and what the schedule is,
//! and the document. A host may mix up the names of records (NGINX compares only a checksum of them), so each holds its
//! own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::http::Caching;
use super::{Entry, Event, Fetched, InFlight, IssuerId, KeyStore, Source, changes};
use crate::budget::Budget;
use crate::limits::REFETCH_BURST;
use crate::signature::{KeySet, digest};
use crate::time::UnixTime;

/// Who fetches, and the schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedState {
    /// The source it is about.
    pub source: String,
    /// Counts the answers that the issuer gave.
    pub generation: u64,
    /// Who fetches now: a worker's own number, and until when it may.
    pub lease: Option<(u64, UnixTime)>,
    next_attempt: UnixTime,
    failures: u32,
    failing_since: Option<UnixTime>,
    refetches_left: u32,
    refetches_refilled: UnixTime,
    looked: Option<UnixTime>,
}

/// The document and what its answer said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedSet {
    /// The source it is from.
    pub source: String,
    /// The answer it came with.
    pub generation: u64,
    at: UnixTime,
    fresh_for: Duration,
    etag: Option<String>,
    last_modified: Option<String>,
    body: String,
}

impl KeyStore {
    /// The issuers whose keys are fetched.
    pub fn remote_issuers(&self) -> Vec<IssuerId> {
        let entries = self.entries.iter().enumerate();
        entries.filter(|(_, entry)| entry.remote().is_some()).map(|(index, _)| IssuerId(index)).collect()
    }

    /// Names an issuer's source: who has the same issuer with the same settings has the same name for it.
    pub fn source_name(&self, issuer: IssuerId) -> Option<String> {
        let remote = self.entries.get(issuer.0)?.remote()?;
        Some(format!("claimgate:{}:{}", remote.address.authority, digest(format!("{remote:?}").as_bytes())))
    }

    /// What this worker, whose number is `worker`, tells the others of an issuer.
    pub fn shared_state(&self, issuer: IssuerId, worker: u64) -> Option<SharedState> {
        let entry = self.entries.get(issuer.0)?;
        let here = entry.in_flight.as_ref().filter(|fetch| fetch.id.is_some());
        Some(SharedState {
            source: self.source_name(issuer)?,
            generation: entry.generation,
            lease: here.map(|fetch| (worker, fetch.deadline)),
            next_attempt: entry.next_attempt,
            failures: entry.failures,
            failing_since: entry.failing_since,
            refetches_left: entry.refetches.left,
            refetches_refilled: entry.refetches.refilled,
            looked: entry.looked,
        })
    }

    /// The document of an issuer, for the others.
    pub fn shared_set(&self, issuer: IssuerId) -> Option<SharedSet> {
        let entry = self.entries.get(issuer.0)?;
        let fetched = entry.fetched.as_ref()?;
        Some(SharedSet {
            source: self.source_name(issuer)?,
            generation: entry.generation,
            at: fetched.at,
            fresh_for: fetched.fresh_for,
            etag: fetched.validators.etag.clone(),
            last_modified: fetched.validators.last_modified.clone(),
            body: String::from_utf8(fetched.body.clone()).ok()?,
        })
    }

    /// Whether this worker knows less of an issuer than `state` tells.
    pub fn is_behind(&self, issuer: IssuerId, state: &SharedState) -> bool {
        self.entries.get(issuer.0).is_some_and(|entry| entry.generation < state.generation)
    }

    /// Takes over what another worker tells. Records of another source, and a document that cannot be read, change
    /// nothing.
    pub fn adopt(
        &mut self,
        issuer: IssuerId,
        state: &SharedState,
        set: Option<&SharedSet>,
        worker: u64,
        now: UnixTime,
    ) -> Vec<Event> {
        if self.source_name(issuer).as_ref() != Some(&state.source) {
            return Vec::new();
        }
        let Some(entry) = self.entries.get_mut(issuer.0) else { return Vec::new() };
        if entry.in_flight.as_ref().is_some_and(|fetch| fetch.id.is_some()) {
            return Vec::new();
        }
        let mut events = Vec::new();
        let had_failures = entry.failures;
        if state.generation > entry.generation {
            let Some(set) = set.filter(|set| set.source == state.source && set.generation == state.generation) else {
                return Vec::new();
            };
            let Some(changes) = entry.take_set(issuer, set) else { return Vec::new() };
            events = changes;
            entry.generation = state.generation;
            entry.wants_look = false;
            // Nobody knows whether the other's fetch began before these were wanted here.
            entry.settle_wanted(0, now);
        } else if state.generation < entry.generation {
            // The others know less than this worker: their schedule is older too.
            return Vec::new();
        }
        // Another worker has gone on: what the metadata told here is not of its refresh.
        entry.discovered = None;
        entry.next_attempt = state.next_attempt;
        entry.failures = state.failures;
        entry.failing_since = state.failing_since;
        entry.refetches = Budget { left: state.refetches_left.min(REFETCH_BURST), refilled: state.refetches_refilled };
        entry.looked = state.looked;
        entry.in_flight = match state.lease {
            Some((holder, deadline)) if holder != worker && now < deadline => {
                Some(InFlight { id: None, deadline, asked_for: 0 })
            }
            _ => None,
        };
        if state.failures > had_failures && entry.in_flight.is_none() {
            entry.wanted.clear();
            entry.wants_look = false;
        }
        events
    }
}

impl Entry {
    fn take_set(&mut self, issuer: IssuerId, shared: &SharedSet) -> Option<Vec<Event>> {
        let Source::Remote(remote) = &self.source else { return None };
        let set = KeySet::parse(shared.body.as_bytes(), remote.max_keys).ok()?;
        let is_same = self.fetched.as_ref().is_some_and(|fetched| fetched.body == shared.body.as_bytes());
        let events = if is_same {
            vec![Event::Unchanged { issuer }]
        } else {
            changes(issuer, self.fetched.as_ref().map(|fetched| &fetched.set), &set)
        };
        self.fetched = Some(Fetched {
            set,
            body: shared.body.clone().into_bytes(),
            at: shared.at,
            fresh_for: shared.fresh_for,
            validators: Caching::shared(shared.etag.clone(), shared.last_modified.clone()),
        });
        self.told_stale = false;
        self.last_error = None;
        Some(events)
    }
}
