//! The arrows in order: from one request to one decision (RFC 7519 §7.2).

use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::claims::{ClaimsSet, Verified};
use crate::config::{
    ClaimFormat, ClaimHeader, Config, Forward, Padding, Preflight, Provider, Requirement, TokenRequirement,
};
use crate::extract::{Found, Place, extract, without_cookies, without_params};
use crate::jws::{Algorithm, UnverifiedJws};
use crate::keystore::{Hint, IssuerId, KeyStore, Lookup, Want};
use crate::limits::CLAIM_HEADER_BYTES;
use crate::policy::Extra;
use crate::rejection::{Reason, Violation};
use crate::request::{Request, RouteSetting};
use crate::signature::{Crypto, NoCandidate, VerifiedJws, digest};
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
    /// Filter state to set, where the host has it: key and value.
    pub states: Vec<(String, String)>,
    /// Headers and filter state that were configured and could not be set: name and reason.
    pub omitted: Vec<(String, &'static str)>,
}

/// Why a request goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// Its tokens are good.
    Verified(Vec<Credential>),
    /// It needs no good token, and has none.
    Optional,
    /// It is a CORS preflight.
    Preflight,
    /// No rule is for it.
    Unmatched,
    /// Its rule, or its route, requires nothing.
    NoRequirement,
}

/// A token that a provider accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The provider's name.
    pub provider: String,
    /// The name of the key that verified it, if it has one.
    pub kid: Option<String>,
}

/// A request that is answered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Every rule it violates, never none; the first is the reason.
    pub violations: Vec<Violation>,
    /// For an outage: when to try again.
    pub retry_after: Option<Duration>,
    /// The one provider that the token was held against; nothing if there were several, or none.
    pub provider: Option<String>,
}

impl From<Vec<Violation>> for Rejection {
    fn from(violations: Vec<Violation>) -> Self {
        Self { violations, retry_after: None, provider: None }
    }
}

impl Rejection {
    /// The reason.
    pub fn reason(&self) -> Reason {
        self.violations.first().map_or(Reason::JwksUnavailable, |violation| violation.reason)
    }

    /// Every reason there is, once and in order.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = self.violations.iter().map(|violation| violation.reason).collect();
        reasons.dedup();
        reasons
    }

    /// The scope that would satisfy every rule on scopes (RFC 6750 §3).
    pub fn scope(&self) -> Option<String> {
        let mut words: Vec<&str> = Vec::new();
        for word in self.violations.iter().filter_map(|violation| violation.scope.as_deref()).flat_map(|s| s.split(' '))
        {
            if !words.contains(&word) {
                words.push(word);
            }
        }
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// The reason in words that the client may read.
    pub fn detail(&self) -> &str {
        self.violations.first().map_or("", |violation| &violation.detail)
    }
}

/// What a decision waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The issuer whose keys are needed.
    pub keys: IssuerId,
    /// What is wanted of them.
    pub want: Want,
}

impl Need {
    /// The answer to a request that cannot wait, or not any longer.
    pub fn into_rejection(self, detail: &'static str) -> Rejection {
        Rejection {
            violations: vec![Violation::new(Reason::JwksUnavailable, detail)],
            retry_after: Some(Duration::from_secs(1)),
            provider: None,
        }
    }
}

/// A decision with everything that led to it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The same that [`decide()`] gives.
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
    Explanation { report: judgement.report(state, now), decision: judgement.decision }
}

/// One request held against the configuration: the decision, and what is known of the token behind it.
struct Judgement<'a> {
    decision: Decision,
    trial: Trial<'a>,
}

/// One token held against one provider, or against several that it might have come from.
#[derive(Default)]
struct Trial<'a> {
    providers: Vec<&'a Provider>,
    digest: Option<String>,
    jws: Option<Rc<UnverifiedJws<'a>>>,
    signature: SignatureStage,
    audiences: Option<&'a [String]>,
}

/// What came of a requirement.
enum Outcome<'a> {
    /// It is satisfied, by these tokens.
    Satisfied(Vec<Accepted<'a>>, Option<String>),
    /// It cannot be told yet.
    Waiting(Need, Trial<'a>),
    /// It is violated.
    Violated(Rejection, Trial<'a>),
}

/// A token that a provider accepts.
struct Accepted<'a> {
    provider: &'a Provider,
    place: Place,
    kid: Option<String>,
    claims: ClaimsSet<'a, Verified>,
}

/// Everything a decision is made from.
#[derive(Clone, Copy)]
struct Court<'a, 's> {
    request: &'a Request,
    config: &'a Config,
    state: &'s State,
    crypto: &'s dyn Crypto,
    now: UnixTime,
}

/// Whether a token from another issuer is examined further, so that the report is whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Examine {
    /// It is: only one provider is asked.
    Whole,
    /// It is not: with many providers, a token of nobody's would cost a signature each.
    UpToIssuer,
}

fn judge<'a>(
    request: &'a Request,
    config: &'a Config,
    state: &State,
    crypto: &dyn Crypto,
    now: UnixTime,
) -> Judgement<'a> {
    let court = Court { request, config, state, crypto, now };
    let pass = |because| Judgement {
        decision: Decision::Allow(court.allow(because, Vec::new(), None)),
        trial: Trial::default(),
    };
    if config.preflight == Preflight::Bypass && request.is_preflight() {
        return pass(Because::Preflight);
    }
    let rule = || config.rules.iter().find(|rule| rule.matcher.matches(request)).map(|rule| &rule.requirement);
    let requirement = match request.route() {
        RouteSetting::Disabled => return pass(Because::NoRequirement),
        RouteSetting::Requirement(name) => match config.requirements.get(name) {
            Some(requirement) => requirement,
            None => return no_such_requirement(),
        },
        RouteSetting::Unset => match (rule(), &config.unmatched) {
            (Some(requirement), _) => requirement,
            (None, Requirement::Nothing) => return pass(Because::Unmatched),
            (None, requirement) => requirement,
        },
    };
    if let Requirement::Nothing = requirement {
        return pass(Because::NoRequirement);
    }
    match court.hear(requirement, Examine::Whole) {
        Outcome::Waiting(need, trial) => Judgement { decision: Decision::Await(need), trial },
        Outcome::Violated(rejection, trial) => {
            let provider = match trial.providers.as_slice() {
                [only] => Some(only.name.clone()),
                _ => None,
            };
            Judgement { decision: Decision::Reject(Rejection { provider, ..rejection }), trial }
        }
        Outcome::Satisfied(accepted, failed) => {
            let trial = accepted.first().map_or_else(Trial::default, Accepted::trial);
            let credential =
                |token: &Accepted<'_>| Credential { provider: token.provider.name.clone(), kid: token.kid.clone() };
            let credentials: Vec<Credential> = accepted.iter().map(credential).collect();
            let because = if credentials.is_empty() { Because::Optional } else { Because::Verified(credentials) };
            Judgement { decision: Decision::Allow(court.allow(because, accepted, failed)), trial }
        }
    }
}

/// The route asks for what does not exist: nobody gets through, as with `jwt_authn`.
fn no_such_requirement<'a>() -> Judgement<'a> {
    let violation = Violation::new(Reason::ClaimMismatch, "the route names a requirement that does not exist");
    Judgement { decision: Decision::Reject(Rejection::from(vec![violation])), trial: Trial::default() }
}

/// Which of several outcomes tells most: one that may yet be good, one that could not tell, else the rejection that came
/// furthest, where a token that is absent or somebody else's came nowhere. An outage is never reported as a bad token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Missing,
    OtherIssuer,
    Rejected(Reason),
    Outage,
}

impl Rank {
    fn of(rejection: &Rejection) -> Self {
        match rejection.reason() {
            Reason::HeaderMissing => Self::Missing,
            Reason::IssuerMismatch => Self::OtherIssuer,
            reason if reason.is_outage() => Self::Outage,
            reason => Self::Rejected(reason),
        }
    }
}

impl<'a> Court<'a, '_> {
    fn hear(self, requirement: &'a Requirement, examine: Examine) -> Outcome<'a> {
        match requirement {
            Requirement::Nothing => Outcome::Satisfied(Vec::new(), None),
            Requirement::Token(TokenRequirement { provider, audiences, claims }) => {
                let extra = Extra { audiences: audiences.as_deref(), claims };
                match self.config.providers.get(*provider) {
                    Some(provider) => self.try_provider(provider, extra, examine),
                    // A place that does not exist cannot be compiled; should it ever be, nobody gets through.
                    None => Outcome::Violated(
                        Need { keys: IssuerId(*provider), want: Want::Set }.into_rejection("no such provider"),
                        Trial::default(),
                    ),
                }
            }
            Requirement::AnyProvider => self.any_provider(examine),
            Requirement::Any(children) => self.any(children),
            Requirement::All(children) => self.all(children, examine),
            Requirement::AllowMissing => match self.any_provider(examine) {
                Outcome::Violated(rejection, _) if Rank::of(&rejection) == Rank::Missing => {
                    Outcome::Satisfied(Vec::new(), None)
                }
                other => other,
            },
            Requirement::AllowMissingOrFailed => match self.any_provider(examine) {
                Outcome::Violated(..) => Outcome::Satisfied(Vec::new(), None),
                other => other,
            },
            Requirement::ExtractOnly(header) => match self.any_provider(examine) {
                Outcome::Violated(rejection, _) if Rank::of(&rejection) == Rank::Missing => {
                    Outcome::Satisfied(Vec::new(), None)
                }
                Outcome::Violated(..) => Outcome::Satisfied(Vec::new(), Some(header.clone())),
                other => other,
            },
        }
    }

    /// A token of whichever provider; one in all the places where any of them looks.
    fn any_provider(self, examine: Examine) -> Outcome<'a> {
        let providers = &self.config.providers;
        if let [only] = providers.as_slice() {
            return self.try_provider(only, Extra::default(), examine);
        }
        if let Err(violation) = extract(self.request, &self.config.places) {
            let trial = Trial { providers: providers.iter().collect(), ..Trial::default() };
            return Outcome::Violated(Rejection::from(vec![violation]), trial);
        }
        // A provider that names the token's issuer speaks for it, for good or ill. One that names none speaks for the
        // tokens of all others: what the first refuses, the second must not let pass.
        let names_none = |provider: &&Provider| provider.policy.issuers.is_empty();
        let names_it = |provider: &&'a Provider| {
            let found = self.find(provider, &mut Trial::default());
            let claimed =
                found.is_ok_and(|(_, jws)| provider.policy.check_issuer(&ClaimsSet::claimed_by(&jws).iss).is_none());
            !names_none(provider) && claimed
        };
        let is_named = providers.iter().any(|provider| names_none(&provider))
            && providers.iter().any(|provider| names_it(&provider));
        let asked = providers.iter().filter(|provider| !(is_named && names_none(provider)));
        self.first(asked.map(|provider| self.try_provider(provider, Extra::default(), Examine::UpToIssuer)))
    }

    /// The first child that is satisfied. `allow_missing` and `allow_missing_or_failed` beside others are no
    /// requirements of their own: they say what becomes of a request that satisfies none of the others. Without others,
    /// the more lenient one is what it is alone.
    fn any(self, children: &'a [Requirement]) -> Outcome<'a> {
        let is_failed = |child: &&Requirement| matches!(child, Requirement::AllowMissingOrFailed);
        let is_missing = |child: &&Requirement| matches!(child, Requirement::AllowMissing);
        if children.iter().all(|child| is_failed(&child) || is_missing(&child)) {
            let lenient = children.iter().find(is_failed).or_else(|| children.first());
            return lenient
                .map_or_else(|| self.first(std::iter::empty()), |child| self.hear(child, Examine::UpToIssuer));
        }
        let (mut missing, mut failed) = (false, false);
        let tokens = children.iter().filter(|child| match child {
            Requirement::AllowMissing => {
                missing = true;
                false
            }
            Requirement::AllowMissingOrFailed => {
                failed = true;
                false
            }
            _ => true,
        });
        let outcome = self.first(tokens.map(|child| self.hear(child, Examine::UpToIssuer)));
        match outcome {
            Outcome::Violated(rejection, _) if failed || (missing && Rank::of(&rejection) == Rank::Missing) => {
                Outcome::Satisfied(Vec::new(), None)
            }
            other => other,
        }
    }

    /// The first outcome that satisfies; else one that waits; else the violation that tells most.
    fn first(self, outcomes: impl Iterator<Item = Outcome<'a>>) -> Outcome<'a> {
        let (mut waiting, mut violated): (Option<Outcome<'a>>, Option<(Rejection, Trial<'a>)>) = (None, None);
        for outcome in outcomes {
            match outcome {
                Outcome::Satisfied(..) => return outcome,
                Outcome::Waiting(..) => waiting = waiting.or(Some(outcome)),
                Outcome::Violated(rejection, trial) => {
                    violated = Some(match violated {
                        None => (rejection, trial),
                        Some((first, before)) => {
                            let better = Rank::of(&rejection) > Rank::of(&first);
                            let (rejection, winner, loser) =
                                if better { (rejection, trial, before) } else { (first, before, trial) };
                            match Rank::of(&rejection) {
                                Rank::Missing => (nowhere(), winner.beside(loser)),
                                Rank::OtherIssuer => (rejection, winner.beside(loser)),
                                Rank::Rejected(_) | Rank::Outage => (rejection, winner),
                            }
                        }
                    });
                }
            }
        }
        match (waiting, violated) {
            (Some(waiting), _) => waiting,
            (None, Some((rejection, trial))) => Outcome::Violated(rejection, trial),
            // A list of requirements is never empty; should it ever be, nobody gets through.
            (None, None) => {
                let violation = Violation::new(Reason::HeaderMissing, "the request holds no token that is looked at");
                Outcome::Violated(Rejection::from(vec![violation]), Trial::default())
            }
        }
    }

    fn all(self, children: &'a [Requirement], examine: Examine) -> Outcome<'a> {
        let (mut accepted, mut failed) = (Vec::new(), None);
        for child in children {
            match self.hear(child, examine) {
                Outcome::Satisfied(more, bad) => {
                    accepted.extend(more);
                    failed = failed.or(bad);
                }
                other => return other,
            }
        }
        Outcome::Satisfied(accepted, failed)
    }

    fn try_provider(self, provider: &'a Provider, extra: Extra<'a>, examine: Examine) -> Outcome<'a> {
        let mut trial = Trial { providers: vec![provider], audiences: extra.audiences, ..Trial::default() };
        let reject = |violations, retry_after, trial| {
            Outcome::Violated(Rejection { violations, retry_after, provider: None }, trial)
        };
        let (place, jws) = match self.find(provider, &mut trial) {
            Ok(found) => found,
            Err(violation) => return reject(vec![violation], None, trial),
        };
        let claimed = ClaimsSet::claimed_by(&jws);
        trial.jws = Some(Rc::clone(&jws));
        let (mut violations, alg) = check_header(&jws, provider);
        let other_issuer = provider.policy.check_issuer(&claimed.iss);
        let is_other = other_issuer.is_some();
        violations.extend(other_issuer);
        if is_other && examine == Examine::UpToIssuer {
            violations.sort_by_key(|violation| violation.reason);
            return reject(violations, None, trial);
        }

        // Keys are asked for even if the token is refused already, so that the report is whole; but nobody waits for it.
        let mut retry_after = None;
        let mut keys = None;
        if let Some(alg) = alg {
            let hint = Hint { kid: jws.header().kid.as_deref(), alg };
            match self.state.keys.lookup(provider.keys, hint, self.now) {
                Lookup::Keys(found) => keys = Some((alg, found)),
                Lookup::None(none) => violations.push(no_candidate(none, hint.kid.is_some())),
                Lookup::Await(want) if violations.is_empty() => {
                    return Outcome::Waiting(Need { keys: provider.keys, want }, trial);
                }
                Lookup::Unavailable { retry_after: wait } if violations.is_empty() => {
                    retry_after = Some(wait.max(Duration::from_secs(1)));
                    violations.push(Violation::new(Reason::JwksUnavailable, "the issuer's keys could not be fetched"));
                }
                Lookup::Await(_) | Lookup::Unavailable { .. } => {}
            }
        }
        let verified = keys.map(|(alg, keys)| VerifiedJws::verify(&jws, alg, &keys, self.crypto));
        match verified {
            None => violations.extend(provider.policy.check(&claimed, extra, self.now)),
            // The key may have been replaced under the same name.
            Some(None) if violations.is_empty() && self.state.keys.may_look(provider.keys, self.now) => {
                return Outcome::Waiting(Need { keys: provider.keys, want: Want::Look }, trial);
            }
            Some(None) => {
                trial.signature = SignatureStage::Fail;
                violations
                    .push(Violation::new(Reason::SignatureInvalid, "no key of the issuer verifies the signature"));
                violations.extend(provider.policy.check(&claimed, extra, self.now));
            }
            Some(Some(verified)) => {
                trial.signature = SignatureStage::Pass;
                let claims = ClaimsSet::of(&verified);
                violations.extend(provider.policy.check(&claims, extra, self.now));
                if violations.is_empty() {
                    let kid = verified.kid().map(str::to_owned);
                    return Outcome::Satisfied(vec![Accepted { provider, place, kid, claims }], None);
                }
            }
        }
        violations.sort_by_key(|violation| violation.reason);
        violations.dedup();
        reject(violations, retry_after, trial)
    }

    /// The one token in the places where this provider looks, taken apart.
    fn find(self, provider: &'a Provider, trial: &mut Trial<'a>) -> Result<(Place, Rc<UnverifiedJws<'a>>), Violation> {
        let Found { token, place } = extract(self.request, &provider.places)?;
        trial.digest = Some(digest(&token));
        bounded(&token, provider.max_token_bytes)?;
        Ok((place, Rc::new(UnverifiedJws::parse(token)?)))
    }

    /// A request that goes on. Every header that any provider may set is removed from every request, so that none can be
    /// brought along; then tokens that end here are cut out, and what the accepted ones say is written down.
    fn allow(self, because: Because, accepted: Vec<Accepted<'a>>, failed: Option<String>) -> Allow {
        let mut remove: Vec<String> = Vec::new();
        for (name, _) in self.request.headers() {
            if self.is_managed(name) && !remove.iter().any(|other| other == name) {
                remove.push(name.to_owned());
            }
        }
        let mut allow = Allow { because, remove, set: Vec::new(), states: Vec::new(), omitted: Vec::new() };
        self.cut_out(accepted.iter().filter(|token| token.provider.forward == Forward::Strip), &mut allow);
        for token in &accepted {
            token.annotate(&mut allow);
        }
        allow.set.extend(failed.map(|header| (header, b"false".to_vec())));
        allow
    }

    /// Whether the gate may set this header, or an upstream may take it for one that the gate sets: many read `x_user`
    /// as `x-user`.
    fn is_managed(self, name: &str) -> bool {
        let same = |a: u8, b: u8| a == b || (matches!(a, b'_' | b'-') && matches!(b, b'_' | b'-'));
        let alike = |managed: &String| {
            managed.len() == name.len() && managed.bytes().zip(name.bytes()).all(|(a, b)| same(a, b))
        };
        self.config.managed_headers.iter().any(alike)
    }

    fn cut_out<'t>(self, tokens: impl Iterator<Item = &'t Accepted<'a>>, allow: &mut Allow)
    where
        'a: 't,
    {
        let (mut params, mut cookies) = (Vec::new(), Vec::new());
        for token in tokens {
            match &token.place {
                Place::Header(name) if !allow.remove.contains(name) => allow.remove.push(name.clone()),
                Place::Header(_) => {}
                Place::Param(name) => params.push(name.as_str()),
                Place::Cookie(name) => cookies.push(name.as_str()),
            }
        }
        allow.set.extend(without_params(self.request, &params).map(|target| (":path".to_owned(), target)));
        if !cookies.is_empty() {
            allow.remove.push("cookie".to_owned());
            let rest = without_cookies(self.request, &cookies);
            if !rest.is_empty() {
                allow.set.push(("cookie".to_owned(), rest));
            }
        }
    }
}

impl<'a> Trial<'a> {
    /// A token that none of several providers knows: it is held against them all.
    fn beside(mut self, other: Self) -> Self {
        let more = other.providers.into_iter().filter(|other| !self.providers.iter().any(|p| std::ptr::eq(*p, *other)));
        let more: Vec<&'a Provider> = more.collect();
        self.providers.extend(more);
        self.jws = self.jws.or(other.jws);
        self.digest = self.digest.or(other.digest);
        self
    }
}

impl<'a> Accepted<'a> {
    fn trial(&self) -> Trial<'a> {
        let jws = self.claims.shared_jws();
        Trial {
            providers: vec![self.provider],
            digest: Some(digest(jws.compact())),
            jws: Some(jws),
            signature: SignatureStage::Pass,
            audiences: None,
        }
    }

    /// Writes down what the upstream shall know of the token.
    fn annotate(&self, allow: &mut Allow) {
        if let Some(header) = &self.provider.payload_header {
            let mut value = self.claims.jws().encoded_payload().to_vec();
            if header.padding == Padding::Add {
                value.resize(value.len().next_multiple_of(4), b'=');
            }
            put(allow, &header.name, value);
        }
        for header in &self.provider.claim_headers {
            let Some(text) = header_text(&self.claims, header) else { continue };
            match text.and_then(fit_for_a_header) {
                Ok(text) => put(allow, &header.name, text.into_bytes()),
                Err(why) => allow.omitted.push((header.name.clone(), why)),
            }
        }
        for (key, path) in &self.provider.claim_states {
            let text = match self.claims.at(path) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => Some(text.clone()),
                Some(_) => self.claims.text_at(path),
            };
            match text.ok_or("the claim cannot be read").and_then(fit_for_a_header) {
                Ok(text) => allow.states.push((key.clone(), text)),
                Err(why) => allow.omitted.push((key.clone(), why)),
            }
        }
    }
}

/// No token in any of the places of several providers.
fn nowhere() -> Rejection {
    let detail = "the request holds no token in any of the places configured";
    Rejection::from(vec![Violation::new(Reason::HeaderMissing, detail)])
}

/// Sets a header; the last of several values for one counts.
fn put(allow: &mut Allow, name: &str, value: Vec<u8>) {
    allow.set.retain(|(other, _)| other != name);
    allow.set.push((name.to_owned(), value));
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
fn check_header(jws: &UnverifiedJws<'_>, provider: &Provider) -> (Vec<Violation>, Option<Algorithm>) {
    let mut violations = Vec::new();
    if !provider.accepts_type(jws.header().typ.as_deref()) {
        violations.push(Violation::new(Reason::TypeNotAllowed, "`typ` is not one of the types accepted"));
    }
    if jws.header().needs_extension {
        violations.push(Violation::new(
            Reason::CritUnsupported,
            "the header uses `crit` or `b64`, no extension is understood",
        ));
    }
    let alg = Algorithm::from_name(&jws.header().alg).filter(|alg| provider.algorithms.contains(alg));
    if alg.is_none() {
        violations.push(Violation::new(Reason::AlgorithmNotAllowed, "`alg` is not one of the algorithms allowed"));
    }
    (violations, alg)
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

/// A claim as a header's value; nothing if there is none. Arrays and objects as configured, by default as `jwt_authn`
/// writes them; null is no value.
fn header_text(claims: &ClaimsSet<'_, Verified>, header: &ClaimHeader) -> Option<Result<String, &'static str>> {
    let json = || claims.text_at(&header.path).ok_or("the claim cannot be read");
    Some(match (claims.at(&header.path)?, header.format) {
        (Value::Null, _) => return None,
        // As in `jwt_authn`, nothing to say is no header.
        (Value::String(text), _) if text.is_empty() => return None,
        (Value::String(text), _) => Ok(text.clone()),
        (Value::Bool(value), _) => Ok(value.to_string()),
        (Value::Number(_), _) => json(),
        (Value::Array(_) | Value::Object(_), ClaimFormat::Base64Json) => json().map(|json| STANDARD.encode(json)),
        (Value::Array(_) | Value::Object(_), ClaimFormat::Json) => json(),
        (Value::Object(_), ClaimFormat::Comma) => Err("an object cannot be written as a list"),
        (Value::Array(items), ClaimFormat::Comma) => {
            let item = |item: &Value| match item {
                Value::String(text) if !text.contains(',') => Ok(text.clone()),
                Value::Bool(_) | Value::Number(_) => Ok(item.to_string()),
                _ => Err("an item cannot be written in a list with commas"),
            };
            items.iter().map(item).collect::<Result<Vec<_>, _>>().map(|items| items.join(","))
        }
    })
}

fn fit_for_a_header(text: String) -> Result<String, &'static str> {
    if text.len() > CLAIM_HEADER_BYTES {
        Err("the claim is too long for a header")
    } else if text.bytes().any(|b| b < b' ' || b == 0x7F) {
        Err("the claim holds control characters")
    } else {
        Ok(text)
    }
}

impl Judgement<'_> {
    fn report(&self, state: &State, now: UnixTime) -> Report {
        let trial = &self.trial;
        let providers = trial.providers.iter();
        let mut report = Report {
            token_sha256: trial.digest.clone(),
            signature: trial.signature,
            iss_expected: providers
                .flat_map(|p| p.policy.issuers.iter().map(crate::policy::Issuer::template))
                .collect(),
            ..Report::default()
        };
        if let [provider] = trial.providers.as_slice() {
            report.provider = Some(provider.name.clone());
            report.aud_expected = trial.audiences.unwrap_or(&provider.policy.audiences).to_vec();
            report.jwks_age = state.keys.age(provider.keys, now);
            if let Some(set) = state.keys.set(provider.keys, now) {
                report.keys = set.keys().iter().map(|key| key.kid().unwrap_or_default().to_owned()).collect();
            }
        }
        if let Some(jws) = &trial.jws {
            let claims = ClaimsSet::claimed_by(jws);
            report.alg = Some(jws.header().alg.clone());
            report.kid.clone_from(&jws.header().kid);
            report.typ.clone_from(&jws.header().typ);
            report.iss_token = claims.iss.present().cloned();
            report.aud_token = claims.aud.present().cloned().unwrap_or_default();
            report.iat = claims.iat.present().copied();
            report.nbf = claims.nbf.present().copied();
            report.exp = claims.exp.present().copied();
            report.jti = claims.jti.present().cloned();
        }
        report
    }
}
