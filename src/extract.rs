//! Where a token may sit; exactly one (RFC 6750 §2).

use std::borrow::Cow;

use crate::rejection::{Reason, Violation};
use crate::request::Request;

/// The places where a provider looks for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Headers.
    pub headers: Vec<HeaderPlace>,
    /// Query parameters.
    pub params: Vec<String>,
    /// Cookies.
    pub cookies: Vec<String>,
}

/// A header that may hold a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPlace {
    /// Its name, in lower case.
    pub name: String,
    /// What stands before the token.
    pub prefix: Prefix,
}

/// What stands before a token in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// The scheme `Bearer` and spaces; its case does not count (RFC 9110 §11.1).
    Bearer,
    /// These characters, and spaces if there are any.
    Literal(String),
}

impl Default for Places {
    /// As `jwt_authn` has it: `Authorization: Bearer` and the parameter `access_token`.
    fn default() -> Self {
        Self {
            headers: vec![HeaderPlace { name: "authorization".to_owned(), prefix: Prefix::Bearer }],
            params: vec!["access_token".to_owned()],
            cookies: Vec::new(),
        }
    }
}

impl Places {
    /// Every place of several lists, once.
    pub fn union<'p>(lists: impl Iterator<Item = &'p Self>) -> Self {
        let mut all = Self { headers: Vec::new(), params: Vec::new(), cookies: Vec::new() };
        for places in lists {
            add(&mut all.headers, &places.headers);
            add(&mut all.params, &places.params);
            add(&mut all.cookies, &places.cookies);
        }
        all
    }
}

fn add<T: Clone + PartialEq>(all: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
}

/// A token, not looked at: it may be any octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'r> {
    /// The token.
    pub token: Cow<'r, [u8]>,
    /// Where it was.
    pub place: Place<'r>,
}

/// Where a token was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'p> {
    /// In the header of this name, in lower case.
    Header(&'p str),
    /// In the query parameter of this name.
    Param(&'p str),
    /// In the cookie of this name.
    Cookie(&'p str),
}

/// Takes the token from wherever it may sit.
///
/// # Errors
/// [`Reason::HeaderMissing`] without a token, [`Reason::TokenAmbiguous`] with more than one.
pub fn extract<'r>(request: &'r Request, places: &'r Places) -> Result<Found<'r>, Violation> {
    let (mut first, mut is_alone) = (None, true);
    // This runs for every request.
    let mut add = |token: Cow<'r, [u8]>, place| {
        if first.is_some() {
            is_alone = false;
        } else {
            first = Some(Found { token, place });
        }
    };
    for (at, place) in places.headers.iter().enumerate() {
        // Several entries may name one header with different prefixes: it is read once.
        if !places.headers.iter().take(at).any(|before| before.name == place.name)
            && let Some(token) = in_header(request, &place.name, &places.headers)?
        {
            add(token.into(), Place::Header(&place.name));
        }
    }
    if request.has_query() {
        for name in &places.params {
            for (_, value) in request.query().filter(|(found, _)| percent_decode(found) == name.as_bytes()) {
                if !value.is_empty() {
                    add(percent_decode(value), Place::Param(name));
                }
            }
        }
    }
    for name in &places.cookies {
        for (_, value) in request.cookies().filter(|(found, _)| *found == name.as_bytes()) {
            let token = unquote(value);
            if !token.is_empty() {
                add(token.into(), Place::Cookie(name));
            }
        }
    }
    match first {
        Some(token) if is_alone => Ok(token),
        Some(_) => Err(Violation::new(Reason::TokenAmbiguous, "the request holds more than one token, one is allowed")),
        None => Err(Violation::new(Reason::HeaderMissing, missing(request, places))),
    }
}

/// The request's path and query without the query parameters of these names, the others untouched. Nothing if there
/// are none.
pub fn without_params(request: &Request, names: &[&str]) -> Option<Vec<u8>> {
    let target = request.target();
    let named = |name: &[u8]| names.iter().any(|n| n.as_bytes() == &*percent_decode(name));
    if !request.query().any(|(name, _)| named(name)) {
        return None;
    }
    let mark = target.iter().position(|&b| b == b'?')?;
    let (path, query) = target.split_at_checked(mark)?;
    let end = query.iter().position(|&b| b == b'#').unwrap_or(query.len());
    let (query, fragment) = query.split_at_checked(end)?;
    let kept: Vec<&[u8]> = query
        .get(1..)?
        .split(|&b| b == b'&')
        .filter(|pair| !named(pair.split(|&b| b == b'=').next().unwrap_or_default()))
        .collect();
    let mut rest = path.to_vec();
    if !kept.is_empty() {
        rest.push(b'?');
        rest.extend_from_slice(&kept.join(&b'&'));
    }
    rest.extend_from_slice(fragment);
    Some(rest)
}

/// The `Cookie` header without the cookies of these names; empty if no other is left.
pub fn without_cookies(request: &Request, names: &[&str]) -> Vec<u8> {
    let lines = request.values("cookie").flat_map(|line| line.split(|&b| b == b';'));
    let kept = lines.map(<[u8]>::trim_ascii).filter(|pair| {
        let name = pair.split(|&b| b == b'=').next().unwrap_or_default();
        !pair.is_empty() && !names.iter().any(|n| n.as_bytes() == name)
    });
    kept.collect::<Vec<_>>().join(&b"; "[..])
}

/// The token of one header, whose several entries in `places` tell what may stand before it.
fn in_header<'r>(request: &'r Request, name: &str, places: &[HeaderPlace]) -> Result<Option<&'r [u8]>, Violation> {
    let (mut count, mut token) = (0_usize, None);
    let mut look = |piece: &'r [u8]| {
        count = count.saturating_add(1);
        let piece = trim(piece);
        let mut prefixes = places.iter().filter(|place| place.name == name).map(|place| &place.prefix);
        let strip = || prefixes.find_map(|prefix| prefix.strip(piece)).filter(|token| !token.is_empty());
        token = token.or_else(strip);
    };
    for line in request.values(name) {
        // Envoy joins several `Authorization` lines with a comma, other hosts keep them apart. No token holds a comma.
        if line.contains(&b',') {
            line.split(|&b| b == b',').for_each(&mut look);
        } else {
            look(line);
        }
    }
    match token {
        // An empty value beside a token counts: it is what is left of a second header line.
        Some(_) if count > 1 => Err(Violation::new(
            Reason::TokenAmbiguous,
            format!("the header `{name}` holds more than one value, one is allowed"),
        )),
        token => Ok(token),
    }
}

impl Prefix {
    /// The token behind the prefix, or nothing if another stands there.
    fn strip<'v>(&self, value: &'v [u8]) -> Option<&'v [u8]> {
        match self {
            Self::Bearer => {
                // credentials = "Bearer" 1*SP b64token
                let (scheme, rest) = value.split_at_checked(b"bearer".len())?;
                (scheme.eq_ignore_ascii_case(b"bearer") && matches!(rest.first(), None | Some(b' ')))
                    .then(|| trim(rest))
            }
            Self::Literal(prefix) => value.strip_prefix(prefix.as_bytes()).map(trim),
        }
    }
}

fn missing(request: &Request, places: &Places) -> &'static str {
    let asks_for_bearer = places.headers.iter().any(|place| place.prefix == Prefix::Bearer);
    match request.value("authorization").map(trim) {
        Some(value) if asks_for_bearer && Prefix::Bearer.strip(value).is_some() => {
            "the Authorization header names Bearer and holds no token"
        }
        Some(value) if asks_for_bearer && !value.is_empty() => {
            "the Authorization header uses another scheme than Bearer"
        }
        None if asks_for_bearer => "the request has no Authorization header",
        _ => "the request holds no token in any of the places configured",
    }
}

/// Decodes `%XX`; what is no such sequence stands for itself.
fn percent_decode(text: &[u8]) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode(text).into()
}

fn unquote(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// Cuts optional white space off (RFC 9110 §5.6.3).
fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |last| last.saturating_add(1));
    bytes.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: Result<&str, Reason>) {
        let request = Request::new(lines.iter().map(|line| ("Authorization", *line)));
        let places = Places::default();
        let found = extract(&request, &places).map_err(|v| v.reason);
        let token = found.as_ref().map(|found| &*found.token);
        assert_eq!(token, expected.as_ref().map(|token| token.as_bytes()), "{lines:?}");
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

    fn places() -> Places {
        let header = |name: &str, prefix: &str| HeaderPlace {
            name: name.to_owned(),
            prefix: Prefix::Literal(prefix.to_owned()),
        };
        Places {
            headers: vec![header("x-jwt", ""), header("x-goog", "JWT "), header("x-goog", "jwt=")],
            params: vec!["t".to_owned()],
            cookies: vec!["session".to_owned()],
        }
    }

    #[test]
    fn other_places() {
        #[track_caller]
        fn check(headers: &[(&str, &str)], expected: Result<(&str, Place<'_>), Reason>) {
            let (request, places) = (Request::new(headers.iter().copied()), places());
            let found = extract(&request, &places).map_err(|v| v.reason);
            let expected = expected.map(|(token, place)| Found { token: token.as_bytes().into(), place });
            assert_eq!(found, expected, "{headers:?}");
        }
        let header = Place::Header;
        check(&[("X-Jwt", "a")], Ok(("a", header("x-jwt"))));
        check(&[("x-goog", "JWT a")], Ok(("a", header("x-goog"))));
        check(&[("x-goog", "jwt=a")], Ok(("a", header("x-goog"))));
        check(&[("x-goog", "XJWT a")], Err(Reason::HeaderMissing));
        check(&[("authorization", "Bearer a")], Err(Reason::HeaderMissing));
        check(&[(":path", "/?x=1&t=a%2Eb")], Ok(("a.b", Place::Param("t"))));
        check(&[(":path", "/?%74=a")], Ok(("a", Place::Param("t"))));
        check(&[(":path", "/?t=&tt=a")], Err(Reason::HeaderMissing));
        check(&[(":path", "/#?t=a")], Err(Reason::HeaderMissing));
        check(&[(":path", "/?t=a&t=b")], Err(Reason::TokenAmbiguous));
        check(&[("cookie", "a=b; session=a.b ; c")], Ok(("a.b", Place::Cookie("session"))));
        check(&[("cookie", "session=\"a\"")], Ok(("a", Place::Cookie("session"))));
        check(&[("cookie", "session=a; session=b")], Err(Reason::TokenAmbiguous));
        check(&[("cookie", "session=a"), ("x-jwt", "a")], Err(Reason::TokenAmbiguous));
        check(&[("x-jwt", "a"), ("x-jwt", "b")], Err(Reason::TokenAmbiguous));
    }

    #[test]
    fn a_token_is_cut_out_and_the_rest_stays() {
        let cut = |path: &str| {
            let rest = without_params(&Request::new([(":path", path)]), &["t"]);
            rest.map(|rest| String::from_utf8(rest).expect("text"))
        };
        assert_eq!(cut("/a?t=x").as_deref(), Some("/a"));
        assert_eq!(cut("/a?b=%20&t=x&c=+&&d#f").as_deref(), Some("/a?b=%20&c=+&&d#f"));
        assert_eq!(cut("/a?%74=x&b").as_deref(), Some("/a?b"));
        assert_eq!(cut("/a?b=t"), None);
        assert_eq!(cut("/a"), None);
        let cookies = Request::new([("cookie", "a=1; s=x; b=2"), ("cookie", "s=y")]);
        assert_eq!(without_cookies(&cookies, &["s"]), b"a=1; b=2");
        assert_eq!(without_cookies(&cookies, &["s", "a", "b"]), b"");
    }
}
