//! The bytes of one request, as a host hands them over.

/// One request's header lines, pseudo-headers included, in the order in which they came.
///
/// Values are octets: HTTP does not promise text (RFC 9110 §5.5).
#[derive(Clone, Debug, Default)]
pub struct Request {
    headers: Vec<(String, Vec<u8>)>,
    route: RouteSetting,
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
    pub fn new<N: Into<String>, V: Into<Vec<u8>>>(headers: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut headers: Vec<(String, Vec<u8>)> = headers.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        for (name, _) in &mut headers {
            name.make_ascii_lowercase();
        }
        Self { headers, route: RouteSetting::Unset }
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
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// All values of the header `name`, which is in lower case.
    pub fn values<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r [u8]> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// The first value of the header `name`, which is in lower case.
    pub fn value<'r>(&'r self, name: &'r str) -> Option<&'r [u8]> {
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
