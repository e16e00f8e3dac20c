//! Key sets in the memory that all workers of a host share: one of them fetches, the others take over what it learnt.

use std::collections::BTreeMap;

use super::abi;
use crate::keystore::{Event, Fetch, IssuerId, KeyStore, SharedSet, SharedState};
use crate::time::UnixTime;

/// What this worker knows of the shared memory.
pub struct Sharing {
    /// This worker's own number.
    worker: u64,
    /// The version of each issuer's record that was read or written last.
    seen: BTreeMap<IssuerId, u32>,
}

impl Sharing {
    pub const fn new(worker: u64) -> Self {
        Self { worker, seen: BTreeMap::new() }
    }

    /// Makes sure that each issuer has a record. On Envoy the first write is unconditional: it is made when the
    /// configuration is read, on one thread, before any worker runs.
    pub fn join(&mut self, store: &mut KeyStore, now: UnixTime) -> Vec<Event> {
        let mut events = Vec::new();
        for issuer in store.remote_issuers() {
            let Some(name) = store.source_name(issuer) else { continue };
            if read::<SharedState>(&name).is_none() {
                let _written = write(&name, &store.shared_state(issuer, self.worker), None);
            }
            events.extend(self.sync(store, issuer, now).into_iter().flatten());
        }
        events
    }

    /// Takes over what other workers learnt of an issuer since the last time. Nothing if there is nothing new; what is
    /// new need not be an event here, such as a fetch that failed there.
    pub fn sync(&mut self, store: &mut KeyStore, issuer: IssuerId, now: UnixTime) -> Option<Vec<Event>> {
        let name = store.source_name(issuer)?;
        let (state, version) = read::<SharedState>(&name)?;
        if self.seen.get(&issuer) == Some(&version) {
            return None;
        }
        let set = store.is_behind(issuer, &state).then(|| read::<SharedSet>(&set_name(&name))).flatten();
        self.seen.insert(issuer, version);
        Some(store.adopt(issuer, &state, set.as_ref().map(|(set, _)| set), self.worker, now))
    }

    /// Asks to make a fetch for all. False if another worker makes it, or has just learnt something.
    pub fn lease(&mut self, store: &KeyStore, fetch: &Fetch) -> bool {
        let (Some(name), Some(seen)) = (store.source_name(fetch.issuer), self.seen.get(&fetch.issuer)) else {
            // Without a record to agree on, each worker fetches for itself.
            return true;
        };
        let is_mine = write(&name, &store.shared_state(fetch.issuer, self.worker), Some(*seen));
        if is_mine {
            self.note(&name, fetch.issuer);
        }
        is_mine
    }

    /// Tells the others what came of a fetch, and that it has ended.
    pub fn publish(&mut self, store: &KeyStore, issuer: IssuerId) {
        let Some(name) = store.source_name(issuer) else { return };
        // The document first: whoever reads of a new answer shall find it.
        if let Some(set) = store.shared_set(issuer) {
            let known = read::<SharedSet>(&set_name(&name));
            if known.as_ref().is_none_or(|(known, _)| known.generation < set.generation) {
                let _written = write(&set_name(&name), &Some(set), known.map(|(_, version)| version));
            }
        }
        if write(&name, &store.shared_state(issuer, self.worker), self.seen.get(&issuer).copied()) {
            self.note(&name, issuer);
        }
    }

    fn note(&mut self, name: &str, issuer: IssuerId) {
        if let Some((_, version)) = read::<SharedState>(name) {
            self.seen.insert(issuer, version);
        }
    }
}

fn set_name(name: &str) -> String {
    format!("{name}:set")
}

fn read<T: serde::de::DeserializeOwned>(name: &str) -> Option<(T, u32)> {
    let (value, version) = abi::shared_data(name)?;
    Some((serde_json::from_slice(&value).ok()?, version))
}

/// Writes a record if it still has the version that was read. False if it has not.
fn write<T: serde::Serialize>(name: &str, value: &Option<T>, version: Option<u32>) -> bool {
    let Some(json) = value.as_ref().and_then(|value| serde_json::to_vec(value).ok()) else { return false };
    abi::set_shared_data(name, &json, version)
}
