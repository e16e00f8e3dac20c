//! The bytes of one request, as a host hands them over.

/// One request's header lines, pseudo-headers included, in the order in which they came.
///
/// Values are octets: HTTP does not promise text (RFC 9110 §5.5).
#[derive(Clone, Debug, Default)]
pub struct Request {
    headers: Vec<(String, Vec<u8>)>,
}

impl Request {
    /// A request of these header lines. Names are compared in lower case (RFC 9113 §8.2.1), whatever the host sends.
    pub fn new<N: Into<String>, V: Into<Vec<u8>>>(headers: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut headers: Vec<(String, Vec<u8>)> = headers.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        for (name, _) in &mut headers {
            name.make_ascii_lowercase();
        }
        Self { headers }
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
        let path = self.value(":path").unwrap_or_default();
        let end = path.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(path.len());
        path.get(..end).unwrap_or_default()
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
