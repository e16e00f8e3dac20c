//! The key store on virtual time: what it asks for, when, and what it serves meanwhile.

use std::time::Duration;

use claimgate::{
    Address, Algorithm, Discovery, Event, Fetch, FetchError, Hint, IssuerId, KeySet, KeyStore, Lookup, NoCandidate,
    Remote, Response, Source, UnixTime, Want,
};
use claimgate_testbed::{Algorithm as Alg, Key, key_set};

const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const CORP: IssuerId = IssuerId(0);
const OTHER: IssuerId = IssuerId(1);
const HOUR: Duration = Duration::from_secs(3600);

fn remote() -> Remote {
    Remote {
        address: address("/jwks.json"),
        discovery: None,
        timeout: secs(2),
        cache_duration: secs(600),
        stale_for: HOUR,
        min_refetch_interval: secs(30),
        first_pause: secs(1),
        longest_pause: secs(60),
        max_bytes: 64 * 1024,
        max_keys: 8,
    }
}

fn address(path: &str) -> Address {
    Address { cluster: "idp".into(), scheme: "https".into(), authority: "idp.example.com".into(), path: path.into() }
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn at(n: u64) -> UnixTime {
    START.after(secs(n))
}

fn store_of(remotes: Vec<Remote>) -> KeyStore {
    KeyStore::new(remotes.into_iter().map(|remote| Source::Remote(Box::new(remote))), 7, START)
}

fn store(issuers: usize) -> KeyStore {
    store_of(vec![remote(); issuers])
}

fn document(kids: &[&str]) -> Vec<u8> {
    let keys: Vec<Key> = kids.iter().map(|kid| Key::new(Alg::ES256, kid)).collect();
    key_set(&keys.iter().collect::<Vec<_>>()).to_string().into_bytes()
}

fn reply(status: u16, headers: &[(&str, &str)], body: Vec<u8>) -> Response {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect();
    Response::Answered { status, headers, body }
}

fn answer(kids: &[&str]) -> Response {
    reply(200, &[], document(kids))
}

/// What a token signed by `kid` finds: `keys`, `none`, what is awaited, or the seconds until the next attempt.
fn look_up(store: &KeyStore, issuer: IssuerId, kid: &str, now: UnixTime) -> String {
    match store.lookup(issuer, Hint { kid: Some(kid), alg: Algorithm::Es256 }, now) {
        Lookup::Keys(keys) => {
            assert!(keys.iter().all(|key| key.kid() == Some(kid)));
            "keys".to_owned()
        }
        Lookup::None(NoCandidate::Unknown) => "none".to_owned(),
        Lookup::None(other) => format!("{other:?}"),
        Lookup::Await(Want::Set) => "await".to_owned(),
        Lookup::Await(want) => format!("await {want:?}"),
        Lookup::Unavailable { retry_after } => format!("{} s", retry_after.as_secs()),
    }
}

fn fetch(store: &mut KeyStore, now: UnixTime) -> Fetch {
    store.poll_fetch(now).expect("a fetch is due")
}

/// Makes the fetch that is due and answers it.
fn fetch_and(store: &mut KeyStore, response: Response, now: UnixTime) -> Vec<Event> {
    let fetch = fetch(store, now);
    store.handle_response(fetch.id, response, now)
}

/// A store whose first set, of one key `a`, was fetched at the start.
fn serving() -> KeyStore {
    let mut store = store(1);
    fetch_and(&mut store, answer(&["a"]), START);
    store
}

fn fetched(kids: &[&str]) -> Event {
    Event::Fetched { issuer: CORP, kids: kids.iter().map(|kid| (*kid).to_owned()).collect() }
}

/// Lets a token of this `kid` wait, as the gate does.
fn want(store: &mut KeyStore, kid: &str, now: UnixTime) {
    assert_eq!(look_up(store, CORP, kid, now), format!("await Kid({kid:?})"));
    store.want(CORP, &Want::Kid(kid.to_owned()), now);
}

#[test]
fn a_set_is_fetched_when_it_is_configured() {
    let mut store = store(2);
    assert_eq!(store.poll_timeout(), Some(START));
    assert_eq!(look_up(&store, CORP, "a", START), "await");
    let first = fetch(&mut store, START);
    assert_eq!((first.issuer, &first.address, first.headers.len()), (CORP, &address("/jwks.json"), 0));
    let second = fetch(&mut store, START);
    assert_eq!(second.issuer, OTHER);
    assert_eq!(store.poll_fetch(START), None, "one fetch in flight per issuer");
    assert_eq!(look_up(&store, CORP, "a", START), "await");
    assert_eq!(store.handle_response(first.id, answer(&["a", "b"]), at(1)), [fetched(&["a", "b"])]);
    assert_eq!(look_up(&store, CORP, "a", at(1)), "keys");
    assert_eq!(look_up(&store, OTHER, "a", at(1)), "await", "issuers do not mix");
    assert_eq!((store.age(CORP, at(5)), store.age(OTHER, at(5))), (Some(secs(4)), None));
}

#[test]
fn a_set_is_refreshed_ahead_of_its_end() {
    let mut attempts = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let mut store = KeyStore::new([Source::Remote(Box::new(remote()))], seed, START);
        fetch_and(&mut store, answer(&["a"]), START);
        let next = store.poll_timeout().expect("a next moment");
        assert!((at(420)..=at(540)).contains(&next), "80 % of the lifetime, give or take 10 %: {next:?}");
        assert_eq!(store.poll_fetch(at(419)), None);
        attempts.insert(next);
        let refresh = fetch(&mut store, next);
        assert_eq!(look_up(&store, CORP, "a", next), "keys", "nobody waits for a refresh");
        let events = store.handle_response(refresh.id, answer(&["b"]), next);
        let (added, removed) = ("b".to_owned(), "a".to_owned());
        let changes = [Event::KeyAdded { issuer: CORP, kid: added }, Event::KeyRemoved { issuer: CORP, kid: removed }];
        assert_eq!(events[0], fetched(&["b"]));
        assert_eq!(events[1..], changes);
        assert_eq!(look_up(&store, CORP, "b", next), "keys", "an added key verifies at once");
        assert_ne!(look_up(&store, CORP, "a", next), "keys", "a removed one no longer");
    }
    assert!(attempts.len() > 50, "instances drift apart");
}

#[test]
fn the_answer_says_how_long_it_is_fresh() {
    let lifetime = |cache_duration: u64, headers: &[(&str, &str)]| {
        let mut store = store_of(vec![Remote { cache_duration: secs(cache_duration), ..remote() }]);
        fetch_and(&mut store, reply(200, headers, document(&["a"])), START);
        let status = store.status(CORP, START).expect("a status");
        status.expires.expect("an end").since(START).as_secs()
    };
    assert_eq!(lifetime(600, &[]), 600);
    assert_eq!(lifetime(600, &[("cache-control", "max-age=900")]), 900);
    assert_eq!(lifetime(600, &[("cache-control", "max-age=1")]), 60, "the least");
    assert_eq!(lifetime(600, &[("cache-control", "no-store")]), 60);
    assert_eq!(lifetime(600, &[("cache-control", "max-age=9999999")]), 24 * 3600, "the most");
    assert_eq!(lifetime(2, &[]), 2, "who asks for two seconds gets them");
    assert_eq!(lifetime(2, &[("cache-control", "max-age=1")]), 2);
    assert_eq!(lifetime(2, &[("cache-control", "max-age=30")]), 30);
}

#[test]
fn a_refresh_is_conditional_and_304_renews() {
    let mut store = store(1);
    let validators = [("etag", "\"1\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
    fetch_and(&mut store, reply(200, &validators, document(&["a"])), START);
    let refresh = fetch(&mut store, at(540));
    let conditions = [("if-none-match", "\"1\""), ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")];
    assert_eq!(refresh.headers, conditions.map(|(n, v)| (n, v.to_owned())));
    let renewed = reply(304, &[("cache-control", "max-age=3600")], Vec::new());
    assert_eq!(store.handle_response(refresh.id, renewed, at(540)), [Event::Unchanged { issuer: CORP }]);
    assert_eq!(look_up(&store, CORP, "a", at(540 + 3600)), "keys");
    let again = fetch(&mut store, at(540 + 3600));
    assert_eq!(again.headers.len(), 2, "validators hold on where a 304 does not repeat them");
    // The same document without a validator is no change either.
    assert_eq!(store.handle_response(again.id, answer(&["a"]), at(4200)), [Event::Unchanged { issuer: CORP }]);
    // 304 without a set to renew is a failure.
    let mut fresh = self::store(1);
    let events = fetch_and(&mut fresh, reply(304, &[], Vec::new()), START);
    assert!(matches!(&events[..], [Event::Failed { why: FetchError::Status(304), .. }]), "{events:?}");
}

#[track_caller]
fn failure(response: Response, expected: &FetchError) {
    let mut store = serving();
    let events = fetch_and(&mut store, response, at(540));
    match &events[..] {
        [Event::Failed { issuer: CORP, why, retry_after, serving: true }] => {
            assert_eq!((why, *retry_after), (expected, secs(1)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(look_up(&store, CORP, "a", at(540)), "keys", "what was there goes on serving");
    assert_eq!(store.poll_fetch(at(540)), None);
    assert!(store.poll_fetch(at(541)).is_some());
}

#[test]
fn no_failure_replaces_a_good_set() {
    use claimgate::JwkSetError::{NotAJwkSet, TooLarge, TooManyKeys};
    let body = |body: &str| reply(200, &[], body.as_bytes().to_vec());
    failure(Response::Failed, &FetchError::NoAnswer);
    for status in [204, 301, 404, 429, 500, 503, 504] {
        failure(reply(status, &[], b"{}".to_vec()), &FetchError::Status(status));
    }
    let expected = "an object with one array `keys` was expected";
    failure(body(r#"{"error":"oops"}"#), &FetchError::Document(NotAJwkSet(expected.into())));
    failure(body("<html>"), &FetchError::Document(NotAJwkSet("expected value at line 1 column 1".into())));
    failure(body(r#"{"keys":[]}"#), &FetchError::NoUsableKey);
    failure(body(r#"{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}"#), &FetchError::NoUsableKey);
    failure(body(&" ".repeat(64 * 1024 + 1)), &FetchError::Document(TooLarge { found: 65537, allowed: 65536 }));
    failure(body(r#"{"keys":[1,2,3,4,5,6,7,8,9]}"#), &FetchError::Document(TooManyKeys { found: 9, allowed: 8 }));
}

/// The pause after each of these answers, from an issuer that never answers well.
fn pauses(response: &Response, attempts: usize, seed: u64) -> Vec<Duration> {
    let mut store = KeyStore::new([Source::Remote(Box::new(remote()))], seed, START);
    let mut now = START;
    let pause = |_| {
        assert_eq!(look_up(&store, CORP, "a", now), "await", "who comes now waits for the attempt");
        let events = fetch_and(&mut store, response.clone(), now);
        let [Event::Failed { retry_after, serving: false, .. }] = events[..] else { panic!("{events:?}") };
        assert_eq!(look_up(&store, CORP, "a", now), format!("{} s", retry_after.as_secs()), "and nobody after it");
        assert_eq!(store.poll_timeout(), Some(now.after(retry_after)));
        assert_eq!(store.poll_fetch(now.after(retry_after).before_by(Duration::from_millis(1))), None);
        now = now.after(retry_after);
        retry_after
    };
    (0..attempts).map(pause).collect()
}

trait Before {
    fn before_by(self, duration: Duration) -> Self;
}

impl Before for UnixTime {
    fn before_by(self, duration: Duration) -> Self {
        Self::since_epoch(self.since(Self::from_secs(0)) - duration)
    }
}

#[test]
fn failures_back_off_with_jitter() {
    for seed in 0..50 {
        let ceilings = [1, 2, 4, 8, 16, 32, 60, 60, 60];
        for (pause, ceiling) in pauses(&Response::Failed, 9, seed).into_iter().zip(ceilings) {
            assert!((secs(1)..=secs(ceiling)).contains(&pause), "{pause:?} of at most {ceiling} s");
        }
    }
}

#[test]
fn no_pause_is_longer_than_the_outage_before_it() {
    for seed in 0..1000 {
        let mut gone = Duration::ZERO;
        for pause in pauses(&Response::Failed, 12, seed) {
            assert!(pause <= gone.max(secs(1)), "{pause:?} after {gone:?}, seed {seed}");
            gone += pause;
        }
    }
}

#[test]
fn an_issuer_may_ask_for_a_longer_pause() {
    let asking = |status: u16, value: &str| pauses(&reply(status, &[("retry-after", value)], vec![]), 1, 1)[0];
    assert_eq!(asking(503, "20"), secs(20));
    assert_eq!(asking(429, "20"), secs(20));
    assert_eq!(asking(500, "20"), secs(1));
    assert_eq!(asking(503, "86400"), secs(600), "but not for ever");
    assert_eq!(asking(503, "soon"), secs(1));
}

#[test]
fn an_answer_that_never_comes_is_a_failure() {
    let mut store = store(1);
    let lost = fetch(&mut store, START);
    assert_eq!(store.poll_timeout(), Some(at(3)), "the fetch's own timeout and a second of grace");
    assert_eq!(store.handle_timeout(at(2)), []);
    let failed = Event::Failed { issuer: CORP, why: FetchError::NoAnswer, retry_after: secs(1), serving: false };
    assert_eq!(store.handle_timeout(at(3)), [failed]);
    assert_eq!(store.handle_timeout(at(3)), [], "once");
    // It comes after all: nobody waits for it any more.
    assert_eq!(store.handle_response(lost.id, answer(&["a"]), at(3)), []);
    assert_eq!(look_up(&store, CORP, "a", at(3)), "1 s");
}

#[test]
fn an_expired_set_serves_until_it_is_too_old() {
    let mut store = serving();
    let (stale, last) = (at(600), at(600).after(HOUR));
    let (mut now, mut told) = (START, Vec::new());
    while now < last {
        assert_eq!(look_up(&store, CORP, "a", now), "keys");
        now = store.poll_timeout().expect("a remote set always has a next moment");
        told.extend(store.handle_timeout(now).into_iter().map(|event| (now, event)));
        if let Some(attempt) = store.poll_fetch(now) {
            store.handle_response(attempt.id, Response::Failed, now);
        }
    }
    assert_eq!(told, [(stale, Event::Stale { issuer: CORP }), (last, Event::Expired { issuer: CORP })]);
    assert!(!["keys", "none"].contains(&look_up(&store, CORP, "a", last).as_str()), "from then on there are no keys");
    assert_eq!(store.age(CORP, last), None);
}

#[test]
fn an_unknown_kid_is_asked_for_at_once() {
    let mut store = serving();
    want(&mut store, "b", at(10));
    let refetch = fetch(&mut store, at(10));
    assert_eq!(look_up(&store, CORP, "b", at(10)), "await Kid(\"b\")", "others wait for the same fetch");
    assert_eq!(look_up(&store, CORP, "a", at(10)), "keys", "and nobody else does");
    store.handle_response(refetch.id, answer(&["a", "b"]), at(11));
    assert_eq!(look_up(&store, CORP, "b", at(11)), "keys");
}

#[test]
fn unknown_kids_have_a_budget_of_their_own() {
    let mut store = serving();
    for (kid, now) in [("x1", 10), ("x2", 11)] {
        want(&mut store, kid, at(now));
        fetch_and(&mut store, answer(&["a"]), at(now));
        assert_eq!(look_up(&store, CORP, kid, at(now)), "none");
    }
    for n in 3..1000 {
        assert_eq!(look_up(&store, CORP, &format!("x{n}"), at(12)), "none", "over budget: no waiting");
    }
    assert_eq!(store.poll_fetch(at(12)), None);
    // One more after the interval, which begins when the budget was last full.
    want(&mut store, "x1000", at(41));
    fetch_and(&mut store, answer(&["a"]), at(41));
    assert_eq!(look_up(&store, CORP, "x1001", at(41)), "none");
    // A spent budget does not keep the schedule from running.
    let scheduled = store.status(CORP, at(41)).and_then(|status| status.next_attempt).expect("a schedule");
    assert!(store.poll_fetch(scheduled).is_some());
}

#[test]
fn a_kid_stays_unknown_for_a_minute() {
    let mut store = serving();
    want(&mut store, "x", at(10));
    fetch_and(&mut store, answer(&["a"]), at(10));
    assert_eq!(look_up(&store, CORP, "x", at(69)), "none", "though the budget would allow it");
    want(&mut store, "x", at(70));
}

/// An answer to a question that was asked before the rotation says nothing of the new key.
#[test]
fn a_fetch_under_way_does_not_make_a_kid_unknown() {
    let mut store = serving();
    store.want(CORP, &Want::Look, at(10));
    let before = fetch(&mut store, at(10));
    want(&mut store, "k2", at(10));
    store.handle_response(before.id, answer(&["a"]), at(11));
    assert_eq!(look_up(&store, CORP, "k2", at(11)), r#"await Kid("k2")"#);
    let after = fetch(&mut store, at(11));
    store.handle_response(after.id, answer(&["a", "k2"]), at(12));
    assert_eq!(look_up(&store, CORP, "k2", at(12)), "keys");

    // One that is not there then either is unknown, and costs one fetch.
    want(&mut store, "k3", at(13));
    fetch_and(&mut store, answer(&["a", "k2"]), at(13));
    assert_eq!(look_up(&store, CORP, "k3", at(14)), "none");
    assert!(store.poll_fetch(at(14)).is_none());
}

#[test]
fn another_worker_s_fetch_does_not_make_a_kid_unknown() {
    let (mut one, mut other) = (serving(), store(1));
    share(&one, &mut other, START);
    one.want(CORP, &Want::Look, at(10));
    let before = fetch(&mut one, at(10));
    share(&one, &mut other, at(10));
    want(&mut other, "k2", at(10));
    one.handle_response(before.id, answer(&["a"]), at(11));
    share(&one, &mut other, at(11));
    assert_eq!(look_up(&other, CORP, "k2", at(11)), r#"await Kid("k2")"#);
    fetch_and(&mut other, answer(&["a", "k2"]), at(11));
    assert_eq!(look_up(&other, CORP, "k2", at(12)), "keys");
}

#[test]
fn what_is_remembered_of_unknown_kids_is_bounded() {
    let mut store = serving();
    let kid = |n: usize| format!("x{n}");
    for n in 0..1000 {
        store.want(CORP, &Want::Kid(kid(n)), at(10));
    }
    fetch_and(&mut store, answer(&["a"]), at(10));
    let known = (0..1000).filter(|n| look_up(&store, CORP, &kid(*n), at(11)) == "none").count();
    assert_eq!(known, 256);
    assert_eq!(look_up(&store, CORP, &"x".repeat(257), at(11)), "none", "a `kid` of any length is not asked for");
}

#[test]
fn a_failing_issuer_is_no_fault_of_an_unknown_kid() {
    let mut store = serving();
    want(&mut store, "b", at(10));
    fetch_and(&mut store, Response::Failed, at(10));
    assert_eq!(look_up(&store, CORP, "b", at(10)), "1 s");
    assert_eq!(look_up(&store, CORP, "a", at(10)), "keys");
    assert_eq!(look_up(&store, CORP, "b", at(11)), "await Kid(\"b\")");
    fetch_and(&mut store, answer(&["b"]), at(11));
    assert_eq!(look_up(&store, CORP, "b", at(11)), "keys");
}

#[test]
fn a_key_may_be_replaced_under_its_name() {
    let mut store = serving();
    assert!(store.may_look(CORP, at(10)));
    store.want(CORP, &Want::Look, at(10));
    let look = fetch(&mut store, at(10));
    assert!(store.may_look(CORP, at(10)), "others wait for the same look");
    store.handle_response(look.id, answer(&["a"]), at(10));
    for now in [10, 100, 309] {
        assert!(!store.may_look(CORP, at(now)));
        store.want(CORP, &Want::Look, at(now));
        assert_eq!(store.poll_fetch(at(now)), None);
    }
    assert!(store.may_look(CORP, at(310)));
}

#[test]
fn keys_are_found_through_metadata() {
    let discovery = Discovery {
        issuer: "https://idp.example.com".into(),
        clusters: [("keys.example.com".to_owned(), "keys".to_owned())].into(),
    };
    let metadata = |issuer: &str, uri: &str| {
        let body = serde_json::json!({"issuer": issuer, "jwks_uri": uri, "other": [1]});
        reply(200, &[], body.to_string().into_bytes())
    };
    let store = || {
        let address = address("/.well-known/openid-configuration");
        store_of(vec![Remote { address, discovery: Some(discovery.clone()), ..remote() }])
    };
    let good = "https://idp.example.com";
    let mut found = store();
    assert_eq!(fetch(&mut found, START).address.path, "/.well-known/openid-configuration");
    for (uri, cluster) in [("https://idp.example.com/k?x=1", "idp"), ("https://keys.example.com/k?x=1", "keys")] {
        let mut store = store();
        assert_eq!(fetch_and(&mut store, metadata(good, uri), START), []);
        assert_eq!(look_up(&store, CORP, "a", START), "await", "not there yet");
        let keys = fetch(&mut store, START);
        assert_eq!((keys.address.cluster.as_str(), keys.address.path.as_str()), (cluster, "/k?x=1"));
        assert_eq!(store.handle_response(keys.id, answer(&["a"]), START), [fetched(&["a"])]);
        assert_eq!(fetch(&mut store, at(540)).address.path, "/.well-known/openid-configuration", "both are refreshed");
    }
    for (response, why) in [
        (metadata("https://evil.example", "https://idp.example.com/k"), "`issuer` is not the provider's"),
        (metadata("https://idp.example.com/", "https://idp.example.com/k"), "`issuer` is not the provider's"),
        (metadata(good, "http://idp.example.com/k"), "not https"),
        (metadata(good, "https://other.example.com/k"), "on another host"),
        (metadata(good, "/k"), "no http or https URI"),
        (reply(200, &[], b"{}".to_vec()), "no JSON object with `issuer` and `jwks_uri`"),
        (reply(500, &[], vec![]), "status 500"),
    ] {
        let events = fetch_and(&mut store(), response, START);
        let [Event::Failed { why: found, .. }] = &events[..] else { panic!("{events:?}") };
        assert!(found.to_string().contains(why), "{found}");
    }
}

#[test]
fn keys_that_should_not_be_published_are_told_once() {
    let mut store = store(1);
    let set = |kids: [&str; 2]| {
        let mut set = key_set(&[&Key::new(Alg::ES256, kids[0]), &Key::new(Alg::HS256, kids[1])]);
        set["keys"][0]["d"] = "c2VjcmV0".into();
        reply(200, &[], set.to_string().into_bytes())
    };
    let warning = |index: usize, kid: &str, why: &str| Event::KeyWarning {
        issuer: CORP,
        index,
        kid: Some(kid.into()),
        why: why.into(),
    };
    let private = "its private half stands beside it (`d`): who reads the set can sign";
    let secret = "a shared secret in a set that can be fetched: who fetches it can sign";
    assert_eq!(
        fetch_and(&mut store, set(["a", "s"]), START),
        [fetched(&["a", "s"]), warning(0, "a", private), warning(1, "s", secret)]
    );
    let events = fetch_and(&mut store, set(["b", "s"]), at(540));
    let warnings: Vec<&Event> = events.iter().filter(|event| matches!(event, Event::KeyWarning { .. })).collect();
    assert_eq!(warnings, [&warning(0, "b", private)]);
}

#[test]
fn keys_that_cannot_be_used_are_told_once() {
    let mut store = store(1);
    let set = |kids: [&str; 2]| {
        let mut set = key_set(&kids.map(|kid| Key::new(Alg::ES256, kid)).each_ref());
        set["keys"][1]["use"] = "enc".into();
        reply(200, &[], set.to_string().into_bytes())
    };
    let skipped = Event::KeySkipped {
        issuer: CORP,
        index: 1,
        kid: Some("bad".into()),
        why: "`use` is `enc`, `sig` was expected".into(),
    };
    assert_eq!(fetch_and(&mut store, set(["good", "bad"]), START), [fetched(&["good"]), skipped]);
    let events = fetch_and(&mut store, set(["new", "bad"]), at(540));
    assert!(!events.iter().any(|event| matches!(event, Event::KeySkipped { .. })), "{events:?}");
}

#[test]
fn keys_of_the_configuration_never_change() {
    let set = KeySet::parse(&document(&["a"]), 8).expect("a JWK Set");
    let mut store = KeyStore::new([Source::Inline(set)], 1, START);
    let far = at(u64::MAX / 4);
    assert_eq!((store.poll_fetch(far), store.poll_timeout()), (None, None));
    assert_eq!(store.handle_timeout(far), []);
    assert_eq!(look_up(&store, CORP, "a", far), "keys");
    assert_eq!(look_up(&store, CORP, "b", far), "none");
    assert!(!store.may_look(CORP, far));
}

/// Hands `from`'s knowledge to `to`, as the shared memory does.
fn share(from: &KeyStore, to: &mut KeyStore, now: UnixTime) -> Vec<Event> {
    let state = from.shared_state(CORP, 1).expect("a remote source is shared");
    let set = to.is_behind(CORP, &state).then(|| from.shared_set(CORP)).flatten();
    to.adopt(CORP, &state, set.as_ref(), 2, now)
}

#[test]
fn one_worker_fetches_for_all() {
    let (mut leader, mut follower) = (store(1), store(1));
    let first = fetch(&mut leader, START);
    assert_eq!(share(&leader, &mut follower, START), []);
    assert_eq!(follower.poll_fetch(START), None, "another worker fetches");
    assert_eq!(look_up(&follower, CORP, "a", START), "await");
    leader.handle_response(first.id, answer(&["a"]), START);
    assert_eq!(share(&leader, &mut follower, START), [fetched(&["a"])]);
    assert_eq!(look_up(&follower, CORP, "a", START), "keys");
    assert_eq!(follower.poll_fetch(at(400)), None, "the schedule is the leader's");
    // Either may make the next one; the other knows of it, and of what it cost.
    want(&mut follower, "b", at(10));
    let refetch = fetch(&mut follower, at(10));
    assert_eq!(share(&follower, &mut leader, at(10)), []);
    assert_eq!(look_up(&leader, CORP, "b", at(10)), "await Kid(\"b\")");
    assert_eq!(leader.poll_fetch(at(10)), None);
    follower.handle_response(refetch.id, answer(&["b"]), at(10));
    share(&follower, &mut leader, at(10));
    assert_eq!(look_up(&leader, CORP, "b", at(10)), "keys");
    assert_eq!(look_up(&leader, CORP, "a", at(10)), "await Kid(\"a\")");
}

#[test]
fn failures_are_shared_too() {
    let (mut leader, mut follower) = (store(1), store(1));
    fetch_and(&mut leader, Response::Failed, START);
    share(&leader, &mut follower, START);
    assert_eq!(follower.poll_fetch(START), None);
    assert_eq!(look_up(&follower, CORP, "a", START), "1 s");
}

#[test]
fn one_look_serves_all_workers() {
    let mut leader = serving();
    let mut follower = store(1);
    share(&leader, &mut follower, START);
    leader.want(CORP, &Want::Look, at(10));
    let look = fetch(&mut leader, at(10));
    share(&leader, &mut follower, at(10));
    assert!(follower.may_look(CORP, at(10)), "its requests wait for the same look");
    follower.want(CORP, &Want::Look, at(10));
    leader.handle_response(look.id, answer(&["a"]), at(11));
    share(&leader, &mut follower, at(11));
    assert_eq!(follower.poll_fetch(at(11)), None, "what it wanted was looked at");
}

#[test]
fn a_refresh_that_another_worker_finished_begins_with_the_metadata() {
    let discovery = Discovery { issuer: "https://idp.example.com".into(), clusters: Default::default() };
    let store = || {
        let address = address("/.well-known/openid-configuration");
        store_of(vec![Remote { address, discovery: Some(discovery.clone()), ..remote() }])
    };
    let metadata = || {
        let body = r#"{"issuer":"https://idp.example.com","jwks_uri":"https://idp.example.com/k"}"#;
        reply(200, &[], body.into())
    };
    let (mut slow, mut fast) = (store(), store());
    fetch_and(&mut slow, metadata(), START);
    fetch_and(&mut fast, metadata(), START);
    fetch_and(&mut fast, answer(&["a"]), START);
    assert_eq!(share(&fast, &mut slow, START), [fetched(&["a"])]);
    assert_eq!(fetch(&mut slow, at(540)).address.path, "/.well-known/openid-configuration");
}

#[test]
fn a_leader_that_dies_delays_by_its_lease() {
    let (mut leader, mut follower) = (store(1), store(1));
    fetch(&mut leader, START);
    share(&leader, &mut follower, START);
    assert_eq!(follower.poll_timeout(), Some(at(3)));
    assert_eq!(follower.handle_timeout(at(3)), [], "which is no failure of the issuer's");
    assert!(follower.poll_fetch(at(3)).is_some());
}

#[test]
fn what_is_not_of_this_source_is_not_believed() {
    let mut leader = serving();
    let mut other = store_of(vec![Remote { max_keys: 9, ..remote() }]);
    assert_eq!(share(&leader, &mut other, START), [], "other settings are another source");
    assert_eq!(look_up(&other, CORP, "a", START), "await");
    // Records that do not belong together.
    let state = leader.shared_state(CORP, 1).expect("a state");
    fetch_and(&mut leader, answer(&["b"]), at(540));
    let newer = leader.shared_set(CORP).expect("a set");
    let mut follower = store(1);
    assert_eq!(follower.adopt(CORP, &state, Some(&newer), 2, at(540)), []);
    assert_eq!(follower.adopt(CORP, &state, None, 2, at(540)), []);
    assert!(follower.poll_fetch(at(540)).is_some(), "it fetches for itself");
}

#[test]
fn status_tells_what_an_operator_asks() {
    let mut store = store(1);
    let state = |store: &KeyStore, now| store.status(CORP, now).expect("a status").state;
    assert_eq!(state(&store, START), "empty");
    let first = fetch(&mut store, START);
    assert_eq!(state(&store, START), "fetching");
    store.handle_response(first.id, Response::Failed, START);
    assert_eq!(state(&store, START), "cooling_down");
    fetch_and(&mut store, answer(&["a"]), at(1));
    let status = store.status(CORP, at(2)).expect("a status");
    assert_eq!((status.state, status.fetched, status.expires), ("fresh", Some(at(1)), Some(at(601))));
    assert_eq!(status.set_id.map(|id| id.len()), Some(16));
    assert!(status.last_error.is_none());
    assert_eq!(state(&store, at(601)), "stale");
}

/// Found by a fuzzer: a `kid` was waited for whose budget another worker had spent.
#[test]
fn nobody_waits_for_what_another_worker_has_spent() {
    crate::keystore_driver::drive(&[
        6, 127, 2, 6, 105, 26, 2, 2, 6, 26, 0, 105, 48, 248, 2, 6, 26, 254, 229, 253, 66, 0, 248, 1, 109, 2, 66, 6, 26,
        254, 0, 248, 216, 192,
    ]);
}

#[test]
fn the_fuzzer_s_corpus_keeps_the_rules() {
    let lines = include_str!("corpus/keystore.txt").lines().filter(|line| !line.starts_with('#'));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal");
    let mut count = 0;
    for line in lines {
        crate::keystore_driver::drive(&line.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>());
        count += 1;
    }
    assert!(count > 50, "{count} sequences");
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 2000, ..Default::default() })]

    #[test]
    fn any_sequence_of_events_keeps_the_rules(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        crate::keystore_driver::drive(&bytes);
    }
}
