//! The arrows in order: from one request to one decision (RFC 7519 §7.2).

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::brake::{Brake, Braked, Cost};
use crate::claims::{ClaimsSet, Unverified, Verified};
use crate::config::{Config, Mode, Preflight, Provider, Requirement, TokenRequirement};
use crate::extract::{Found, Place, extract};
use crate::jws::{Algorithm, UnverifiedJws};
use crate::keystore::{Hint, IssuerId, KeyStore, Lookup, Want};
use crate::policy::{Comparison, Extra};
use crate::rejection::{Reason, Violation};
use crate::request::{Request, RouteSetting};
use crate::signature::{Crypto, KeySet, NoCandidate, VerifiedJws};
use crate::time::UnixTime;
use crate::token_cache::{Known, Proof, Tally, Ticket, TokenCache};

mod annotate;
mod report;

pub use report::{KeyTrial, Report, SignatureStage, TrialResult};

/// What the gate remembers between requests.
#[derive(Debug)]
pub struct State {
    /// The key sets.
    pub keys: KeyStore,
    tokens: TokenCache,
    brake: Brake,
}

impl State {
    /// Nothing but the keys, as this configuration wants it.
    pub fn new(keys: KeyStore, config: &Config, now: UnixTime) -> Self {
        Self { keys, tokens: TokenCache::new(config.cached_tokens), brake: Brake::new(config.verification_rates, now) }
    }

    /// What the cache of verified tokens did since this was asked last.
    pub fn take_tally(&mut self) -> Tally {
        self.tokens.take_tally()
    }

    /// How many verified tokens are kept.
    pub const fn cached_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// How many verifications of each cost were not made since this was asked last.
    pub fn take_braked(&mut self) -> [(Cost, u64); Cost::ALL.len()] {
        self.brake.take_refused()
    }

    fn learn(&mut self, notebook: Notebook<'_>, now: UnixTime) {
        self.brake = notebook.brake;
        for ticket in notebook.used {
            self.tokens.used(ticket);
        }
        for _ in 0..notebook.missed {
            self.tokens.missed();
        }
        for (ticket, claims, proof) in notebook.learnt {
            self.tokens.keep(ticket, &claims, proof, now);
        }
    }
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
    /// Whether any of the following is done.
    pub mode: Mode,
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
    /// Whether it is rejected indeed.
    pub mode: Mode,
}

impl From<Vec<Violation>> for Rejection {
    fn from(violations: Vec<Violation>) -> Self {
        Self { violations, retry_after: None, provider: None, mode: Mode::Enforce }
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
    /// Whether the request is rejected if they do not come.
    pub mode: Mode,
}

impl Need {
    /// The answer to a request that cannot wait, or not any longer.
    pub fn into_rejection(self, detail: &'static str) -> Rejection {
        Rejection {
            violations: vec![Violation::new(Reason::JwksUnavailable, detail)],
            retry_after: Some(Duration::from_secs(1)),
            provider: None,
            mode: self.mode,
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
    /// What the token says, and what is expected of it; nothing if it was held against several providers, or none.
    pub comparisons: Vec<Comparison>,
    /// What came of each key of the provider.
    pub keys: Vec<KeyTrial>,
}

/// Decides on a request. The same arguments give the same answer.
pub fn decide(request: &Request, config: &Config, state: &mut State, crypto: &dyn Crypto, now: UnixTime) -> Decision {
    judge(request, config, state, crypto, now).decision
}

/// Decides on a request, and keeps what led to it for whoever asks.
pub fn judge<'a>(
    request: &'a Request,
    config: &'a Config,
    state: &mut State,
    crypto: &dyn Crypto,
    now: UnixTime,
) -> Judgement<'a> {
    let notebook = RefCell::new(Notebook::new(state.brake));
    let judgement = Court { request, config, state, crypto, now, notebook: &notebook }.judge();
    state.learn(notebook.into_inner(), now);
    judgement
}

/// Decides on a request and says all that led to it. Nothing is remembered of it.
pub fn explain(request: &Request, config: &Config, state: &State, crypto: &dyn Crypto, now: UnixTime) -> Explanation {
    let notebook = RefCell::new(Notebook::new(state.brake));
    let judgement = Court { request, config, state, crypto, now, notebook: &notebook }.judge();
    Explanation {
        report: judgement.report(state, now),
        comparisons: judgement.comparisons(now),
        keys: judgement.keys(state, now),
        decision: judgement.decision,
    }
}

/// One request held against the configuration: the decision, and what is known of the token behind it.
pub struct Judgement<'a> {
    /// The decision.
    pub decision: Decision,
    request: &'a Request,
    config: &'a Config,
    trial: Trial<'a>,
}

/// One token held against one provider, or against several that it might have come from.
#[derive(Default)]
struct Trial<'a> {
    providers: Vec<&'a Provider>,
    claims: Option<ClaimsSet<'a, Unverified>>,
    signature: SignatureStage,
    extra: Extra<'a>,
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
    place: Place<'a>,
    proof: Rc<Proof>,
    claims: ClaimsSet<'a, Verified>,
    extra: Extra<'a>,
}

/// A token that was taken apart.
struct Token<'a> {
    claims: ClaimsSet<'a, Unverified>,
    ticket: Option<Ticket>,
    known: Option<Rc<Known>>,
}

/// What is noted while a request is decided on: nothing of it changes that decision.
struct Notebook<'a> {
    /// The tokens that were taken apart, so that none is twice.
    tokens: Vec<Rc<Token<'a>>>,
    brake: Brake,
    used: Vec<Ticket>,
    missed: usize,
    learnt: Vec<(Ticket, ClaimsSet<'a, Verified>, Rc<Proof>)>,
}

impl Notebook<'_> {
    const fn new(brake: Brake) -> Self {
        Self { tokens: Vec::new(), brake, used: Vec::new(), missed: 0, learnt: Vec::new() }
    }
}

/// Everything a decision is made from.
#[derive(Clone, Copy)]
struct Court<'a, 's> {
    request: &'a Request,
    config: &'a Config,
    state: &'s State,
    crypto: &'s dyn Crypto,
    now: UnixTime,
    notebook: &'s RefCell<Notebook<'a>>,
}

/// Whether a token from another issuer is examined further, so that the report is whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Examine {
    /// It is: only one provider is asked.
    Whole,
    /// It is not: with many providers, a token of nobody's would cost a signature each.
    UpToIssuer,
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
    fn judge(self) -> Judgement<'a> {
        let Self { request, config, .. } = self;
        let judgement = |decision, trial| Judgement { decision, request, config, trial };
        let pass = |because, mode| judgement(Decision::Allow(self.allow(because, &[], None, mode)), Trial::default());
        if config.preflight == Preflight::Bypass && request.is_preflight() {
            return pass(Because::Preflight, config.mode);
        }
        let (requirement, mode) = match request.route() {
            RouteSetting::Disabled => return pass(Because::NoRequirement, config.mode),
            RouteSetting::Requirement(name) => match config.requirements.get(name) {
                Some(requirement) => (requirement, config.mode),
                None => {
                    // Nobody gets through, as with `jwt_authn`.
                    let detail = "the route names a requirement that does not exist";
                    let violations = vec![Violation::new(Reason::ClaimMismatch, detail)];
                    let rejection = Rejection { mode: config.mode, ..Rejection::from(violations) };
                    return judgement(Decision::Reject(rejection), Trial::default());
                }
            },
            RouteSetting::Unset => match config.rule_for(request) {
                Some(rule) => (&rule.requirement, rule.mode),
                None => match &config.unmatched {
                    Requirement::Nothing => return pass(Because::Unmatched, config.mode),
                    requirement => (requirement, config.mode),
                },
            },
        };
        if let Requirement::Nothing = requirement {
            return pass(Because::NoRequirement, mode);
        }
        match self.hear(requirement, Examine::Whole) {
            Outcome::Waiting(need, trial) => judgement(Decision::Await(Need { mode, ..need }), trial),
            Outcome::Violated(rejection, trial) => {
                let provider = match trial.providers.as_slice() {
                    [only] => Some(only.name.clone()),
                    _ => None,
                };
                judgement(Decision::Reject(Rejection { provider, mode, ..rejection }), trial)
            }
            Outcome::Satisfied(accepted, failed) => {
                let trial = accepted.first().map_or_else(Trial::default, Accepted::trial);
                let credential = |token: &Accepted<'_>| Credential {
                    provider: token.provider.name.clone(),
                    kid: token.proof.kid.clone(),
                };
                let credentials: Vec<Credential> = accepted.iter().map(credential).collect();
                let because = if credentials.is_empty() { Because::Optional } else { Because::Verified(credentials) };
                judgement(Decision::Allow(self.allow(because, &accepted, failed, mode)), trial)
            }
        }
    }

    fn hear(self, requirement: &'a Requirement, examine: Examine) -> Outcome<'a> {
        match requirement {
            Requirement::Nothing => Outcome::Satisfied(Vec::new(), None),
            Requirement::Token(TokenRequirement { provider, audiences, claims }) => {
                let extra = Extra { audiences: audiences.as_deref(), claims };
                match self.config.providers.get(*provider) {
                    Some(provider) => self.try_provider(provider, extra, examine),
                    // A place that does not exist cannot be compiled; should it ever be, nobody gets through.
                    None => Outcome::Violated(
                        Need { keys: IssuerId(*provider), want: Want::Set, mode: Mode::Enforce }
                            .into_rejection("no such provider"),
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
        let refused = |violation| {
            let trial = Trial { providers: providers.iter().collect(), ..Trial::default() };
            Outcome::Violated(Rejection::from(vec![violation]), trial)
        };
        let token = match extract(self.request, &self.config.places) {
            // Too long for one provider, it may not be for another.
            Ok(found) if found.token.len() > self.config.least_max_token_bytes => None,
            Ok(found) => match self.read(found.token) {
                Ok(token) => Some(token),
                Err(violation) => return refused(violation),
            },
            Err(violation) => return refused(violation),
        };
        // A provider that names the token's issuer speaks for it, for good or ill. One that names none speaks for the
        // tokens of all others: what the first refuses, the second must not let pass.
        let iss = token.as_ref().and_then(|token| token.claims.iss.present());
        let named = iss.map(|iss| self.config.providers_naming(iss)).unwrap_or_default();
        let speaking: Vec<&Provider> =
            named.into_iter().filter(|provider| extract(self.request, &provider.places).is_ok()).collect();
        let hear = |provider| self.try_provider(provider, Extra::default(), Examine::UpToIssuer);
        if speaking.is_empty() {
            self.first(providers.iter().map(hear))
        } else {
            self.first(speaking.into_iter().map(hear))
        }
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
        let mut trial = Trial { providers: vec![provider], extra, ..Trial::default() };
        let reject = |violations, retry_after, trial| {
            Outcome::Violated(Rejection { retry_after, ..Rejection::from(violations) }, trial)
        };
        let (place, token) = match self.find(provider) {
            Ok(found) => found,
            Err(violation) => return reject(vec![violation], None, trial),
        };
        let jws = token.claims.jws();
        trial.claims = Some(token.claims.clone());
        let (mut violations, alg) = check_header(jws, provider);
        let other_issuer = provider.policy.check_issuer(&token.claims.iss);
        let is_other = other_issuer.is_some();
        violations.extend(other_issuer);
        if is_other && examine == Examine::UpToIssuer {
            return reject(Violation::in_order(violations), None, trial);
        }
        let Checked { verified, retry_after } = match self.check_signature(provider, &token, alg, &mut violations) {
            Ok(checked) => checked,
            Err(want) => {
                return Outcome::Waiting(Need { keys: provider.keys, want, mode: Mode::Enforce }, trial);
            }
        };
        match verified {
            None => violations.extend(provider.policy.check(&token.claims, extra, self.now)),
            Some(None) => {
                trial.signature = SignatureStage::Fail;
                violations.extend(provider.policy.check(&token.claims, extra, self.now));
            }
            Some(Some((claims, proof))) => {
                trial.signature = SignatureStage::Pass;
                violations.extend(provider.policy.check(&claims, extra, self.now));
                if violations.is_empty() {
                    let proof = self.keep(provider, &token, &claims, proof);
                    return Outcome::Satisfied(vec![Accepted { provider, place, proof, claims, extra }], None);
                }
            }
        }
        let mut violations = Violation::in_order(violations);
        violations.dedup();
        reject(violations, retry_after, trial)
    }

    /// Checks the signature, unless this was done before with the same keys. What is missing for it is asked for only if
    /// nothing else is wrong: nobody waits for a token that is refused already.
    fn check_signature(
        self,
        provider: &'a Provider,
        token: &Token<'a>,
        alg: Option<Algorithm>,
        violations: &mut Vec<Violation>,
    ) -> Result<Checked<'a>, Want> {
        let mut checked = Checked { verified: None, retry_after: None };
        let Some(alg) = alg else { return Ok(checked) };
        let jws = token.claims.jws();
        let set = self.state.keys.set(provider.keys, self.now).map(KeySet::id);
        if provider.caches(jws.compact()) {
            let is_valid = |proof: &&Rc<Proof>| proof.issuer == provider.keys && Some(proof.set) == set;
            if let Some(known) = &token.known
                && let Some(proof) = known.proofs.iter().find(is_valid)
            {
                self.note(|notebook| notebook.used.extend(token.ticket));
                checked.verified = Some(Some((known.claims.clone(), Proven::Before(Rc::clone(proof)))));
                return Ok(checked);
            }
            self.note(|notebook| notebook.missed = notebook.missed.saturating_add(1));
        }
        let hint = Hint { kid: jws.header().kid.as_deref(), alg };
        let keys = match self.state.keys.lookup(provider.keys, hint, self.now) {
            Lookup::Keys(keys) => keys,
            Lookup::None(none) => {
                violations.push(no_candidate(none, hint.kid.is_some()));
                return Ok(checked);
            }
            Lookup::Await(want) if violations.is_empty() => return Err(want),
            Lookup::Await(_) => return Ok(checked),
            Lookup::Unavailable { retry_after } => {
                checked.put_off(violations, retry_after, "the issuer's keys could not be fetched");
                return Ok(checked);
            }
        };
        let verify = |notebook: &mut Notebook<'_>| {
            VerifiedJws::verify(jws, alg, &keys, self.crypto, &mut notebook.brake, self.now)
        };
        match self.note(verify) {
            Ok(Some(verified)) => {
                let kid = verified.kid().map(str::to_owned);
                checked.verified =
                    token.claims.verified_by(&verified).map(|claims| Some((claims, Proven::Now { kid, set })));
            }
            // The key may have been replaced under the same name.
            Ok(None) if violations.is_empty() && self.state.keys.may_look(provider.keys, self.now) => {
                return Err(Want::Look);
            }
            Ok(None) => {
                let detail = "no key of the issuer verifies the signature";
                violations.push(Violation::new(Reason::SignatureInvalid, detail));
                checked.verified = Some(None);
            }
            Err(Braked { retry_after }) => {
                let detail = "the gate has verified as many signatures of this kind as it may in a second";
                checked.put_off(violations, retry_after, detail);
            }
        }
        Ok(checked)
    }

    /// Writes down what an accepted token tells, and that it was accepted, for the next time.
    fn keep(
        self,
        provider: &'a Provider,
        token: &Token<'a>,
        claims: &ClaimsSet<'a, Verified>,
        proven: Proven,
    ) -> Rc<Proof> {
        let (kid, set) = match proven {
            Proven::Before(proof) => return proof,
            Proven::Now { kid, set } => (kid, set),
        };
        let notes = annotate::notes(provider, claims);
        let proof = Rc::new(Proof { issuer: provider.keys, set: set.unwrap_or_default(), kid, notes });
        if let (Some(ticket), true, Some(_)) = (token.ticket, provider.caches(claims.jws().compact()), set) {
            self.note(|notebook| notebook.learnt.push((ticket, claims.clone(), Rc::clone(&proof))));
        }
        proof
    }

    /// The one token in the places where this provider looks, taken apart.
    fn find(self, provider: &'a Provider) -> Result<(Place<'a>, Rc<Token<'a>>), Violation> {
        let Found { token, place } = extract(self.request, &provider.places)?;
        bounded(&token, provider.max_token_bytes)?;
        Ok((place, self.read(token)?))
    }

    /// Takes a token apart, unless this was done before.
    fn read(self, token: Cow<'a, [u8]>) -> Result<Rc<Token<'a>>, Violation> {
        let read = self
            .note(|notebook| notebook.tokens.iter().find(|read| read.claims.jws().compact() == &*token).map(Rc::clone));
        if let Some(read) = read {
            return Ok(read);
        }
        let (ticket, known) = if self.state.tokens.is_off() {
            (None, None)
        } else {
            let (ticket, known) = self.state.tokens.look_up(&token);
            (Some(ticket), known.map(Rc::clone))
        };
        let claims = match &known {
            Some(known) => known.claims.unverified(),
            None => ClaimsSet::claimed_by(&Rc::new(UnverifiedJws::parse(token)?)),
        };
        let read = Rc::new(Token { claims, ticket, known });
        self.note(|notebook| notebook.tokens.push(Rc::clone(&read)));
        Ok(read)
    }

    /// Writes into the notebook: the one place where it is borrowed, and what is done meanwhile does not know of it.
    fn note<T>(self, write: impl FnOnce(&mut Notebook<'a>) -> T) -> T {
        write(&mut self.notebook.borrow_mut())
    }
}

/// How far the signature of one token was checked for one provider.
struct Checked<'a> {
    /// Nothing: it was not. Else its claims and the proof, if it is valid.
    verified: Option<Option<(ClaimsSet<'a, Verified>, Proven)>>,
    /// For an outage: when to try again.
    retry_after: Option<Duration>,
}

impl Checked<'_> {
    /// The signature cannot be checked for now, which is no fault of the token's: it matters only if nothing else is wrong
    /// with it.
    fn put_off(&mut self, violations: &mut Vec<Violation>, retry_after: Duration, detail: &'static str) {
        if violations.is_empty() {
            self.retry_after = Some(retry_after.max(Duration::from_secs(1)));
            violations.push(Violation::new(Reason::JwksUnavailable, detail));
        }
    }
}

/// When a signature was found valid.
enum Proven {
    /// For an earlier request.
    Before(Rc<Proof>),
    /// For this one, by the key of this name in this set.
    Now { kid: Option<String>, set: Option<u64> },
}

impl<'a> Trial<'a> {
    /// A token that none of several providers knows: it is held against them all.
    fn beside(mut self, other: Self) -> Self {
        let more = other.providers.into_iter().filter(|other| !self.providers.iter().any(|p| std::ptr::eq(*p, *other)));
        let more: Vec<&'a Provider> = more.collect();
        self.providers.extend(more);
        self.claims = self.claims.or(other.claims);
        self
    }
}

impl<'a> Accepted<'a> {
    fn trial(&self) -> Trial<'a> {
        Trial {
            providers: vec![self.provider],
            claims: Some(self.claims.unverified()),
            signature: SignatureStage::Pass,
            extra: self.extra,
        }
    }
}

/// No token in any of the places of several providers.
fn nowhere() -> Rejection {
    let detail = "the request holds no token in any of the places configured";
    Rejection::from(vec![Violation::new(Reason::HeaderMissing, detail)])
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
        let found = match &jws.header().typ {
            None => "`typ` is missing",
            Some(_) => "`typ` is another",
        };
        let expected = provider.token_types.join(", ");
        violations.push(Violation::new(Reason::TypeNotAllowed, format!("{found}, one of {expected} was expected")));
    }
    if jws.header().needs_extension {
        violations.push(Violation::new(
            Reason::CritUnsupported,
            "the header uses `crit` or `b64`, no extension is understood",
        ));
    }
    let known = jws.header().algorithm;
    let alg = known.filter(|alg| provider.algorithms.contains(alg));
    if alg.is_none() {
        let found = match (known, jws.header().alg.as_str()) {
            (Some(alg), _) => alg.name(),
            (None, "none") => "none",
            (None, _) => "an algorithm that is not known",
        };
        let expected = provider.algorithms.iter().map(|alg| alg.name()).collect::<Vec<_>>().join(", ");
        let detail = format!("`alg` is {found}, one of {expected} was expected");
        violations.push(Violation::new(Reason::AlgorithmNotAllowed, detail));
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
