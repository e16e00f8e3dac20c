//! Why a request was refused: stable codes, in the order in which they are reported.

use std::borrow::Cow;
use std::fmt;

/// A reason code. The order is that of the documentation: of several, the first is *the* reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No token in any place that was configured.
    HeaderMissing,
    /// More than one token (RFC 6750 §2).
    TokenAmbiguous,
    /// Longer than `max_token_bytes`.
    TokenTooLarge,
    /// Not a compact JWS with a JSON header and a JSON object as payload (RFC 7515 §7.1, RFC 7519 §7.2).
    TokenMalformed,
    /// `typ` is not one of `token_types`.
    TypeNotAllowed,
    /// `crit` names something that is not understood (RFC 7515 §4.1.11).
    CritUnsupported,
    /// `alg` is `none`, unknown, or not in the allow-list (RFC 8725 §3.1).
    AlgorithmNotAllowed,
    /// `iss` is missing or not the provider's (RFC 7519 §4.1.1).
    IssuerMismatch,
    /// No key for this `kid` and `alg`.
    KeyNotFound,
    /// The key that `kid` names does not fit `alg`, or may not be used to verify.
    KeyMismatch,
    /// There is no key set to verify with.
    JwksUnavailable,
    /// The signature does not verify (RFC 7515 §5.2).
    SignatureInvalid,
    /// A registered claim has the wrong type or range.
    ClaimMalformed,
    /// `exp` is missing.
    ExpirationMissing,
    /// Past `exp` (RFC 7519 §4.1.4).
    TokenExpired,
    /// Before `nbf` (RFC 7519 §4.1.5), or issued in the future.
    TokenNotYetValid,
    /// Valid for longer, or older, than allowed.
    LifetimeExceeded,
    /// `aud` names none of the provider's audiences (RFC 7519 §4.1.3).
    AudienceMismatch,
    /// `sub` is not one the provider allows.
    SubjectMismatch,
    /// A claim rule on `scope` or `scp` failed.
    ScopeInsufficient,
    /// Any other claim rule failed.
    ClaimMismatch,
    /// Reserved for revocation.
    TokenRevoked,
}

impl Reason {
    /// Every reason, in the order of reporting.
    pub const ALL: [Self; 22] = [
        Self::HeaderMissing,
        Self::TokenAmbiguous,
        Self::TokenTooLarge,
        Self::TokenMalformed,
        Self::TypeNotAllowed,
        Self::CritUnsupported,
        Self::AlgorithmNotAllowed,
        Self::IssuerMismatch,
        Self::KeyNotFound,
        Self::KeyMismatch,
        Self::JwksUnavailable,
        Self::SignatureInvalid,
        Self::ClaimMalformed,
        Self::ExpirationMissing,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::LifetimeExceeded,
        Self::AudienceMismatch,
        Self::SubjectMismatch,
        Self::ScopeInsufficient,
        Self::ClaimMismatch,
        Self::TokenRevoked,
    ];

    /// The code that replies, logs and metrics show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeaderMissing => "header_missing",
            Self::TokenAmbiguous => "token_ambiguous",
            Self::TokenTooLarge => "token_too_large",
            Self::TokenMalformed => "token_malformed",
            Self::TypeNotAllowed => "type_not_allowed",
            Self::CritUnsupported => "crit_unsupported",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::IssuerMismatch => "issuer_mismatch",
            Self::KeyNotFound => "key_not_found",
            Self::KeyMismatch => "key_mismatch",
            Self::JwksUnavailable => "jwks_unavailable",
            Self::SignatureInvalid => "signature_invalid",
            Self::ClaimMalformed => "claim_malformed",
            Self::ExpirationMissing => "expiration_missing",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::LifetimeExceeded => "lifetime_exceeded",
            Self::AudienceMismatch => "audience_mismatch",
            Self::SubjectMismatch => "subject_mismatch",
            Self::ScopeInsufficient => "scope_insufficient",
            Self::ClaimMismatch => "claim_mismatch",
            Self::TokenRevoked => "token_revoked",
        }
    }

    /// The HTTP status of the reply.
    pub const fn status(self) -> u16 {
        match self {
            Self::TokenAmbiguous => 400,
            Self::ScopeInsufficient | Self::ClaimMismatch => 403,
            Self::JwksUnavailable => 503,
            _ => 401,
        }
    }

    /// Whether the gate or its issuer is at fault, and not the token.
    pub const fn is_outage(self) -> bool {
        matches!(self, Self::JwksUnavailable)
    }

    /// What happened, for people, in a few words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::HeaderMissing => "No token was presented",
            Self::TokenAmbiguous => "More than one token was presented",
            Self::TokenTooLarge => "The token is too large",
            Self::TokenMalformed => "The token is not a well-formed JWT",
            Self::TypeNotAllowed => "The token is of a type that is not accepted",
            Self::CritUnsupported => "The token requires an extension that is not understood",
            Self::AlgorithmNotAllowed => "The token is signed with an algorithm that is not accepted",
            Self::IssuerMismatch => "The token comes from an issuer that is not accepted",
            Self::KeyNotFound => "The token is signed with a key that is not known",
            Self::KeyMismatch => "The token names a key that does not fit it",
            Self::JwksUnavailable => "The keys to verify tokens are not available",
            Self::SignatureInvalid => "The token's signature is not valid",
            Self::ClaimMalformed => "A claim of the token has the wrong form",
            Self::ExpirationMissing => "The token has no expiration time",
            Self::TokenExpired => "The token has expired",
            Self::TokenNotYetValid => "The token is not valid yet",
            Self::LifetimeExceeded => "The token is valid for too long or too old",
            Self::AudienceMismatch => "The token is meant for another audience",
            Self::SubjectMismatch => "The token's subject is not accepted",
            Self::ScopeInsufficient => "The token's scope does not permit this request",
            Self::ClaimMismatch => "The token's claims do not permit this request",
            Self::TokenRevoked => "The token has been revoked",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One rule that a request violates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule's code.
    pub reason: Reason,
    /// What was found and what was expected, fit for the client to see: no claim value, no key material.
    pub detail: Cow<'static, str>,
    /// The scope that would satisfy it (RFC 6750 §3), where one would.
    pub scope: Option<String>,
}

impl Violation {
    /// A violation, told in words that a client may read.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), scope: None }
    }

    /// Puts violations in the order of their reasons; those of one reason stay as they are. They are few: `sort_by_key`
    /// would be 4 KB of the plugin wherever it is called.
    pub fn in_order(violations: Vec<Self>) -> Vec<Self> {
        let mut ordered = Vec::with_capacity(violations.len());
        for violation in violations {
            let place = ordered.partition_point(|before: &Self| before.reason <= violation.reason);
            ordered.insert(place, violation);
        }
        ordered
    }

    /// The same, with the scope that would satisfy it.
    #[must_use]
    pub fn needing(self, scope: Option<String>) -> Self {
        Self { scope, ..self }
    }
}
