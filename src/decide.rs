//! The arrows in order: from one request to one decision (RFC 7519 §7.2).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::claims::{Claim, ClaimsSet, Unverified, Verified};
use crate::config::{Config, Forward, Padding, Provider, Requirement};
use crate::extract::extract;
use crate::jws::{Algorithm, UnverifiedJws};
use crate::keystore::{Hint, IssuerId, KeyStore, Lookup};
use crate::limits::CLAIM_HEADER_BYTES;
use crate::rejection::{Reason, Violation};
use crate::request::Request;
use crate::signature::{Crypto, NoCandidate, Verification, VerifiedJws, digest};
use crate::time::UnixTime;

/// What the gate remembers between requests.
#[derive(Debug)]
pub struct State {
    /// The key sets.
    pub keys: KeyStore,
}

/// What becomes of a request. Exhaustive on purpose: a host that forgets a case does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on, changed as described.
    Allow(Allow),
    /// It is answered here.
    Reject(Rejection),
    /// It cannot be decided yet.
    Await(Need),
}

/// A request that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// Why.
    pub because: Because,
    /// Headers to remove, in lower case, before any is set. Only headers that the request has.
    pub remove: Vec<String>,
    /// Headers to set.
    pub set: Vec<(String, Vec<u8>)>,
    /// Headers that were configured and could not be set: name and reason.
    pub omitted: Vec<(String, &'static str)>,
}

/// Why a request goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// Its token satisfies this provider.
    Verified {
        /// The provider's name.
        provider: String,
    },
    /// No rule is for it.
    Unmatched,
    /// Its rule requires nothing.
    NoRequirement,
}

/// A request that is answered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Every rule it violates, never none; the first is the reason.
    pub violations: Vec<Violation>,
    /// For an outage: when to try again.
    pub retry_after: Option<Duration>,
}

impl Rejection {
    /// The reason.
    pub fn reason(&self) -> Reason {
        self.violations.first().map_or(Reason::JwksUnavailable, |violation| violation.reason)
    }

    /// The reason in words that the client may read.
    pub fn detail(&self) -> &str {
        self.violations.first().map_or("", |violation| &violation.detail)
    }
}

/// What a decision waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The issuer whose keys are needed.
    pub keys: IssuerId,
}

impl Need {
    /// The answer to a request that cannot wait, or not any longer.
    pub fn into_rejection(self, detail: &'static str) -> Rejection {
        Rejection {
            violations: vec![Violation::new(Reason::JwksUnavailable, detail)],
            retry_after: Some(Duration::from_secs(1)),
        }
    }
}

/// A decision with everything that led to it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The same that [`decide`] gives.
    pub decision: Decision,
    /// What is known of the token.
    pub report: Report,
}

/// What is known of a request's token, as far as its stages came. It holds no part of the token itself, and what it
/// holds of an unverified one is hearsay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The provider it was held against.
    pub provider: Option<String>,
    /// The token's `kid`.
    pub kid: Option<String>,
    /// The token's `alg`.
    pub alg: Option<String>,
    /// The token's `typ`.
    pub typ: Option<String>,
    /// The names of the keys in the provider's set; a key without a name is an empty string.
    pub keys: Vec<String>,
    /// How long ago that set was fetched.
    pub jwks_age: Option<Duration>,
    /// Whether the signature is valid.
    pub signature: SignatureStage,
    /// The token's `iss`.
    pub iss_token: Option<String>,
    /// The issuers that would be accepted.
    pub iss_expected: Vec<String>,
    /// The token's `aud`.
    pub aud_token: Vec<String>,
    /// The audiences of which one would be accepted.
    pub aud_expected: Vec<String>,
    /// The token's `iat`.
    pub iat: Option<UnixTime>,
    /// The token's `nbf`.
    pub nbf: Option<UnixTime>,
    /// The token's `exp`.
    pub exp: Option<UnixTime>,
    /// The token's `jti`.
    pub jti: Option<String>,
    /// The first 8 bytes of the token's SHA-256, in hexadecimal.
    pub token_sha256: Option<String>,
}

/// How far the signature was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureStage {
    /// There was no token or no key to check it with.
    #[default]
    NotChecked,
    /// It is valid.
    Pass,
    /// It is not.
    Fail,
}

/// Decides on a request. The same arguments give the same answer.
pub fn decide(request: &Request, config: &Config, state: &mut State, crypto: &dyn Crypto, now: UnixTime) -> Decision {
    judge(request, config, state, crypto, now).decision
}

/// Decides on a request and says all that led to it.
pub fn explain(request: &Request, config: &Config, state: &State, crypto: &dyn Crypto, now: UnixTime) -> Explanation {
    let judgement = judge(request, config, state, crypto, now);
    Explanation { report: judgement.report(config, state, now), decision: judgement.decision }
}

/// One request held against the configuration: the decision, and the stages it was made of.
struct Judgement<'a> {
    decision: Decision,
    trial: Option<Trial<'a>>,
}

/// One token held against one provider.
struct Trial<'a> {
    provider: Option<&'a Provider>,
    token: Option<&'a [u8]>,
    stage: Stage<'a>,
}

/// How far a token came.
enum Stage<'a> {
    Nothing,
    Claimed { jws: UnverifiedJws<'a>, claims: ClaimsSet<Unverified>, signature: SignatureStage },
    Proven { jws: VerifiedJws<'a>, claims: ClaimsSet<Verified> },
}

fn judge<'a>(
    request: &'a Request,
    config: &'a Config,
    state: &State,
    crypto: &dyn Crypto,
    now: UnixTime,
) -> Judgement<'a> {
    let bypass = |because| Judgement { decision: Decision::Allow(annotate(request, config, because)), trial: None };
    let Some(rules) = &config.rules else {
        return any_provider(request, config, state, crypto, now);
    };
    match rules.iter().find(|rule| rule.matcher.matches(request.path())).map(|rule| &rule.requirement) {
        None => bypass(Because::Unmatched),
        Some(Requirement::Nothing) => bypass(Because::NoRequirement),
        Some(Requirement::Provider(place)) => match config.providers.get(*place) {
            Some(provider) => try_provider(request, config, provider, state, crypto, now),
            None => no_such_provider(),
        },
    }
}

/// A rule that names no provider cannot be compiled; should it ever be, nobody gets through.
fn no_such_provider<'a>() -> Judgement<'a> {
    let violation = Violation::new(Reason::JwksUnavailable, "the rule names a provider that does not exist");
    Judgement { decision: Decision::Reject(Rejection { violations: vec![violation], retry_after: None }), trial: None }
}

/// Without rules a token of any provider will do. The unverified `iss` only selects whom to ask; policy compares it
/// again afterwards.
fn any_provider<'a>(
    request: &'a Request,
    config: &'a Config,
    state: &State,
    crypto: &dyn Crypto,
    now: UnixTime,
) -> Judgement<'a> {
    let attempt = |provider: &'a Provider| try_provider(request, config, provider, state, crypto, now);
    let mut best: Option<Judgement<'a>> = None;
    for provider in config.providers.iter().filter(|provider| may_be_from(request, provider)) {
        let judgement = attempt(provider);
        if best.as_ref().is_none_or(|best| rank(&judgement) > rank(best)) {
            best = Some(judgement);
        }
    }
    match (best, config.providers.as_slice()) {
        (Some(best), _) => best,
        (None, [only]) => attempt(only),
        (None, several) => no_provider(request, several),
    }
}

/// Which of several providers' judgements counts: one that lets pass, one that may yet, one that could not tell, else
/// the rejection that came furthest. An outage is never reported as a bad token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Rejected(Reason),
    Outage,
    Awaits,
    Allowed,
}

fn rank(judgement: &Judgement<'_>) -> Rank {
    match &judgement.decision {
        Decision::Allow(_) => Rank::Allowed,
        Decision::Await(_) => Rank::Awaits,
        Decision::Reject(rejection) if rejection.reason().is_outage() => Rank::Outage,
        Decision::Reject(rejection) => Rank::Rejected(rejection.reason()),
    }
}

fn may_be_from(request: &Request, provider: &Provider) -> bool {
    let Ok(jws) =
        extract(request).and_then(|token| bounded(token, provider.max_token_bytes)).and_then(UnverifiedJws::parse)
    else {
        return false;
    };
    provider.policy.check_issuer(&ClaimsSet::claimed_by(&jws).iss).is_none()
}

/// No provider has this issuer, or there is no token to have one. No key is tried: with many providers, a token of
/// nobody's would cost a signature each.
fn no_provider<'a>(request: &'a Request, providers: &'a [Provider]) -> Judgement<'a> {
    let longest = providers.iter().map(|provider| provider.max_token_bytes).max().unwrap_or_default();
    let mut trial = Trial { provider: None, token: None, stage: Stage::Nothing };
    let parsed = extract(request).and_then(|token| {
        trial.token = Some(token);
        bounded(token, longest).and_then(UnverifiedJws::parse)
    });
    let violations = match parsed {
        Err(violation) => vec![violation],
        Ok(jws) => {
            let allowed: Vec<Algorithm> = providers.iter().flat_map(|provider| provider.algorithms.clone()).collect();
            let (mut violations, _) = check_header(&jws, &allowed);
            violations.push(Violation::new(Reason::IssuerMismatch, "`iss` is not the issuer of any provider"));
            let claims = ClaimsSet::claimed_by(&jws);
            trial.stage = Stage::Claimed { jws, claims, signature: SignatureStage::NotChecked };
            violations
        }
    };
    Judgement { decision: Decision::Reject(Rejection { violations, retry_after: None }), trial: Some(trial) }
}

fn try_provider<'a>(
    request: &'a Request,
    config: &'a Config,
    provider: &'a Provider,
    state: &State,
    crypto: &dyn Crypto,
    now: UnixTime,
) -> Judgement<'a> {
    let mut trial = Trial { provider: Some(provider), token: None, stage: Stage::Nothing };
    let reject = |violations: Vec<Violation>, trial, retry_after| Judgement {
        decision: Decision::Reject(Rejection { violations, retry_after }),
        trial: Some(trial),
    };
    let parsed = extract(request).and_then(|token| {
        trial.token = Some(token);
        bounded(token, provider.max_token_bytes).and_then(UnverifiedJws::parse)
    });
    let jws = match parsed {
        Ok(jws) => jws,
        Err(violation) => return reject(vec![violation], trial, None),
    };

    let claims = ClaimsSet::claimed_by(&jws);
    let (mut violations, alg) = check_header(&jws, &provider.algorithms);
    violations.extend(provider.policy.check_issuer(&claims.iss));

    // Keys are asked for even if the token is refused already, so that the report is whole; but nobody waits for it.
    let mut retry_after = None;
    let keys = match alg.map(|alg| (alg, look_up(&jws, alg, provider, state, now))) {
        None => None,
        Some((alg, Lookup::Keys(keys))) => Some((alg, keys)),
        Some((_, Lookup::None(none))) => {
            violations.push(no_candidate(none, jws.header().kid.is_some()));
            None
        }
        Some((_, Lookup::Await)) if violations.is_empty() => {
            trial.stage = Stage::Claimed { jws, claims, signature: SignatureStage::NotChecked };
            return Judgement { decision: Decision::Await(Need { keys: provider.keys }), trial: Some(trial) };
        }
        Some((_, Lookup::Unavailable { retry_after: wait })) if violations.is_empty() => {
            retry_after = Some(wait.max(Duration::from_secs(1)));
            violations.push(Violation::new(Reason::JwksUnavailable, "the issuer's keys could not be fetched"));
            None
        }
        Some((_, Lookup::Await | Lookup::Unavailable { .. })) => None,
    };

    trial.stage = match keys {
        None => Stage::Claimed { jws, claims, signature: SignatureStage::NotChecked },
        Some((alg, keys)) => match VerifiedJws::verify(jws, alg, &keys, crypto) {
            Verification::Valid(jws) => Stage::Proven { claims: ClaimsSet::of(&jws), jws },
            Verification::Invalid(jws) => {
                violations
                    .push(Violation::new(Reason::SignatureInvalid, "no key of the issuer verifies the signature"));
                Stage::Claimed { jws, claims, signature: SignatureStage::Fail }
            }
        },
    };
    match &trial.stage {
        Stage::Proven { jws, claims } => {
            violations.extend(provider.policy.check(claims, now));
            if violations.is_empty() {
                let allow = forward_token(request, config, provider, jws, claims);
                return Judgement { decision: Decision::Allow(allow), trial: Some(trial) };
            }
        }
        Stage::Claimed { claims, .. } => violations.extend(provider.policy.check(claims, now)),
        Stage::Nothing => {}
    }
    violations.sort_by_key(|violation| violation.reason);
    violations.dedup();
    reject(violations, trial, retry_after)
}

fn bounded(token: &[u8], allowed: usize) -> Result<&[u8], Violation> {
    if token.len() > allowed {
        let found = token.len();
        return Err(Violation::new(
            Reason::TokenTooLarge,
            format!("the token has {found} bytes, {allowed} are allowed"),
        ));
    }
    Ok(token)
}

/// What the JOSE header violates, and the algorithm if it is allowed.
fn check_header(jws: &UnverifiedJws<'_>, allowed: &[Algorithm]) -> (Vec<Violation>, Option<Algorithm>) {
    let mut violations = Vec::new();
    if jws.header().needs_extension {
        violations.push(Violation::new(
            Reason::CritUnsupported,
            "the header uses `crit` or `b64`, no extension is understood",
        ));
    }
    let alg = Algorithm::from_name(&jws.header().alg).filter(|alg| allowed.contains(alg));
    if alg.is_none() {
        violations.push(Violation::new(Reason::AlgorithmNotAllowed, "`alg` is not one of the algorithms allowed"));
    }
    (violations, alg)
}

fn look_up<'s>(
    jws: &UnverifiedJws<'_>,
    alg: Algorithm,
    provider: &Provider,
    state: &'s State,
    now: UnixTime,
) -> Lookup<'s> {
    state.keys.lookup(provider.keys, Hint { kid: jws.header().kid.as_deref(), alg }, now)
}

fn no_candidate(none: NoCandidate, named: bool) -> Violation {
    match none {
        NoCandidate::Unknown if named => Violation::new(Reason::KeyNotFound, "`kid` names no key of the issuer"),
        NoCandidate::Unknown => Violation::new(Reason::KeyNotFound, "the issuer has no key that fits `alg`"),
        NoCandidate::Unfit => Violation::new(Reason::KeyMismatch, "the key that `kid` names does not fit `alg`"),
        NoCandidate::Unusable(why) => {
            Violation::new(Reason::KeyMismatch, format!("the key that `kid` names cannot be used: {why}"))
        }
    }
}

/// Every header that any provider may set is removed from every request, so that none can be brought along.
fn annotate(request: &Request, config: &Config, because: Because) -> Allow {
    let remove = config.managed_headers.iter().filter(|name| request.has(name)).cloned().collect();
    Allow { because, remove, set: Vec::new(), omitted: Vec::new() }
}

fn forward_token(
    request: &Request,
    config: &Config,
    provider: &Provider,
    jws: &VerifiedJws<'_>,
    claims: &ClaimsSet<Verified>,
) -> Allow {
    let mut allow = annotate(request, config, Because::Verified { provider: provider.name.clone() });
    if provider.forward == Forward::Strip {
        allow.remove.push("authorization".to_owned());
    }
    if let Some(header) = &provider.payload_header {
        let mut value = jws.jws().encoded_payload().to_vec();
        if header.padding == Padding::Add {
            value.resize(value.len().next_multiple_of(4), b'=');
        }
        allow.set.push((header.name.clone(), value));
    }
    for header in &provider.claim_headers {
        let Some(value) = claims.at(&header.path).and_then(header_text) else {
            continue;
        };
        match refusal(value.as_bytes()) {
            Some(why) => allow.omitted.push((header.name.clone(), why)),
            None => allow.set.push((header.name.clone(), value.into_bytes())),
        }
    }
    allow
}

/// A claim as a header's value, as `jwt_authn` writes it; null is no value.
fn header_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => Some(STANDARD.encode(value.to_string())),
    }
}

fn refusal(value: &[u8]) -> Option<&'static str> {
    if value.len() > CLAIM_HEADER_BYTES {
        Some("the claim is too long for a header")
    } else if value.iter().any(|&b| b < b' ' || b == 0x7F) {
        Some("the claim holds control characters")
    } else {
        None
    }
}

impl Judgement<'_> {
    fn report(&self, config: &Config, state: &State, now: UnixTime) -> Report {
        let Some(trial) = &self.trial else {
            return Report::default();
        };
        let mut report = Report { token_sha256: trial.token.map(digest), ..Report::default() };
        let accepted = trial.provider.map_or(config.providers.as_slice(), std::slice::from_ref);
        report.iss_expected = accepted.iter().filter_map(|provider| provider.policy.issuer.clone()).collect();
        if let Some(provider) = trial.provider {
            report.provider = Some(provider.name.clone());
            report.aud_expected.clone_from(&provider.policy.audiences);
            report.jwks_age = state.keys.age(provider.keys, now);
            if let Some(set) = state.keys.set(provider.keys, now) {
                report.keys = set.keys().iter().map(|key| key.kid().unwrap_or_default().to_owned()).collect();
            }
        }
        match &trial.stage {
            Stage::Nothing => {}
            Stage::Claimed { jws, claims, signature } => report.token(jws, claims, *signature),
            Stage::Proven { jws, claims } => report.token(jws.jws(), claims, SignatureStage::Pass),
        }
        report
    }
}

impl Report {
    fn token<P>(&mut self, jws: &UnverifiedJws<'_>, claims: &ClaimsSet<P>, signature: SignatureStage) {
        self.signature = signature;
        self.alg = Some(jws.header().alg.clone());
        self.kid.clone_from(&jws.header().kid);
        self.typ.clone_from(&jws.header().typ);
        self.iss_token = claims.iss.present().cloned();
        self.aud_token = claims.aud.present().cloned().unwrap_or_default();
        self.iat = claims.iat.present().copied();
        self.nbf = claims.nbf.present().copied();
        self.exp = claims.exp.present().copied();
        self.jti = match &claims.jti {
            Claim::Present(jti) => Some(jti.clone()),
            Claim::Absent | Claim::Malformed(_) => None,
        };
    }
}
