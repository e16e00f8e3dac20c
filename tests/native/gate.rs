//! A gate without a host: a configuration, its state, and a fixed time.

use claimgate::{
    Allow, Config, Decision, Explanation, KeyStore, Portable, Reason, Request, SignatureStage, State, TrialResult,
    UnixTime, decide, explain,
};
use claimgate_testbed::{Key, key_set};
use serde_json::{Value, json};

pub const NOW: u64 = 1_800_000_000;
pub const ISSUER: &str = "https://idp.example.com/";

/// A gate with one provider, whose inline set holds `keys`; `settings` are merged into the provider.
pub struct Gate {
    pub config: Config,
    pub state: State,
}

impl Gate {
    pub fn new(keys: &[&Key], settings: Value) -> Self {
        Self::with_set(key_set(keys), settings)
    }

    pub fn with_set(set: Value, settings: Value) -> Self {
        let mut provider = json!({"issuer": ISSUER, "audiences": ["orders"], "local_jwks": {"inline": set}});
        merge(&mut provider, settings);
        Self::of(json!({"providers": {"corp": provider}}))
    }

    pub fn of(configuration: Value) -> Self {
        let (config, sources) = Config::parse(configuration.to_string().as_bytes()).expect("the test's configuration");
        let now = UnixTime::from_secs(NOW);
        let state = State::new(KeyStore::new(sources, 1, now), &config, now);
        Self { config, state }
    }

    /// Decides, and holds that `explain` says the same, as a whole and claim by claim.
    pub fn decide(&mut self, request: &Request) -> Decision {
        let now = UnixTime::from_secs(NOW);
        let explained = explain(request, &self.config, &self.state, &Portable, now);
        let decided = decide(request, &self.config, &mut self.state, &Portable, now);
        assert_eq!(explained.decision, decided);
        agrees_with_itself(&explained);
        decided
    }

    #[track_caller]
    pub fn allows(&mut self, request: &Request) -> Allow {
        match self.decide(request) {
            Decision::Allow(allow) => allow,
            other => panic!("{other:?}"),
        }
    }

    /// The reasons for which a request is rejected, in order; `ok` if it is not.
    #[track_caller]
    pub fn reasons(&mut self, request: &Request) -> String {
        match self.decide(request) {
            Decision::Allow(_) => "ok".to_owned(),
            Decision::Await(_) => "await".to_owned(),
            Decision::Reject(rejection) => {
                rejection.violations.iter().map(|v| v.reason.as_str()).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[track_caller]
    pub fn check(&mut self, token: &str, expected: &str) {
        assert_eq!(self.reasons(&bearer(token)), expected, "{token}");
    }
}

/// What is violated claim by claim is what the decision names, and the signature is good if a key says so.
fn agrees_with_itself(explained: &Explanation) {
    use Reason::{ClaimMalformed, IssuerMismatch, LifetimeExceeded};
    let mut told: Vec<Reason> =
        explained.comparisons.iter().filter_map(|one| Some(one.violation.as_ref()?.reason)).collect();
    told.sort_unstable();
    told.dedup();
    match &explained.decision {
        Decision::Allow(_) => assert_eq!(told, [], "{explained:?}"),
        Decision::Await(_) => {}
        // Among several providers, a token is not looked at further once its issuer is another.
        Decision::Reject(rejection) if rejection.reason() <= IssuerMismatch => {}
        Decision::Reject(rejection) => {
            let reasons = rejection.reasons();
            assert!(told.iter().all(|reason| reasons.contains(reason)), "{told:?}, {explained:?}");
            // `jti` is held against nothing, and a token without an end is told of once.
            let of_claims = |reason: &&Reason| {
                **reason > Reason::SignatureInvalid && ![ClaimMalformed, LifetimeExceeded].contains(*reason)
            };
            if !explained.comparisons.is_empty() {
                assert!(
                    reasons.iter().filter(of_claims).all(|reason| told.contains(reason)),
                    "{told:?}, {explained:?}"
                );
            }
        }
    }
    let passed = explained.keys.iter().any(|key| key.result == TrialResult::Pass);
    if !explained.keys.is_empty() && !matches!(explained.decision, Decision::Await(_)) {
        assert_eq!(passed, explained.report.signature == SignatureStage::Pass, "{explained:?}");
    }
}

pub fn merge(into: &mut Value, settings: Value) {
    let (Value::Object(into), Value::Object(settings)) = (into, settings) else { panic!("objects are merged") };
    into.extend(settings);
}

pub fn request(headers: &[(&str, &str)]) -> Request {
    let pseudo = [(":method", "GET"), (":path", "/orders?q=1"), (":authority", "shop.example.com:8443")];
    Request::new(pseudo.iter().chain(headers).map(|(n, v)| (*n, *v)))
}

pub fn bearer(token: &str) -> Request {
    request(&[("authorization", &format!("Bearer {token}"))])
}

pub fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "orders", "sub": "alice", "iat": NOW - 60, "exp": NOW + 600})
}

pub fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    merge(&mut claims, changes);
    claims.as_object_mut().expect("claims are an object").retain(|_, value| !value.is_null());
    claims
}
