//! Where a token may sit; exactly one (RFC 6750 §2.1).

use crate::rejection::{Reason, Violation};
use crate::request::Request;

/// Takes the token from the `Authorization` header.
///
/// The scheme is compared without regard to case (RFC 9110 §11.1); another scheme counts as no token. What is
/// returned is not looked at: it may be any octets.
///
/// # Errors
/// [`Reason::HeaderMissing`] without a bearer token, [`Reason::TokenAmbiguous`] with more than one set of credentials.
pub fn extract(request: &Request) -> Result<&[u8], Violation> {
    // Envoy joins several `Authorization` lines with a comma, other hosts keep them apart. No token holds a comma.
    let pieces = request.values("authorization").flat_map(|line| line.split(|&b| b == b',')).map(trim);
    let (mut count, mut found, mut bearer) = (0_usize, false, None);
    for piece in pieces {
        count = count.saturating_add(1);
        found |= !piece.is_empty();
        bearer = bearer.or_else(|| after_scheme(piece));
    }
    let missing = |detail| Err(Violation::new(Reason::HeaderMissing, detail));
    match bearer {
        // An empty value beside a token counts: it is what is left of a second header line.
        Some(_) if count > 1 => Err(Violation::new(
            Reason::TokenAmbiguous,
            "the Authorization header holds more than one value, one is allowed",
        )),
        Some([]) => missing("the Authorization header names Bearer and holds no token"),
        Some(token) => Ok(token),
        None if found => missing("the Authorization header uses another scheme than Bearer"),
        None => missing("the request has no Authorization header"),
    }
}

/// What follows the `Bearer` scheme, or nothing for another scheme: `credentials = "Bearer" 1*SP b64token`.
fn after_scheme(credential: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, rest) = credential.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    match rest.first() {
        None => Some(rest),
        Some(b' ') => Some(trim_start(rest)),
        Some(_) => None,
    }
}

fn trim(bytes: &[u8]) -> &[u8] {
    let bytes = trim_start(bytes);
    let end = bytes.iter().rposition(|&b| b != b' ' && b != b'\t').map_or(0, |last| last.saturating_add(1));
    bytes.get(..end).unwrap_or_default()
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&b| b != b' ' && b != b'\t').unwrap_or(bytes.len());
    bytes.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: Result<&str, Reason>) {
        let request = Request::new(lines.iter().map(|line| ("Authorization", *line)));
        let found = extract(&request).map_err(|v| v.reason);
        assert_eq!(found, expected.map(str::as_bytes), "{lines:?}");
    }

    #[test]
    fn one_bearer_token() {
        check(&["Bearer a.b.c"], Ok("a.b.c"));
        check(&["bearer a.b.c"], Ok("a.b.c"));
        check(&["BEARER   a.b.c  "], Ok("a.b.c"));
        check(&["Bearer a b"], Ok("a b"));
        check(&["Bearer \"a\""], Ok("\"a\""));
    }

    #[test]
    fn none() {
        for line in ["", " ", "Bearer", "Bearer  ", "Basic YTpi", "NotBearer a", "Bearera", "Bearer\ta", "a.b.c", ","] {
            check(&[line], Err(Reason::HeaderMissing));
        }
        check(&[], Err(Reason::HeaderMissing));
        check(&["Digest username=\"a\", realm=\"b\""], Err(Reason::HeaderMissing));
    }

    #[test]
    fn several() {
        check(&["Bearer a,Bearer b"], Err(Reason::TokenAmbiguous));
        check(&["Basic YTpi, Bearer b"], Err(Reason::TokenAmbiguous));
        check(&["Digest a=b, c=d, Bearer b"], Err(Reason::TokenAmbiguous));
        check(&["Bearer a", "Bearer b"], Err(Reason::TokenAmbiguous));
        check(&["Bearer a", "Basic YTpi"], Err(Reason::TokenAmbiguous));
        check(&["Bearer a", ""], Err(Reason::TokenAmbiguous));
        check(&["Bearer a,"], Err(Reason::TokenAmbiguous));
        check(&[",Bearer a"], Err(Reason::TokenAmbiguous));
    }
}
