//! The key sets of every issuer: what is known, what is being fetched and when to ask again.
//!
//! A state machine without I/O. The caller carries out what [`KeyStore::poll_fetch`] asks for, hands the answer to
//! [`KeyStore::handle_response`], and calls [`KeyStore::handle_timeout`] when [`KeyStore::poll_timeout`] says so.
//! After each of these, and after [`KeyStore::want`] and [`KeyStore::adopt`], `poll_fetch` and `poll_timeout` may have
//! something new to say.
//!
//! Three budgets keep an issuer from being hammered, and none of them can starve another: refreshes are scheduled,
//! unknown `kid`s have `min_refetch_interval`, and signatures that fail [`LOOK_INTERVAL`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::budget::Budget;
use crate::jwk::{JwkSetError, KeyNote};
use crate::jws::Algorithm;
use crate::limits::{
    FETCH_GRACE, FRESH_MAX, FRESH_MIN, LOOK_INTERVAL, PAUSE_MAX, REFETCH_BURST, UNKNOWN_KID_BYTES, UNKNOWN_KID_FOR,
    UNKNOWN_KIDS,
};
use crate::signature::{KeySet, NoCandidate, VerifyingKey};
use crate::time::UnixTime;

mod http;
mod shared;

use http::Caching;
pub use shared::{SharedSet, SharedState};

/// Where the keys of one issuer come from.
#[derive(Debug)]
pub enum Source {
    /// From the configuration itself.
    Inline(KeySet),
    /// From a document that is fetched.
    Remote(Box<Remote>),
}

/// How to fetch a key set, and how long it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where the key set is; with `discovery`, where the metadata is that tells.
    pub address: Address,
    /// How the key set is found through the issuer's metadata.
    pub discovery: Option<Discovery>,
    /// How long one fetch may take.
    pub timeout: Duration,
    /// How long a set is fresh, if the answer does not say.
    pub cache_duration: Duration,
    /// How long an expired set goes on serving while refreshes fail.
    pub stale_for: Duration,
    /// Least time between two fetches for unknown `kid`s, after a burst of two.
    pub min_refetch_interval: Duration,
    /// The pause after a first failed fetch; its upper bound doubles with each further failure, and is never above the
    /// time for which fetches have failed.
    pub first_pause: Duration,
    /// The longest pause between two attempts.
    pub longest_pause: Duration,
    /// Largest document read, in bytes.
    pub max_bytes: usize,
    /// Most keys read.
    pub max_keys: usize,
}

/// Something that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The host's name for where to send the request: a cluster in Envoy, `host:port` in NGINX.
    pub cluster: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port of the URI.
    pub authority: String,
    /// Path and query of the URI.
    pub path: String,
}

/// The issuer's metadata (RFC 8414, OpenID Connect Discovery 1.0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// What the metadata must name as `issuer` (RFC 8414 §3.3).
    pub issuer: String,
    /// The clusters that lead to other hosts than that of the metadata.
    pub clusters: BTreeMap<String, String>,
}

/// Names one issuer's entry in the store: its place in the list the store was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerId(pub usize);

/// Names one fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FetchId(u64);

/// A request for the caller to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// To be given back with the answer.
    pub id: FetchId,
    /// Whose keys these are.
    pub issuer: IssuerId,
    /// Where to send it.
    pub address: Address,
    /// Header lines that make it conditional (RFC 9110 §13).
    pub headers: Vec<(&'static str, String)>,
    /// How long it may take.
    pub timeout: Duration,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Response {
    /// An HTTP answer.
    Answered {
        /// Its status code.
        status: u16,
        /// Its header lines, names in lower case.
        headers: Vec<(String, Vec<u8>)>,
        /// Its body.
        body: Vec<u8>,
    },
    /// No answer: refused, reset, timed out, or over the host's limit.
    Failed,
}

/// What a token says of its key.
#[derive(Clone, Copy, Debug)]
pub struct Hint<'h> {
    /// The token's `kid`.
    pub kid: Option<&'h str>,
    /// The token's `alg`.
    pub alg: Algorithm,
}

/// What the store knows for one token.
#[derive(Debug)]
pub enum Lookup<'s> {
    /// Keys to try.
    Keys(Vec<&'s VerifyingKey>),
    /// There is a key set, and no key in it for this token.
    None(NoCandidate),
    /// A fetch is under way, due or permitted: say what is wanted, and ask again when it has ended.
    Await(Want),
    /// It cannot be told whether there is a key, and will not be before `retry_after` has passed.
    Unavailable {
        /// Until the next attempt.
        retry_after: Duration,
    },
}

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// A first key set.
    Set,
    /// A key of this name.
    Kid(String),
    /// A look whether a key has changed under its name, or without one.
    Look,
}

/// What happened to a key set: one line in the log each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A document was fetched and its keys serve.
    Fetched {
        /// Whose.
        issuer: IssuerId,
        /// Names of the keys that verify; a key without a name is an empty string.
        kids: Vec<String>,
    },
    /// What was there is still what the issuer publishes.
    Unchanged {
        /// Whose.
        issuer: IssuerId,
    },
    /// A key that was not there before.
    KeyAdded {
        /// Whose.
        issuer: IssuerId,
        /// Its name.
        kid: String,
    },
    /// A key that is no longer there: its tokens are refused from now on.
    KeyRemoved {
        /// Whose.
        issuer: IssuerId,
        /// Its name.
        kid: String,
    },
    /// A key that cannot be used.
    KeySkipped {
        /// Whose.
        issuer: IssuerId,
        /// Its place in the set, from zero.
        index: usize,
        /// Its name, if it has one.
        kid: Option<String>,
        /// Why.
        why: String,
    },
    /// A key that serves, and about which its issuer should be told.
    KeyWarning {
        /// Whose.
        issuer: IssuerId,
        /// Its place in the set, from zero.
        index: usize,
        /// Its name, if it has one.
        kid: Option<String>,
        /// Why.
        why: String,
    },
    /// A fetch failed; what was there goes on serving.
    Failed {
        /// Whose.
        issuer: IssuerId,
        /// What went wrong.
        why: FetchError,
        /// When it is tried again.
        retry_after: Duration,
        /// Whether a key set serves meanwhile.
        serving: bool,
    },
    /// The key set is older than the issuer wants it to be and serves on, because no newer one can be had.
    Stale {
        /// Whose.
        issuer: IssuerId,
    },
    /// The key set became too old to serve.
    Expired {
        /// Whose.
        issuer: IssuerId,
    },
}

impl Event {
    /// Whose waiting ends with this event.
    pub const fn ends_waiting_for(&self) -> Option<IssuerId> {
        match self {
            Self::Fetched { issuer, .. } | Self::Unchanged { issuer } | Self::Failed { issuer, .. } => Some(*issuer),
            _ => None,
        }
    }
}

/// Why a fetch brought no key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// No answer in time, or none at all.
    NoAnswer,
    /// An answer with another status than 200.
    Status(u16),
    /// A body that is no JWK Set within bounds.
    Document(JwkSetError),
    /// A JWK Set in which no key can be used.
    NoUsableKey,
    /// Metadata that cannot be followed; why.
    Metadata(&'static str),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("no answer"),
            Self::Status(status) => write!(f, "status {status}, 200 was expected"),
            Self::Document(error) => error.fmt(f),
            Self::NoUsableKey => f.write_str("no usable key in the set"),
            Self::Metadata(why) => write!(f, "the issuer's metadata: {why}"),
        }
    }
}

/// The key sets of every issuer.
#[derive(Debug)]
pub struct KeyStore {
    entries: Vec<Entry>,
    fetches: u64,
    random: Random,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    /// Absent for inline sources, whose set never changes.
    fetched: Option<Fetched>,
    in_flight: Option<InFlight>,
    /// Where the metadata says that the key set is, while a refresh is between the two.
    discovered: Option<Address>,
    next_attempt: UnixTime,
    failures: u32,
    /// When the first of these failures was.
    failing_since: Option<UnixTime>,
    last_error: Option<FetchError>,
    /// How often unknown `kid`s may cause a fetch.
    refetches: Budget,
    looked: Option<UnixTime>,
    wants_look: bool,
    wanted: Vec<String>,
    /// Names that no key had when the issuer was last asked, and until when that is believed.
    unknown: VecDeque<(String, UnixTime)>,
    generation: u64,
    told_stale: bool,
}

#[derive(Debug)]
struct Fetched {
    set: KeySet,
    body: Vec<u8>,
    at: UnixTime,
    fresh_for: Duration,
    validators: Caching,
}

#[derive(Debug)]
struct InFlight {
    /// Nothing: another worker fetches.
    id: Option<FetchId>,
    deadline: UnixTime,
    /// How many of the wanted `kid`s were wanted before it began. It says nothing of the others: the issuer may have
    /// rotated since.
    asked_for: usize,
}

/// Pseudo-random numbers for jitter; nothing secret depends on them (SplitMix64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// A duration from `least` up to `most`.
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let share = f64::from(u32::try_from(z >> 32).unwrap_or_default()) / f64::from(u32::MAX);
        least.saturating_add(most.saturating_sub(least).mul_f64(share))
    }
}

impl KeyStore {
    /// A store of these sources, in which every remote set is due to be fetched at `now`. `seed` makes the jitter of one
    /// instance differ from that of another.
    pub fn new(sources: impl IntoIterator<Item = Source>, seed: u64, now: UnixTime) -> Self {
        let entry = |source| Entry {
            source,
            fetched: None,
            in_flight: None,
            discovered: None,
            next_attempt: now,
            failures: 0,
            failing_since: None,
            last_error: None,
            refetches: Budget::full(REFETCH_BURST, now),
            looked: None,
            wants_look: false,
            wanted: Vec::new(),
            unknown: VecDeque::new(),
            generation: 0,
            told_stale: false,
        };
        Self { entries: sources.into_iter().map(entry).collect(), fetches: 0, random: Random(seed) }
    }

    /// The keys for a token of this issuer.
    pub fn lookup(&self, issuer: IssuerId, hint: Hint<'_>, now: UnixTime) -> Lookup<'_> {
        let Some(entry) = self.entries.get(issuer.0) else { return Lookup::Unavailable { retry_after: PAUSE_MAX } };
        match entry.set(now).map(|set| set.candidates(hint.kid, hint.alg)) {
            Some(Ok(keys)) => Lookup::Keys(keys),
            Some(Err(NoCandidate::Unknown)) => entry.unknown(hint.kid, now),
            Some(Err(none)) => Lookup::None(none),
            // A failed fetch moves the next attempt into the future, so that waiting ends.
            None if entry.in_flight.is_some() || entry.next_attempt <= now => Lookup::Await(Want::Set),
            None => entry.unavailable(now),
        }
    }

    /// Whether it is worth while, and permitted, to ask the issuer again because a signature does not verify: a key may
    /// have been replaced under the same name, or without one.
    pub fn may_look(&self, issuer: IssuerId, now: UnixTime) -> bool {
        self.entries.get(issuer.0).is_some_and(|entry| entry.may_look(now))
    }

    /// Notes what a request waits for.
    pub fn want(&mut self, issuer: IssuerId, want: &Want, now: UnixTime) {
        let Some(entry) = self.entries.get_mut(issuer.0) else { return };
        match want {
            Want::Set => {}
            Want::Look => entry.wants_look |= entry.may_look(now),
            Want::Kid(kid) => {
                if entry.wanted.len() < UNKNOWN_KIDS && !entry.wanted.contains(kid) {
                    entry.wanted.push(kid.clone());
                }
            }
        }
    }

    /// Whether a fetch for this issuer is under way, here or at another worker.
    pub fn is_fetching(&self, issuer: IssuerId) -> bool {
        self.entries.get(issuer.0).is_some_and(|entry| entry.in_flight.is_some())
    }

    /// The key set of an issuer, if there is one that may serve.
    pub fn set(&self, issuer: IssuerId, now: UnixTime) -> Option<&KeySet> {
        self.entries.get(issuer.0)?.set(now)
    }

    /// How long ago the key set of an issuer was fetched; nothing for keys from the configuration.
    pub fn age(&self, issuer: IssuerId, now: UnixTime) -> Option<Duration> {
        Some(now.since(self.entries.get(issuer.0)?.fetched.as_ref()?.at))
    }

    /// The next fetch to make. At most one is in flight per issuer.
    pub fn poll_fetch(&mut self, now: UnixTime) -> Option<Fetch> {
        let (index, entry) = self
            .entries
            .iter_mut()
            .enumerate()
            .find_map(|(index, entry)| entry.becomes_due(now).then_some((index, entry)))?;
        let Source::Remote(remote) = &entry.source else { return None };
        self.fetches = self.fetches.saturating_add(1);
        let id = FetchId(self.fetches);
        let address = entry.discovered.clone().unwrap_or_else(|| remote.address.clone());
        let is_metadata = remote.discovery.is_some() && entry.discovered.is_none();
        let headers = match &entry.fetched {
            Some(fetched) if !is_metadata => fetched.validators.conditions(),
            _ => Vec::new(),
        };
        let deadline = now.after(remote.timeout).after(FETCH_GRACE);
        entry.in_flight = Some(InFlight { id: Some(id), deadline, asked_for: entry.wanted.len() });
        Some(Fetch { id, issuer: IssuerId(index), address, headers, timeout: remote.timeout })
    }

    /// Takes the answer to a fetch. An answer that nobody waits for any more is ignored.
    pub fn handle_response(&mut self, id: FetchId, response: Response, now: UnixTime) -> Vec<Event> {
        let waiting = |entry: &Entry| entry.in_flight.as_ref().is_some_and(|fetch| fetch.id == Some(id));
        let Some((index, entry)) = self.entries.iter_mut().enumerate().find(|(_, entry)| waiting(entry)) else {
            return Vec::new();
        };
        entry.handle_response(IssuerId(index), response, &mut self.random, now)
    }

    /// Takes back a fetch that was not made, because another worker makes it.
    pub fn handle_busy(&mut self, id: FetchId) {
        for entry in &mut self.entries {
            if entry.in_flight.as_ref().is_some_and(|fetch| fetch.id == Some(id)) {
                entry.in_flight = None;
            }
        }
    }

    /// When [`KeyStore::handle_timeout`] or [`KeyStore::poll_fetch`] next has something to do.
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        self.entries.iter().filter_map(Entry::timeout).min()
    }

    /// Ends what took too long. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: UnixTime) -> Vec<Event> {
        let mut events = Vec::new();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let issuer = IssuerId(index);
            if let Some(fetch) = entry.in_flight.take_if(|fetch| fetch.deadline <= now) {
                // Another worker's fetch that never ended is no failure of the issuer's: it may be made here now.
                if fetch.id.is_some() {
                    events.extend(entry.handle_response(issuer, Response::Failed, &mut self.random, now));
                }
            }
            if entry.fetched.is_some() && entry.set(now).is_none() {
                entry.fetched = None;
                events.push(Event::Expired { issuer });
            } else if entry.is_stale(now) && !entry.told_stale {
                entry.told_stale = true;
                events.push(Event::Stale { issuer });
            }
        }
        events
    }

    /// How an issuer's keys stand, for people.
    pub fn status(&self, issuer: IssuerId, now: UnixTime) -> Option<Status<'_>> {
        self.entries.get(issuer.0).map(|entry| entry.status(now))
    }
}

/// How an issuer's keys stand.
#[derive(Clone, Debug)]
pub struct Status<'s> {
    /// `inline`, `empty`, `fetching`, `fresh`, `stale` or `cooling_down`.
    pub state: &'static str,
    /// The set, if there is one that may serve.
    pub set: Option<&'s KeySet>,
    /// Names the set: the first 8 bytes of the SHA-256 of its document, in hexadecimal.
    pub set_id: Option<String>,
    /// When the set was fetched.
    pub fetched: Option<UnixTime>,
    /// When the set is no longer fresh.
    pub expires: Option<UnixTime>,
    /// When the issuer is asked next.
    pub next_attempt: Option<UnixTime>,
    /// What went wrong last, if the last attempt failed.
    pub last_error: Option<&'s FetchError>,
}

impl Entry {
    const fn remote(&self) -> Option<&Remote> {
        match &self.source {
            Source::Inline(_) => None,
            Source::Remote(remote) => Some(remote),
        }
    }

    fn set(&self, now: UnixTime) -> Option<&KeySet> {
        match &self.source {
            Source::Inline(set) => Some(set),
            Source::Remote(_) => {
                let fetched = self.fetched.as_ref()?;
                self.expiry().is_some_and(|expiry| now < expiry).then_some(&fetched.set)
            }
        }
    }

    /// When the fetched set stops serving.
    fn expiry(&self) -> Option<UnixTime> {
        Some(self.fetched.as_ref()?.fresh_until().after(self.remote()?.stale_for))
    }

    fn is_stale(&self, now: UnixTime) -> bool {
        self.fetched.as_ref().is_some_and(|fetched| fetched.fresh_until() <= now)
    }

    fn unavailable(&self, now: UnixTime) -> Lookup<'_> {
        Lookup::Unavailable { retry_after: self.next_attempt.since(now) }
    }

    /// There is a set, and no key of this name in it.
    fn unknown(&self, kid: Option<&str>, now: UnixTime) -> Lookup<'_> {
        let nobody = Lookup::None(NoCandidate::Unknown);
        let (Some(remote), Some(kid)) = (self.remote(), kid) else { return nobody };
        let is_known_unknown = self.unknown.iter().any(|(unknown, until)| unknown == kid && now < *until);
        if is_known_unknown || kid.len() > UNKNOWN_KID_BYTES {
            return nobody;
        }
        if self.in_flight.is_some() {
            return Lookup::Await(Want::Kid(kid.to_owned()));
        }
        // The issuer may have rotated and cannot be asked: that is no fault of the token's.
        if self.failures > 0 {
            return if self.next_attempt <= now {
                Lookup::Await(Want::Kid(kid.to_owned()))
            } else {
                self.unavailable(now)
            };
        }
        if self.refetches.refill(remote.min_refetch_interval, REFETCH_BURST, now).left > 0 {
            return Lookup::Await(Want::Kid(kid.to_owned()));
        }
        nobody
    }

    fn may_look(&self, now: UnixTime) -> bool {
        let (Some(remote), Some(_)) = (self.remote(), &self.fetched) else { return false };
        let since = self.looked.map(|looked| now.since(looked));
        // A look that is under way is waited for; and there is none while the issuer fails.
        let is_looking = self.in_flight.is_some() && since.is_some_and(|since| since <= remote.timeout);
        is_looking || (self.failures == 0 && since.is_none_or(|since| since >= LOOK_INTERVAL))
    }

    /// Whether a fetch is to be made now; what it costs is taken from its budget.
    fn becomes_due(&mut self, now: UnixTime) -> bool {
        let Some(remote) = self.remote() else { return false };
        if self.in_flight.is_some() {
            return false;
        }
        let mut refetches = self.refetches.refill(remote.min_refetch_interval, REFETCH_BURST, now);
        if self.next_attempt <= now {
            return true;
        }
        if self.failures > 0 || self.fetched.is_none() {
            return false;
        }
        if self.wants_look {
            self.wants_look = false;
            self.looked = Some(now);
            return true;
        }
        if !self.wanted.is_empty() && refetches.take() {
            self.refetches = refetches;
            return true;
        }
        false
    }

    fn timeout(&self) -> Option<UnixTime> {
        self.remote()?;
        let attempt = self.in_flight.as_ref().map_or(self.next_attempt, |fetch| fetch.deadline);
        let stale = self.fetched.as_ref().filter(|_| !self.told_stale).map(Fetched::fresh_until);
        [Some(attempt), stale, self.expiry()].into_iter().flatten().min()
    }

    fn handle_response(
        &mut self,
        issuer: IssuerId,
        response: Response,
        random: &mut Random,
        now: UnixTime,
    ) -> Vec<Event> {
        let asked_for = self.in_flight.take().map_or(0, |fetch| fetch.asked_for);
        let Source::Remote(remote) = &self.source else { return Vec::new() };
        let retry_after = http::retry_after(&response, now);
        if let Some(discovery) = remote.discovery.as_ref().filter(|_| self.discovered.is_none()) {
            match http::metadata(&response, discovery, &remote.address, remote.max_bytes) {
                Ok(address) => {
                    self.discovered = Some(address);
                    self.next_attempt = now;
                    return Vec::new();
                }
                Err(why) => return self.fail(issuer, why, retry_after, random, now),
            }
        }
        self.discovered = None;
        let validators = Caching::of(&response);
        let fresh_for = clamp(remote, validators.lifetime(now));
        let is_unchanged = matches!(&response, Response::Answered { status: 304, .. })
            || matches!((&response, &self.fetched), (Response::Answered { status: 200, body, .. }, Some(fetched))
                if fetched.body == *body);
        if is_unchanged && let Some(fetched) = &mut self.fetched {
            fetched.at = now;
            fetched.fresh_for = fresh_for;
            fetched.validators.renew(validators);
            self.settle(asked_for, random, now);
            return vec![Event::Unchanged { issuer }];
        }
        match read(remote, response) {
            Ok((set, body)) => {
                let events = changes(issuer, self.fetched.as_ref().map(|fetched| &fetched.set), &set);
                self.fetched = Some(Fetched { set, body, at: now, fresh_for, validators });
                self.settle(asked_for, random, now);
                events
            }
            Err(why) => self.fail(issuer, why, retry_after, random, now),
        }
    }

    /// The issuer has answered.
    fn settle(&mut self, asked_for: usize, random: &mut Random, now: UnixTime) {
        self.failures = 0;
        self.failing_since = None;
        self.last_error = None;
        self.told_stale = false;
        self.wants_look = false;
        self.generation = self.generation.saturating_add(1);
        let Some(fetched) = &self.fetched else { return };
        // 80 % of the lifetime, give or take 10 %: workers and gates that started together drift apart.
        let (least, most) = (fetched.fresh_for.mul_f64(0.7), fetched.fresh_for.mul_f64(0.9));
        self.next_attempt = now.after(random.between(least, most));
        self.settle_wanted(asked_for, now);
    }

    /// What the fetch was made for and is not in the set is not asked for again so soon. What was wanted since then is
    /// asked for again at once, if the budget allows.
    fn settle_wanted(&mut self, asked_for: usize, now: UnixTime) {
        let Some(interval) = self.remote().map(|remote| remote.min_refetch_interval) else { return };
        let Some(fetched) = &self.fetched else { return };
        self.unknown.retain(|(_, until)| now < *until);
        let may_refetch = self.refetches.refill(interval, REFETCH_BURST, now).left > 0;
        for (place, kid) in std::mem::take(&mut self.wanted).into_iter().enumerate() {
            if fetched.set.keys().iter().any(|key| key.kid() == Some(kid.as_str())) {
                continue;
            }
            if place >= asked_for {
                if may_refetch {
                    self.wanted.push(kid);
                }
                continue;
            }
            if self.unknown.len() >= UNKNOWN_KIDS {
                self.unknown.pop_front();
            }
            self.unknown.push_back((kid, now.after(UNKNOWN_KID_FOR)));
        }
    }

    fn fail(
        &mut self,
        issuer: IssuerId,
        why: FetchError,
        wanted_pause: Option<Duration>,
        random: &mut Random,
        now: UnixTime,
    ) -> Vec<Event> {
        let Some(remote) = self.remote() else { return Vec::new() };
        let failing_since = self.failing_since.unwrap_or(now);
        let doubled = remote.first_pause.saturating_mul(2_u32.saturating_pow(self.failures)).min(remote.longest_pause);
        // However short the pauses before were: the keys of an issuer that is back are there after at most as long
        // again as it was gone.
        let ceiling = doubled.min(now.since(failing_since)).max(remote.first_pause);
        let pause = random.between(remote.first_pause, ceiling);
        let retry_after = pause.max(wanted_pause.unwrap_or_default().min(PAUSE_MAX));
        self.discovered = None;
        self.failures = self.failures.saturating_add(1);
        self.failing_since = Some(failing_since);
        self.next_attempt = now.after(retry_after);
        self.wanted.clear();
        self.wants_look = false;
        self.last_error = Some(why.clone());
        vec![Event::Failed { issuer, why, retry_after, serving: self.set(now).is_some() }]
    }

    fn status(&self, now: UnixTime) -> Status<'_> {
        let set = self.set(now);
        let fetched = self.fetched.as_ref().filter(|_| set.is_some());
        Status {
            state: match (&self.source, set) {
                (Source::Inline(_), _) => "inline",
                (Source::Remote(_), Some(_)) if self.is_stale(now) => "stale",
                (Source::Remote(_), Some(_)) => "fresh",
                (Source::Remote(_), None) if self.in_flight.is_some() => "fetching",
                (Source::Remote(_), None) if self.failures > 0 => "cooling_down",
                (Source::Remote(_), None) => "empty",
            },
            set,
            set_id: set.map(KeySet::name),
            fetched: fetched.map(|fetched| fetched.at),
            expires: fetched.map(Fetched::fresh_until),
            next_attempt: self.remote().map(|_| self.next_attempt),
            last_error: self.last_error.as_ref(),
        }
    }
}

impl Fetched {
    fn fresh_until(&self) -> UnixTime {
        self.at.after(self.fresh_for)
    }
}

/// How long a set is fresh: what the answer says, else what is configured, within bounds. Who configures less than the
/// least gets what he asked for.
fn clamp(remote: &Remote, said: Option<Duration>) -> Duration {
    let least = FRESH_MIN.min(remote.cache_duration);
    said.unwrap_or(remote.cache_duration).clamp(least, FRESH_MAX)
}

fn read(remote: &Remote, response: Response) -> Result<(KeySet, Vec<u8>), FetchError> {
    let body = match response {
        Response::Answered { status: 200, body, .. } => body,
        Response::Answered { status, .. } => return Err(FetchError::Status(status)),
        Response::Failed => return Err(FetchError::NoAnswer),
    };
    if body.len() > remote.max_bytes {
        let error = JwkSetError::TooLarge { found: body.len(), allowed: remote.max_bytes };
        return Err(FetchError::Document(error));
    }
    let set = KeySet::parse(&body, remote.max_keys).map_err(FetchError::Document)?;
    if set.keys().is_empty() { Err(FetchError::NoUsableKey) } else { Ok((set, body)) }
}

/// What differs between the set that served and the one that serves now. Skipped keys and warnings are told when the set
/// changes and not at each refresh.
fn changes(issuer: IssuerId, before: Option<&KeySet>, after: &KeySet) -> Vec<Event> {
    let kids = |set: &KeySet| -> Vec<String> {
        set.keys().iter().map(|key| key.kid().unwrap_or_default().to_owned()).collect()
    };
    let (old, new) = (before.map(kids), kids(after));
    let mut events = vec![Event::Fetched { issuer, kids: new.clone() }];
    if let Some(old) = old {
        let absent = |from: &[String], kid: &String| !from.contains(kid);
        events
            .extend(new.iter().filter(|kid| absent(&old, kid)).map(|kid| Event::KeyAdded { issuer, kid: kid.clone() }));
        events.extend(
            old.iter().filter(|kid| absent(&new, kid)).map(|kid| Event::KeyRemoved { issuer, kid: kid.clone() }),
        );
    }
    let published = |set: &KeySet| -> Vec<Event> {
        let secrets = set.secrets().map(|note| warning(issuer, &note)).collect();
        [notes(issuer, set), secrets].concat()
    };
    let told = before.map(published).unwrap_or_default();
    events.extend(published(after).into_iter().filter(|event| !told.contains(event)));
    events
}

/// The events of keys that cannot be used, and of those that should not be as they are.
pub fn notes(issuer: IssuerId, set: &KeySet) -> Vec<Event> {
    let skipped = set.skipped().iter().map(|KeyNote { index, kid, why }| Event::KeySkipped {
        issuer,
        index: *index,
        kid: kid.clone(),
        why: why.clone().into_owned(),
    });
    skipped.chain(set.warnings().iter().map(|note| warning(issuer, note))).collect()
}

fn warning(issuer: IssuerId, note: &KeyNote) -> Event {
    let KeyNote { index, kid, why } = note.clone();
    Event::KeyWarning { issuer, index, kid, why: why.into_owned() }
}
