//! What is told of a decision: to the log, and to people who ask why.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use super::{Judgement, State, check_header};
use crate::extract::extract;
use crate::jws::Algorithm;
use crate::limits::VERIFICATIONS_PER_REQUEST;
use crate::policy::{Comparison, Expected, Found};
use crate::rejection::Reason;
use crate::signature::{VerifyingKey, digest};
use crate::time::UnixTime;

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
    /// The name of the key set, if the provider has one.
    pub key_set: Option<String>,
    /// The claims that may be logged, as JSON.
    pub claims: Vec<(String, Value)>,
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

/// What came of one key of the provider's set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTrial {
    /// The key's name.
    pub kid: Option<String>,
    /// The algorithms that it verifies.
    pub algs: Vec<&'static str>,
    /// What came of it.
    pub result: TrialResult,
}

/// What came of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialResult {
    /// It verifies the signature.
    Pass,
    /// It does not verify the signature.
    Fail,
    /// It was not tried; why.
    NotTried(Cow<'static, str>),
}

impl Judgement<'_> {
    /// What is known of the token.
    pub fn report(&self, state: &State, now: UnixTime) -> Report {
        let trial = &self.trial;
        let providers = trial.providers.iter();
        let extracted =
            || trial.providers.iter().find_map(|provider| Some(extract(self.request, &provider.places).ok()?.token));
        let mut report = Report {
            token_sha256: match &trial.claims {
                Some(claims) => Some(digest(claims.jws().compact())),
                None => extracted().map(|token| digest(&token)),
            },
            signature: trial.signature,
            iss_expected: providers
                .flat_map(|p| p.policy.issuers.iter().map(crate::policy::Issuer::template))
                .collect(),
            ..Report::default()
        };
        if let [provider] = trial.providers.as_slice() {
            report.provider = Some(provider.name.clone());
            report.aud_expected = trial.extra.audiences.unwrap_or(&provider.policy.audiences).to_vec();
            report.jwks_age = state.keys.age(provider.keys, now);
            if let Some(set) = state.keys.set(provider.keys, now) {
                report.key_set = Some(set.name());
                report.keys = set.keys().iter().map(|key| key.kid().unwrap_or_default().to_owned()).collect();
            }
        }
        if let Some(claims) = &trial.claims {
            let jws = claims.jws();
            report.alg = Some(jws.header().alg.clone());
            report.kid.clone_from(&jws.header().kid);
            report.typ.clone_from(&jws.header().typ);
            report.iss_token = claims.iss.present().cloned();
            report.aud_token = claims.aud.present().cloned().unwrap_or_default();
            report.iat = claims.iat.present().copied();
            report.nbf = claims.nbf.present().copied();
            report.exp = claims.exp.present().copied();
            report.jti = claims.jti.present().cloned();
            let value = |name: &String| Some((name.clone(), jws.payload().get(name)?.clone()));
            report.claims = self.config.log_claims.iter().filter_map(value).collect();
        }
        report
    }

    /// What the token says of itself and what is expected of it, one by one.
    pub(super) fn comparisons(&self, now: UnixTime) -> Vec<Comparison> {
        let ([provider], Some(claims)) = (self.trial.providers.as_slice(), &self.trial.claims) else {
            return Vec::new();
        };
        let jws = claims.jws();
        let (violations, _) = check_header(jws, provider);
        let text = |text: &Option<String>| text.clone().map_or(Found::Nothing, |text| Found::Texts(vec![text]));
        let header = |name: &str, found, expected: Vec<String>, reason| Comparison {
            name: name.to_owned(),
            found,
            expected: if expected.is_empty() { Expected::Anything } else { Expected::OneOf(expected) },
            violation: violations.iter().find(|violation| violation.reason == reason).cloned(),
        };
        let algorithms = provider.algorithms.iter().map(|alg| alg.name().to_owned()).collect();
        let alg = text(&Some(jws.header().alg.clone()));
        let mut comparisons = vec![
            header("typ", text(&jws.header().typ), provider.token_types.clone(), Reason::TypeNotAllowed),
            header("alg", alg, algorithms, Reason::AlgorithmNotAllowed),
        ];
        comparisons.extend(provider.policy.compare(claims, self.trial.extra, now));
        comparisons
    }

    /// What comes of each key of the provider, tried by the gate's own cryptography.
    pub(super) fn keys(&self, state: &State, now: UnixTime) -> Vec<KeyTrial> {
        let ([provider], Some(claims)) = (self.trial.providers.as_slice(), &self.trial.claims) else {
            return Vec::new();
        };
        let jws = claims.jws();
        let Some(set) = state.keys.set(provider.keys, now) else { return Vec::new() };
        let (kid, alg) = (jws.header().kid.as_deref(), jws.header().algorithm);
        let allowed = alg.filter(|alg| provider.algorithms.contains(alg));
        let candidates = allowed.and_then(|alg| set.candidates(kid, alg).ok()).unwrap_or_default();
        let tried = candidates.get(..VERIFICATIONS_PER_REQUEST).unwrap_or(&candidates);
        let result = |key: &VerifyingKey| {
            let is_in = |keys: &[&VerifyingKey]| keys.iter().any(|other| std::ptr::eq(*other, key));
            match allowed {
                Some(alg) if is_in(tried) && key.verify(alg, jws.signing_input(), jws.signature()) => TrialResult::Pass,
                Some(_) if is_in(tried) => TrialResult::Fail,
                Some(_) if is_in(&candidates) => TrialResult::NotTried("other keys were tried first".into()),
                Some(alg) if !key.fits(alg) => TrialResult::NotTried(format!("does not fit {}", alg.name()).into()),
                Some(_) => TrialResult::NotTried("`kid` is another".into()),
                None => TrialResult::NotTried("the token's `alg` is not allowed".into()),
            }
        };
        let mut trials: Vec<KeyTrial> = set
            .keys()
            .iter()
            .map(|key| KeyTrial {
                kid: key.kid().map(str::to_owned),
                algs: Algorithm::ALL.into_iter().filter(|alg| key.fits(*alg)).map(Algorithm::name).collect(),
                result: result(key),
            })
            .collect();
        trials.extend(set.skipped().iter().map(|key| KeyTrial {
            kid: key.kid.clone(),
            algs: Vec::new(),
            result: TrialResult::NotTried(format!("cannot be used: {}", key.why).into()),
        }));
        trials
    }
}
