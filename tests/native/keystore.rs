//! The key store on virtual time: what it asks for, when, and what it serves meanwhile.

use std::time::Duration;

use claimgate::{
    Algorithm, Event, Fetch, FetchError, Hint, IssuerId, KeySet, KeyStore, Lookup, NoCandidate, Remote, Response,
    Source, UnixTime,
};
use claimgate_testbed::{Algorithm as Alg, Key, key_set};

const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const CORP: IssuerId = IssuerId(0);
const OTHER: IssuerId = IssuerId(1);
const HOUR: Duration = Duration::from_secs(3600);

fn remote() -> Remote {
    Remote {
        cluster: "idp".into(),
        scheme: "https".into(),
        authority: "idp.example.com".into(),
        path: "/jwks.json".into(),
        timeout: secs(2),
        cache_duration: secs(600),
        stale_for: HOUR,
        first_pause: secs(1),
        longest_pause: secs(60),
        max_bytes: 64 * 1024,
        max_keys: 8,
    }
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn at(n: u64) -> UnixTime {
    START.after(secs(n))
}

fn store(issuers: usize) -> KeyStore {
    KeyStore::new((0..issuers).map(|_| Source::Remote(remote())), START)
}

fn answer(kids: &[&str]) -> Response {
    let keys: Vec<Key> = kids.iter().map(|kid| Key::new(Alg::ES256, kid)).collect();
    let set = key_set(&keys.iter().collect::<Vec<_>>());
    Response::Answered { status: 200, body: set.to_string().into_bytes() }
}

/// What a token signed by `kid` finds: `keys`, `none`, `await`, or the seconds until the next attempt.
fn look_up(store: &KeyStore, issuer: IssuerId, kid: &str, now: UnixTime) -> String {
    match store.lookup(issuer, Hint { kid: Some(kid), alg: Algorithm::Es256 }, now) {
        Lookup::Keys(keys) => {
            assert!(keys.iter().all(|key| key.kid() == Some(kid)));
            "keys".to_owned()
        }
        Lookup::None(NoCandidate::Unknown) => "none".to_owned(),
        Lookup::None(other) => format!("{other:?}"),
        Lookup::Await => "await".to_owned(),
        Lookup::Unavailable { retry_after } => format!("{} s", retry_after.as_secs()),
    }
}

fn fetch(store: &mut KeyStore, now: UnixTime) -> Fetch {
    store.poll_fetch(now).expect("a fetch is due")
}

/// A store whose first set, of one key `a`, was fetched at the start.
fn serving() -> KeyStore {
    let mut store = store(1);
    let first = fetch(&mut store, START);
    store.handle_response(first.id, answer(&["a"]), START);
    store
}

#[test]
fn a_set_is_fetched_when_it_is_configured() {
    let mut store = store(2);
    assert_eq!(store.poll_timeout(), Some(START));
    assert_eq!(look_up(&store, CORP, "a", START), "await");
    let first = fetch(&mut store, START);
    assert_eq!((first.issuer, &first.remote), (CORP, &remote()));
    let second = fetch(&mut store, START);
    assert_eq!(second.issuer, OTHER);
    assert_eq!(store.poll_fetch(START), None, "one fetch in flight per issuer");
    assert_eq!(look_up(&store, CORP, "a", START), "await");

    let events = store.handle_response(first.id, answer(&["a", "b"]), at(1));
    assert_eq!(events, [Event::Fetched { issuer: CORP, kids: vec!["a".into(), "b".into()] }]);
    assert_eq!(look_up(&store, CORP, "a", at(1)), "keys");
    assert_eq!(look_up(&store, CORP, "c", at(1)), "none");
    assert_eq!(look_up(&store, OTHER, "a", at(1)), "await", "issuers do not mix");
    assert_eq!(store.age(CORP, at(5)), Some(secs(4)));
    assert_eq!(store.age(OTHER, at(5)), None);
}

#[test]
fn a_set_is_refreshed_when_its_time_is_up() {
    let mut store = serving();
    assert_eq!(store.poll_timeout(), Some(at(600)));
    assert_eq!(store.poll_fetch(at(599)), None);
    let refresh = fetch(&mut store, at(600));
    assert_eq!(look_up(&store, CORP, "a", at(600)), "keys", "nobody waits for a refresh");
    let events = store.handle_response(refresh.id, answer(&["b"]), at(601));
    assert_eq!(
        events,
        [
            Event::Fetched { issuer: CORP, kids: vec!["b".into()] },
            Event::KeyAdded { issuer: CORP, kid: "b".into() },
            Event::KeyRemoved { issuer: CORP, kid: "a".into() },
        ]
    );
    assert_eq!(look_up(&store, CORP, "a", at(601)), "none", "a withdrawn key verifies nothing");
    assert_eq!(look_up(&store, CORP, "b", at(601)), "keys");
    assert_eq!(store.poll_timeout(), Some(at(1201)));
}

#[track_caller]
fn failure(response: Response, expected: FetchError) {
    let mut store = serving();
    let refresh = fetch(&mut store, at(600));
    let events = store.handle_response(refresh.id, response, at(601));
    assert_eq!(events, [Event::Failed { issuer: CORP, why: expected, retry_after: secs(1), serving: true }]);
    assert_eq!(look_up(&store, CORP, "a", at(601)), "keys", "what was there goes on serving");
    assert_eq!(store.poll_fetch(at(601)), None);
    assert!(store.poll_fetch(at(602)).is_some());
}

#[test]
fn no_failure_replaces_a_good_set() {
    use claimgate::JwkSetError::{NotAJwkSet, TooLarge, TooManyKeys};
    let body = |body: &str| Response::Answered { status: 200, body: body.as_bytes().to_vec() };
    failure(Response::Failed, FetchError::NoAnswer);
    for status in [204, 301, 404, 429, 500, 503, 504] {
        failure(Response::Answered { status, body: b"{}".to_vec() }, FetchError::Status(status));
    }
    let expected = "an object with one array `keys` was expected";
    failure(body(r#"{"error":"oops"}"#), FetchError::Document(NotAJwkSet(expected.into())));
    failure(body("<html>"), FetchError::Document(NotAJwkSet("expected value at line 1 column 1".into())));
    failure(body(r#"{"keys":[]}"#), FetchError::NoUsableKey);
    failure(body(r#"{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}"#), FetchError::NoUsableKey);
    failure(body(&" ".repeat(64 * 1024 + 1)), FetchError::Document(TooLarge { found: 65537, allowed: 65536 }));
    failure(body(r#"{"keys":[1,2,3,4,5,6,7,8,9]}"#), FetchError::Document(TooManyKeys { found: 9, allowed: 8 }));
}

#[test]
fn waiting_ends_when_the_first_fetch_fails() {
    let mut store = store(1);
    let mut now = START;
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(look_up(&store, CORP, "a", now), "await");
        let attempt = fetch(&mut store, now);
        store.handle_response(attempt.id, Response::Failed, now);
        assert_eq!(look_up(&store, CORP, "a", now), format!("{pause} s"));
        assert_eq!(store.poll_timeout(), Some(now.after(secs(pause))));
        assert_eq!(store.poll_fetch(now.after(secs(pause - 1))), None);
        now = now.after(secs(pause));
    }
    let attempt = fetch(&mut store, now);
    store.handle_response(attempt.id, answer(&["a"]), now);
    assert_eq!(look_up(&store, CORP, "a", now), "keys");
}

#[test]
fn an_answer_that_never_comes_is_a_failure() {
    let mut store = store(1);
    let lost = fetch(&mut store, START);
    assert_eq!(store.poll_timeout(), Some(at(3)), "the fetch's own timeout and a second of grace");
    assert_eq!(store.handle_timeout(at(2)), []);
    let events = store.handle_timeout(at(3));
    assert_eq!(
        events,
        [Event::Failed { issuer: CORP, why: FetchError::NoAnswer, retry_after: secs(1), serving: false }]
    );
    assert_eq!(store.handle_timeout(at(3)), [], "once");
    // It comes after all: nobody waits for it any more.
    assert_eq!(store.handle_response(lost.id, answer(&["a"]), at(3)), []);
    assert_eq!(look_up(&store, CORP, "a", at(3)), "1 s");
}

#[test]
fn an_expired_set_serves_until_it_is_too_old() {
    let mut store = serving();
    let mut now = at(600);
    let last = START.after(secs(600)).after(HOUR);
    while now < last {
        assert_eq!(look_up(&store, CORP, "a", now), "keys");
        if let Some(attempt) = store.poll_fetch(now) {
            store.handle_response(attempt.id, Response::Failed, now);
        }
        now = store.poll_timeout().expect("a remote set always has a next moment");
        let events = store.handle_timeout(now);
        assert_eq!(events, if now == last { vec![Event::Expired { issuer: CORP }] } else { vec![] });
    }
    assert!(look_up(&store, CORP, "a", last).ends_with(" s"), "from then on there are no keys");
    assert_eq!(store.age(CORP, last), None);
}

#[test]
fn keys_that_cannot_be_used_are_told_once() {
    let mut store = store(1);
    let mut set = key_set(&[&Key::new(Alg::ES256, "good"), &Key::new(Alg::ES256, "bad")]);
    set["keys"][1]["use"] = "enc".into();
    let response = Response::Answered { status: 200, body: set.to_string().into_bytes() };
    let first = fetch(&mut store, START);
    let events = store.handle_response(first.id, response.clone(), START);
    let skipped = Event::KeySkipped {
        issuer: CORP,
        index: 1,
        kid: Some("bad".into()),
        why: "`use` is `enc`, `sig` was expected".into(),
    };
    assert_eq!(events, [Event::Fetched { issuer: CORP, kids: vec!["good".into()] }, skipped]);
    let again = fetch(&mut store, at(600));
    let events = store.handle_response(again.id, response, at(600));
    assert_eq!(events, [Event::Fetched { issuer: CORP, kids: vec!["good".into()] }]);
}

#[test]
fn keys_of_the_configuration_never_change() {
    let set = KeySet::parse(key_set(&[&Key::new(Alg::ES256, "a")]).to_string().as_bytes(), 8).expect("a JWK Set");
    let mut store = KeyStore::new([Source::Inline(set)], START);
    let far = at(u64::MAX / 4);
    assert_eq!(store.poll_fetch(far), None);
    assert_eq!(store.poll_timeout(), None);
    assert_eq!(store.handle_timeout(far), []);
    assert_eq!(look_up(&store, CORP, "a", far), "keys");
    assert_eq!(look_up(&store, CORP, "b", far), "none");
}
