//! The key sets of every issuer: what is known, what is being fetched and when to ask again.
//!
//! A state machine without I/O. The caller carries out what [`KeyStore::poll_fetch`] asks for, hands the answer to
//! [`KeyStore::handle_response`], and calls [`KeyStore::handle_timeout`] when [`KeyStore::poll_timeout`] says so.
//! After each of these, and after [`KeyStore::want`], `poll_fetch` and `poll_timeout` may have something new to say.

use std::fmt;
use std::time::Duration;

use crate::jwk::JwkSetError;
use crate::jws::Algorithm;
use crate::limits::{BACKOFF_MAX, FETCH_GRACE};
use crate::signature::{KeySet, NoCandidate, VerifyingKey};
use crate::time::UnixTime;

/// Where the keys of one issuer come from.
#[derive(Debug)]
pub enum Source {
    /// From the configuration itself.
    Inline(KeySet),
    /// From a document that is fetched.
    Remote(Remote),
}

/// How to fetch a key set, and how long it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The host's name for where to send the request: a cluster in Envoy, `host:port` in NGINX.
    pub cluster: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port of the URI.
    pub authority: String,
    /// Path and query of the URI.
    pub path: String,
    /// How long one fetch may take.
    pub timeout: Duration,
    /// How long a set is fresh.
    pub cache_duration: Duration,
    /// How long an expired set goes on serving while refreshes fail.
    pub stale_for: Duration,
    /// The pause after a first failed fetch; it doubles with each further failure.
    pub first_pause: Duration,
    /// The longest pause between two attempts.
    pub longest_pause: Duration,
    /// Largest document read, in bytes.
    pub max_bytes: usize,
    /// Most keys read.
    pub max_keys: usize,
}

/// Names one issuer's entry in the store: its place in the list the store was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// What to fetch.
    pub remote: Remote,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Response {
    /// An HTTP answer.
    Answered {
        /// Its status code.
        status: u16,
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
    /// A fetch is under way or due: ask again when it has ended.
    Await,
    /// There is no key set, and none will come before `retry_after` has passed.
    Unavailable {
        /// Until the next attempt.
        retry_after: Duration,
    },
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
    /// The key set became too old to serve.
    Expired {
        /// Whose.
        issuer: IssuerId,
    },
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
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("no answer"),
            Self::Status(status) => write!(f, "status {status}, 200 was expected"),
            Self::Document(error) => error.fmt(f),
            Self::NoUsableKey => f.write_str("no usable key in the set"),
        }
    }
}

/// The key sets of every issuer.
#[derive(Debug)]
pub struct KeyStore {
    entries: Vec<Entry>,
    fetches: u64,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    /// Absent for inline sources, whose set never changes.
    fetched: Option<Fetched>,
    in_flight: Option<InFlight>,
    next_attempt: UnixTime,
    failures: u32,
}

#[derive(Debug)]
struct Fetched {
    set: KeySet,
    at: UnixTime,
}

#[derive(Debug)]
struct InFlight {
    id: FetchId,
    deadline: UnixTime,
}

impl KeyStore {
    /// A store of these sources, in which every remote set is due to be fetched at `now`.
    pub fn new(sources: impl IntoIterator<Item = Source>, now: UnixTime) -> Self {
        let entry = |source| Entry { source, fetched: None, in_flight: None, next_attempt: now, failures: 0 };
        Self { entries: sources.into_iter().map(entry).collect(), fetches: 0 }
    }

    /// The keys for a token of this issuer.
    pub fn lookup(&self, issuer: IssuerId, hint: Hint<'_>, now: UnixTime) -> Lookup<'_> {
        let Some(entry) = self.entries.get(issuer.0) else {
            return Lookup::Unavailable { retry_after: BACKOFF_MAX };
        };
        match entry.set(now) {
            Some(set) => match set.candidates(hint.kid, hint.alg) {
                Ok(keys) => Lookup::Keys(keys),
                Err(none) => Lookup::None(none),
            },
            // A failed fetch moves the next attempt into the future, so that waiting ends.
            None if entry.in_flight.is_some() || entry.next_attempt <= now => Lookup::Await,
            None => Lookup::Unavailable { retry_after: entry.next_attempt.since(now) },
        }
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
        let due = |entry: &Entry| entry.in_flight.is_none() && entry.next_attempt <= now;
        let (index, remote) = self.entries.iter().enumerate().find_map(|(index, entry)| match &entry.source {
            Source::Remote(remote) if due(entry) => Some((index, remote.clone())),
            _ => None,
        })?;
        self.fetches = self.fetches.saturating_add(1);
        let id = FetchId(self.fetches);
        let deadline = now.after(remote.timeout).after(FETCH_GRACE);
        self.entries.get_mut(index)?.in_flight = Some(InFlight { id, deadline });
        Some(Fetch { id, issuer: IssuerId(index), remote })
    }

    /// Takes the answer to a fetch. An answer that nobody waits for any more is ignored.
    pub fn handle_response(&mut self, id: FetchId, response: Response, now: UnixTime) -> Vec<Event> {
        let waiting = |entry: &Entry| entry.in_flight.as_ref().is_some_and(|fetch| fetch.id == id);
        let Some((index, entry)) = self.entries.iter_mut().enumerate().find(|(_, entry)| waiting(entry)) else {
            return Vec::new();
        };
        entry.handle_response(IssuerId(index), response, now)
    }

    /// When [`KeyStore::handle_timeout`] or [`KeyStore::poll_fetch`] next has something to do.
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        self.entries.iter().filter_map(Entry::timeout).min()
    }

    /// Ends what took too long. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: UnixTime) -> Vec<Event> {
        let mut events = Vec::new();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if entry.in_flight.as_ref().is_some_and(|fetch| fetch.deadline <= now) {
                events.extend(entry.handle_response(IssuerId(index), Response::Failed, now));
            }
            if entry.fetched.is_some() && entry.set(now).is_none() {
                entry.fetched = None;
                events.push(Event::Expired { issuer: IssuerId(index) });
            }
        }
        events
    }
}

impl Entry {
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
        match (&self.source, &self.fetched) {
            (Source::Remote(remote), Some(fetched)) => {
                Some(fetched.at.after(remote.cache_duration).after(remote.stale_for))
            }
            _ => None,
        }
    }

    fn timeout(&self) -> Option<UnixTime> {
        if matches!(self.source, Source::Inline(_)) {
            return None;
        }
        let attempt = self.in_flight.as_ref().map_or(self.next_attempt, |fetch| fetch.deadline);
        Some(self.expiry().map_or(attempt, |expiry| attempt.min(expiry)))
    }

    fn handle_response(&mut self, issuer: IssuerId, response: Response, now: UnixTime) -> Vec<Event> {
        self.in_flight = None;
        let Source::Remote(remote) = &self.source else {
            return Vec::new();
        };
        match read(remote, response) {
            Ok(set) => {
                self.failures = 0;
                self.next_attempt = now.after(remote.cache_duration);
                let events = changes(issuer, self.fetched.as_ref().map(|fetched| &fetched.set), &set);
                self.fetched = Some(Fetched { set, at: now });
                events
            }
            Err(why) => {
                let pause = remote.first_pause.saturating_mul(2_u32.saturating_pow(self.failures));
                let retry_after = pause.min(remote.longest_pause);
                self.failures = self.failures.saturating_add(1);
                self.next_attempt = now.after(retry_after);
                vec![Event::Failed { issuer, why, retry_after, serving: self.set(now).is_some() }]
            }
        }
    }
}

fn read(remote: &Remote, response: Response) -> Result<KeySet, FetchError> {
    let body = match response {
        Response::Answered { status: 200, body } => body,
        Response::Answered { status, .. } => return Err(FetchError::Status(status)),
        Response::Failed => return Err(FetchError::NoAnswer),
    };
    if body.len() > remote.max_bytes {
        let error = JwkSetError::TooLarge { found: body.len(), allowed: remote.max_bytes };
        return Err(FetchError::Document(error));
    }
    let set = KeySet::parse(&body, remote.max_keys).map_err(FetchError::Document)?;
    if set.keys().is_empty() { Err(FetchError::NoUsableKey) } else { Ok(set) }
}

/// What differs between the set that served and the one that serves now. Skipped keys are told when the set changes
/// and not at each refresh.
fn changes(issuer: IssuerId, before: Option<&KeySet>, after: &KeySet) -> Vec<Event> {
    let kids = |set: &KeySet| -> Vec<String> {
        set.keys().iter().map(|key| key.kid().unwrap_or_default().to_owned()).collect()
    };
    let (old, new) = (before.map(kids), kids(after));
    let mut events = vec![Event::Fetched { issuer, kids: new.clone() }];
    let old_skipped = before.map(KeySet::skipped).unwrap_or_default();
    if let Some(old) = old {
        let absent = |from: &[String], kid: &String| !from.contains(kid);
        events
            .extend(new.iter().filter(|kid| absent(&old, kid)).map(|kid| Event::KeyAdded { issuer, kid: kid.clone() }));
        events.extend(
            old.iter().filter(|kid| absent(&new, kid)).map(|kid| Event::KeyRemoved { issuer, kid: kid.clone() }),
        );
    }
    events.extend(skipped(issuer, after.skipped().iter().filter(|key| !old_skipped.contains(key))));
    events
}

/// The events of keys that cannot be used.
pub fn skipped<'k>(
    issuer: IssuerId,
    keys: impl Iterator<Item = &'k crate::jwk::SkippedKey> + 'k,
) -> impl Iterator<Item = Event> + 'k {
    keys.map(move |key| Event::KeySkipped {
        issuer,
        index: key.index,
        kid: key.kid.clone(),
        why: key.why.clone().into_owned(),
    })
}
