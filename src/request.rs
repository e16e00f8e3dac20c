//! The bytes of one request, as a host hands them over.

use std::ops::Range;

/// One request's header lines, pseudo-headers included, in the order in which they came.
///
/// Values are octets: HTTP does not promise text (RFC 9110 §5.5).
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The octets of all lines. What stands between them is of no meaning.
    octets: Vec<u8>,
    lines: Vec<Line>,
    route: RouteSetting,
}

/// Where a header line stands.
#[derive(Clone, Debug)]
struct Line {
    name: Range<usize>,
    value: Range<usize>,
}

/// What the host's route says of this request, in its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RouteSetting {
    /// Nothing: the rules count.
    #[default]
    Unset,
    /// The gate is off.
    Disabled,
    /// This one of the configuration's named requirements counts, and not the rules.
    Requirement(String),
}

impl Request {
    /// A request of these header lines. Names are compared in lower case (RFC 9113 §8.2.1), whatever the host sends.
    pub fn new<N: AsRef<str>, V: AsRef<[u8]>>(headers: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut request = Self::default();
        let mut append = |part: &[u8]| {
            let start = request.octets.len();
            request.octets.extend_from_slice(part);
            start..request.octets.len()
        };
        for (name, value) in headers {
            let name = append(name.as_ref().to_ascii_lowercase().as_bytes());
            request.lines.push(Line { name, value: append(value.as_ref()) });
        }
        request
    }

    /// A request of header lines as proxy-wasm hosts write them: their number, the sizes of each name and value, then
    /// each name and value with a zero behind it; numbers are 32 bits, the lowest first. Nothing is copied. Nothing comes
    /// of it if it is written otherwise, or a name is not UTF-8.
    pub fn from_pairs(mut octets: Vec<u8>) -> Option<Self> {
        let number = |octets: &[u8], at: usize| {
            let bytes = octets.get(at..at.checked_add(4)?)?;
            usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
        let count = number(&octets, 0)?;
        let mut at = count.checked_mul(8)?.checked_add(4).filter(|start| *start <= octets.len())?;
        let mut lines = Vec::with_capacity(count);
        for line in 0..count {
            let sizes = line.checked_mul(8)?.checked_add(4)?;
            let name = at..at.checked_add(number(&octets, sizes)?)?;
            let start = name.end.checked_add(1)?;
            let value = start..start.checked_add(number(&octets, sizes.checked_add(4)?)?)?;
            at = value.end.checked_add(1).filter(|end| *end <= octets.len())?;
            let text = octets.get_mut(name.clone())?;
            std::str::from_utf8(text).ok()?;
            text.make_ascii_lowercase();
            lines.push(Line { name, value });
        }
        Some(Self { octets, lines, route: RouteSetting::Unset })
    }

    /// The same request on a route that says this.
    #[must_use]
    pub fn on_route(self, route: RouteSetting) -> Self {
        Self { route, ..self }
    }

    /// What its route says.
    pub const fn route(&self) -> &RouteSetting {
        &self.route
    }

    /// Every header line: name in lower case, and value.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let name = |line: &Line| std::str::from_utf8(self.octets(&line.name)).unwrap_or_default();
        self.lines.iter().map(move |line| (name(line), self.octets(&line.value)))
    }

    /// All values of the header `name`, which is in lower case.
    pub fn values<'r>(&'r self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        let named = self.lines.iter().filter(move |line| self.octets(&line.name) == name.as_bytes());
        named.map(|line| self.octets(&line.value))
    }

    /// The first value of the header `name`, which is in lower case.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// Whether there is a header `name`, which is in lower case.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The request method; empty if the host did not give one.
    pub fn method(&self) -> &[u8] {
        self.value(":method").unwrap_or_default()
    }

    /// The path without query and fragment, as Envoy's routes compare it; empty for `CONNECT`.
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        let end = target.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(target.len());
        target.get(..end).unwrap_or_default()
    }

    /// Path and query as they were sent.
    pub fn target(&self) -> &[u8] {
        self.value(":path").unwrap_or_default()
    }

    /// Whether the target holds a query, be it empty.
    pub fn has_query(&self) -> bool {
        self.target().contains(&b'?')
    }

    /// The query's parameters as they were sent, names and values: percent-encoded still.
    pub fn query(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        // A fragment has no business here (RFC 9112 §3.2); where one is, the query ends before it.
        let target = self.target().split(|&b| b == b'#').next().unwrap_or_default();
        let (_, query) = split_once(target, b'?');
        let pairs = query.split(|&b| b == b'&');
        pairs.filter(|pair| !pair.is_empty()).map(|pair| split_once(pair, b'='))
    }

    /// The cookies' names and values (RFC 6265 §5.4), quotes included.
    pub fn cookies(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pairs = self.values("cookie").flat_map(|line| line.split(|&b| b == b';'));
        pairs.map(|pair| split_once(pair.trim_ascii(), b'='))
    }

    /// Whether a browser asks with this request whether it may send another (CORS preflight).
    pub fn is_preflight(&self) -> bool {
        let given = |name| self.value(name).is_some_and(|value: &[u8]| !value.is_empty());
        self.method() == b"OPTIONS" && given("origin") && given("access-control-request-method")
    }

    /// Host and port the client asked for: `:authority`, else `Host`.
    pub fn authority(&self) -> &[u8] {
        self.value(":authority").or_else(|| self.value("host")).unwrap_or_default()
    }

    /// Whether the client speaks gRPC, and so wants its errors in gRPC's trailers.
    pub fn is_grpc(&self) -> bool {
        let Some(content_type) = self.value("content-type") else {
            return false;
        };
        match content_type.strip_prefix(b"application/grpc") {
            Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
            None => false,
        }
    }

    fn octets(&self, range: &Range<usize>) -> &[u8] {
        self.octets.get(range.clone()).unwrap_or_default()
    }
}

fn split_once(pair: &[u8], separator: u8) -> (&[u8], &[u8]) {
    let end = pair.iter().position(|&b| b == separator).unwrap_or(pair.len());
    (pair.get(..end).unwrap_or_default(), pair.get(end.saturating_add(1)..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_ends_before_query_and_fragment() {
        for (path, expected) in [("/a?b#c", "/a"), ("/a#b?c", "/a"), ("/a", "/a"), ("?", ""), ("/a%3Fb", "/a%3Fb")] {
            assert_eq!(Request::new([(":path", path)]).path(), expected.as_bytes(), "{path}");
        }
        assert_eq!(Request::default().path(), b"");
    }

    #[test]
    fn pairs_are_read_as_hosts_write_them() {
        let text = |size: u8| [size, 0, 0, 0];
        let pairs = |tail: &[u8]| {
            [&text(2), &text(5), &text(2), &text(3), &text(0), b":path\0/a\0X-B\0\0".as_slice(), tail].concat()
        };
        let request = Request::from_pairs(pairs(b"")).expect("two lines");
        let lines: Vec<(&str, &[u8])> = request.headers().collect();
        assert_eq!(lines, [(":path", b"/a".as_slice()), ("x-b", b"")]);
        assert!(request.has("x-b"));

        let none = Request::from_pairs(text(0).to_vec()).expect("no lines");
        assert_eq!(none.headers().count(), 0);
        // Cut off anywhere, or with a number that is too large, it is not read.
        let whole = pairs(b"");
        for end in 0..whole.len() {
            assert!(Request::from_pairs(whole[..end].to_vec()).is_none(), "{end} octets");
        }
        for at in 0..20 {
            let mut wrong = whole.clone();
            wrong[at] = 0xFF;
            assert!(Request::from_pairs(wrong).is_none(), "octet {at}");
        }
        let mut wrong = whole;
        wrong[20] = 0xFF;
        assert!(Request::from_pairs(wrong).is_none(), "a name that is not UTF-8");
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(Request::new([("Content-Type", content_type)]).is_grpc(), expected, "{content_type}");
        }
    }
}
