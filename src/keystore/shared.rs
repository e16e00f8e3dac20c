//! What workers tell each other of a key set, so that one fetches for all.
//!
//! Each source has two records in the host's shared memory: a small one that says who fetches and what the schedule is,
//! and the document. A host may mix up the names of records (NGINX compares only a checksum of them), so each holds its
//! own.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::http::Caching;
use super::{Address, Discovery, Entry, Event, Fetched, InFlight, IssuerId, KeyStore, Remote, Source, changes};
use crate::budget::Budget;
use crate::json;
use crate::limits::REFETCH_BURST;
use crate::signature::{KeySet, digest};
use crate::time::UnixTime;

/// Who fetches, and the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// A record in shared memory. Read and written member by member: what `serde` derives for this is 10 KB of the plugin.
pub trait Record: Sized {
    /// Its text.
    fn to_json(&self) -> Value;

    /// Reads its members; nothing if one is missing or of the wrong type.
    fn from_members(members: &Map<String, Value>) -> Option<Self>;

    /// Reads its text.
    fn from_json(text: &[u8]) -> Option<Self> {
        Self::from_members(&json::parse_object(text).ok()?)
    }
}

impl Record for SharedState {
    fn to_json(&self) -> Value {
        json!({
            "source": self.source,
            "generation": self.generation,
            "lease": self.lease.map(|(worker, until)| json!([worker, time(until)])),
            "next_attempt": time(self.next_attempt),
            "failures": self.failures,
            "failing_since": self.failing_since.map(time),
            "refetches_left": self.refetches_left,
            "refetches_refilled": time(self.refetches_refilled),
            "looked": self.looked.map(time),
        })
    }

    fn from_members(members: &Map<String, Value>) -> Option<Self> {
        let number = |name: &str| u32::try_from(members.get(name)?.as_u64()?).ok();
        Some(Self {
            source: text(members.get("source")?)?,
            generation: members.get("generation")?.as_u64()?,
            lease: given(members, "lease", |lease| match lease.as_array()?.as_slice() {
                [worker, until] => Some((worker.as_u64()?, read_time(until)?)),
                _ => None,
            })?,
            next_attempt: read_time(members.get("next_attempt")?)?,
            failures: number("failures")?,
            failing_since: given(members, "failing_since", read_time)?,
            refetches_left: number("refetches_left")?,
            refetches_refilled: read_time(members.get("refetches_refilled")?)?,
            looked: given(members, "looked", read_time)?,
        })
    }
}

impl Record for SharedSet {
    fn to_json(&self) -> Value {
        json!({
            "source": self.source,
            "generation": self.generation,
            "at": time(self.at),
            "fresh_for": duration(self.fresh_for),
            "etag": self.etag,
            "last_modified": self.last_modified,
            "body": self.body,
        })
    }

    fn from_members(members: &Map<String, Value>) -> Option<Self> {
        Some(Self {
            source: text(members.get("source")?)?,
            generation: members.get("generation")?.as_u64()?,
            at: read_time(members.get("at")?)?,
            fresh_for: read_duration(members.get("fresh_for")?)?,
            etag: given(members, "etag", text)?,
            last_modified: given(members, "last_modified", text)?,
            body: text(members.get("body")?)?,
        })
    }
}

fn duration(duration: Duration) -> Value {
    json!({"secs": duration.as_secs(), "nanos": duration.subsec_nanos()})
}

fn time(time: UnixTime) -> Value {
    duration(time.since(UnixTime::default()))
}

fn read_duration(value: &Value) -> Option<Duration> {
    let nanos = Duration::from_nanos(value.get("nanos")?.as_u64()?);
    Duration::from_secs(value.get("secs")?.as_u64()?).checked_add(nanos)
}

fn read_time(value: &Value) -> Option<UnixTime> {
    read_duration(value).map(UnixTime::since_epoch)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A member that may be null: nothing at all if it is of the wrong type.
fn given<T>(members: &Map<String, Value>, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
    match members.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => read(value).map(Some),
    }
}

impl KeyStore {
    /// The issuers whose keys are fetched.
    pub fn remote_issuers(&self) -> Vec<IssuerId> {
        let entries = self.entries.iter().enumerate();
        entries.filter(|(_, entry)| entry.remote().is_some()).map(|(index, _)| IssuerId(index)).collect()
    }

    /// Names an issuer's source: who has the same issuer with the same settings has the same name for it.
    pub fn source_name(&self, issuer: IssuerId) -> Option<String> {
        let Remote {
            address: Address { cluster, scheme, authority, path },
            discovery,
            timeout,
            cache_duration,
            stale_for,
            min_refetch_interval,
            first_pause,
            longest_pause,
            max_bytes,
            max_keys,
        } = self.entries.get(issuer.0)?.remote()?;
        let times = [timeout, cache_duration, stale_for, min_refetch_interval, first_pause, longest_pause];
        let discovery = discovery.as_ref().map(|Discovery { issuer, clusters }| {
            let clusters = clusters.iter().map(|(host, cluster)| (host.clone(), Value::from(cluster.as_str())));
            json!([issuer, clusters.collect::<Map<_, _>>()])
        });
        let times = times.map(|time| duration(*time)).to_vec();
        let settings = json!([cluster, scheme, authority, path, discovery, times, max_bytes, max_keys]).to_string();
        Some(format!("claimgate:{authority}:{}", digest(settings.as_bytes())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn survives<R: Record + PartialEq + std::fmt::Debug>(record: &R) {
        let text = record.to_json().to_string();
        assert_eq!(R::from_json(text.as_bytes()).as_ref(), Some(record), "{text}");
        let Value::Object(members) = record.to_json() else { panic!("a record is an object") };
        for name in members.keys() {
            let mut wrong = members.clone();
            wrong.insert(name.clone(), json!([true]));
            assert_eq!(R::from_members(&wrong), None, "{name} is of the wrong type");
        }
    }

    #[test]
    fn records_survive_the_shared_memory() {
        let at = |secs, nanos| UnixTime::since_epoch(Duration::new(secs, nanos));
        let state = SharedState {
            source: "claimgate:idp.example.com:0011223344556677".to_owned(),
            generation: u64::MAX,
            lease: Some((u64::MAX, at(1_800_000_000, 999_999_999))),
            next_attempt: at(u64::MAX, 0),
            failures: u32::MAX,
            failing_since: Some(at(1, 2)),
            refetches_left: 2,
            refetches_refilled: at(0, 0),
            looked: Some(at(3, 4)),
        };
        survives(&state);
        survives(&SharedState { lease: None, failing_since: None, looked: None, ..state });
        let set = SharedSet {
            source: String::new(),
            generation: 0,
            at: at(5, 6),
            fresh_for: Duration::MAX,
            etag: Some("\"\u{e9}\"".to_owned()),
            last_modified: Some(String::new()),
            body: "{\"keys\":[]}\n".to_owned(),
        };
        survives(&set);
        survives(&SharedSet { etag: None, last_modified: None, ..set });
    }

    #[test]
    fn what_is_no_record_is_not_read() {
        for text in ["", "[]", "{}", "null", r#"{"source":"x"}"#] {
            assert_eq!(SharedState::from_json(text.as_bytes()), None, "{text}");
            assert_eq!(SharedSet::from_json(text.as_bytes()), None, "{text}");
        }
    }
}
