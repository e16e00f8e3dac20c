//! The compact serialization and the JOSE header, read strictly (RFC 7515 §3, §4, §7.1).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::json;
use crate::rejection::{Reason, Violation};

/// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1, RFC 8812 §3.2, RFC 9964).
///
/// `EdDSA` and `Ed25519` (RFC 9864) are two names of one algorithm here, for Ed25519 is the only curve of `EdDSA` that is
/// supported. A key, a token and a configuration may each use either name, and they fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    Es256k,
    EdDsa,
    MlDsa44,
    MlDsa65,
    MlDsa87,
    Hs256,
    Hs384,
    Hs512,
}

impl Algorithm {
    /// Every algorithm that is supported.
    pub const ALL: [Self; 17] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Es256k,
        Self::EdDsa,
        Self::MlDsa44,
        Self::MlDsa65,
        Self::MlDsa87,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
    ];

    /// The name in `alg`; the older one, where there are two.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Es256k => "ES256K",
            Self::EdDsa => "EdDSA",
            Self::MlDsa44 => "ML-DSA-44",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    /// The algorithm of this name, compared byte for byte, if it is supported.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.name() == name || (*alg == Self::EdDsa && name == "Ed25519"))
    }

    /// Whether signer and verifier share one secret.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// The members of a JOSE header that the gate looks at. There is none for `jku`, `jwk`, `x5u` and `x5c`:
/// a token does not get to bring its own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoseHeader {
    /// The name of the algorithm (RFC 7515 §4.1.1), whether or not it is supported.
    pub alg: String,
    /// The algorithm of that name, if it is supported.
    pub algorithm: Option<Algorithm>,
    /// The name of the key (RFC 7515 §4.1.4).
    pub kid: Option<String>,
    /// The media type of the whole (RFC 7515 §4.1.9).
    pub typ: Option<String>,
    /// Whether the token asks for an extension: `crit` (RFC 7515 §4.1.11) or `b64` (RFC 7797). None is understood.
    pub needs_extension: bool,
}

/// A token that was taken apart and not verified: nothing in it can be believed.
#[derive(Clone, Debug)]
pub struct UnverifiedJws<'t> {
    compact: Cow<'t, [u8]>,
    /// Where the encoded header ends, and the encoded payload.
    dots: (usize, usize),
    header: JoseHeader,
    octets: Vec<u8>,
    payload: Map<String, Value>,
    signature: Vec<u8>,
}

impl<'t> UnverifiedJws<'t> {
    /// Takes a compact JWS apart whose payload is a claims set (RFC 7519 §7.2, steps 1 to 6 and 10).
    ///
    /// # Errors
    /// [`Reason::TokenMalformed`], with the part that is wrong and how.
    pub fn parse(compact: impl Into<Cow<'t, [u8]>>) -> Result<Self, Violation> {
        let compact = compact.into();
        let mut segments = compact.split(|&b| b == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(wrong_segments(&compact));
        };
        let dots = (header.len(), header.len().saturating_add(1).saturating_add(payload.len()));
        let header = object("header", &decode("header", header)?)?;
        if text(&header, "cty")?.is_some_and(|cty| media_type(&cty) == "jwt") {
            return Err(malformed("`cty` says that the payload is a JWT itself, a claims set was expected"));
        }
        let octets = decode("payload", payload)?;
        let payload = object("payload", &octets)?;
        let signature = decode("signature", signature)?;
        Ok(Self { header: JoseHeader::from_members(&header)?, compact, dots, octets, payload, signature })
    }

    /// The same token, borrowing from no request.
    pub fn to_static(&self) -> UnverifiedJws<'static> {
        UnverifiedJws {
            compact: Cow::Owned(self.compact.to_vec()),
            dots: self.dots,
            header: self.header.clone(),
            octets: self.octets.clone(),
            payload: self.payload.clone(),
            signature: self.signature.clone(),
        }
    }

    /// The token as it was received.
    pub fn compact(&self) -> &[u8] {
        &self.compact
    }

    /// The payload as it was received, in base64url.
    pub fn encoded_payload(&self) -> &[u8] {
        let (header, payload) = self.dots;
        self.compact.get(header.saturating_add(1)..payload).unwrap_or_default()
    }

    /// What the signature covers (RFC 7515 §5.1, step 5).
    pub fn signing_input(&self) -> &[u8] {
        self.compact.get(..self.dots.1).unwrap_or_default()
    }

    /// The JOSE header.
    pub const fn header(&self) -> &JoseHeader {
        &self.header
    }

    /// The octets of the signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The octets of the payload, as they were signed.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The members of the payload.
    pub const fn payload(&self) -> &Map<String, Value> {
        &self.payload
    }
}

impl JoseHeader {
    fn from_members(members: &Map<String, Value>) -> Result<Self, Violation> {
        let Some(alg) = text(members, "alg")? else {
            return Err(malformed("the header has no `alg`"));
        };
        Ok(Self {
            algorithm: Algorithm::from_name(&alg),
            alg,
            kid: text(members, "kid")?,
            typ: text(members, "typ")?,
            needs_extension: members.contains_key("crit") || members.contains_key("b64"),
        })
    }
}

/// A media type as RFC 7515 §4.1.9 and §4.1.10 compare it: without regard to case, and `application/` may be left out.
pub fn media_type(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix("application/") {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => name,
    }
}

fn text(members: &Map<String, Value>, name: &'static str) -> Result<Option<String>, Violation> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone())),
        Some(other) => {
            Err(malformed(format!("`{name}` in the header is {} where a string was expected", json::kind(other))))
        }
    }
}

fn wrong_segments(compact: &[u8]) -> Violation {
    let count = compact.split(|&b| b == b'.').count();
    if count == 5 {
        return malformed(
            "the token has five segments as an encrypted JWT (JWE) has, a signed one of three was expected",
        );
    }
    malformed(format!("the token has {count} segments, three were expected"))
}

fn object(part: &'static str, octets: &[u8]) -> Result<Map<String, Value>, Violation> {
    // The parser's own words could repeat a claim's name: the client gets the fact alone.
    json::parse_object(octets).map_err(|_| malformed(format!("the {part} is not a strict JSON object")))
}

fn decode(part: &'static str, segment: &[u8]) -> Result<Vec<u8>, Violation> {
    URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| malformed(format!("the {part} is not base64url without padding (RFC 7515 section 2)")))
}

fn malformed(detail: impl Into<Cow<'static, str>>) -> Violation {
    Violation::new(Reason::TokenMalformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(part: &str) -> String {
        URL_SAFE_NO_PAD.encode(part)
    }

    #[track_caller]
    fn refused(token: &str, why: &str) {
        let violation = UnverifiedJws::parse(token.as_bytes()).map(|_| ()).expect_err("accepted what is malformed");
        assert_eq!(violation.reason, Reason::TokenMalformed, "{token}");
        assert!(violation.detail.contains(why), "{token}: {}", violation.detail);
    }

    #[test]
    fn the_parts_of_a_token() {
        let token =
            format!("{}.{}.{}", encode(r#"{"alg":"RS256","kid":"1"}"#), encode(r#"{"sub":"a"}"#), encode("sig"));
        let jws = UnverifiedJws::parse(token.as_bytes()).expect("a well-formed token was refused");
        assert_eq!(jws.header().alg, "RS256");
        assert_eq!(jws.header().kid.as_deref(), Some("1"));
        assert_eq!(jws.signature(), b"sig");
        assert_eq!(jws.encoded_payload(), encode(r#"{"sub":"a"}"#).as_bytes());
        assert!(token.as_bytes().starts_with(jws.signing_input()));
        assert_eq!(jws.signing_input().len(), token.len() - ".".len() - encode("sig").len());
    }

    #[test]
    fn a_token_in_a_token_is_none() {
        let token = |cty: &str| format!("{}.{}.", encode(&format!(r#"{{"alg":"RS256","cty":{cty}}}"#)), encode("{}"));
        for nested in [r#""JWT""#, r#""jwt""#, r#""application/JWT""#] {
            refused(&token(nested), "the payload is a JWT itself");
        }
        refused(&token("1"), "`cty` in the header is a number");
        for other in [r#""json""#, r#""x/jwt""#, r#""application/a/jwt""#, r#""""#] {
            assert!(UnverifiedJws::parse(token(other).into_bytes()).is_ok(), "{other}");
        }
    }

    #[test]
    fn what_is_not_compact() {
        let (h, p, s) = (encode(r#"{"alg":"RS256"}"#), encode("{}"), encode("sig"));
        assert!(UnverifiedJws::parse(format!("{h}.{p}.{s}").as_bytes()).is_ok());
        refused("", "1 segments");
        refused(&format!("{h}.{p}"), "2 segments");
        refused(&format!("{h}.{p}.{s}."), "4 segments");
        refused(&format!("{h}.{p}.{s}.{s}.{s}"), "JWE");
        refused(&".".repeat(8000), "8001 segments");
        refused(&format!("{h}=.{p}.{s}"), "header is not base64url");
        refused(&format!("{h}.{p}.{s} "), "signature is not base64url");
        refused(&format!("{h}.{p}.c2ln+"), "signature is not base64url");
        // `Zh` and `Zg` decode to the same octet: only one of them is canonical.
        refused(&format!("{h}.{p}.Zh"), "signature is not base64url");
        refused(&format!("{}.{p}.{s}", encode("[]")), "header is not a strict JSON object");
        refused(&format!("{h}..{s}"), "payload is not a strict JSON object");
        refused(&format!("{h}.{}.{s}", encode(r#"{"a":1,"a":1}"#)), "payload is not a strict JSON object");
        refused(&format!("{}.{p}.{s}", encode("{}")), "no `alg`");
        refused(&format!("{}.{p}.{s}", encode(r#"{"alg":1}"#)), "`alg` in the header is a number");
        refused(&format!("{}.{p}.{s}", encode(r#"{"alg":"RS256","kid":null}"#)), "`kid` in the header is null");
    }
}
